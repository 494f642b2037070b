"""What was decided about batches, and how it is written: all rows of a kind at once, in the order in which they are locked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from sqlalchemy import Connection

from pipeline.store import accepting, history, lanes, letters, tallies, waiting
from pipeline.store.rows import Accepted, Claim, DeadLetter, Held, Lined, Record, Worked

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about one batch, as `Store.settle` takes it."""

    records: Sequence[Record]
    held: Sequence[Held]
    dead: Sequence[DeadLetter]
    released: Sequence[Claim]
    lined: Sequence[Lined]
    worked: Worked | None
    accepted: Sequence[Accepted] = ()

    @property
    def sociable(self) -> bool:
        """Whether it may be written with others: what it has to do with claims and lanes is between them and their owner."""
        return not (self.released or self.lined or self.worked)


def write(connection: Connection, decided: Sequence[Decided]) -> None:
    """Write it by the rules of `Store.settle`; of several, all are `sociable`."""
    waiting.release(connection, _all(one.released for one in decided))
    rows = history.write_records(connection, _all(one.records for one in decided))
    waiting.write_held(connection, history.not_gone_on(connection, _all(one.held for one in decided)))
    letters.write_dead(connection, _all(one.dead for one in decided))
    accepting.write_accepted(connection, _all(one.accepted for one in decided))
    for one in decided:
        if one.worked is not None:
            lanes.finish(connection, one.worked)
        lanes.line_up(connection, one.lined)
    tallies.add_tallies(connection, rows)


def _all(parts: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(parts))
