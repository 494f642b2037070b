"""Puts chains on the queue: `python -m benchmarks.yardsticks.fill FROM COUNT`."""

from __future__ import annotations

import sys

from benchmarks.work import alert
from benchmarks.yardsticks.chain import steps

if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    for number in range(first, first + count):
        steps(alert(number)).apply_async()
