"""Runs one command under limits, and ends all that it has started: the process between Siftbell and a script.

`pipeline/executable.py` starts this file with arguments: the number of a socket to Siftbell, bytes of memory, seconds of
patience, and the command. It imports neither Siftbell nor a library, so that it is there in an instant.

When the socket ends, as Siftbell wants it or was killed, the command and all that descends from it is asked to end
(SIGTERM), and killed when the patience is over; so is what a command that has ended leaves behind. When nothing is left,
how it ended is written to the socket: `exit 3`, `signal 9` or `start No such file or directory`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK = 0.02
"""Seconds between two looks at what was killed and is not gone yet."""


class Guardian:
    """One command, its descendants, and how it ended."""

    def __init__(self, lifeline: int, patience: float) -> None:
        self._lifeline = lifeline
        self._patience = patience
        self._child = 0
        self._status: int | None = None
        self._woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a command puts into the background comes here when its parent ends

    def run(self, command: list[str], memory: int) -> str:
        """Run the command until it ends or is to end, and give how it did."""
        reading, writing = os.pipe()
        self._child = os.fork()
        if not self._child:
            _become(command, memory, writing)
        os.close(writing)
        refusal = os.read(reading, 1000).decode()  # empty: it was started, and the pipe closed by that
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # or the script's streams would not end with it
            os.dup2(nothing, stream)
        while self._status is None and not self._wait(None):
            self._bury()
        self._end()
        if refusal:
            return f"start {refusal}"
        status = self._status or 0
        return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"

    def _wait(self, seconds: float | None) -> bool:
        """Wait until a process ended, or Siftbell has had enough: True."""
        ready, _, _ = select.select([self._lifeline, self._woken], [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, 1000)
        return self._lifeline in ready

    def _bury(self) -> bool:
        """Take note of what ended; False where nothing is left."""
        with suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if not process:
                    return True
                if process == self._child:
                    self._status = status
        return False

    def _end(self) -> None:
        if not self._bury():
            return
        self._signal(signal.SIGTERM)
        end = time.monotonic() + self._patience
        while self._bury() and time.monotonic() < end:
            select.select([self._woken], [], [], _LOOK)
        while self._bury():
            self._signal(signal.SIGKILL)
            time.sleep(_LOOK)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child, number)
        for process in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)


def _become(command: list[str], memory: int, writing: int) -> NoReturn:
    """Become the command, in a session of its own; what hinders that is written to the pipe."""
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        # What is written to counts, not what is reserved, of which Node.js and Go take gigabytes at once.
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.execve(command[0], command, os.environ)  # noqa: S606 - no shell is what is wanted
    except (OSError, ValueError) as error:
        os.write(writing, str(getattr(error, "strerror", None) or error).encode())
    finally:
        os._exit(127)


def _children() -> list[int]:
    """Give the processes whose parent this one is; where the system does not tell, none."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
            return [int(number) for number in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    number, bytes_of_memory, seconds, *words = sys.argv[1:]
    os.set_inheritable(int(number), False)
    ending = Guardian(int(number), float(seconds)).run(words, int(bytes_of_memory))
    with suppress(OSError):  # nobody wants to know
        os.write(int(number), ending.encode())
