"""A chat of the Bot API: what is posted, changed and answered there, and what each refusal means."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import structlog
from telegram import Bot, InputFile, LinkPreviewOptions, Message, ReplyParameters
from telegram.constants import ParseMode
from telegram.error import BadRequest, ChatMigrated, Forbidden, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from consumers.telegram.options import TelegramConfig
from pipeline import GoneError, PermanentError, TemporaryError

T = TypeVar("T")

_IN_FLIGHT: Final = 10
"""Requests at once: httpx becomes slower beyond, and Telegram's limits are far below."""
_WAITED_OUT: Final = 20.0
"""Seconds that a flood wait between two parts may last without giving the message back."""
_UNCHANGED: Final = "message is not modified"
_GONE: Final = (
    "message can't be edited",
    "message to be replied not found",
    "message to edit not found",
    "message to reply not found",
    "message_id_invalid",
    "replied message not found",
    "there is no text in the message to edit",
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Text:
    """A message of text, as HTML."""

    html: str


@dataclass(frozen=True, slots=True)
class File:
    """A message that is a file, with HTML below it."""

    name: str
    content: bytes
    html: str = ""


class Chat:
    """The chats or topics that the options name.

    Methods raise `TemporaryError`, `PermanentError`, and `GoneError` where what is to be changed or answered is not there.
    """

    def __init__(self, config: TelegramConfig, guard: Callable[[], AbstractContextManager[object]]) -> None:
        for chatty in ("httpx", "httpcore", "telegram"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # they log whole URLs, with the token in them
        os.environ.setdefault("PTB_TIMEDELTA", "true")  # flood waits as timedelta: the library's own way to the coming type
        base = config.base_url.rstrip("/")
        request = HTTPXRequest(connection_pool_size=_IN_FLIGHT, pool_timeout=30, read_timeout=10, write_timeout=10)
        self._bot = Bot(config.token.get_secret_value(), base_url=f"{base}/bot", request=request)
        self._config = config
        self._guard = guard

    async def close(self) -> None:
        """Close the connections."""
        await self._bot.shutdown()

    async def name(self) -> str:
        """Give the names of the bot and of the chat; nothing is sent."""
        bot = await self._call(lambda _: self._bot.get_me(), chat="")
        if (one := self._config.one_chat) is None:
            return f"@{bot.username}"
        chat = await self._call(self._bot.get_chat, chat=one)
        return f"@{bot.username} in {chat.effective_name or chat.id}"

    async def post(self, piece: Text | File, into: int | str, *, silent: bool, to: str = "", patient: bool = False) -> str:
        """Post a piece into a chat, as an answer to what stands at the place `to`, and give its own place.

        `patient`: a flood wait that is not too long is waited out.
        """
        chat, _, number = to.partition(" ")
        reply = ReplyParameters(int(number)) if number else None
        posted = await self._call(lambda id_: self._post(piece, id_, silent, reply), patient=patient, chat=chat or into)
        return f"{posted.chat_id} {posted.message_id}"

    async def change(self, place: str, text: Text) -> None:
        """Put another text in the place of one that was posted."""
        chat, _, number = place.partition(" ")
        previews = LinkPreviewOptions(is_disabled=not self._config.previews)
        try:
            await self._call(
                lambda id_: self._bot.edit_message_text(
                    text.html, id_, int(number), parse_mode=ParseMode.HTML, link_preview_options=previews
                ),
                chat=chat,
            )
        except PermanentError as error:
            if _UNCHANGED not in str(error).lower():
                raise

    async def _post(self, piece: Text | File, chat: int | str, silent: bool, reply: ReplyParameters | None) -> Message:
        topic = self._config.topic
        if isinstance(piece, File):
            return await self._bot.send_document(
                chat,
                InputFile(piece.content, filename=piece.name),
                caption=piece.html or None,
                parse_mode=ParseMode.HTML,
                message_thread_id=topic,
                disable_notification=silent,
                reply_parameters=reply,
            )
        return await self._bot.send_message(
            chat,
            piece.html,
            parse_mode=ParseMode.HTML,
            message_thread_id=topic,
            disable_notification=silent,
            link_preview_options=LinkPreviewOptions(is_disabled=not self._config.previews),
            reply_parameters=reply,
        )

    async def _call(
        self,
        ask: Callable[[int | str], Awaitable[T]],
        *,
        chat: int | str,
        patient: bool = False,
        moved: bool = False,
    ) -> T:
        """Ask the Bot API something about a chat, and say of an error what happens next."""
        try:
            with self._guard():
                return await ask(chat)
        except RetryAfter as flood:
            wait = flood.retry_after
            seconds = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
            if not patient or seconds > _WAITED_OUT:
                raise TemporaryError(f"Telegram asks to wait {seconds:.0f} s", retry_after=seconds) from None
            await asyncio.sleep(seconds)
            return await self._call(ask, chat=chat, moved=moved)
        except ChatMigrated as to:
            if moved:
                raise PermanentError("Telegram: the chat has moved more than once") from None
            log.warning("the chat has a new id, change chat_id", old=chat, new=to.new_chat_id)
            return await self._call(ask, patient=patient, chat=to.new_chat_id, moved=True)
        except TelegramError as error:
            raise self._meant(error) from None
        except KeyError:
            raise TemporaryError("Telegram: what answered is no Bot API") from None

    def _meant(self, error: TelegramError) -> TemporaryError | PermanentError:
        text = str(error).replace(self._config.token.get_secret_value(), "***")
        if isinstance(error, InvalidToken):
            return PermanentError("Telegram does not know the bot's token")
        if isinstance(error, BadRequest) and any(words in text.lower() for words in _GONE):
            return GoneError(f"Telegram: {text}")
        if isinstance(error, (BadRequest, Forbidden)):
            return PermanentError(f"Telegram: {text}")
        return TemporaryError(f"Telegram: {text}")
