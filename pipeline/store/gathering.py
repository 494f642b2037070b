"""Work of several threads that goes together: what comes while some is under way is gathered, and done in one go after it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")


class _Fate(Enum):
    LEADS = auto()
    """Its thread does the work of all that has gathered."""
    DONE = auto()
    """Another thread has done it."""
    ALONE = auto()
    """It could not be done together with the others."""


class _Place(Generic[T]):
    """What a thread waits with."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.fate = _Fate.ALONE
        self._told = threading.Lock()
        self._told.acquire()

    def tell(self, fate: _Fate) -> None:
        self.fate = fate
        self._told.release()

    def wait(self) -> None:
        self._told.acquire()


class Gathering(Generic[T]):
    """Gathers items while a work is under way; who comes alone waits for nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = False
        self._waiting: list[_Place[T]] = []

    def do(self, item: T, work: Callable[[Sequence[T]], None]) -> None:
        """Return when the item is worked on, by this thread or by another's with its own.

        Where a work with several items fails, each is worked on alone; raises what that raises.
        """
        mine = _Place(item)
        with self._lock:
            self._waiting.append(mine)
            first, self._under_way = not self._under_way, True
        if first:
            mine.fate = _Fate.LEADS
        else:
            self._wait(mine)
        if mine.fate is _Fate.LEADS:
            mine.fate = self._lead(mine, work)
        if mine.fate is _Fate.ALONE:
            work([item])

    def _wait(self, mine: _Place[T]) -> None:
        try:
            mine.wait()
        except BaseException:  # a signal's handler may raise anything
            with self._lock:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    if mine.fate is _Fate.LEADS:
                        self._go_on()
            raise

    def _lead(self, mine: _Place[T], work: Callable[[Sequence[T]], None]) -> _Fate:
        with self._lock:
            taken, self._waiting = self._waiting, []
        fate = _Fate.ALONE
        try:
            work([one.item for one in taken])
            fate = _Fate.DONE
        except Exception:
            if len(taken) == 1:
                raise
        finally:
            with self._lock:
                self._go_on()
            for one in taken:
                if one is not mine:
                    one.tell(fate)
        return fate

    def _go_on(self) -> None:
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._waiting[0].tell(_Fate.LEADS)
