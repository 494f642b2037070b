"""A bare Celery task, and who calls it when it is due. The worker: `celery -A benchmarks.yardsticks.bare_task worker`.

The caller: `python -m benchmarks.yardsticks.bare_task RATE SECONDS`; rate 0 is a flood. All settings are Celery's defaults.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from celery import Celery

from benchmarks.moments import OUTSTANDING, Stamps, count, schedule
from benchmarks.work import alert

FILE: Final = Path(os.environ["BARE_FILE"])
"""Where the moments go."""

app = Celery("bare", broker=os.environ["BARE_BROKER"])
app.conf.update(task_ignore_result=True)

_opened: dict[int, Stamps] = {}


@app.task(name="stamp")  # its module is __main__ to who calls it
def stamp(message: dict[str, Any]) -> None:
    """Note that the message is here."""
    pid = os.getpid()
    if pid not in _opened:
        _opened[pid] = Stamps(FILE)
    _opened[pid].came(int(message["key"], 16))


def call(number: int, due: int) -> None:
    """Publish the task with an alert that says when it was due."""
    stamp.apply_async((alert(number) | {"key": f"{due:016x}"},))


def steadily(rate: float, seconds: float) -> int:
    """Publish each task when it is due, or as soon after as the ones before it let it; gives how many."""
    number = 0
    for number, due in enumerate(schedule(rate, seconds), 1):
        if (left := due - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        call(number, due)
    return number


def flood(seconds: float) -> int:
    """Publish as many as are worked off; gives how many."""
    before, number = count(FILE), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        while number - (count(FILE) - before) < OUTSTANDING:
            number += 1
            call(number, time.monotonic_ns())
        time.sleep(0.0005)
    return number


if __name__ == "__main__":
    rate, seconds = map(float, sys.argv[1:])
    print(steadily(rate, seconds) if rate else flood(seconds))
