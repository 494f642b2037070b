"""What was given up: the rows of `dead_letters`, as they are written, found, grouped and edited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select, tuple_, update

from pipeline.message import Message
from pipeline.store.fingerprint import fingerprint
from pipeline.store.rows import DeadLetter
from pipeline.store.selection import LetterGroup, Selection
from pipeline.store.tables import clean, dead_letters, insert, to_json, to_message, to_number, to_time

PLACE: Final = (dead_letters.c.at, dead_letters.c.message_id, dead_letters.c.pipeline, dead_letters.c.step)
"""What orders the letters: when each was given up, and its key."""


def write_dead(connection: Connection, new: Sequence[DeadLetter]) -> None:
    """Write each dead letter, over the earlier one of its message and step."""
    if new:
        rows = [_dead_row(letter) for letter in new]
        rows.sort(key=lambda row: (row["message_id"], row["pipeline"], row["step"]))
        connection.execute(_dead_upsert(connection.dialect.name), rows)


def list_dead(connection: Connection, selection: Selection, limit: int, before: str | None) -> list[DeadLetter]:
    """Give dead letters, newest first."""
    query = select(dead_letters).where(*selected(selection)).order_by(*(column.desc() for column in PLACE)).limit(limit)
    if before is not None:
        query = query.where(tuple_(*PLACE) < tuple_(*place_of(before)))
    return [to_letter(row) for row in connection.execute(query)]


def read_dead(connection: Connection, message_id: str) -> list[DeadLetter]:
    """Give the dead letters of a message, oldest first."""
    query = select(dead_letters).where(dead_letters.c.message_id == clean(message_id))
    return [to_letter(row) for row in connection.execute(query.order_by(dead_letters.c.at, dead_letters.c.step))]


def read_after(connection: Connection, first: str, last: str, limit: int) -> list[str]:
    """Give the ids of messages among the dead letters from one id up to another, in order."""
    between = dead_letters.c.message_id.between(first, last)
    query = select(dead_letters.c.message_id).where(between).distinct().order_by(dead_letters.c.message_id).limit(limit)
    return [message_id for (message_id,) in connection.execute(query)]


def count_dead(connection: Connection) -> dict[tuple[str, str], int]:
    """Count the dead letters by pipeline and step."""
    key = (dead_letters.c.pipeline, dead_letters.c.step)
    return {(pipeline, step): count for pipeline, step, count in connection.execute(select(*key, func.count()).group_by(*key))}


def count_selected(connection: Connection, selection: Selection, after: str | None) -> int:
    """Count the letters of a selection that are newer than a place."""
    query = select(func.count()).select_from(dead_letters).where(*selected(selection))
    if after is not None:
        query = query.where(tuple_(*PLACE) > tuple_(*place_of(after)))
    return int(connection.execute(query).scalar_one())


def group_dead(connection: Connection, selection: Selection, limit: int) -> tuple[list[LetterGroup], int]:
    """Give the largest groups of a selection, and how many groups there are."""
    key = (dead_letters.c.fingerprint, dead_letters.c.pipeline, dead_letters.c.step)
    counts = (func.count().label("n"), func.min(dead_letters.c.at).label("first"), func.max(dead_letters.c.at).label("last"))
    grouped = select(*key, *counts).where(*selected(selection)).group_by(*key)
    total = connection.execute(select(func.count()).select_from(grouped.subquery())).scalar_one()
    largest = grouped.order_by(func.count().desc(), func.max(dead_letters.c.at).desc(), *key).limit(limit)
    return [_group(connection, row) for row in connection.execute(largest).all()], int(total)


def edit_dead(connection: Connection, letter: DeadLetter, message: Message, now: datetime) -> bool:
    """Put another message in a letter's place, where the letter is still the one that was read."""
    unchanged = and_(
        this_one(letter.message.id, letter.pipeline, letter.step),
        dead_letters.c.at == to_number(letter.at),
        dead_letters.c.attempts == letter.attempts,
        dead_letters.c.edited.is_not_distinct_from(None if letter.edited is None else to_number(letter.edited)),
    )
    edited = to_number(now if letter.edited is None else max(now, letter.edited))
    if letter.edited is not None and edited <= to_number(letter.edited):
        edited += 1  # or a third party could not tell the two edits apart
    change = update(dead_letters).where(unchanged).values(message=to_json(message), edited=edited)
    return connection.execute(change).rowcount == 1


def selected(selection: Selection) -> list[ColumnElement[bool]]:
    """Give the conditions of a selection."""
    row, texts = dead_letters.c, (selection.pipeline, selection.step, selection.group)
    found = [
        column == clean(text)
        for column, text in zip((row.pipeline, row.step, row.fingerprint), texts, strict=True)
        if text is not None
    ]
    if selection.error is not None:
        found.append(row.error.icontains(clean(selection.error), autoescape=True))
    if selection.since is not None:
        found.append(row.at >= to_number(selection.since))
    if selection.until is not None:
        found.append(row.at < to_number(selection.until))
    if selection.ids:
        found.append(row.message_id.in_([clean(one) for one in selection.ids]))
    return found


def this_one(message_id: Any, pipeline: Any, step: Any) -> ColumnElement[bool]:
    """Give the condition that names one letter."""
    row = dead_letters.c
    return and_(row.message_id == message_id, row.pipeline == pipeline, row.step == step)


def place_of(text: str) -> tuple[Any, ...]:
    """Read a `DeadLetter.place`; raises ValueError."""
    try:
        at, message_id, pipeline, step = clean(text).split("/", 3)
        return to_number(datetime.fromisoformat(at)), message_id, pipeline, step
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a dead letter's place is expected") from None


def place_text(at: int, message_id: str, pipeline: str, step: str) -> str:
    """Write a place as `DeadLetter.place` does."""
    return f"{to_time(at).isoformat()}/{message_id}/{pipeline}/{step}"


def to_letter(row: Row[Any]) -> DeadLetter:
    """Give a row as a value."""
    return DeadLetter(
        message=to_message(row.message),
        pipeline=row.pipeline,
        step=row.step,
        error=row.error,
        traceback=row.traceback,
        attempts=row.attempts,
        at=to_time(row.at),
        edited=None if row.edited is None else to_time(row.edited),
    )


def _group(connection: Connection, row: Row[Any]) -> LetterGroup:
    newest = _newest().where(
        dead_letters.c.fingerprint == row.fingerprint,
        dead_letters.c.pipeline == row.pipeline,
        dead_letters.c.step == row.step,
        dead_letters.c.at == row.last,
    )
    example = connection.execute(newest).one()
    return LetterGroup(
        id=row.fingerprint,
        pipeline=row.pipeline,
        step=row.step,
        count=row.n,
        first=to_time(row.first),
        last=to_time(row.last),
        error=example.error,
        example=example.message_id,
    )


def _newest() -> Select[Any]:
    return select(dead_letters.c.message_id, dead_letters.c.error).order_by(dead_letters.c.message_id.desc()).limit(1)


@cache
def _dead_upsert(dialect: str) -> Any:
    statement = insert(dead_letters, dialect)
    names = ("at", "attempts", "error", "traceback", "message", "fingerprint", "edited")
    changed = {name: statement.excluded[name] for name in names}
    return statement.on_conflict_do_update(index_elements=("message_id", "pipeline", "step"), set_=changed)


def _dead_row(letter: DeadLetter) -> dict[str, Any]:
    error = clean(letter.error)
    return {
        "message_id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "at": to_number(letter.at),
        "attempts": letter.attempts,
        "error": error,
        "traceback": clean(letter.traceback),
        "message": to_json(letter.message),
        "fingerprint": fingerprint(letter.pipeline, letter.step, error),
        "edited": None if letter.edited is None else to_number(letter.edited),
    }
