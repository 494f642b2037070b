"""Batches for one consumer that a process has at the same time: they are given to it together, in one call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from pipeline.engine.batch import MAX_AT_ONCE, Batch

CALLS: Final = 2
"""Calls of one consumer at once in a process: while the one is recorded, the next is made."""

Place = tuple[str, str, int, str]
"""Pipeline, step, attempt and revision: batches that share them differ in their messages only."""


class Together:
    """For consumers that take batches: what comes while `CALLS` calls are under way goes with the next one.

    Many small batches then cost one call, one transaction and one fsync. A batch that comes alone waits for nothing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Place, dict[Future[None], Batch]] = {}
        self._calls: Counter[Place] = Counter()

    def work(self, batch: Batch, work: Callable[[Batch], None]) -> None:
        """Return when the batch is worked on, by this thread or with another's; raises what that raised."""
        place = (batch.pipeline, batch.step, batch.attempt, batch.revision)
        mine: Future[None] = Future()
        with self._changed:
            waiting = self._waiting.setdefault(place, {})
            waiting[mine] = batch
            self._changed.wait_for(lambda: mine not in waiting or self._calls[place] < CALLS)
            taken = _taken(waiting, mine) if mine in waiting else {}
            if taken:
                self._calls[place] += 1
                self._changed.notify_all()
        if taken:
            self._call(place, taken, work)
        mine.result()

    def _call(self, place: Place, taken: dict[Future[None], Batch], work: Callable[[Batch], None]) -> None:
        first, *others = taken.values()
        try:
            work(first.replace(messages=[*first.messages, *(message for batch in others for message in batch.messages)]))
        except BaseException as error:  # noqa: BLE001 - it is raised by each that waits for this call
            for one in taken:
                one.set_exception(error)
        else:
            for one in taken:
                one.set_result(None)
        finally:
            with self._changed:
                self._calls[place] -= 1
                if not self._calls[place] and not self._waiting[place]:
                    del self._calls[place], self._waiting[place]
                self._changed.notify_all()


def _taken(waiting: dict[Future[None], Batch], mine: Future[None]) -> dict[Future[None], Batch]:
    """Take one's own batch, and as many others as one call may have, the oldest first."""
    taken = {mine: waiting.pop(mine)}
    room = MAX_AT_ONCE - len(taken[mine].messages)
    for one, batch in list(waiting.items()):
        if len(batch.messages) <= room:
            room -= len(batch.messages)
            taken[one] = waiting.pop(one)
    return taken
