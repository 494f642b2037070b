"""A `siftbell run` that another process starts, waits for and ends: the demo's, and the tests'."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from pipeline.cli.failures import Failure
from pipeline.cli.supervisor import PARENT_PIPE

READY_WITHIN: Final = 60.0
STOPS_WITHIN: Final = 90.0


class Tree:
    """A process tree in a session of its own, which ends with the process that started it. Use it as a context manager.

    `ready` holds what `run -o json` says when it is ready: url, key, data, pid, pipelines and curl. What the tree logs
    is appended to `log`.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], arguments: Sequence[str] = (), *, directory: Path) -> None:
        self.log = log
        self.ready: dict[str, Any] = {}
        self.seconds = 0.0
        """How long it took to be ready."""
        self._environment = environment
        self._command = [sys.executable, "-m", "pipeline.cli", "run", "--output", "json", *arguments]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[int, int] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None
        return self._process

    def __enter__(self) -> Self:
        began = monotonic()
        self._pipe = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                env={**self._environment, PARENT_PIPE: str(self._pipe[0])},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(self._pipe[0],),
                start_new_session=True,
            )
        try:
            self.ready = json.loads(self._first_line(began + READY_WITHIN))
        except BaseException:
            self.process.kill()
            self._close()
            raise
        self.seconds = monotonic() - began
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._close()

    def stop(self) -> int:
        """Have it finish what is under way, and give its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """Give the end of what it logged."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _first_line(self, end: float) -> bytes:
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0.0, end - monotonic()))[0]:
                raise Failure(f"not ready within {READY_WITHIN:.0f} s; its log ends with\n{self.log_tail()}")
            if not (read := os.read(self.process.stdout.fileno(), 65536)):
                raise Failure(f"it ended with exit code {self.process.wait()}; its log ends with\n{self.log_tail()}")
            line += read
        return line

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None
