"""Batches that may have killed a whole worker: how that is known, and how their trial is held."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import structlog

from pipeline.engine.batch import Batch, encode
from pipeline.engine.joined import joined
from pipeline.engine.runner import Runner
from pipeline.errors import TemporaryError
from pipeline.settings import Settings

log = structlog.get_logger()

STARTS_BEFORE_TRIAL: Final = 3
"""A redelivered batch that is started so often, with no end to the starts before, is tried in processes of its own.
The first start of all is not counted: it costs the batches that never come again nothing."""
REMEMBERED: Final = timedelta(days=1)
TRIALS: Final = threading.BoundedSemaphore(2)
"""Trials at once in one process of a worker: each is an interpreter of its own."""
AGAIN: Final = os.EX_TEMPFAIL
"""A trial's exit code when the store or the queue was away: the batch goes back."""
PAUSE: Final = 2.0
"""Seconds between a witness's death and what follows from it: who kills all our processes at once, kills this one too by then."""

Try = Callable[[bytes], int]
"""Holds a batch's trial; gives the exit code: 0, less where a signal ended the witness, more where nothing was found out."""


def trial(settings: Settings) -> Try:
    """Give what holds a trial in another process (`pipeline.queue.trial`), with these settings."""

    def run(text: bytes) -> int:
        with TRIALS:
            witness = subprocess.run(
                [sys.executable, "-m", "pipeline.queue.trial"],
                input=text,
                env={**os.environ, **settings.environment()},
                stdout=2,  # a worker's own output is nobody's data
                start_new_session=True,  # a message that kills its process group spares the worker
                check=False,
            )
        return witness.returncode

    return run


def work(runner: Runner, request: Any, texts: Sequence[bytes], hold_trial: Try | None) -> None:
    """Run a batch and its company as one, or hold a trial. Raises only when nothing may be acknowledged."""
    batches = [batch for text in texts if (batch := runner.read(text)) is not None]
    if not batches:
        return
    batch = joined(batches)
    if hold_trial is not None and batch.deaths:
        _judge(runner, batch, hold_trial)
    elif hold_trial is None or not came_before(request):
        runner.run(batch)
    else:
        with _counted(runner, request.id) as starts:
            if starts < STARTS_BEFORE_TRIAL:
                runner.run(batch)
            else:
                log.error("workers died over a batch, or were killed; it is run apart", task=request.id, starts=starts)
                _judge(runner, batch, hold_trial)


def _judge(runner: Runner, batch: Batch, hold_trial: Try) -> None:
    code = hold_trial(encode(batch))
    if code > 0:
        raise TemporaryError("the store or the queue was away while a batch was run apart")
    if code < 0:  # a signal: not even the witness survived
        time.sleep(PAUSE)
        runner.lost(batch)


def came_before(request: Any) -> bool:
    """Say whether the broker delivered a batch before; takes a request, or what Celery keeps of it."""
    info = request.get("delivery_info") or {}
    return bool(info.get("redelivered") or request.get("x-delivery-count"))


@contextmanager
def _counted(runner: Runner, name: str) -> Iterator[int]:
    """Count this start, and take it back when it ends in whatever way: what stays are starts that a death ended."""
    memory = runner.memory.scoped("", "starts")
    try:
        starts = memory.count(name, REMEMBERED)
    except TemporaryError as away:
        log.warning("a start cannot be counted", task=name, error=str(away))
        yield 0
        return
    try:
        yield starts
    finally:
        try:
            memory.forget(name)
        except TemporaryError as away:
            log.warning("a start is counted that ended well", task=name, error=str(away))
