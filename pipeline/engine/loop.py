"""The worker process's one event loop, in a thread of its own, on which all `async def` consumers run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_starting = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    """Give this process's loop; started at the first call, keyed by pid because a fork does not take threads along."""
    pid = os.getpid()
    if (found := _loops.get(pid)) is not None:
        return found
    with _starting:
        if pid not in _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="consumers", daemon=True).start()
            _loops[pid] = loop
        return _loops[pid]


def run_on_loop(work: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
    """Run a coroutine on the process's loop and give its result; may be called from any thread but the loop's own."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result(timeout)
    except TimeoutError:
        future.cancel()
        raise


def _reset_after_fork() -> None:
    global _starting  # noqa: PLW0603 - a lock that another thread held at the fork would stay held for ever in the child
    _starting = threading.Lock()


os.register_at_fork(after_in_child=_reset_after_fork)
