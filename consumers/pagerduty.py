"""Triggers, acknowledges and resolves incidents in PagerDuty.

Add an integration of the kind *Events API v2* to a service in PagerDuty, and give its integration key; accounts in Europe
say `region: eu`.

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - pagerduty:
      routing_key: "${PAGERDUTY_KEY:-an-integration-key-of-32-letters}"
      details: {runbook: "{{ labels.runbook | default('none yet') }}"}
    when: severity in ["critical", "error"]
    ordered: true
```

A firing message triggers an incident, a resolved one with the same `key` resolves it; further firing ones of that key join the
open incident. With `acknowledge`, firing messages for which it holds acknowledge it instead. A message without a key triggers
an incident of its own, which only people can resolve. `ordered: true` keeps a resolve from overtaking its trigger.

The severities `critical`, `error`, `warning` and `info` are PagerDuty's own, `debug` becomes `info`, any other word what
`severities` says, else `error`. An incident's custom details are `text`, `labels` and what `details` adds.

A summary of more than 1024 characters is cut, and a key of more than 255 ends in a hash. An event of more than 512 kB keeps the
first 64 kB of its text, and nothing but these where that does not do. PagerDuty answers 202; 429, 5xx and no answer are tried
again, and what it calls invalid goes to the dead letters with its words.

Protocol: https://developer.pagerduty.com/docs/events-api-v2-overview, and its schema in
https://github.com/PagerDuty/api-schema/blob/main/reference/events-v2/openapiv3.json.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import Field, SecretStr, StringConstraints, field_validator

from pipeline import (
    Condition,
    Config,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    Template,
    headline,
    shorten,
    shorten_key,
)

Severity = Literal["critical", "error", "warning", "info"]

_HOSTS: Final = {"us": "https://events.pagerduty.com", "eu": "https://events.eu.pagerduty.com"}
_SEVERITIES: Final[dict[str, Severity]] = {
    "critical": "critical",
    "error": "error",
    "warning": "warning",
    "info": "info",
    "debug": "info",
}
_MOST: Final = 512_000
_TEXT_KEPT: Final = 64_000
"""Bytes: even where JSON writes each of them as six, they fit."""
_SOURCE: Final = "{{ labels.instance | default(labels.host, true) | default(source, true) }}"


class LinkConfig(Config):
    """A link in the incident."""

    href: Template = Field(description="Where it leads; what begins with neither http:// nor https:// is left out.")
    text: Template = Field(default=Template(""), description="What it is called.")


class ImageConfig(Config):
    """An image in the incident."""

    src: Template = Field(description="Where it is; what does not begin with https:// is left out, as PagerDuty shows no other.")
    href: Template = Field(default=Template(""), description="Where a click on it leads.")
    alt: Template = Field(default=Template(""), description="What stands there without it.")


class PagerdutyConfig(Config):
    """The options of `pagerduty`."""

    shorthand: ClassVar[str | None] = "routing_key"

    routing_key: SecretStr = Field(description="The integration key of an Events API v2 integration: 32 characters.")
    region: Literal["us", "eu"] = Field(
        default="us", description="Where the account is: its address ends in eu.pagerduty.com or not."
    )
    summary: Template | None = Field(default=None, description="What the incident is called; else the message's title.")
    source: Template = Field(default=Template(_SOURCE), description="What is affected, such as a host.")
    component: Template | None = Field(default=None, description="The part of the source that is to blame.")
    group: Template | None = Field(default=None, description="What the source belongs to, such as a cluster.")
    class_: Template = Field(
        default=Template("{{ labels.alertname | default(type, true) }}"), alias="class", description="The kind of problem."
    )
    severities: dict[Annotated[str, StringConstraints(to_lower=True)], Severity] = Field(
        default_factory=dict, description="What other words mean, such as `blocker: critical`."
    )
    acknowledge: Condition | None = Field(
        default=None, description="Firing messages for which this holds acknowledge the incident."
    )
    details: dict[str, Template] = Field(default_factory=dict, description="Custom details to add, by name.")
    links: tuple[LinkConfig, ...] = Field(default=(), description="Links to add to the message's own `url`.")
    images: tuple[ImageConfig, ...] = Field(default=(), description="Images, such as a rendered graph.")
    base_url: str | None = Field(
        default=None, pattern="^https?://", description="Another address: of a proxy, or of a service that speaks this protocol."
    )

    @field_validator("routing_key")
    @classmethod
    def _of_its_length(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) != 32:
            raise ValueError("an integration key has 32 characters: that of an Events API v2 integration, not a REST API key")
        return key


class Pagerduty(HttpConsumer[PagerdutyConfig]):
    """Triggers, acknowledges and resolves incidents in PagerDuty."""

    def request(self, message: Message) -> HttpRequest:
        """Give the event. Raises `PermanentError` for a message that ends or acknowledges something and does not say what."""
        url = f"{(self.config.base_url or _HOSTS[self.config.region]).rstrip('/')}/v2/enqueue"
        return HttpRequest(url, self._body(message), headers={"content-type": "application/json"})

    def _body(self, message: Message) -> bytes:
        action = self._action(message)
        if action != "trigger" and not message.key:
            raise PermanentError(
                f"a message without a key cannot {action} an incident: set `key`, in its producer or by `render`"
            )
        event: dict[str, Any] = {
            "routing_key": self.config.routing_key.get_secret_value(),
            "event_action": action,
            "dedup_key": shorten_key(message.key or message.id, 255),
        }
        if action != "trigger":
            return msgspec.json.encode(event)
        event |= {"payload": self._payload(message), "links": self._links(message), "images": self._images(message)}
        return _fitted(event)

    def _action(self, message: Message) -> Literal["trigger", "acknowledge", "resolve"]:
        if message.status == "resolved":
            return "resolve"
        acknowledges = self.config.acknowledge is not None and self.config.acknowledge.matches(message)
        return "acknowledge" if acknowledges else "trigger"

    def _payload(self, message: Message) -> dict[str, Any]:
        config = self.config
        summary = " ".join(config.summary.render(message).split()) if config.summary else ""
        payload = {
            "summary": shorten(summary or headline(message), 1024),
            "source": config.source.render(message).strip() or "unknown",
            "severity": config.severities.get(message.severity) or _SEVERITIES.get(message.severity, "error"),
            "timestamp": message.time.isoformat(),
            "class": config.class_.render(message),
            "custom_details": {"text": message.text, "labels": message.labels}
            | {name: template.render(message) for name, template in config.details.items()},
        }
        more = {"component": config.component, "group": config.group}
        return payload | {name: template.render(message) for name, template in more.items() if template is not None}

    def _links(self, message: Message) -> list[dict[str, str]]:
        links = [{"href": link.href.render(message).strip(), "text": link.text.render(message)} for link in self.config.links]
        return [
            link for link in [{"href": message.url, "text": "Source"}, *links] if link["href"].startswith(("http://", "https://"))
        ]

    def _images(self, message: Message) -> list[dict[str, str]]:
        images = [
            {"src": image.src.render(message).strip(), "href": image.href.render(message), "alt": image.alt.render(message)}
            for image in self.config.images
        ]
        return [
            {name: value for name, value in image.items() if value} for image in images if image["src"].startswith("https://")
        ]


def _fitted(event: dict[str, Any]) -> bytes:
    """Write the event as JSON, with as much of its details as PagerDuty takes."""
    payload = event["payload"]
    details = payload["custom_details"]
    short = {
        "text": shorten(details["text"], _TEXT_KEPT, unit="bytes", mark=" … (cut by Siftbell, to fit into PagerDuty's 512 kB)")
    }
    for fewer in (details, details | short, short):
        body = msgspec.json.encode(event | {"payload": payload | {"custom_details": fewer}})
        if len(body) <= _MOST:
            break
    return body
