"""What a part of the supervised tree does so that it does not outlive its supervisor."""

from __future__ import annotations

import os
import signal
import threading

from pipeline.cli.supervisor import PARENT_PIPE
from pipeline.processes import die_with_parent


def end_with_supervisor() -> None:
    """Have this process and those it starts end when the supervisor is gone; nothing where none started it.

    Twice over: by the kernel, at once, where it can (Linux), and by a pipe whose other end only the supervisor holds.
    """
    number = os.environ.pop(PARENT_PIPE, None)
    if number is None:
        return
    die_with_parent()
    threading.Thread(target=_until_gone, args=(int(number),), name="supervisor", daemon=True).start()


def _until_gone(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: it returns when the last writer is gone
    os.killpg(0, signal.SIGKILL)  # what was under way is on the queue still
