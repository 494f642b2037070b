"""Who may work now: the places of a worker, shared out among its queues so that no consumer's outage delays another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from time import monotonic
from typing import Final, Literal

from pipeline.queue.lane import Came, Lane, Turn

REMEMBERED: Final = 10_000
"""Batches done whose acknowledgement may have been lost with the connection, and which are known when they come again."""

AT_ONCE: Final = 16
"""Batches that a broker's transport may hand over at once, before the worker can stop taking from their queue."""

TOGETHER: Final = 16
"""Batches that are started as one, at most."""

YOUNG: Final = 0.005
"""Seconds for which a small batch waits for the end of the one that was started before it, counted from that start or from its
own coming, whichever was first: each start costs as much as several messages. What takes longer waits for somebody itself."""

ENOUGH: Final = 48 * 1024
"""Bytes of what waits that are worth a start of their own."""

QUICK: Final = 0.1
"""Seconds within which a full batch of a filter queue has to end, so that several of its kind may be started as one."""

FULL: Final = 96 * 1024
"""Bytes from which on a batch tells how quick its filters are."""

WIDE: Final = 3
"""Full batches that are started as one, at most: what each start costs is shared among them."""

SHARE: Final = 16
"""Batches of one delivery queue that are worked on at once, where there are places for more."""

WIDEST: Final = 65_535
"""The largest window that a broker knows: kombu takes a larger one for none."""


class Turns:
    """Lets batches start: at most half of the places work for one delivery queue, and each queue has a place of its own.

    Where more delivery queues stand idle than half of the places, half of the places is kept for them. Filter queues may
    have all places but those that deliveries have: filtering waits for nobody. What waits when a place becomes free is
    started together where it is alike: the further a worker falls behind, the less each batch costs. What is small waits
    for that some milliseconds at most, while the one before it may end. May be called from any thread; `start` is called in
    the thread that made it possible, outside of the lock.

    `flow` is called when a queue has as many batches here as it may (`lane.most`), or room again: on brokers whose
    window is one for all queues, the worker then stops or goes on taking from it, so that no queue fills the window.
    `later` is given the seconds after which `again` is to be called.
    """

    def __init__(
        self,
        places: int,
        filters: Collection[str],
        deliveries: Collection[str],
        prefetch: int,
        *,
        flow: Callable[[], None],
        later: Callable[[float], None],
    ) -> None:
        half = max(1, min(places // 2, SHARE))
        self._places = places
        self._flow = flow
        self._later = later
        self._expected = False
        """Whether `again` will be called."""
        self._deliveries = frozenset(deliveries)
        # One more fetch than the places need: what is fetched while they are busy finds room, and nothing goes back unseen.
        self._lanes = {name: Lane(places, prefetch * (places + 1)) for name in filters}
        # What a worker has in advance bridges the way to the broker; beyond that, other workers stand idle for it.
        self._lanes |= {name: Lane(half, min(prefetch * half, half + 2 * prefetch)) for name in self._deliveries}
        self._waiting: dict[str, Lane] = {}
        """Those of the lanes in which something waits: of a thousand few do, and batches start often."""
        self._busy = 0
        """How many of the lanes have something under way."""
        self._taken = 0
        """How many of the places have something under way."""
        self._lock = threading.Lock()
        self._open = True
        self._running: dict[str, Came] = {}
        self._again: dict[str, list[Came]] = {}
        self._done: OrderedDict[str, None] = OrderedDict()

    @property
    def window(self) -> int:
        """How many batches the worker takes in advance from all queues together."""
        return min(WIDEST, sum(lane.most + AT_ONCE for lane in self._lanes.values()) + TOGETHER * self._places)

    @property
    def largest(self) -> int:
        """How many batches it takes in advance of one queue, at most."""
        return max(lane.most for lane in self._lanes.values())

    def paused(self) -> set[str]:
        """Give the queues that have as many batches here as they may."""
        with self._lock:
            return {name for name, lane in self._lanes.items() if lane.paused}

    def idle(self) -> bool:
        """Say whether nothing is under way and nothing waits."""
        with self._lock:
            return not self._running and not self._waiting

    def came(self, turn: Turn, start: Callable[[], None]) -> None:
        """Start the batch, or let it wait; one that is under way here already waits for that, and what is done is not redone.

        Brokers deliver a batch again when a connection breaks, and some when a batch takes long, while it is worked on.
        """
        with self._lock:
            came = Came(turn, start, came=monotonic())
            lane = self._lane(turn)
            lane.held.add(turn)
            done = turn.id in self._done
            if turn.id in self._running and not done:
                self._again.setdefault(turn.id, []).append(came)
            elif not done:
                lane.waiting.append(came)
                self._waiting[turn.queue] = lane
            self._watch(lane)
            ready = self._take()
        if done:
            turn.acknowledge()
        _start(ready)

    def went(self, turn: Turn, *, done: bool) -> None:
        """Note that the broker was told about the batch: that it is done, or that it is to come again."""
        with self._lock:
            lane = self._lane(turn)
            came = self._running.get(turn.id)
            ran = came is not None and came.turn is turn
            if came is not None and ran:
                self._leave(lane, came)
                if done and turn.queue not in self._deliveries:
                    _learn(lane, came)
            lane.held.discard(turn)
            again = self._again.pop(turn.id, []) if ran else []
            if done:
                self._remember(turn.id)
            elif again:
                lane.waiting.extendleft(reversed(again))
                self._waiting[turn.queue] = lane
            self._watch(lane)
            ready = self._take()
        if done:
            for one in again:
                one.turn.acknowledge()
        _start(ready)

    def again(self) -> None:
        """Start what has waited long enough for others to end."""
        with self._lock:
            self._expected = False
            ready = self._take()
        _start(ready)

    def open(self) -> None:
        """Let batches start, on a new connection."""
        with self._lock:
            self._open = True
            self._expected = False  # what was to be called later may have ended with the connection before

    def close(self) -> None:
        """Forget what waits: it came by a connection that has ended, and the broker has it. What is under way goes on.

        What was started and has not begun is forgotten as well: the pool of processes drops what none of them has, and
        never tells its end.
        """
        with self._lock:
            self._open = False
            for came in list(self._running.values()):
                if not came.turn.begun:
                    self._leave(self._lane(came.turn), came)
            self._again.clear()
            self._waiting.clear()
            for lane in self._lanes.values():
                lane.waiting.clear()
                lane.held.clear()
                lane.paused = False

    def _take(self) -> list[Came]:
        """Take out what may start now, queue by queue, the one with the least under way first."""
        taken: list[Came] = []
        while self._open and self._taken < self._places:
            name = self._next()
            if name is None:
                break
            lane = self._waiting[name]
            came = lane.waiting.popleft()
            if came.turn.id in self._done:
                taken.append(Came(came.turn, came.turn.acknowledge))
            elif came.turn.id in self._running:
                self._again.setdefault(came.turn.id, []).append(came)
            else:
                self._running[came.turn.id] = came
                self._count(lane, 1)
                came.started = monotonic()
                lane.last = came
                self._take_along(lane, came.turn)
                taken.append(came)
            if not lane.waiting:
                del self._waiting[name]
        return taken

    def _take_along(self, lane: Lane, first: Turn) -> None:
        """Have as much of what waits as can be started as one with the first, which has a place, the oldest first."""
        before = lane.along
        full = WIDE if lane.waiting and lane.quick is not None and lane.quick == first.kind else 1
        for came in list(lane.waiting):
            if lane.along - before + 1 == TOGETHER:
                break
            if came.turn.id not in self._running and came.turn.id not in self._done and first.take_along(came.turn, full):
                lane.waiting.remove(came)
                came.along = True
                self._running[came.turn.id] = came
                lane.along += 1
        self._watch(lane)

    def _leave(self, lane: Lane, came: Came) -> None:
        del self._running[came.turn.id]
        if lane.last is came:
            lane.last = None
        if came.along:
            lane.along -= 1
        else:
            self._count(lane, -1)

    def _next(self) -> str | None:
        """Give the queue whose turn it is: of those that may start something, the one with the least under way."""
        found, least = None, self._places
        for name, lane in self._waiting.items():
            if not lane.running:
                return name
            if lane.running < least and self._may_start(name, lane):
                found, least = name, lane.running
        return found

    def _count(self, lane: Lane, change: Literal[1, -1]) -> None:
        self._taken += change
        self._busy -= bool(lane.running)
        lane.running += change
        self._busy += bool(lane.running)

    def _may_start(self, name: str, lane: Lane) -> bool:
        if not lane.running or name not in self._deliveries:
            return True
        kept = len(self._lanes) - self._busy
        free = lane.running < lane.share and self._places - self._taken > min(kept, self._places // 2)
        return free and not self._waits_for_young(lane)

    def _waits_for_young(self, lane: Lane) -> bool:
        """Say whether what waits will be started as one when the batch before has ended, or is no longer young."""
        if lane.last is None or sum(one.turn.size for one in lane.waiting) >= ENOUGH:
            return False
        now, end = monotonic(), min(lane.last.started, lane.waiting[0].came) + YOUNG
        if now < end and not self._expected:
            self._expected = True
            self._later(end - now)
        return now < end

    def _lane(self, turn: Turn) -> Lane:
        found = self._lanes.get(turn.queue)
        if found is None:  # `celery control add_consumer` can bring a queue that no pipeline names
            found = self._lanes[turn.queue] = Lane(self._places, max(1, self.largest if self._lanes else self._places))
        return found

    def _watch(self, lane: Lane) -> None:
        """Note when a queue has enough here, and again when half of what it had in advance is gone."""
        here = len(lane.held) - lane.along
        paused = here >= lane.most if not lane.paused else here > min(lane.most - 1, (lane.most + lane.share) // 2)
        if paused is not lane.paused:
            lane.paused = paused
            self._flow()

    def _remember(self, name: str) -> None:
        self._done[name] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)


def _learn(lane: Lane, came: Came) -> None:
    """Note whether a full batch of a filter queue was quick."""
    if came.along or came.turn.size < FULL or (kind := came.turn.kind) is None:
        return
    if monotonic() < came.started + QUICK:
        lane.quick = kind
    elif lane.quick == kind:
        lane.quick = None


def _start(ready: list[Came]) -> None:
    for one in ready:
        one.start()
