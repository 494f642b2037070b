"""Creates and closes alerts in Opsgenie, and in Jira Service Management, which takes its place.

Add an integration of the kind *API* to a team, and give its key; accounts in Europe say `region: eu`. Alerts of Jira Service
Management take the same key and `base_url: https://api.atlassian.com/jsm/ops/integration`.

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - opsgenie:
      api_key: "${OPSGENIE_KEY:-unset}"
      responders: [{type: team, name: "{{ labels.team | default('ops') }}"}]
      tags: ["{{ severity }}", siftbell]
    when: severity in ["critical", "error"]
    ordered: true
```

A firing message creates an alert, whose alias is the message's `key`, and a resolved one closes it; further firing ones of that
key count up the open alert. With `acknowledge`, firing messages for which it holds acknowledge it instead. A message
without a key creates an alert of its own, which only people can close. `ordered: true` keeps a close from overtaking its alert.

Priorities: `critical` is P1, `error` P2, `warning` P3, `info` P4, `debug` P5; any other word is what `priorities` says, else P3.
The message's labels become the alert's details, with what `details` adds.

What is too long for Opsgenie is cut: the alert's message at 130 characters, its description at 15,000, its details at 8,000
together. A key that is too long for an alias, or holds what may not stand in a URL, is told by a hash. Opsgenie answers 202 to
a request that is well-formed and carries it out a moment later; where it cannot, the integration's log there says so. 429 is
tried again after the second or the minute that its headers name, 5xx and no answer are as well; 422 and the like go to the
dead letters with Opsgenie's words.

Protocol: https://docs.opsgenie.com/docs/alert-api, https://docs.opsgenie.com/docs/response and
https://docs.opsgenie.com/docs/api-rate-limiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from pydantic import Field, SecretStr, StringConstraints, model_validator

from pipeline import (
    Condition,
    Config,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    Template,
    TemporaryError,
    headline,
    shorten,
)

Priority = Literal["P1", "P2", "P3", "P4", "P5"]

_HOSTS: Final = {"us": "https://api.opsgenie.com", "eu": "https://api.eu.opsgenie.com"}
_PRIORITIES: Final[dict[str, Priority]] = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P4", "debug": "P5"}
_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@=-]{0,511}")
"""Keys that can be an alias as they are: an alias has at most 512 characters, and stands in the path of a URL."""


class ResponderConfig(Config):
    """Who is to see to it."""

    type: Literal["team", "user", "escalation", "schedule"] = Field(default="team", description="What it is.")
    name: Template | None = Field(
        default=None, description="The name of a team, an escalation or a schedule; rendered empty, it is left out."
    )
    username: Template | None = Field(default=None, description="A user's mail address.")
    id: Template | None = Field(default=None, description="Its id.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(named is not None for named in (self.name, self.username, self.id)) != 1:
            raise ValueError("a responder is named by one of name, username and id")
        return self

    def rendered(self, message: Message) -> dict[str, str] | None:
        """Give the responder as Opsgenie takes it; None where the name is rendered empty."""
        ((by, name),) = ((by, named.render(message).strip()) for by, named in self if isinstance(named, Template))
        return {"type": self.type, by: name} if name else None


class OpsgenieConfig(Config):
    """The options of `opsgenie`."""

    shorthand: ClassVar[str | None] = "api_key"

    api_key: SecretStr = Field(min_length=1, description="The key of an API integration.")
    region: Literal["us", "eu"] = Field(default="us", description="Where the account is.")
    message: Template | None = Field(default=None, description="What the alert is called; else the message's title.")
    description: Template = Field(
        default=Template("{% if url %}{{ url }}\n\n{% endif %}{{ text }}"), description="The text below."
    )
    priorities: dict[Annotated[str, StringConstraints(to_lower=True)], Priority] = Field(
        default_factory=dict, description="What other words mean, such as `blocker: P1`."
    )
    responders: tuple[ResponderConfig, ...] = Field(
        default=(), max_length=50, description="Who is notified; else those whom the integration names."
    )
    tags: tuple[Template, ...] = Field(default=(), max_length=20, description="Tags; what is rendered empty is left out.")
    details: dict[str, Template] = Field(default_factory=dict, description="Details to add to the labels, by name.")
    entity: Template = Field(
        default=Template("{{ labels.instance | default(labels.host, true) | default('', true) }}"),
        description="What is affected, such as a host.",
    )
    acknowledge: Condition | None = Field(default=None, description="Firing messages for which this holds acknowledge the alert.")
    base_url: str | None = Field(
        default=None, pattern="^https?://", description="Another address: of a proxy, or of Jira Service Management."
    )


class Opsgenie(HttpConsumer[OpsgenieConfig]):
    """Creates and closes alerts in Opsgenie, or in Jira Service Management."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request. Raises `PermanentError` for a message that ends or acknowledges something and does not say what."""
        action = self._action(message)
        url = f"{self._base}/v2/alerts"
        if action == "create":
            body = self._alert(message)
        elif not message.key:
            raise PermanentError(f"a message without a key cannot {action} an alert: set `key`, in its producer or by `render`")
        else:
            url += f"/{_alias(message)}/{action}?identifierType=alias"
            note = shorten(f"{message.title}\n{message.text}".strip(), 25_000)
            body = {"source": shorten(message.source, 100), "note": note}
        headers = {
            "content-type": "application/json",
            "authorization": f"GenieKey {self.config.api_key.get_secret_value()}",
        }
        return HttpRequest(url, msgspec.json.encode(body), headers=headers)

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge as always; a rate limit that names no `Retry-After` names its period."""
        try:
            super().check(status, headers, body)
        except TemporaryError as error:
            period = headers.get("x-ratelimit-period-in-sec", "")
            if error.retry_after is None and period.isdecimal():
                error.retry_after = min(float(period), 3600.0)
            raise

    async def probe(self) -> str:
        """Ask how many alerts there are. A key may be good and may not read: only what says that it is none is an error."""
        headers = {"authorization": f"GenieKey {self.config.api_key.get_secret_value()}"}
        try:
            await self.ask(HttpRequest(f"{self._base}/v2/alerts/count", method="GET", headers=headers))
        except PermanentError as error:
            if re.search(r"answered (401|422)\b", str(error)):
                raise
            return "Opsgenie answers, and does not let the key read alerts"
        return "Opsgenie knows the key"

    @property
    def _base(self) -> str:
        return (self.config.base_url or _HOSTS[self.config.region]).rstrip("/")

    def _action(self, message: Message) -> Literal["create", "acknowledge", "close"]:
        if message.status == "resolved":
            return "close"
        acknowledges = self.config.acknowledge is not None and self.config.acknowledge.matches(message)
        return "acknowledge" if acknowledges else "create"

    def _alert(self, message: Message) -> dict[str, Any]:
        config = self.config
        title = " ".join(config.message.render(message).split()) if config.message else ""
        tags = (shorten(tag.render(message).strip(), 50) for tag in config.tags)
        details = message.labels | {name: template.render(message) for name, template in config.details.items()}
        alert = {
            "message": shorten(title or headline(message), 130),
            "alias": _alias(message),
            "description": shorten(config.description.render(message).strip(), 15_000),
            "priority": config.priorities.get(message.severity) or _PRIORITIES.get(message.severity, "P3"),
            "source": shorten(message.source, 100),
            "entity": shorten(config.entity.render(message).strip(), 512),
            "details": _bounded(details, 8_000),
            "tags": [*dict.fromkeys(tag for tag in tags if tag)],
            "responders": [named for who in config.responders if (named := who.rendered(message))],
        }
        return {name: value for name, value in alert.items() if value}


def _alias(message: Message) -> str:
    key = message.key or message.id
    if _ALIAS.fullmatch(key):
        return key
    readable = re.sub(r"[^A-Za-z0-9]+", "-", key)[:400].strip("-")
    return f"{readable}-{sha256(key.encode(errors='surrogatepass')).hexdigest()[:32]}".lstrip("-")


def _bounded(details: dict[str, str], most: int) -> dict[str, str]:
    """Give as many details as fit, the last one cut."""
    kept = {}
    for name, value in details.items():
        most -= len(name)
        if most <= 0:
            break
        kept[name] = shorten(value, most)
        most -= len(kept[name])
    return kept
