"""Which dead letters are meant, and what came of moving them: plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.store.rows import DeadLetter, Held, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those for which all that is set holds; nothing set: every one.

    `error` is a part of the error's text, whatever its case (on SQLite: that of A to Z); `group` is the id of a
    `LetterGroup`; `since` and `until` bound when they were given up, `until` excluded; `ids` are message ids.
    """

    pipeline: str | None = None
    step: str | None = None
    error: str | None = None
    group: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Say whether anything is set."""
        return self != Selection()


ALL: Final = Selection()


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """The dead letters of one pipeline, step and kind of error: texts that differ in numbers, ids and addresses only."""

    id: str
    pipeline: str
    step: str
    count: int
    first: datetime
    last: datetime
    error: str
    """The text of the newest one."""
    example: str
    """The message id of the newest one."""


Placing = Callable[[DeadLetter, Record | None], Held | str]
"""Says where a dead letter goes on, or why it stays; it also gets what is recorded of its message at its step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A dead letter that stays where it is, and why."""

    message_id: str
    pipeline: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What one go of a redrive or a drop did: how many letters left, by pipeline and step, and which stay."""

    left: dict[tuple[str, str], int]
    refused: tuple[Refused, ...] = ()
    last: str | None = None
    """The place of the last letter that was looked at, to go on behind; None: there was none any more."""
