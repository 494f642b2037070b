"""The filters of a pipeline called one after the other in a plain loop: `python -m benchmarks.yardsticks.loop COUNT`.

No queue, no records, nothing to be lost: the plugins are those of the pipeline's file, made as Siftbell makes them, and the
messages are in memory. Settings come from the environment, as for `siftbell`. Prints a JSON object: seconds and CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from benchmarks.siftbell import PIPELINE, as_message
from pipeline.engine.assembly import load_configuration
from pipeline.engine.pipeline import Pipelines
from pipeline.message import Message
from pipeline.plugin import Filter
from pipeline.settings import Settings

WARM_UP = 2_000


def filtered(filters: Sequence[Filter[Any]], messages: Sequence[Message]) -> list[Message]:
    """Give what is left of messages behind the filters."""
    left: list[Message] = []
    for message in messages:
        passed: list[Any] = [message]  # what is dropped, and why, is not looked at: nothing is
        for plugin in filters:
            passed = [out for one in passed for out in plugin.filter(one)]
        left += passed
    return left


def main(count: int) -> dict[str, float]:
    """Filter this many messages, and give how long it took."""
    pipelines = Pipelines(load_configuration(Settings()))
    pipeline = pipelines[PIPELINE]
    filters = [cast("Filter[Any]", pipeline.filter_plugin(step)) for step in pipeline.spec.filters]
    messages = [as_message(number) for number in range(count)]
    filtered(filters, messages[:WARM_UP])
    began, cpu = time.perf_counter(), time.process_time()
    left = filtered(filters, messages)
    taken = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    if len(left) != count:
        raise RuntimeError(f"{count - len(left)} messages were dropped, which the measure does not allow for")
    return taken


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
