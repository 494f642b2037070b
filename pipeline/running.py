"""A script that runs: what it is given and what it prints, line by line, and how it ended."""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from pipeline.errors import PermanentError, TemporaryError
from pipeline.units import format_duration, format_size

TRY_AGAIN: Final = 75
"""The exit code that sysexits.h calls EX_TEMPFAIL."""
PATIENCE: Final = 3.0
"""Seconds between SIGTERM and SIGKILL."""
_CHUNK: Final = 65536
_SAID: Final = 4096
"""Bytes of what a script writes to stderr that are kept, the last ones."""
_TOLD: Final = 500
"""Characters of that in an error or a line of the log."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Run:
    """A script that was started. One thread at a time may use it.

    What it prints is read only while somebody asks for it, so it cannot fill the memory. Where it prints too much it is
    ended, and `judge` says so.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        lifeline: socket.socket,
        *,
        longest: int,
        most: int | None,
        mask: Callable[[str], str],
    ) -> None:
        assert process.stdin is not None
        assert process.stderr is not None
        self.name = name
        self._process, self._lifeline, self._stdin = process, lifeline, process.stdin
        self._longest, self._most, self._mask = longest, most, mask
        self._lines: list[bytes] = []
        self._rest = self._errors = self._news = b""
        self._pending = bytearray()
        self._last = False
        self._ending = ""
        self._failure: Exception | None = None
        self._open = ExitStack()
        self._open.callback(process.wait)
        self._selector = self._open.enter_context(selectors.DefaultSelector())
        for stream in (process.stdin, process.stdout, process.stderr, lifeline):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._open.callback(stream.close)
        if process.stdout is not None:
            self._selector.register(process.stdout, selectors.EVENT_READ, self._take_output)
        self._selector.register(process.stderr, selectors.EVENT_READ, self._take_errors)
        self._selector.register(lifeline, selectors.EVENT_READ, self._take_ending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()
        self._open.close()

    def ended(self) -> bool:
        """Whether it has ended, and all that it printed was taken."""
        return not self._lines and not any(key.events & selectors.EVENT_READ for key in self._selector.get_map().values())

    def silent(self) -> bool:
        """Whether it will print nothing more, as far as is known: it has ended, or is about to."""
        return self._process.stdout not in self._selector.get_map()

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Give it input; with `last`, nothing comes behind it. It is passed on as fast as the script reads, in `read`."""
        if self._last:
            return
        self._last = last
        self._pending += data
        if self._stdin not in self._selector.get_map():
            self._selector.register(self._stdin, selectors.EVENT_WRITE, self._give_input)

    @property
    def unread(self) -> int:
        """Bytes of its input that it has not taken yet."""
        return len(self._pending)

    def read(self, within: float) -> list[bytes]:
        """Give the lines that have come, as soon as there are any; none where the seconds are over, or it has ended."""
        end = monotonic() + within
        while not self._lines and not self.ended():
            left = end - monotonic()
            self._pump(max(0.0, left))
            if left <= 0:
                break
        lines, self._lines = self._lines, []
        return lines

    def lines(self, within: timedelta) -> Iterator[bytes]:
        """Give all its lines until it ends; raises `TemporaryError` where that takes longer, else as `judge` does."""
        end = monotonic() + within.total_seconds()
        while not self.ended():
            yield from self.read(end - monotonic())
            if not self.ended() and monotonic() > end:
                self.stop()
                raise TemporaryError(f"{self.name} took longer than {format_duration(within)}{self._also_said()}")
        self.judge()

    def judge(self) -> None:
        """Return where it ended with exit code 0; raises `TemporaryError` or `PermanentError`, by how it ended."""
        if self._failure is not None:
            raise self._failure
        how, _, detail = self._ending.partition(" ")
        if how == "exit":
            if detail == "0":
                return
            kind = TemporaryError if int(detail) == TRY_AGAIN else PermanentError
            raise kind(f"{self.name} ended with exit code {detail}{self._also_said()}")
        text = {"signal": f"was ended by signal {detail}", "start": f"cannot be started: {detail}"}.get(how, "was ended")
        raise TemporaryError(f"{self.name} {text}{self._also_said()}")

    def said(self) -> str:
        """Give the end of what it wrote to stderr since this was last asked, on one line, with the values of variables masked."""
        news, self._news = self._news, b""
        return self._shown(news)

    def end(self) -> None:
        """Have it ended, with all that it started: asked first, then killed. What it still prints can be read."""
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """End it, and throw away what it still prints."""
        self.end()
        self._lines.clear()
        end = monotonic() + 2 * PATIENCE
        while not self.ended():
            self._lines.clear()
            if monotonic() > end:  # the guardian itself does not answer; what it guards ends with it
                self._process.kill()
                break
            self._pump(0.1)

    def _also_said(self) -> str:
        text = self._shown(self._errors)
        return f": {text}" if text else ""

    def _shown(self, written: bytes) -> str:
        text = self._mask(_CONTROL.sub(" ", written.decode(errors="replace")).strip())
        return text if len(text) <= _TOLD else f"…{text[-_TOLD:]}"

    def _pump(self, wait: float) -> None:
        for key, _ in self._selector.select(wait):
            key.data()

    def _taken(self, stream: Any) -> bytes:
        """Take what there is; nothing where the stream is at its end, which is noted."""
        try:
            data: bytes = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(stream)
        return data

    def _take_output(self) -> None:
        data = self._taken(self._process.stdout)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        if self._most is not None:
            self._most -= len(data)
            if self._most < 0:
                self._spoil("printed more than its `output` allows")
        if max(map(len, (*lines, self._rest))) > self._longest:
            self._spoil(f"printed a line of more than {format_size(self._longest)}")
        if self._failure is None:
            self._lines += lines

    def _take_errors(self) -> None:
        data = self._taken(self._process.stderr)
        self._errors, self._news = (self._errors + data)[-_SAID:], (self._news + data)[-_SAID:]

    def _take_ending(self) -> None:
        self._ending += self._taken(self._lifeline).decode()

    def _give_input(self) -> None:
        try:
            if self._pending:
                del self._pending[: os.write(self._stdin.fileno(), self._pending[:_CHUNK])]
        except BlockingIOError:
            return
        except OSError:  # it does not want it
            self._pending.clear()
            self._last = True
        if not self._pending:
            self._selector.unregister(self._stdin)
            if self._last:
                self._stdin.close()

    def _spoil(self, text: str) -> None:
        """End it for what it did, and throw away the rest."""
        if self._failure is None:
            self._failure = PermanentError(f"{self.name} {text}")
        self._rest = b""
        self.end()
