"""A suspected batch's trial: `python -m pipeline.queue.trial` runs it in child processes, and sees which message kills them.

Only what this process survives counts: when the worker is killed, the trial dies with it and has proven nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import structlog

from pipeline.engine.assembly import load_configuration, make_runner
from pipeline.engine.batch import Batch, decode
from pipeline.engine.runner import DEATHS_BEFORE_BURIAL, Runner
from pipeline.message import Message
from pipeline.processes import die_with_parent
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.suspects import AGAIN
from pipeline.settings import Settings
from pipeline.telemetry import configure_logging

log = structlog.get_logger()


class Trial:
    """Runs parts of a batch, each in a child of its own. `make` gives a runner, and is called in the children only."""

    def __init__(self, make: Callable[[], Runner]) -> None:
        self._make = make

    def judge(self, batch: Batch) -> int:
        """Run the batch; the parts that kill their children in halves, until what kills stands alone and is buried.

        Gives 0 when every message has been dealt with, `AGAIN` when one was not because the store or the queue is away.
        """
        parts: list[Sequence[Message]] = [batch.messages]
        while parts:
            part = parts.pop()
            one = batch.replace(messages=list(part), deaths=0)
            code = self._survived(one) if len(part) > 1 else self._alone(one)
            if code == AGAIN:
                return AGAIN
            if code:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        return 0

    def _alone(self, one: Batch) -> int:
        """Run a message by itself; bury it when that killed the child each time. Gives 0 or `AGAIN`."""
        for _ in range(DEATHS_BEFORE_BURIAL):
            code = self._survived(one)
            if code in {0, AGAIN}:
                return code
        guilty = one.replace(deaths=DEATHS_BEFORE_BURIAL - 1)
        return AGAIN if _in_child(lambda: self._make().lost(guilty)) else 0

    def _survived(self, part: Batch) -> int:
        code = _in_child(lambda: self._run(part))
        if code not in {0, AGAIN}:
            log.error("a child died over a batch that is run apart", messages=len(part.messages), code=code)
        return code

    def _run(self, part: Batch) -> None:
        runner = self._make()
        runner.run(part)
        runner.pipelines.close()


def _in_child(work: Callable[[], None]) -> int:
    """Do something in a fork; give 0 when it returned, `AGAIN` when it raised, else how the child died."""
    sys.stderr.flush()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = os.EX_SOFTWARE  # of a SystemExit in a plugin: it would have ended the worker
    try:
        die_with_parent()
        work()
        code = 0
    except Exception:
        log.exception("a batch that is run apart goes back to its queue")
        code = AGAIN
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Judge the batch on stdin; the settings are the environment's."""
    die_with_parent()
    settings = Settings()
    configure_logging(settings.log_level, settings.log_format, part="trial")
    configuration = load_configuration(settings)
    batch = decode(sys.stdin.buffer.read())
    return Trial(lambda: make_runner(settings, configuration, CeleryQueue.from_settings(settings))).judge(batch)


if __name__ == "__main__":
    sys.exit(main())
