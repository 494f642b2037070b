"""Keeps what a channel has received until it is settled, and the claims on it alive while this process lives."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from kombu.log import get_logger

from pipeline.queue.sqs.errors import NoQueueError, SqsError
from pipeline.queue.sqs.service import Claim, Service, by_queue

logger = get_logger(__name__)

UNLIMITED: Final = 1 << 30
"""The room of a channel without a prefetch count."""
PAUSE: Final = 1.0
"""Seconds between two tries while SQS is away."""
FAREWELL: Final = 10.0
"""Seconds for which the end of a channel waits until SQS has been told everything."""


class Fate(Enum):
    """What SQS is to be told of a message."""

    DONE = "remove it"
    AGAIN = "it was delivered in vain, others may have it"
    UNTOUCHED = "nobody worked on it, others may have it"
    """It is sent again, then removed: SQS counts every delivery, and this one is not to count."""


class Claims:
    """The unsettled messages of one channel (kombu's QoS); any thread may call it.

    Its own thread, the keeper, tells SQS what became of them, and extends the claims on the others: those that are worked
    on and those that wait here for room. It ends with the process, and with it the claims.
    """

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        self._service: Service = channel.service
        self.prefetch_count = prefetch_count
        self._pid = os.getpid()
        self._change = threading.Condition()
        self._held: dict[str, Claim] = {}
        self._parked: deque[Claim] = deque()
        self._owed: list[tuple[Fate, Claim]] = []
        self._closing = False
        self._keeper: threading.Thread | None = None
        self._beat_every = self._service.settings.visibility / 4

    # What kombu calls

    def can_consume(self) -> bool:
        """Say whether the channel may be handed another message."""
        return self.room() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages the channel may be handed."""
        return self.room()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message; nothing is to be done, for `take` and `hold` have noted it."""

    def ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: ARG002 - kombu's signature
        """Remove the message from its queue, soon: until SQS knows, a process that dies has it delivered again."""
        self._settle(delivery_tag, Fate.DONE)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Remove the message from its queue, or let others have it at once."""
        self._settle(delivery_tag, Fate.AGAIN if requeue else Fate.DONE)

    def restore_unacked(self) -> None:
        """Hand back all that is not settled."""
        with self._change:
            self._owe(Fate.UNTOUCHED, [*self._held.values(), *self._parked])
            self._held.clear()
            self._parked.clear()

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Hand back all that is not settled, and end: returns when SQS knows, or is away."""
        if os.getpid() != self._pid:
            return
        self.restore_unacked()
        with self._change:
            self._closing = True
            self._change.notify_all()
            keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(FAREWELL)

    # What the channel calls

    def room(self) -> int:
        """Give how many messages may be handed out now."""
        return max(0, self.prefetch_count - len(self._held)) if self.prefetch_count else UNLIMITED

    def park(self, claims: list[Claim]) -> None:
        """Keep messages until there is room for them."""
        with self._change:
            self._parked.extend(claims)
            self._keep()

    def wanted(self, queue: str, queues: int, most: int) -> int:
        """Give how many messages to ask a queue for: its share of the room, and none while some of it wait here."""
        with self._change:
            if any(claim.queue == queue for claim in self._parked):
                return 0
            room = self.room() - len(self._parked)
            return 0 if room <= 0 else max(1, min(most, room // max(1, queues)))

    def take(self) -> Claim | None:
        """Give the next message to hand out, where there is one and room for it."""
        with self._change:
            if not self._parked or not self.room():
                return None
            claim = self._parked.popleft()
            self._held[claim.handle] = claim
            return claim

    def hold(self, claim: Claim) -> None:
        """Note a message that was fetched one by one."""
        with self._change:
            self._held[claim.handle] = claim
            self._keep()

    def hand_back(self, claims: list[Claim]) -> None:
        """Let others have messages that nobody worked on."""
        with self._change:
            for claim in claims:
                self._held.pop(claim.handle, None)
            self._owe(Fate.UNTOUCHED, claims)

    def leave(self, queue: str) -> None:
        """Hand back what waits here of a queue that is no longer consumed."""
        with self._change:
            leaving = [claim for claim in self._parked if claim.queue == queue]
            self._parked = deque(claim for claim in self._parked if claim.queue != queue)
            self._owe(Fate.UNTOUCHED, leaving)

    def _settle(self, tag: str, fate: Fate) -> None:
        with self._change:
            claim = self._held.pop(tag, None)
            if claim is None:
                logger.warning("a message whose claim had ended was settled; it may come again")
            else:
                self._owe(fate, [claim])

    # The keeper

    def _owe(self, fate: Fate, claims: list[Claim]) -> None:
        if claims:
            self._owed += [(fate, claim) for claim in claims]
            self._keep()
            self._change.notify_all()

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._run, name="sqs-keeper", daemon=True)
            self._keeper.start()

    def _run(self) -> None:
        due = time.monotonic() + self._beat_every
        away = False
        while True:
            with self._change:
                self._change.wait_for(lambda: self._owed or self._closing, timeout=max(0.0, due - time.monotonic()))
                owed, self._owed = self._owed, []
                ending = self._closing
            failed = self._try(lambda: self._tell(owed))  # noqa: B023 - called at once
            if owed:
                with self._change:
                    self._owed = owed + self._owed
            if not ending and time.monotonic() >= due:
                failed = self._try(self._beat) or failed
                due = time.monotonic() + (PAUSE if failed else self._beat_every)
            if failed and (ending or not away):
                later = "it comes again" if ending else "this is tried again"
                logger.warning("SQS was not told of %d messages, %s: %s", len(owed), later, failed)
            away = failed is not None
            if ending and (away or not self._owed):
                return
            if away:
                time.sleep(PAUSE)

    def _try(self, act: Callable[[], None]) -> SqsError | None:
        try:
            act()
        except SqsError as error:
            return error
        return None

    def _tell(self, owed: list[tuple[Fate, Claim]]) -> None:
        """Tell SQS what became of messages; what it was told leaves the list, so that nothing is sent twice."""
        for part in by_queue([claim for fate, claim in owed if fate is Fate.UNTOUCHED]):
            self._service.send(part[0].queue, [(claim.body, claim.failures) for claim in part])
            owed[:] = [(Fate.DONE if claim in part else fate, claim) for fate, claim in owed]
        for fate in (Fate.AGAIN, Fate.DONE):
            for part in by_queue([claim for each, claim in owed if each is fate]):
                with suppress(NoQueueError):
                    if fate is Fate.DONE:
                        self._service.delete(part)
                    else:
                        self._service.extend(part, 0)
                owed[:] = [one for one in owed if one[1] not in part]

    def _beat(self) -> None:
        """Extend all claims. What was lost, for SQS was away for too long, is not handed out: it comes again to someone."""
        with self._change:
            claims = [*self._held.values(), *self._parked, *(claim for _, claim in self._owed)]
        gone: list[Claim] = []
        for part in by_queue(claims):
            try:
                gone += self._service.extend(part, self._service.settings.visibility)
            except NoQueueError:
                gone += part
        with self._change:
            lost = [claim for claim in gone if claim.handle in self._held or claim in self._parked]
            self._parked = deque(claim for claim in self._parked if claim not in lost)
        if lost:
            logger.warning("the claims on %d messages had ended; they may be delivered twice", len(lost))
