"""Where a benchmark runs: its directory, its own servers, Siftbell's trees and the yardsticks' programs, all on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

from harness import processes
from harness.processes import descendants
from harness.servers import Postgres, RabbitMQ, Redis, Server, free_port, listens

from pipeline.cli.tree import Tree

T = TypeVar("T")

REPOSITORY: Final = Path(__file__).parent.parent
LOOK: Final = 0.01
"""Seconds between two looks at something that is waited for."""
_KINDS: Final[Mapping[str, type[Server]]] = {"redis": Redis, "rabbitmq": RabbitMQ, "postgres": Postgres}


class Workplace:
    """A directory, and the servers that measures share: each is started when a measure first asks for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._servers: dict[str, Server] = {}
        self._names = 0
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o711)  # PostgreSQL runs as a user of its own and has to get through to its files

    def server(self, kind: str) -> Server:
        """Give the server `redis`, `rabbitmq` or `postgres`, running. `url(server.port)` is its URL."""
        if kind not in self._servers:
            server = _KINDS[kind](self.new(kind))  # what an earlier one of the kind had left would be work for the next measure
            server.prepare()
            server.start()
            self._servers[kind] = server
        return self._servers[kind]

    def stop(self, kind: str) -> None:
        """End a server that no later measure needs: what it does beside another measure would count against that."""
        if server := self._servers.pop(kind, None):
            server.kill()

    def close(self) -> None:
        """End all servers."""
        for kind in list(self._servers):
            self.stop(kind)

    def new(self, name: str) -> Path:
        """Give a new, empty directory."""
        self._names += 1
        made = self.directory / f"{self._names:03d}-{name}"
        made.mkdir()
        return made

    @contextmanager
    def tree(self, place: Path, config: str, environment: Mapping[str, str] | None = None) -> Iterator[Tree]:
        """Run `siftbell run` with one pipeline's file, as anybody starts it; ends when left.

        `environment` adds to the process's own: SIFTBELL_BROKER, SIFTBELL_STORE and so on.
        """
        configs = place / "configs"
        configs.mkdir(exist_ok=True)
        (configs / "bench.yaml").write_text(config)
        settings = {"SIFTBELL_CONFIG": str(configs), "SIFTBELL_DATA": str(place / "data"), "SIFTBELL_PORT": str(free_port())}
        settings["SIFTBELL_PRIVATE_NETWORKS"] = "127.0.0.1"
        own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
        with Tree(place / "tree.log", own | settings | dict(environment or {}), directory=place) as tree:
            yield tree


class Program:
    """A yardstick's process in a session of its own. Use it as a context manager; it is ended by its id, with its children."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._directory = directory
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """All its processes, parents first."""
        return descendants(self.pid)

    def __enter__(self) -> Self:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self._environment},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for pid in self.pids:
            os.kill(pid, number)


def python(module: str, *arguments: str) -> list[str]:
    """Give the command that runs one of our modules under this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def until(condition: Callable[[], T], what: str, within: float = 120.0, *, look: float = LOOK) -> T:
    """Look again and again until something is true, and give it; raises `TooLateError`."""
    return processes.until(condition, what, within, look=look)


def until_listens(port: int, what: str, within: float = 60.0) -> None:
    """Wait until something takes connections on a port of loopback."""
    until(lambda: listens(port), f"{what} listens", within)


class Lines:
    """Counts the lines of a file that grows, reading each byte once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._count = 0

    def count(self) -> int:
        """Give the number of whole lines there are by now."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while read := file.read(1 << 20):
                    self._offset += len(read)
                    self._count += read.count(b"\n")
        except FileNotFoundError:
            return 0
        return self._count
