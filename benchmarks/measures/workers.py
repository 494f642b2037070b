"""More workers deliver more: one, two, four and eight against a sink that takes its time, on Redis."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar, Final

from benchmarks.delivering import filled
from benchmarks.measure import Figures, Measure, Target
from benchmarks.sink import sink
from benchmarks.workplace import until

WAIT: Final = 0.2
"""Seconds that the sink takes: one worker makes 250 deliveries a second then, and eight leave a processor time to spare."""
SECONDS: Final = 2.0
AT_ONCE: Final = 50
"""The default of a consumer's `concurrency:`."""
ENOUGH: Final = 3_500
"""Messages for each worker: what it takes in advance, and what it delivers meanwhile."""


def _target(count: int) -> Target:
    return Target(
        measure=f"deliveries/s with {count} workers to a sink that takes 200 ms a request, Redis",
        yardstick=f"{count} times those with one worker",
        at_least=0.9,
        aim=0.95,
    )


class Workers(Measure):
    """What arrives at the sink in a stretch of time in which all workers are at work and the queue holds enough.

    Each worker is `siftbell worker --only deliveries` with its defaults; all have one Redis and one store. In a round there
    are two at first, then four, then eight.
    """

    name = "workers"
    targets: ClassVar = {"2": _target(2), "4": _target(4), "8": _target(8)}

    def prepare(self, closing: ExitStack) -> None:
        """Start the broker."""
        assert self.place.server("redis").pids
        closing.callback(self.place.stop, "redis")

    def siftbell(self) -> Figures:
        """Give deliveries a second of several workers."""
        return self._rates([int(name) for name in self.targets])

    def yardstick(self) -> Figures:
        """Give those of one worker, as many times."""
        (alone,) = self._rates([1]).values()
        return {name: int(name) * alone for name in self.targets}

    def _rates(self, counts: Sequence[int]) -> Figures:
        """Give deliveries a second by the number of workers, more and more of them.

        All are at work as soon as as many requests wait as they may have under way together.
        """
        place = self.place.new(f"{self.name}-{counts[-1]}")
        seconds = max(4 * WAIT, SECONDS * self.scale)
        rates = {}
        with sink(place, wait=WAIT) as service, filled(self.place, place, service) as queue, ExitStack() as running:
            queue.fill(sum(counts) * ENOUGH)
            there = 0
            for count in counts:
                running.enter_context(queue.workers(count - there))
                there = count
                until(lambda: service.open >= there * AT_ONCE, "all workers are at work")  # noqa: B023 - called at once
                time.sleep(2 * WAIT)
                before, began = service.count, time.monotonic()
                time.sleep(seconds)
                rates[str(count)] = (service.count - before) / (time.monotonic() - began)
        return rates
