r"""Posts messages to a Slack channel, as a bot or through an incoming webhook, and keeps one thread for each key.

As a bot: make an app on https://api.slack.com/apps, give it the scope `chat:write`, install it, invite it into the channel
(`/invite @its-name`), and give its token and the channel's id, which the channel's details show.

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - slack:
      token: "${SLACK_TOKEN:-xoxb-not-set}"
      channel: C0123456789
      mention: '{% if severity == "critical" and status == "firing" %}<!here>{% endif %}'
    rate: 60/m
    ordered: true
```

Through an incoming webhook, which posts to its one channel and can neither change nor answer what it posted:

```yaml
name: deploys
producers:
  - http
consumers:
  - slack: {url: "${SLACK_URL:-https://hooks.slack.com/services/T000/B000/not-set}"}
    rate: 60/m
```

A message is its title, linked to its `url`, and below it, beside a bar in the colour of its severity (green where it is
resolved), its text, its labels, and where and when it came from. Values are escaped; `text`, a template in Slack's own
markup (`*bold*`, `_italic_`, `<https://…|link>`), writes something else in the text's place.

As a bot, later messages with the `key` of an earlier one belong to it. `follow_up: both`, the default, changes the first one
into what holds now and tells the change in its thread (with `broadcast: true` in the channel as well); `update` and `reply` do
one of the two, and `post` none: each message stands in the channel. Once it was resolved, the next message of the key begins
anew. `ordered: true` keeps a resolved message from overtaking its firing one. Which message is which is remembered for 30 days
after it last changed; where that is lost, or somebody deleted the message, the next one is posted anew.

`channel` may be a template, so that a message goes to the channel or the person that it names itself:
`"{{ labels.receiver_slack }}"`. Each has threads of its own then.

Slack takes about one message a second for each channel: `rate: 60/m`. A wait that it asks for is kept. Of a text of more than
8000 characters (1300 where none is ASCII) the rest is cut, of more than ten labels the rest is counted. What Slack cannot take
now is tried again; a channel or a token that it does not know buries the message, and the error says what to do.

Protocol: https://docs.slack.dev/reference/methods/chat.postMessage, https://docs.slack.dev/reference/methods/chat.update and
https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, and for the limits
https://docs.slack.dev/reference/block-kit/blocks; that of all blocks together is nowhere written, and is about 13,000 characters
of JSON (https://github.com/slackapi/bolt-js/issues/2509).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate, islice
from typing import Any, ClassVar, Final, Literal, Self
from urllib.parse import quote

import msgspec
from pydantic import Field, SecretStr, model_validator

from pipeline import (
    Config,
    GoneError,
    HtmlTemplate,
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

_TEXT: Final = 8_000
_SECTION: Final = 3_000
_FIELDS: Final = 10
_FIELDS_ROOM: Final = 2_500
_HALF: Final = re.compile("&[a-z]{0,3}$")
"""What a cut leaves of `&amp;`, `&lt;` and `&gt;`."""
_MAY_PASS: Final = frozenset(
    {
        "external_channel_migrating",
        "fatal_error",
        "internal_error",
        "org_login_required",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
        "update_failed",
    }
)
_LIMITED: Final = frozenset({"rate_limited", "ratelimited"})
_GONE: Final = frozenset({"cant_update_message", "edit_window_closed", "message_not_found", "thread_not_found"})
_ADVICE: Final = {
    "account_inactive": "the app was removed or its workspace deleted; install it and give its new token",
    "channel_not_found": "give the channel's id, as its details show it, and invite the bot where the channel is private",
    "invalid_auth": "Slack does not know the token",
    "is_archived": "the channel is archived",
    "missing_scope": "give the app the scope chat:write and install it again",
    "not_in_channel": "invite the bot into the channel: /invite @its-name",
    "token_expired": "the token has expired",
    "token_revoked": "the token was revoked; install the app again and give its new token",
}


class SlackConfig(Config):
    """The options of `slack`."""

    shorthand: ClassVar[str | None] = "url"

    url: SecretUrl | None = Field(default=None, description="The URL of an incoming webhook; else give `token` and `channel`.")
    token: SecretStr | None = Field(default=None, min_length=1, description="A bot's token: xoxb-….")
    channel: Template | None = Field(default=None, description="The channel's id, for a bot; or a template that gives it.")
    text: HtmlTemplate | None = Field(
        default=None, description="What stands below the title: Slack's markup, values are escaped."
    )
    labels: tuple[str, ...] | None = Field(default=None, description="The labels that are shown; else all of them.")
    mention: HtmlTemplate = Field(default=HtmlTemplate(""), description="Who is called: `<!here>`, `<@U…>`, `<!subteam^S…>`.")
    follow_up: Literal["both", "update", "reply", "post"] = Field(
        default="both", description="What a later message of a key does to the first, for a bot."
    )
    broadcast: bool = Field(default=False, description="Show what goes into a thread in the channel as well.")
    username: str | None = Field(default=None, description="The name that is shown; a bot needs the scope chat:write.customize.")
    icon_emoji: str | None = Field(
        default=None, pattern="^:.+:$", description="The icon that is shown, as :fire:, as `username`."
    )
    base_url: str = Field(default="https://slack.com/api", pattern="^https?://", description="The Web API's address.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        bot = (self.token is not None, self.channel is not None)
        if (self.url is None) != all(bot) or (self.url is not None and any(bot)):
            raise ValueError("give either `url`, or `token` and `channel`")
        if self.channel is not None and not self.channel.text.strip():
            raise ValueError("`channel` is empty")
        return self

    def channel_of(self, message: Message) -> str | None:
        """Give a message's channel, None for a webhook. Raises `PermanentError` where a bot's message has none."""
        if self.channel is None:
            return None
        if channel := self.channel.render(message).strip():
            return channel
        raise PermanentError("`channel` names no channel for this message")


class Slack(HttpConsumer[SlackConfig]):
    """Posts messages to a Slack channel, as a bot or through an incoming webhook."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request that posts the message to the channel."""
        return self._request("chat.postMessage", self._content(message))

    async def consume(self, message: Message) -> None:
        """Post the message, or change and answer the first one of its key."""
        follows = self.config.token is not None and self.config.follow_up != "post"
        channel = self.config.channel
        to = self.config.channel_of(message) if channel is not None and "{" in channel.text else None
        await follow(message, self.memory if follows else None, self._post, self._follow_up, to=to or "")

    async def probe(self) -> str | None:
        """Ask for the bot's name; a webhook can be asked nothing."""
        if self.config.token is None:
            return await super().probe()
        answer = json_object(await self.send(self._request("auth.test", {})))
        return f"@{answer.get('user')} of {answer.get('team')}"

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge an answer: the Web API says in the body of a 200 how it went."""
        super().check(status, headers, body)
        answer = json_object(body)
        if answer.get("ok") is True or (self.config.token is None and "ok" not in answer):
            return
        code = str(answer.get("error", "nothing that its API would say"))
        if code in _LIMITED:
            super().check(429, headers, body)
        if code in _MAY_PASS or "error" not in answer:
            raise TemporaryError(f"Slack says {code}")
        text = f"Slack says {code}{_details(answer)}" + (f": {_ADVICE[code]}" if code in _ADVICE else "")
        raise (GoneError if code in _GONE else PermanentError)(text)

    async def _post(self, message: Message) -> str:
        """Post the message to the channel, and give where it is."""
        answer = json_object(await self.send(self.request(message)))
        return f"{answer['channel']} {answer['ts']}" if "channel" in answer and "ts" in answer else ""

    async def _follow_up(self, message: Message, first: str) -> None:
        channel, _, ts = first.partition(" ")
        content = self._content(message) | {"channel": channel}
        if self.config.follow_up in ("both", "update"):
            change = {name: content[name] for name in ("channel", "text", "attachments")}
            await self.send(self._request("chat.update", change | {"ts": ts}))
        if self.config.follow_up in ("both", "reply"):
            reply = content | {"thread_ts": ts} | ({"reply_broadcast": True} if self.config.broadcast else {})
            await self.send(self._request("chat.postMessage", reply))

    def _request(self, method: str, content: dict[str, Any]) -> HttpRequest:
        config = self.config
        headers = {"content-type": "application/json; charset=utf-8"}
        if config.token is not None:
            headers["authorization"] = f"Bearer {config.token.get_secret_value()}"
        url = config.url.get_secret_value() if config.url else f"{config.base_url.rstrip('/')}/{method}"
        return HttpRequest(url, msgspec.json.encode(content), headers=headers)

    def _content(self, message: Message) -> dict[str, Any]:
        config = self.config
        text = f"{_plain(config.mention.render(message))} {_title(message)}".strip()
        attachment = {"color": colour(message), "blocks": [*self._blocks(message)]}
        content = {"text": text, "attachments": [attachment], "unfurl_links": False, "unfurl_media": False}
        named = {"channel": config.channel_of(message), "username": config.username, "icon_emoji": config.icon_emoji}
        return content | {name: value for name, value in named.items() if value}

    def _blocks(self, message: Message) -> Iterator[dict[str, Any]]:
        written = self.config.text
        text = _plain(written.render(message)) if written else _escaped(message.text)
        for part in _parts(text.strip()):
            yield {"type": "section", "text": _mrkdwn(part)}
        labels = shown_labels(message, self.config.labels)
        fields = _fields(labels)
        if fields:
            yield {"type": "section", "fields": fields}
        when = f"<!date^{int(message.time.timestamp())}^{{date_short_pretty}} {{time_secs}}|{message.time.isoformat()}>"
        more = f"{len(labels) - len(fields)} more labels" if len(labels) > len(fields) else ""
        origin = (shorten(part, 150) for part in (message.severity, message.source, more))
        yield {"type": "context", "elements": [_mrkdwn(" · ".join([*(_escaped(part) for part in origin if part), when]))]}


def _title(message: Message) -> str:
    title = f"*{_escaped(shorten(headline(message), 500))}*"
    link = re.sub(r'[\s\x00-\x1f<>|"]', lambda found: quote(found[0]), message.url)
    return f"<{link.replace('&', '&amp;')}|{title}>" if re.match("https?://.", link) and len(link) <= 2_000 else title


def _fields(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Give the labels, as many as there is room for."""
    fields: list[dict[str, str]] = []
    room = _FIELDS_ROOM
    for name, value in islice(labels.items(), _FIELDS):
        field = _mrkdwn(f"*{_escaped(shorten(name, 60))}*\n{_escaped(shorten(value, 200))}")
        room -= _size(field)
        if room < 0:
            break
        fields.append(field)
    return fields


def _mrkdwn(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def _escaped(text: str) -> str:
    """Escape what Slack reads as markup of its own: links, mentions, dates."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    """Take back what is escaped for HTML alone: Slack shows it as it is."""
    return text.replace("&#39;", "'").replace("&#34;", '"')


def _parts(text: str) -> Iterator[str]:
    """Cut a text that is too long, and give it in parts of what a section may have, at a line's end where there is one."""
    text = _cut(text)
    most = _SECTION if max(text, default="") <= "\uffff" else _SECTION // 2  # Slack may count what is beyond twice
    while text:
        part = text
        if len(text) > most:
            part = text[: text.rfind("\n", most // 2, most) + 1] or _HALF.sub("", text[:most])
        text = text[len(part) :]
        if part.strip():
            yield part


def _cut(text: str) -> str:
    if _size(text) <= _TEXT:
        return text
    sizes = accumulate(_size(character) - 2 for character in text)
    end = next(place for place, size in enumerate(sizes) if size > _TEXT - 10)
    return f"{_HALF.sub('', text[:end]).rstrip()}…"


def _size(content: object) -> int:
    """Give the characters that something takes as JSON in ASCII, as which Slack seems to count it."""
    return len(json.dumps(content))


def _details(answer: dict[str, Any]) -> str:
    metadata = answer.get("response_metadata")
    told = metadata.get("messages") if isinstance(metadata, dict) else None
    return f" ({'; '.join(map(str, told[:3]))})" if isinstance(told, list) and told else ""
