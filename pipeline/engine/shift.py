"""The shift: what one worker has of the lanes of a batch, and keeps while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Final, Self

import structlog

from pipeline.engine.batch import Batch
from pipeline.engine.decisions import Decisions, Now
from pipeline.errors import TemporaryError
from pipeline.message import Message, new_id
from pipeline.store import Store
from pipeline.store.rows import LaneBack, LaneRow, Worked

log = structlog.get_logger()

LEASE: Final = timedelta(seconds=20)
"""When a worker dies, its lanes stand still for no longer than this."""
RENEWED: Final = 5.0
"""Seconds after which a worker that still works renews its lease."""
SURE: Final = 15.0
"""Seconds after a renewal for which a worker goes on: it stops well before somebody else may take its lanes over."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message whose turn it is in its lane."""

    row: LaneRow
    message: Message


class Shift:
    """The lanes that a worker has taken for a batch: from entering until they are settled, and nobody else's meanwhile.

    Entering raises `TemporaryError` where the store is away. What is not settled when it is left stands first in its lanes
    again. `lanes` is empty where the batch has come twice, or too late.
    """

    def __init__(self, store: Store, batch: Batch, now: Now) -> None:
        self.lanes: list[list[Turn]] = []
        self._store = store
        self._batch = batch
        self._now = now
        self._worker = new_id()
        self._done: list[LaneRow] = []
        self._back: list[LaneBack] = []
        self._settled = False
        self._sure_until = 0.0
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="shift", daemon=True)

    def __enter__(self) -> Self:
        batch, start, now = self._batch, monotonic(), self._now()
        by_id = {message.id: message for message in batch.messages}
        rows = self._store.lanes.begin(
            (batch.pipeline, batch.step), list(by_id), token=batch.claim, worker=self._worker, now=now, until=now + LEASE
        )
        lanes: dict[str, list[Turn]] = {}
        for row in rows:
            lanes.setdefault(row.lane, []).append(Turn(row, by_id[row.message_id]))
        self.lanes = list(lanes.values())
        self._sure_until = start + SURE
        if rows:
            self._renewing.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self.lanes:
            self._renewing.join()
            if not self._settled:
                self._done, self._back = [], []
                with suppress(TemporaryError):  # then they are free when the lease ends
                    self._store.settle(worked=self._worked())

    @property
    def messages(self) -> list[Message]:
        """All messages of the shift."""
        return [turn.message for lane in self.lanes for turn in lane]

    @property
    def deaths(self) -> int:
        """How many workers died over the only message of the shift; 0 where it has several."""
        only = self.lanes[0][0].row if len(self.lanes) == len(self._batch.messages) == 1 else None
        return only.deaths if only else 0

    def sure(self) -> bool:
        """Say whether the lanes surely are this worker's own, so that it may begin with another message."""
        return monotonic() < self._sure_until

    def done(self, turn: Turn) -> None:
        """Note that a message is through: it leaves its lane."""
        self._done.append(turn.row)

    def back(self, turn: Turn, *, due: datetime, attempt: int, parked: bool = False) -> None:
        """Note that a message is to be tried again; nothing of its lane goes on before it is due, or its circuit closes."""
        self._back.append(LaneBack(replace(turn.row, attempt=attempt), due, parked))

    def settle(self, decisions: Decisions, write: Callable[[Decisions], None], *, strict: bool = False) -> None:
        """Have what was decided and what was done written in one transaction; raises what `write` raises."""
        decisions.worked = self._worked(strict=strict)
        write(decisions)
        self._settled = True

    def _worked(self, *, strict: bool = False) -> Worked:
        lanes = [lane[0].row.lane for lane in self.lanes]
        return Worked(worker=self._worker, lanes=lanes, now=self._now(), done=self._done, back=self._back, strict=strict)

    def _renew(self) -> None:
        while not self._over.wait(RENEWED):
            start = monotonic()
            try:
                mine = self._store.lanes.renew(self._batch.claim, self._worker, self._now() + LEASE)
            except TemporaryError as away:
                log.warning("lanes could not be kept", pipeline=self._batch.pipeline, step=self._batch.step, error=str(away))
            else:
                self._sure_until = start + SURE if mine == len(self.lanes) else 0.0
