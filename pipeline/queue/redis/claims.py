"""What one consuming connection has claimed in Redis: taken, settled, kept alive, and given back at the end."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kombu.exceptions import OperationalError
from kombu.log import get_logger
from redis.exceptions import RedisError

from pipeline.queue.redis import scripts
from pipeline.queue.redis.address import PRIORITIES
from pipeline.queue.redis.commands import Script
from pipeline.queue.redis.owners import Watch, new_owner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.queue.redis.address import Keys
    from pipeline.queue.redis.commands import Commands

logger = get_logger(__name__)

Outcome = Literal["done", "failed", "back", "unseen", "aside"]
"""How a claim ends: removed; back to its place and counted as a failure; back without that; back as it was, since no consumer
had it; moved to the unreadable."""


class ClaimsLostError(OperationalError):
    """Others have taken this owner for gone, and have its claims: it must begin anew."""


class Claimed(NamedTuple):
    """An item that is claimed: by which tag, from which queue."""

    tag: int
    queue: str
    item: bytes


class Claims:
    """The claims of one owner. Its methods may be called from any thread; a thread of its own gives signs of life.

    While it does, its claims are nobody else's, however long they last. When it does not, another owner's thread gives
    them back to their queues. That thread also looks after the others.
    """

    def __init__(self, commands: Commands, keys: Keys, beat: float) -> None:
        self._commands = commands
        self._keys = keys
        self._beat_every = beat
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._paying = threading.Lock()
        self._next = 1  # the next tag; none is used twice, so that none means another claim after Redis has lost its data
        self._registered = False
        self._closing = False
        self._away = False  # the last time, Redis did not answer
        self._owed: deque[tuple[Outcome, list[int]]] = deque()
        self._stop = threading.Event()
        self.lost = False
        self.owner = new_owner(beat)
        self._hash = keys.claims(self.owner)
        self._thread = threading.Thread(target=self._live, name=f"siftbell-owner-{self.owner}", daemon=True)
        self._thread.start()

    def claim(self, queues: Sequence[str], most: int) -> list[Claimed]:
        """Take up to `most` items, in turn from each queue that has some, the first first; Redis is told what is owed as well.

        Raises RedisError, and ClaimsLostError when others have taken this owner for gone. What a call took that failed
        goes back when the owner leaves.
        """
        with self._lock:
            first, self._next = self._next, self._next + most
        lists = [key for queue in queues for key in self._keys.lists(queue)]
        told = [self.owner, int(self._registered), first, most, len(PRIORITIES)]
        [found] = self._tell(Script(scripts.CLAIM, [self._keys.owners, self._hash, *lists], told))
        if found is None:
            self.lost = True
            raise ClaimsLostError("this worker did not answer for a while: others have what it held")
        self._registered = self._registered or bool(found)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Claimed(first + at, queues[number // len(PRIORITIES)], item) for at, (number, item) in enumerate(pairs)]

    def settle(self, outcome: Outcome, tags: Sequence[int]) -> None:
        """End claims, given the oldest first. Never fails: what Redis cannot be told now is owed, and told as soon as it answers.

        A claim that has gone to another owner meanwhile is left alone.
        """
        if not self.owe(outcome, tags) or self._away:
            return  # while it is away, the next poll asks Redis again: this caller need not wait
        try:
            self.pay()
        except RedisError as error:
            logger.warning("Redis is told later that %d messages are settled: %s", len(tags), error)

    def owe(self, outcome: Outcome, tags: Sequence[int]) -> bool:
        """Note how claims end, given the oldest first, until Redis is told; says whether there is anything to tell."""
        if not tags or self._pid != os.getpid():
            return False
        self._owed.append((outcome, list(tags)))
        return True

    def hand_back(self, tags: Sequence[int]) -> bool:
        """Put claims, given the oldest first, back at their places as not delivered; says whether Redis could be told."""
        if self._pid != os.getpid() or self._away:
            return False
        try:
            self.pay()
            self._tell(self._settling("back", tags))
        except RedisError:
            self._away = True
        return not self._away

    def pay(self) -> None:
        """Tell Redis what is owed, by whichever thread; raises RedisError."""
        while self._owed:
            self._tell()

    def _tell(self, *more: Script) -> list[Any]:
        """Tell Redis what is owed first, and call more scripts in the same exchange; gives their answers."""
        with self._paying:
            owed = list(itertools.takewhile(lambda one: one[0] == self._owed[0][0], list(self._owed)))
            tags = [tag for _, some in owed for tag in some]
            calls = [self._settling(owed[0][0], tags), *more] if owed else more
            try:
                answers = self._commands.scripts(calls)
            except RedisError:
                self._away = True
                raise
            self._away = False
            if owed:
                settled, *answers = answers
                for _ in owed:
                    self._owed.popleft()
                if settled < len(tags):
                    logger.warning(
                        "%d of %d messages were settled late: they are delivered again", len(tags) - settled, len(tags)
                    )
            return answers

    def _settling(self, outcome: Outcome, tags: Sequence[int]) -> Script:
        """Give the script that says how claims ended, given the oldest first; it gives how many of them were still claimed."""
        return Script(scripts.SETTLE, [self._hash, self._keys.unreadable], [outcome, *reversed(tags)])

    def close(self) -> None:
        """Give back all that is still claimed, at its old place; while Redis is away, as soon as it answers. Never fails."""
        self._closing = True
        if self._pid == os.getpid():
            self._try_to_leave()

    def _try_to_leave(self) -> None:
        try:
            self.pay()
            self._commands.script(scripts.LEAVE, [self._keys.owners, self._hash], [self.owner])
        except RedisError as error:
            logger.warning("what this worker holds goes back as soon as Redis answers: %s", error)
        else:
            self._stop.set()

    def _live(self) -> None:
        watch = Watch(self._beat_every)
        while not self._stop.wait(self._beat_every):
            if self._closing:
                self._try_to_leave()
                continue
            try:
                self._look_after(watch)
            except RedisError as error:
                logger.debug("no sign of life: %s", error)

    def _look_after(self, watch: Watch) -> None:
        if self._registered and not self._commands.script(scripts.BEAT, [self._keys.owners], [self.owner]):
            self.lost = True
        told = self._commands.call("HGETALL", self._keys.owners)
        beats = {owner.decode(errors="replace"): number for owner, number in zip(told[::2], told[1::2], strict=True)}
        for owner in watch.look(beats, time.monotonic()):
            back = self._commands.script(scripts.BURY, [self._keys.owners, self._keys.claims(owner)], [owner, beats[owner]])
            if back >= 0:
                logger.warning("%s is gone: %d messages that it held are delivered again", owner, back)
