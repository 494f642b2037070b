r"""Posts messages to a Discord channel through a webhook, as embeds, and keeps the first one of each key up to date.

In the channel's settings, under *Integrations*, make a webhook and copy its URL:

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - discord:
      url: "${DISCORD_URL:-https://discord.com/api/webhooks/1/not-set}"
      mention: '{% if severity == "critical" and status == "firing" %}<@&1234567890>{% endif %}'
    rate: 30/m
    ordered: true
```

A message is an embed: its title, linked to its `url`, its text, its labels, and where and when it came from, beside a bar in the
colour of its severity, green where it is resolved. Values are escaped, so that `a_b_c` stays as it is; `text`, a template in
Discord's own Markdown, writes something else in the text's place, and there values stand as they are. Nobody is called but by
`mention`: `<@&ROLE>`, `<@USER>`, `@here`.

Later messages with the `key` of an earlier one belong to it. `follow_up: both`, the default, changes the first one into what
holds now, and posts the new one too, as nobody is told of a change; `update` only changes it, and `post` only posts. Once it was
resolved, the next message of the key begins anew. `ordered: true` keeps a resolved message from overtaking its firing one. Which
message is which is remembered for 30 days after it last changed; where that is lost, or somebody deleted the message, the next
one is posted anew.

With `forum: true`, for the webhook of a forum or media channel, each key has a post of its own, and later messages are its
comments; `thread` posts into one thread.

Discord takes 30 messages a minute for each channel: `rate: 30/m`. Where it says that its limit is reached, the next message
waits for as long as it says, up to five seconds in place; a longer wait, and one that it asks for by 429, is kept by the engine.
An embed has 6000 characters at most: 256 of the title, 4096 of the text, and what is left for 25 labels; what is longer is cut.
A `url` whose host has no dot, which Discord refuses, stands below the text. A webhook that is gone buries the message, and the
error says what to do; what may pass is tried again.

Protocol: https://docs.discord.com/developers/resources/webhook, https://docs.discord.com/developers/topics/rate-limits, and for
the limits https://docs.discord.com/developers/resources/message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC
from itertools import islice
from time import monotonic
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from pydantic import Field, model_validator

from pipeline import (
    Config,
    GoneError,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    SecretUrl,
    Template,
    TemporaryError,
    colour,
    follow,
    headline,
    json_object,
    shorten,
    shown_labels,
)

_AGENT: Final = "DiscordBot (siftbell, 1)"
_PATIENCE: Final = 5.0
"""Seconds that are waited for a limit to be over without giving the message back."""
_LONGEST_WAIT: Final = 86_400.0
_ALL: Final = 6_000
_TEXT: Final = 4_096
_FIELDS: Final = 25
_LINK: Final = re.compile(r"https?://(?:[\w-]+\.)+[A-Za-z]{2,63}(?::\d{1,5})?(?:[/?#][!-;=?-~]{0,1500})?", re.ASCII)
"""What Discord takes for a URL: no host without a dot (https://github.com/grafana/grafana/issues/65270)."""
_URL: Final = re.compile(r"(https?://[^\s<>]+)")
_MARKDOWN: Final = re.compile(
    r"[\\*`]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~|\|(?=\|)|(?<=\|)\||\](?=\()|<(?=[@#:/a-z])|(?:(?<=\n)|^)(?:[>#]|-#)"
)
_SILENT: Final = 1 << 12
_GONE: Final = frozenset({"10003", "10008", "50083"})
"""Unknown channel (a thread is one), unknown message, and a thread that is archived."""
_ADVICE: Final = {
    "10003": "there is no such thread or channel any more",
    "10015": "the webhook was deleted; make a new one and give its URL",
    "50027": "the end of the webhook's URL, its token, is not right; copy the URL again",
    "220001": "the webhook belongs to a forum; say forum: true, or give a thread",
    "220003": "the webhook belongs to no forum; leave out forum: true",
}


class DiscordConfig(Config):
    """The options of `discord`."""

    shorthand: ClassVar[str | None] = "url"

    url: SecretUrl = Field(description="The webhook's URL, as Discord gives it.")
    text: Template | None = Field(default=None, description="What stands below the title: Markdown; else the message's text.")
    labels: tuple[str, ...] | None = Field(default=None, description="The labels that are shown; else all of them.")
    mention: Template = Field(default=Template(""), description="Who is called: `<@&ROLE>`, `<@USER>`, `@here`.")
    follow_up: Literal["both", "update", "post"] = Field(
        default="both", description="Whether a later message of a key changes the first, is posted itself, or both."
    )
    forum: bool = Field(default=False, description="The channel is a forum: each key gets a post of its own.")
    thread: str | None = Field(default=None, pattern="^[0-9]+$", description="The id of a thread to post into.")
    username: str | None = Field(default=None, min_length=1, max_length=80, description="The name that is shown.")
    avatar_url: str | None = Field(default=None, pattern="^https?://", description="The picture that is shown.")
    silent: bool = Field(default=False, description="Deliver without a sound.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.forum and self.thread:
            raise ValueError("give either `forum: true` or `thread`")
        return self


class Discord(HttpConsumer[DiscordConfig]):
    """Posts messages to a Discord channel through a webhook, as embeds."""

    _free_at = 0.0
    """When Discord takes the next one, by the monotonic clock."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request that posts the message."""
        named = {"thread_name": shorten(headline(message), 100, unit="utf-16")} if self.config.forum else {}
        return self._request(self._content(message) | named, thread=self.config.thread)

    async def consume(self, message: Message) -> None:
        """Post the message, or change the first one of its key."""
        follows = self.config.follow_up != "post" or self.config.forum
        await follow(message, self.memory if follows else None, self._post, self._follow_up)

    async def send(self, request: HttpRequest) -> bytes:
        """Send a request when Discord takes it; a long wait gives the message back."""
        wait = self._free_at - monotonic()
        if wait > _PATIENCE:
            raise TemporaryError(f"Discord asks to wait {wait:.0f} s", retry_after=wait)
        if wait > 0:
            await asyncio.sleep(wait)
        return await super().send(request)

    async def probe(self) -> str:
        """Ask the webhook for its name."""
        url = urlsplit(self.config.url.get_secret_value())._replace(query="").geturl()
        answer = json_object(await self.send(HttpRequest(url, method="GET", headers={"user-agent": _AGENT})))
        return f"the webhook {answer.get('name') or 'without a name'}"

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge an answer, and note how long its rate limits ask to wait."""
        answer = json_object(body)
        reset = _seconds(headers.get("x-ratelimit-reset-after"))
        if status == 429:
            wait = _seconds(answer.get("retry_after"))
            if wait is None and not headers.get("retry-after"):
                wait = reset
            if wait is not None:
                self._free_at = max(self._free_at, monotonic() + wait)
                raise TemporaryError(f"answered 429: Discord asks to wait {wait:g} s", retry_after=wait)
        elif headers.get("x-ratelimit-remaining") == "0" and reset is not None:
            self._free_at = max(self._free_at, monotonic() + reset)
        try:
            super().check(status, headers, body)
        except PermanentError as error:
            code = str(answer.get("code"))
            advice = f" ({_ADVICE[code]})" if code in _ADVICE else ""
            raise (GoneError if code in _GONE else PermanentError)(f"{error}{advice}") from None

    async def _post(self, message: Message) -> str:
        """Post the message, and give where it is: its id, and its channel's, which is a thread in a forum."""
        answer = json_object(await self.send(self.request(message)))
        place, channel = str(answer.get("id")), str(answer.get("channel_id"))
        return f"{place} {channel}" if place.isdecimal() and channel.isdecimal() else ""

    async def _follow_up(self, message: Message, first: str) -> None:
        place, _, channel = first.partition(" ")
        thread = channel if self.config.forum else self.config.thread
        content = self._content(message)
        if self.config.follow_up in ("both", "update"):
            change = {name: content[name] for name in ("content", "embeds", "allowed_mentions")}
            await self.send(self._request(change, thread=thread, place=place))
        if self.config.follow_up in ("both", "post"):
            await self.send(self._request(content, thread=thread))

    def _request(self, content: dict[str, Any], *, thread: str | None, place: str = "") -> HttpRequest:
        parts = urlsplit(self.config.url.get_secret_value())
        query = dict(parse_qsl(parts.query)) | ({} if place else {"wait": "true"}) | ({"thread_id": thread} if thread else {})
        path = f"{parts.path.rstrip('/')}/messages/{place}" if place else parts.path
        headers = {"content-type": "application/json", "user-agent": _AGENT}
        url = parts._replace(path=path, query=urlencode(query)).geturl()
        return HttpRequest(url, msgspec.json.encode(content), method="PATCH" if place else "POST", headers=headers)

    def _content(self, message: Message) -> dict[str, Any]:
        config = self.config
        mention = shorten(config.mention.render(message).strip(), 2_000, unit="utf-16")
        content: dict[str, Any] = {
            "content": mention,
            "embeds": [self._embed(message)],
            "allowed_mentions": {"parse": ["everyone", "roles", "users"] if mention else []},
        }
        named = {"username": config.username, "avatar_url": config.avatar_url, "flags": _SILENT if config.silent else None}
        return content | {name: value for name, value in named.items() if value is not None}

    def _embed(self, message: Message) -> dict[str, Any]:
        text = self._text(message)
        footer = shorten(" · ".join(filter(None, (message.severity, message.source))), 256, unit="utf-16")
        embed: dict[str, Any] = {"title": _fitting(headline(message), 256), "color": int(colour(message)[1:], 16)}
        embed |= {"timestamp": message.time.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        embed |= {"url": message.url} if _LINK.fullmatch(message.url) else {}
        embed |= {"description": text} if text else {}
        embed |= {"footer": {"text": footer}} if footer else {}
        return embed | {"fields": self._fields(message, _ALL - sum(map(_units, (embed["title"], text, footer))))}

    def _text(self, message: Message) -> str:
        """Give the text; a URL that Discord takes for none stands at its end, where people can at least read it."""
        written = self.config.text
        url = shorten(message.url.strip(), 1_000, unit="utf-16")
        end = f"\n{url}" if url and not _LINK.fullmatch(message.url) else ""
        most = _TEXT - _units(end)
        text = shorten(written.render(message).strip(), most, unit="utf-16") if written else _fitting(message.text.strip(), most)
        return f"{text}{end}".strip()

    def _fields(self, message: Message, room: int) -> list[dict[str, Any]]:
        """Give the labels, as many as there is room for."""
        fields: list[dict[str, Any]] = []
        for name, value in islice(shown_labels(message, self.config.labels).items(), _FIELDS):
            field = {"name": _fitting(name, 64), "value": _fitting(value, 256)}
            room -= _units(field["name"] + field["value"])
            if room < 0:
                break
            fields.append({**field, "inline": True})
        return fields


def _fitting(text: str, most: int) -> str:
    """Escape Markdown, save in URLs, which would lead elsewhere, and cut to so many UTF-16 units."""
    pieces = _URL.split(shorten(text, most, unit="utf-16"))
    pieces[::2] = (_MARKDOWN.sub(r"\\\g<0>", piece) for piece in pieces[::2])
    return re.sub(r"(?<!\\)((?:\\\\)*)\\…$", r"\1…", shorten("".join(pieces), most, unit="utf-16"))


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def _seconds(value: object) -> float | None:
    """Read a wait as Discord writes it: a number, or one in a header."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}(\.\d+)?", str(value)):
        return None
    return min(float(str(value)), _LONGEST_WAIT)
