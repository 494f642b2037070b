"""How dead letters leave: redriven, which is held for the step that gave them up, or dropped for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, select, tuple_

from pipeline.store.history import read_records, write_anew
from pipeline.store.letters import PLACE, place_of, place_text, selected, this_one, to_letter
from pipeline.store.rows import DeadLetter, Held, Outcome, Record
from pipeline.store.selection import Moved, Placing, Refused, Selection
from pipeline.store.tables import chunks, dead_letters, records
from pipeline.store.waiting import write_held

LEFT: Final = "dropped from the dead letters"
"""What a record says of a dead letter that was deleted."""
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a selection's letters, the oldest first: up to `limit` of them behind the place `after`."""

    selection: Selection
    limit: int
    after: str | None = None


def redrive(connection: Connection, page: Page, place: Placing, now: datetime, *, dry: bool) -> Moved:
    """Move a page of letters to where `place` says, by the rules of `Store.redrive`."""
    letters, last = _take(connection, page)
    known = _records_of(connection, letters)
    going: list[tuple[DeadLetter, Held]] = []
    staying = []
    for letter in letters:
        where = place(letter, known.get(_key(letter)))
        if isinstance(where, Held):
            going.append((letter, where))
        else:
            staying.append(Refused(message_id=letter.message.id, pipeline=letter.pipeline, step=letter.step, reason=where))
    if not dry:
        write_anew(connection, [_redriven(letter, held, now) for letter, held in going])
        write_held(connection, [held for _, held in going])
        _delete(connection, [letter for letter, _ in going])
    return Moved(left=_counted(letter for letter, _ in going), refused=tuple(staying), last=last)


def drop(connection: Connection, page: Page, now: datetime) -> Moved:
    """Delete a page of letters, by the rules of `Store.drop_letters`."""
    letters, last = _take(connection, page)
    known = _records_of(connection, letters)
    write_anew(connection, [_dropped(letter, now) for letter in letters if _tells_of(letter, known.get(_key(letter)))])
    _delete(connection, letters)
    return Moved(left=_counted(letters), last=last)


def _take(connection: Connection, page: Page) -> tuple[list[DeadLetter], str | None]:
    """Give the page's letters, locked until the end of the transaction, and the place of the last one.

    The records are locked first, in the order in which batches write them: two that want the same do not wait for each other.
    """
    conditions = selected(page.selection)
    query = select(*PLACE).where(*conditions).order_by(*PLACE).limit(page.limit)
    if page.after is not None:
        query = query.where(tuple_(*PLACE) > tuple_(*place_of(page.after)))
    page_of = connection.execute(query).all()
    wanted = {(row.message_id, row.pipeline, row.step) for row in page_of}
    ids = sorted({message_id for message_id, _, _ in wanted})
    key = (records.c.message_id, records.c.pipeline, records.c.step)
    rows: list[Row[Any]] = []
    for some in chunks(ids):
        connection.execute(select(*key).where(records.c.message_id.in_(some)).order_by(*key).with_for_update()).all()
        locked = select(dead_letters).where(dead_letters.c.message_id.in_(some), *conditions).with_for_update()
        rows += [row for row in connection.execute(locked) if (row.message_id, row.pipeline, row.step) in wanted]
    letters = sorted((to_letter(row) for row in rows), key=lambda letter: (letter.at, _key(letter)))
    return letters, place_text(*page_of[-1]) if page_of else None


def _records_of(connection: Connection, letters: Sequence[DeadLetter]) -> dict[_Key, Record]:
    by_step: dict[tuple[str, str], list[str]] = {}
    for letter in letters:
        by_step.setdefault((letter.pipeline, letter.step), []).append(letter.message.id)
    return {
        (message_id, pipeline, step): record
        for (pipeline, step), ids in by_step.items()
        for message_id, record in read_records(connection, pipeline, step, ids).items()
    }


def _delete(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    if letters:
        this = this_one(bindparam("m"), bindparam("p"), bindparam("s"))
        rows = [{"m": letter.message.id, "p": letter.pipeline, "s": letter.step} for letter in letters]
        connection.execute(delete(dead_letters).where(this), rows)


def _redriven(letter: DeadLetter, held: Held, now: datetime) -> Record:
    """Give the record of a redrive: without `since`, so that a consumer's `retry: {for: …}` counts from now."""
    edited = f"; edited on {letter.edited:%Y-%m-%d %H:%M:%S} UTC" if letter.edited else ""
    return Record(
        message_id=letter.message.id,
        pipeline=letter.pipeline,
        step=letter.step,
        outcome=Outcome.HELD,
        at=now,
        attempt=held.attempt - 1,
        reason=f"redriven from the dead letters{edited}; it had failed: {letter.error}",
    )


def _dropped(letter: DeadLetter, now: datetime) -> Record:
    return Record(
        message_id=letter.message.id,
        pipeline=letter.pipeline,
        step=letter.step,
        outcome=Outcome.BURIED,
        at=now,
        attempt=letter.attempts,
        reason=f"{letter.error} ({LEFT} on {now:%Y-%m-%d %H:%M:%S} UTC)",
    )


def _tells_of(letter: DeadLetter, record: Record | None) -> bool:
    """Say whether the record at a letter's step tells of that letter, and of nothing that came after it."""
    return record is None or (record.outcome is Outcome.BURIED and record.attempt <= letter.attempts)


def _key(letter: DeadLetter) -> _Key:
    return letter.message.id, letter.pipeline, letter.step


def _counted(letters: Iterable[DeadLetter]) -> dict[tuple[str, str], int]:
    return dict(Counter((letter.pipeline, letter.step) for letter in letters))
