r"""Posts messages to a Microsoft Teams channel or chat through a workflow, as adaptive cards.

In Teams, choose *Workflows* in the channel's or chat's menu, take the one that posts when a webhook request is received (*Send
webhook alerts to a channel*, or *… to a chat*), and copy its URL, all of it:

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - teams:
      url: "${TEAMS_URL:-https://example.environment.api.powerplatform.com/powerautomate/not-set}"
      mention: '{% if severity == "critical" and status == "firing" %}ada@example.com, bob@example.com{% endif %}'
    rate: 60/m
```

A message is a card: its title in the colour of its severity, green where it is resolved, its text, whose URLs can be followed,
its labels, where and when it came from, and a button that leads to its `url`. Values are shown as they are, whatever Markdown
they may look like; `text`, a template in the Markdown that cards know (`**bold**`, `_italic_`, `[links](https://…)`, lists; an
empty line begins a new one), writes something else in the text's place, and there values stand as they are. `mention` gives the
people who are called, by the addresses that they sign in with, or by their ids.

A workflow can neither change nor answer what it posted: each message stands by itself.

A workflow answers 202 before it posts: a card that Teams then refuses shows in the workflow's run history alone. The URL of an
older *incoming webhook* does as well; that one says in the text of a 200 what Teams answered, such as 429, and is judged by it.
Teams takes four cards a second of 28 kB each: `rate: 60/m` leaves room for others. A card of more than 20 kB is cut in its text,
as Teams has refused some that were smaller than it says, and of more than 25 labels the rest is counted. 429, 5xx and no answer
are tried again; a workflow that is gone or switched off buries the message, and the error says what to do.

Protocol: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook,
https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format and
https://adaptivecards.io/explorer/; the answers in a 200: https://github.com/MicrosoftDocs/msteams-docs/issues/7425.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from itertools import islice
from typing import Any, ClassVar, Final

import msgspec
from pydantic import Field

from pipeline import (
    Config,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    SecretUrl,
    Template,
    TemporaryError,
    headline,
    json_object,
    shorten,
    shown_labels,
)

_MOST: Final = 20_000
_FACTS: Final = 25
_FACTS_ROOM: Final = 8_000
_LINKS: Final = 20
_MARKDOWN: Final = re.compile(r"[\\*`~\[\]]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z])|&(?=#?\w+;)")
_URL: Final = re.compile(r"(https?://[\w./?#&=%+:;,@!~$*()-]{0,1500}[\w/#&=%~-])", re.ASCII)
_STYLES: Final = {"critical": "attention", "error": "attention", "warning": "warning", "info": "accent"}
_ADVICE: Final = {
    "DirectApiAuthorizationRequired": "copy the whole URL, up to the end of its sig, and let anyone trigger the workflow",
    "TriggerInputSchemaMismatch": "the workflow's trigger expects something else; leave its schema empty",
    "WorkflowNotFound": "the workflow is gone; make a new one and give its URL",
    "WorkflowTriggerIsNotEnabled": "the workflow is switched off or gone; switch it on, or make a new one and give its URL",
}


class TeamsConfig(Config):
    """The options of `teams`."""

    shorthand: ClassVar[str | None] = "url"

    url: SecretUrl = Field(description="The workflow's URL, with its signature.")
    text: Template | None = Field(default=None, description="What stands below the title: Markdown; else the message's text.")
    labels: tuple[str, ...] | None = Field(default=None, description="The labels that are shown; else all of them.")
    mention: Template = Field(default=Template(""), description="Who is called: the addresses they sign in with, between commas.")
    button: str = Field(default="Open", min_length=1, max_length=40, description="What stands on the button that leads to `url`.")


class Teams(HttpConsumer[TeamsConfig]):
    """Posts messages to a Microsoft Teams channel or chat through a workflow, as adaptive cards."""

    total_timeout: ClassVar[float] = 30.0
    """Seconds: a workflow that was not used for a while takes long to begin."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request that posts the card, its text cut where it is too large."""
        written = self.config.text
        text = shorten((written.render(message) if written else message.text).strip(), _MOST, unit="bytes")
        body = self._body(message, text)
        room = _MOST - len(self._body(message, "")) if len(body) > _MOST else 0
        while len(body) > _MOST and len(text) > 1:
            share = room / (room + len(body) - _MOST)  # of what the text takes as JSON, which may be several times its bytes
            text = shorten(text, int(len(text.encode()) * share), unit="bytes")
            body = self._body(message, text)
        headers = {"content-type": "application/json; charset=utf-8"}  # without it Teams counts each character twice
        return HttpRequest(self.config.url.get_secret_value(), body, headers=headers)

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge an answer: a connector tells in the text of a 200 what Teams answered."""
        text = body.decode(errors="replace")
        if status == 200 and (inner := re.search(r"returned HTTP error (\d{3})", text)):
            status = int(inner[1])
        elif status == 200 and re.search(r"delivery failed|Exception\b|throttl", text, re.IGNORECASE):
            raise TemporaryError(f"answered 200, and in its text: {' '.join(text.split())}")
        try:
            super().check(status, headers, body)
        except PermanentError as error:
            told = json_object(body).get("error")
            code = str(told.get("code")) if isinstance(told, dict) else ""
            raise PermanentError(f"answered {status} {code}: {_ADVICE[code]}" if code in _ADVICE else str(error)) from None

    def _body(self, message: Message, text: str) -> bytes:
        """Give the card as JSON."""
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": [*self._elements(message, text)],
        }
        people = [name for name in re.split(r"[\s,;<>]+", self.config.mention.render(message)) if name][:20]
        if people:
            card["body"].append(_markdown(" ".join(f"<at>{name}</at>" for name in people)))
            card["msteams"]["entities"] = [
                {"type": "mention", "text": f"<at>{name}</at>", "mentioned": {"id": name, "name": name}} for name in people
            ]
        if re.fullmatch(r"https?://[!-~]{1,2000}", message.url):
            card["actions"] = [{"type": "Action.OpenUrl", "title": self.config.button, "url": message.url}]
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return msgspec.json.encode({"type": "message", "attachments": [attachment]})

    def _elements(self, message: Message, text: str) -> Iterator[dict[str, Any]]:
        style = "good" if message.status == "resolved" else _STYLES.get(message.severity, "emphasis")
        title = _plain(shorten(headline(message), 500), size="Large", weight="Bolder")
        yield {"type": "Container", "style": style, "bleed": True, "items": [title]}
        if text:
            yield _markdown(text) if self.config.text else _plain(text)
        labels = shown_labels(message, self.config.labels)
        facts = _facts(labels)
        if facts:
            yield {"type": "FactSet", "facts": facts}
        more = f"{len(labels) - len(facts)} more labels" if len(labels) > len(facts) else ""
        moment = message.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        when = f"{{{{DATE({moment},SHORT)}}}} {{{{TIME({moment})}}}}"
        origin = (shorten(message.severity, 60), shorten(message.source, 200), more, when)
        yield _plain(" · ".join(filter(None, origin)), size="Small", isSubtle=True)


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True}


def _plain(text: str, **look: Any) -> dict[str, Any]:
    """Give an element that shows a text as it is, its first URLs as links: text runs know lines and no Markdown."""
    runs: list[dict[str, Any]] = []
    for number, part in enumerate(_URL.split(text, maxsplit=_LINKS)):
        link = {"selectAction": {"type": "Action.OpenUrl", "url": part}} if number % 2 else {}
        runs += [{"type": "TextRun", "text": part} | look | link] if part else []
    return {"type": "RichTextBlock", "inlines": runs}


def _facts(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Give the labels, as many as there is room for."""
    facts: list[dict[str, str]] = []
    room = _FACTS_ROOM
    for name, value in islice(labels.items(), _FACTS):
        fact = {"title": _fact(name), "value": _fact(value)}
        room -= len(msgspec.json.encode(fact))
        if room < 0:
            break
        facts.append(fact)
    return facts


def _fact(text: str) -> str:
    r"""Cut a fact, and escape what would be Markdown in it, and nothing else: older phones show each `\`."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", " ".join(shorten(text, 200).split()))
    return re.sub(r"^(\d*)([-+](?![\w.])|[#>]|(?<=\d)[.)])", r"\1\\\2", escaped)
