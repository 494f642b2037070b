"""Several receivers of a message: each has a result of its own, and who has it is left alone when the rest is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, Self

import msgspec
import structlog

from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import Memory
from pipeline.text import shorten

log = structlog.get_logger()

REMEMBERED: Final = timedelta(days=7)
"""For so long after the last attempt in which somebody got it, it is known who has the message."""
_TOLD: Final = 2000
"""Characters of the error of all of them."""


class Receivers:
    """Those whom a consumer sends a message to: who has it already, who is left, and what went wrong with whom.

    `rest` holds those who do not have it yet; each attempt sends to them, and says of each that it `got` or `missed` the
    message; `settle` raises what became of them. A single receiver needs no memory, and none is asked.
    """

    def __init__(
        self, message: Message, names: Iterable[str], refused: Mapping[str, PermanentError], memory: Memory | None
    ) -> None:
        self._message = message
        self._names = tuple(dict.fromkeys(names))
        self._failed: dict[str, TemporaryError | PermanentError] = {**refused}
        self._total = len({*self._names, *refused})
        self._memory = memory if self._total > 1 else None
        self._key = f"receivers of {message.id}"
        self._have: dict[str, None] = {}
        self._writing = asyncio.Lock()
        self.note = ""
        """What the consumer wants to know again at the next attempt; it is kept with those who have the message."""

    @classmethod
    async def of(
        cls, message: Message, names: Iterable[str], *, refused: Mapping[str, PermanentError] | None = None, memory: Memory | None
    ) -> Self:
        """Give the receivers of a message, once each, and recall who of them has it from an earlier attempt.

        `refused` are those who cannot be reached, such as what is no address, with the reason. Raises `TemporaryError` where
        the memory is away: nothing has been sent yet, and nobody shall get it twice.
        """
        receivers = cls(message, names, refused or {}, memory)
        if receivers._memory is not None:
            kept = await asyncio.to_thread(receivers._memory.recall, receivers._key)
            if kept is not None:
                receivers.note, *have = msgspec.json.decode(kept, type=list[str])
                receivers._have = dict.fromkeys(have)
        return receivers

    @property
    def message(self) -> Message:
        """The message that they are to have."""
        return self._message

    @property
    def rest(self) -> list[str]:
        """Those who do not have it, and were not missed in this attempt."""
        return [name for name in self._names if name not in self._have and name not in self._failed]

    @property
    def have(self) -> list[str]:
        """Those who have it, by this attempt and by earlier ones."""
        return [*self._have]

    def missed(self, name: str, error: TemporaryError | PermanentError) -> None:
        """Note that a receiver did not get it."""
        self._failed[name] = error

    async def got(self, *names: str) -> None:
        """Note that receivers got it, and remember it at once; a memory that is away is told in the log, and costs duplicates."""
        self._have |= dict.fromkeys(names)
        if self._memory is None:
            return
        async with self._writing:
            text = msgspec.json.encode([self.note, *self._have]).decode()
            try:
                await asyncio.to_thread(self._memory.remember, self._key, text, REMEMBERED)
            except TemporaryError as away:
                told = "who has a message could not be remembered, and may get a second one"
                log.warning(told, id=self._message.id, receivers=[*names], error=str(away))

    def settle(self) -> None:
        """Raise one error where somebody does not have it: temporary, and the rest is tried again, as long as one of theirs is.

        When only refusals are left it is a `PermanentError`. It names each receiver with its error; the error of a single
        receiver is raised as it is. The longest `retry_after` of them holds.
        """
        if not self._failed:
            return
        if self._total == 1:
            raise next(iter(self._failed.values()))
        told = "; ".join(f"{name}: {error}" for name, error in self._failed.items())
        text = shorten(f"{self._total - len(self._failed)} of {self._total} receivers have it; {told}", _TOLD)
        temporary = [error for error in self._failed.values() if isinstance(error, TemporaryError)]
        if not temporary:
            raise PermanentError(text)
        waits = [error.retry_after for error in temporary if error.retry_after is not None]
        raise TemporaryError(text, retry_after=max(waits, default=None))
