"""Sends messages to a chat or a topic of Telegram, as a bot.

Ask `@BotFather` for a bot, add it to the group, and give its token and the group's id. A token belongs into the
environment or into a file of secrets:

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - telegram:
      token: "${TELEGRAM_TOKEN:-123:not-set}"
      chat_id: -1001234567890
      topic: 42
      text: |-
        <b>{{ title }}</b>
        {{ text }}
    when: severity == "critical"
    retry: {for: 6h}
```

`text` is a template whose own text is HTML (`<b>`, `<i>`, `<code>`, `<pre>`, `<a href>`, `<blockquote>`) and whose values
are escaped, so that a title with `<` in it does no harm. A text of more than 4096 characters is sent in parts, none of
which cuts a tag or an entity. Between parts, a wait of up to 20 seconds that Telegram asks for is waited out; when a
later part cannot be sent for longer, the message is tried again from its first part.

A flood wait is kept as Telegram asks for it. A chat that is not found, a bot that was removed and a refused token
bury the message; everything that may pass is tried again. A group that became a supergroup is followed to its new id,
and a line in the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any, Final

import structlog
from pydantic import Field, SecretStr
from telegram import Bot, LinkPreviewOptions
from telegram.constants import MessageLimit, ParseMode
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from pipeline import Config, Consumer, HtmlTemplate, Message, PermanentError, TemporaryError

_IN_FLIGHT: Final = 10
"""Requests at once: httpx becomes slower beyond, and Telegram's limits are far below."""
_WAITED_OUT: Final = 20.0
"""Seconds that a flood wait between two parts may last without giving the message back."""
_DEFAULT: Final = "<b>{{ title }}</b>{% if text %}\n{{ text }}{% endif %}{% if url %}\n{{ url }}{% endif %}"

log = structlog.get_logger()


class TelegramConfig(Config):
    """The options of `telegram`."""

    token: SecretStr = Field(min_length=1, description="The bot's token, as @BotFather gave it.")
    chat_id: int | str = Field(description="The chat's id, negative for groups, or the `@name` of a public channel.")
    topic: int | None = Field(default=None, gt=0, description="The topic of a forum group: the number in its link.")
    text: HtmlTemplate = Field(default=HtmlTemplate(_DEFAULT), description="What is sent: HTML, values are escaped.")
    silent: bool = Field(default=False, description="Deliver without a sound.")
    previews: bool = Field(default=False, description="Show a preview of the first link.")
    base_url: str = Field(
        default="https://api.telegram.org", pattern="^https?://", description="The Bot API's address, for a server of your own."
    )


class Telegram(Consumer[TelegramConfig]):
    """Sends messages to a chat or a topic of Telegram."""

    _bot: Bot | None = None

    def open(self) -> None:
        """Make the bot; nothing is sent yet. Three libraries log whole URLs, with the token in them: they are told not to."""
        for chatty in ("httpx", "httpcore", "telegram"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        os.environ.setdefault("PTB_TIMEDELTA", "true")  # flood waits as timedelta: the library's own way to the coming type
        base = self.config.base_url.rstrip("/")
        request = HTTPXRequest(connection_pool_size=_IN_FLIGHT, pool_timeout=30, read_timeout=10, write_timeout=10)
        self._bot = Bot(self.config.token.get_secret_value(), base_url=f"{base}/bot", request=request)

    async def consume(self, message: Message) -> None:
        """Send the message, in parts where it is long."""
        parts = list(split_html(self._text(message), MessageLimit.MAX_TEXT_LENGTH))
        for number, part in enumerate(parts):
            await self._send(part, patient=number > 0)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._bot is not None:
            await self._bot.shutdown()
            self._bot = None

    def preview(self, message: Message) -> object:
        """Give the chat and the texts that would be sent."""
        texts = list(split_html(self._text(message), MessageLimit.MAX_TEXT_LENGTH))
        return {"chat_id": self.config.chat_id, "topic": self.config.topic, "texts": texts}

    def _text(self, message: Message) -> str:
        text = self.config.text.render(message).strip()
        if not text:
            raise PermanentError("the text for Telegram is empty")
        return text

    async def _send(self, text: str, *, patient: bool, chat: int | str | None = None) -> None:
        assert self._bot is not None
        try:
            await self._bot.send_message(
                chat or self.config.chat_id,
                text,
                parse_mode=ParseMode.HTML,
                message_thread_id=self.config.topic,
                disable_notification=self.config.silent,
                link_preview_options=LinkPreviewOptions(is_disabled=not self.config.previews),
            )
        except RetryAfter as flood:
            wait = flood.retry_after
            seconds = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
            if not patient or seconds > _WAITED_OUT:
                raise TemporaryError(f"Telegram asks to wait {seconds:.0f} s", retry_after=seconds) from None
            await asyncio.sleep(seconds)
            await self._send(text, patient=False, chat=chat)
        except ChatMigrated as moved:
            if chat is not None:
                raise PermanentError("Telegram: the chat has moved more than once") from None
            log.warning("the chat has a new id, change chat_id", old=self.config.chat_id, new=moved.new_chat_id)
            await self._send(text, patient=patient, chat=moved.new_chat_id)
        except InvalidToken:
            raise PermanentError("Telegram does not know the bot's token") from None
        except (BadRequest, Forbidden) as error:
            raise PermanentError(f"Telegram: {self._masked(error)}") from None
        except TelegramError as error:
            raise TemporaryError(f"Telegram: {self._masked(error)}") from None

    def _masked(self, error: Exception) -> str:
        return str(error).replace(self.config.token.get_secret_value(), "***")


def split_html(text: str, most: int) -> Iterator[str]:
    """Cut HTML into parts of at most `most` UTF-16 units each, markup included, every one well-formed by itself.

    Cuts at a line's end where there is one in the second half, else at a space, else anywhere but inside a tag or
    an entity; tags that are open at a cut are closed and opened again.
    """
    splitter = _Splitter(most)
    splitter.feed(text)
    splitter.close()
    yield from splitter.finish()


class _Splitter(HTMLParser):
    """Collects parts; `_open` holds the tags that are open, each as its name and as it was written."""

    def __init__(self, most: int) -> None:
        super().__init__(convert_charrefs=False)
        self._most = most
        self._open: list[tuple[str, str]] = []
        self._part = ""
        self._filled = False
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - HTMLParser's signature
        written = self.get_starttag_text() or ""
        self._add(written, extra=_units(f"</{tag}>"))
        self._open.append((tag, written))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()
        self._part += f"</{tag}>"

    def handle_entityref(self, name: str) -> None:
        self._add(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._add(f"&#{name};")

    def handle_data(self, data: str) -> None:
        while data:
            room = self._room()
            if _units(data) <= room:
                self._add(data)
                return
            cut = _cut(data, room)
            self._add(data[:cut])
            data = data[cut:].lstrip() if cut else data
            self._break()

    def finish(self) -> list[str]:
        """Give the parts."""
        if self._filled:
            self._parts.append(self._part)
        return self._parts

    def _room(self, extra: int = 0) -> int:
        return self._most - _units(self._part) - sum(_units(f"</{tag}>") for tag, _ in self._open) - extra

    def _add(self, piece: str, *, extra: int = 0) -> None:
        if _units(piece) > self._room(extra):
            self._break()
        self._part += piece
        self._filled = self._filled or not piece.startswith("<")

    def _break(self) -> None:
        closing = "".join(f"</{tag}>" for tag, _ in reversed(self._open))
        if self._filled:
            self._parts.append(self._part.rstrip() + closing)
        self._part = "".join(written for _, written in self._open)
        self._filled = False


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, room: int) -> int:
    """Give how many characters of the text fit into `room` UTF-16 units, shortened to a line's or a word's end."""
    fits, units = 0, 0
    for character in text:
        units += _units(character)
        if units > room:
            break
        fits += 1
    for end in ("\n", " "):
        found = text.rfind(end, fits // 2, fits)
        if found > 0:
            return found + 1
    return fits
