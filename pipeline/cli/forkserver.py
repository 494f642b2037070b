"""The fork server: a process that has imported what all parts of a tree need, and from which they are forked (Linux).

It has one thread, no socket but the one to its supervisor, and nothing of the configuration: what a part knows, it has read
itself. A part is a child of the supervisor's as it would be without, for it is forked twice over: whose parent has ended
belongs to the supervisor, which has made itself the reaper of its descendants. The server may die, then: parts go on
running, and those that are started later are started as commands.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from pipeline.cli.parts import STDERR, Launching, Part, Running
from pipeline.processes import adopt_orphans, die_with_parent, name_process

log = structlog.get_logger()

FORKS: Final = sys.platform == "linux"
"""Whether there can be one: elsewhere nobody can adopt, and macOS's own libraries do not survive a fork."""
ANSWERS_WITHIN: Final = 10.0
_LONGEST: Final = 1 << 17
_MOST: Final = 16
"""File descriptors that a part can inherit."""


class ForkServer:
    """Forks the server off this process, which must have one thread only, and asks it for parts.

    `main` is called in each part with its arguments, and what it raises, SystemExit as a rule, ends the part. `close` is
    called in the server: what of this process's is open must not stay open there. `otherwise` starts parts where the
    server cannot.
    """

    def __init__(self, main: Callable[[Sequence[str]], None], *, close: Callable[[], None], otherwise: Launching) -> None:
        self._otherwise = otherwise
        self._lock = asyncio.Lock()
        self._running: dict[int, _Forked] = {}
        self._groups: set[int] = set()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            close()
            arguments = _serve(theirs)
            main(arguments)
            sys.exit(0)
        theirs.close()
        ours.setblocking(False)
        self._control: socket.socket | None = ours
        adopt_orphans()

    async def launch(self, part: Part) -> Running:
        """Start a part."""
        async with self._lock:
            pid = await self._fork(part)
        if pid is None:
            return await self._otherwise.launch(part)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        forked = self._running[pid] = _Forked(pid)
        self._reap()  # it may have ended before anybody looked
        return forked

    def close(self) -> None:
        """End the server; parts go on running."""
        if self._control is not None:
            self._control.close()
            self._control = None
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    async def _fork(self, part: Part) -> int | None:
        """Have the server fork a part, and give its process id; None where there is no server any more."""
        if self._control is None:
            return None
        request = json.dumps([list(part.arguments), dict(part.environment), list(part.inherited)]).encode()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                socket.send_fds(self._control, [request], list(part.inherited.values()))
                answer = await asyncio.get_running_loop().sock_recv(self._control, _LONGEST)
        except (OSError, TimeoutError) as error:
            answer = type(error).__name__.encode()
        if answer.isdigit():
            return int(answer)
        log.warning("the fork server is gone; parts are started as commands", error=answer.decode() or "ended")
        self.close()
        return None

    def _reap(self) -> None:
        """Take note of parts that have ended, and of what they had left behind."""
        for pid, forked in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[pid]
                forked.end(os.waitstatus_to_exitcode(status))
                self._groups.add(pid)
        for group in list(self._groups):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                self._groups.discard(group)


class _Forked:
    """A part that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        return self._code.result() if self._code.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._code)

    def send_signal(self, number: int, /) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def end(self, code: int) -> None:
        self._code.set_result(code)


def _serve(control: socket.socket) -> list[str]:
    """Fork parts until the supervisor is gone. Returns in each part, with its arguments."""
    os.setsid()  # a terminal's Ctrl-C is for the supervisor
    die_with_parent()
    name_process("fork server")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _LONGEST, _MOST)
        if not request:
            os._exit(0)
        arguments, environment, variables = json.loads(request)
        if _forked(control):
            control.close()
            _begin()
            os.environ.update(environment)
            os.environ.update(zip(variables, map(str, descriptors), strict=True))
            return list(arguments)
        for descriptor in descriptors:
            os.close(descriptor)


def _forked(control: socket.socket) -> bool:
    """Fork a process that is the supervisor's child, which tells the supervisor its id. Gives True in that process.

    It goes ahead once it is the supervisor's: the kernel is to kill it when that one dies, and not the process between.
    """
    reading, writing = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        between, status = -1, error.errno
    if not between:
        os.close(writing)
        return _grandchild(control, reading)
    os.close(reading)
    if between > 0:
        _, status = os.waitpid(between, 0)
    os.close(writing)
    if status:
        control.send(b"no process could be forked")
    return False


def _grandchild(control: socket.socket, until_adopted: int) -> bool:
    """Fork once more, and end. Gives True in the new process, once this one's end has been seen."""
    try:
        child = os.fork()
    except OSError:
        os._exit(1)
    if child:
        os._exit(0)
    os.read(until_adopted, 1)  # nothing is ever written: it returns when the server has closed the other end
    os.close(until_adopted)
    os.setsid()  # before anybody knows of it: it is ended as a group
    control.send(str(os.getpid()).encode())
    return True


def _begin() -> None:
    """Make this process one of its own, as a command would be."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(STDERR, 1)
