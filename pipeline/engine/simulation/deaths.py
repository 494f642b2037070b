"""How a worker or a clock dies in a simulation: from one moment on it reaches neither the store nor the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from pipeline.engine.batch import Batch, Queue
from pipeline.store import Store

Where = Literal["filtering", "settled", "worked", "delivering", "claimed", "opening", "opened", "releasing"]
"""Where somebody dies. A worker: `filtering`, when a batch is filtered and nothing of that is settled; `settled`, when what goes
on is not on the queue yet; `worked`, when all is done and the batch not acknowledged; `delivering`, when the consumer has the
batch and nobody knows. A clock: `claimed`, when what is due is its own; `opening`, when a window's filter has said what leaves;
`opened`, when that is settled and not on the queue; `releasing`, when it is on the queue, and not let go of.
"""


class KilledError(BaseException):
    """The process ends here; no `except Exception` may keep it from that."""


class Fate:
    """The life of one worker with its clock."""

    def __init__(self) -> None:
        self.dead = False
        self._next: Where | None = None
        self._job = ""

    def die(self, where: Where | None) -> None:
        """Die when it is there next; None: live on."""
        self._next = where

    def begin(self, job: str) -> None:
        """Begin with `process`, `deliver` or `tick`."""
        self._job = job

    def end(self) -> None:
        """Be through with it."""
        self._at("worked", "process")
        self._at("settled", "process")
        self._job = ""

    def before(self, call: str) -> None:
        """Be about to ask the store, or to publish; raises `KilledError` where it is dead by then."""
        if self.dead:
            raise KilledError
        if call in ("settle", "publish"):
            self._at("filtering", "process")
        if call == "publish":
            self._at("settled", "process")
        if call == "settle":
            self._at("delivering", "deliver")
            self._at("opening", "tick")
        if call == "publish":
            self._at("opened", "tick")
        if call in ("release", "turn"):
            self._at("releasing", "tick")

    def after(self, call: str, found: Any) -> None:
        """Have been answered by the store."""
        if call == "claim_due" and found:
            self._at("claimed", "tick")

    def _at(self, where: Where, job: str) -> None:
        if self._next == where and self._job == job:
            self.dead, self._next = True, None
            raise KilledError


class MortalStore:
    """The store, as somebody sees it who may die: an attribute is the store's own, a call asks its fate first."""

    def __init__(self, store: Any, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "lanes":
            return MortalStore(found, self._fate)
        return self._asking(name, found) if callable(found) else found

    def _asking(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any, **named: Any) -> Any:
            self._fate.before(name)
            found = method(*args, **named)
            self._fate.after(name, found)
            return found

        return ask


def mortal(store: Store, fate: Fate) -> Store:
    """Give the store as it is for somebody of this fate."""
    seen: Any = MortalStore(store, fate)
    return seen  # type: ignore[no-any-return]  # it passes on whatever a store is asked


class MortalQueue:
    """The queue, as somebody sees it who may die."""

    def __init__(self, queue: Queue, fate: Fate) -> None:
        self.largest = queue.largest
        self._queue = queue
        self._fate = fate

    def publish(self, batches: Sequence[Batch]) -> None:
        """Publish, where it lives."""
        self._fate.before("publish")
        self._queue.publish(batches)
