"""Redis servers of our own, that can be frozen, killed and filled, and workers on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import kombu
import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from pipeline.queue import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEAT = 0.25
"""Seconds between signs of life where a test waits for a death: six of them are 1.5 s."""

APP = """
import os, time
from celery import Celery
from pipeline.queue import redis

redis.register()
app = Celery("app", broker=os.environ["BROKER"], set_as_current=False, autofinalize=True)
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4)
app.conf.update(broker_connection_retry_on_startup=True, broker_connection_max_retries=None)

@app.task(name="mark", shared=False)
def mark(number, pause=0.0):
    note("begin", number)
    time.sleep(pause)
    note("end", number)

def note(word, number):
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word} {number}\\n".encode())
    os.close(descriptor)
"""


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class Server:
    """A Redis server in a directory; with `durable`, it keeps its data over a restart."""

    def __init__(self, program: str, directory: Path, *, durable: bool = False) -> None:
        self._command = [program, "--dir", str(directory), "--save", "", "--bind", "127.0.0.1"]
        self._command += ["--appendonly", "yes" if durable else "no", "--logfile", str(directory / "redis.log")]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.client: Any = Redis(port=self.port, socket_timeout=20)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen([*self._command, "--port", str(self.port)])
        until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def url(self, database: int = 0, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in {"beat": BEAT, **options}.items())
        return redis.url(f"redis://127.0.0.1:{self.port}/{database}?{query}")

    def claimed(self) -> int:
        return sum(self.client.hlen(key) for key in self.client.keys("siftbell:queue:claims:*"))

    def ready(self, queue: str = "q") -> int:
        return int(self.client.llen(f"siftbell:{queue}"))

    def owners(self) -> int:
        return int(self.client.hlen("siftbell:queue:owners"))


@pytest.fixture(scope="session")
def _program(require_binary: Callable[[str, str], str]) -> str:
    return require_binary("redis-server", "redis-server")


@pytest.fixture(scope="module")
def _shared(_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(_program, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
    server.client.close()


@pytest.fixture
def server(_shared: Server) -> Server:
    """An empty server, which a test leaves running."""
    redis.register()
    _shared.client.flushall()
    return _shared


@pytest.fixture
def new_server(_program: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes a server that a test may freeze and kill."""
    redis.register()
    made: list[Server] = []

    def make(*, durable: bool = True) -> Server:
        made.append(Server(_program, tmp_path, durable=durable))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one.client.close()


@pytest.fixture
def connect() -> Iterator[Callable[[str], kombu.Connection]]:
    """Opens connections to URLs; all are closed at the test's end."""
    made: list[kombu.Connection] = []

    def open_(url: str) -> kombu.Connection:
        made.append(kombu.Connection(url))
        return made[-1]

    yield open_
    for one in made:
        one.release()


class Place:
    """A directory with an app, its broker and what its tasks have noted."""

    def __init__(self, directory: Path, url: str) -> None:
        (directory / "redis_test_app.py").write_text(APP)
        self.directory = directory
        self.notes = directory / "notes"
        self.app = Celery("client", broker=url, set_as_current=False, autofinalize=True)
        self.environment = os.environ | {"BROKER": url, "NOTES": str(self.notes)}

    def send(self, numbers: range, pause: float = 0.0) -> None:
        with self.app.producer_or_acquire() as producer, producer.batch():
            for number in numbers:
                self.app.send_task("mark", args=[number, pause], producer=producer)

    def noted(self, word: str = "end") -> Counter[int]:
        text = self.notes.read_text() if self.notes.exists() else ""
        lines = (line.split() for line in text.splitlines())
        return Counter(int(number) for said, number in lines if said == word)

    def start(self, *arguments: str, name: str = "one") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "redis_test_app", "worker", "-n", name, "-l", "info"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", *arguments]
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.directory, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    @contextmanager
    def worker(self, *arguments: str, name: str = "one") -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(*arguments, name=name)
        try:
            yield process
        finally:
            self.kill(process)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a worker and its children at once."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str = "one") -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    made: list[Place] = []

    def make(url: str) -> Place:
        made.append(Place(tmp_path, url))
        return made[-1]

    yield make
    for one in made:
        one.app.close()


@pytest.fixture
def wait() -> Callable[..., None]:
    """Waits until a condition holds."""
    return until
