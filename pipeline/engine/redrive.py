"""The redrive: says where a dead letter goes on, which is at the step that gave it up and nowhere else, and moves many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from pipeline.engine.decisions import Now, utc_now
from pipeline.engine.pipeline import Pipeline, Pipelines
from pipeline.engine.windows import KEPT
from pipeline.store import DeadLetter, Held, Outcome, Record, Store, Why
from pipeline.store.selection import Moved, Selection
from pipeline.units import Rate

AT_ONCE: Final = 500
"""Letters moved in one transaction: a kill undoes no more than these, and other writers wait no longer than for these."""


class Redrive:
    """A redrive under one configuration; with a `rate`, the clock brings back no more than that.

    The first is due at `start`, or now. Each letter moves in one transaction from the dead letters to what is held, and a
    clock brings it back from there: nothing is lost whenever this dies, and no broker is needed for it.
    """

    def __init__(
        self, pipelines: Pipelines, store: Store, *, rate: Rate | None = None, start: datetime | None = None, now: Now = utc_now
    ) -> None:
        self._pipelines = pipelines
        self._store = store
        self._now = now
        self._pause = rate.interval if rate else timedelta()
        self.due = max(start, now()) if start else now()
        """When the next message is to be brought back."""

    def run(
        self, selection: Selection, *, limit: int | None = None, after: str | None = None, dry: bool = False
    ) -> Iterator[Moved]:
        """Move what was given up until now, the oldest first, some at a time: up to `limit`, from behind `after` on.

        `dry`: only say what would move. Raises ValueError for an `after` that is no place, and StoreAway; what moved
        before that has moved.
        """

        def go(some: Selection, most: int, place: str | None) -> Moved:
            return self._store.redrive(some, self._place, now=self._now(), limit=most, after=place, dry=dry)

        return _pages(go, until_now(selection, self._now()), limit, after)

    def _place(self, letter: DeadLetter, record: Record | None) -> Held | str:
        where = place(self._pipelines, letter, record, self.due)
        if isinstance(where, Held):
            self.due += self._pause
        return where


def drop(
    store: Store, selection: Selection, *, limit: int | None = None, after: str | None = None, now: Now = utc_now
) -> Iterator[Moved]:
    """Delete dead letters for good as `Redrive.run` moves them."""

    def go(some: Selection, most: int, place: str | None) -> Moved:
        return store.drop_letters(some, now=now(), limit=most, after=place)

    return _pages(go, until_now(selection, now()), limit, after)


def _pages(
    go: Callable[[Selection, int, str | None], Moved], selection: Selection, limit: int | None, after: str | None
) -> Iterator[Moved]:
    left = math.inf if limit is None else limit
    while left > 0:
        most = int(min(AT_ONCE, left))
        moved = go(selection, most, after)
        if moved.last is None:
            return
        yield moved
        after = moved.last
        left -= most


def until_now(selection: Selection, now: datetime) -> Selection:
    """Leave out what is given up later: what fails again while a selection is moved is not moved again."""
    return selection if selection.until is not None and selection.until <= now else replace(selection, until=now)


def place(pipelines: Pipelines, letter: DeadLetter, record: Record | None, due: datetime) -> Held | str:
    """Say where a letter goes on: at its consumer, or from its filter on; else why it cannot.

    The attempt is above both the letter's and the recorded one: up to that, the record says that it is done.
    """
    if (never := _never(letter)) is not None:
        return never
    pipeline = pipelines.get(letter.pipeline)
    if pipeline is None:
        return f"there is no pipeline '{letter.pipeline}' any more"
    why = _why(pipeline, letter.step)
    if why is None:
        return f"pipeline '{letter.pipeline}' has no filter or consumer '{letter.step}' any more"
    done = letter.attempts
    if record is not None:
        if record.outcome is Outcome.DELIVERED:
            return "it was delivered all the same, as `siftbell explain` shows: drop it"
        done = max(done, record.attempt)
    return Held(
        message=letter.message,
        pipeline=letter.pipeline,
        step=letter.step,
        why=why,
        due=due,
        attempt=done + 1,
        revision=pipeline.spec.revision,
    )


def _never(letter: DeadLetter) -> str | None:
    """Say why a letter goes nowhere as it is, whatever the configuration has."""
    if letter.message.type == "unreadable" and letter.message.source in {"queue", "store"}:
        return "it could not be read as a message, and what it was lies in its `data`: send that in anew, then drop this"
    if letter.message.type == "unreadable" and not letter.step:
        return "it could not be read as a message: edit it into one, with another `type`, or send in what lies in its `data`"
    if letter.message.type == KEPT and letter.message.source == letter.step:
        return "it is what a filter kept for a key, and no message: look what lies in its `data`, then drop it"
    return None


def _why(pipeline: Pipeline, step: str) -> Why | None:
    """Say as what a message waits for a step; the one without a name is the way to the first filter."""
    if any(consumer.label == step for consumer in pipeline.spec.consumers):
        return Why.RETRY
    if not step or any(one.label == step for one in pipeline.spec.filters):
        return Why.FILTER
    return None
