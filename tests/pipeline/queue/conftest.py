"""Real workers on real brokers: a directory with plugins that hang and kill, and workers that are started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from pipeline import Message
from pipeline.engine.batch import Batch
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings
from pipeline.store import Store

PLUGINS = '''
"""Consumers that hang, dawdle and kill."""
import os, signal, time
from pathlib import Path
from pipeline import Config, Consumer, Message

class Options(Config):
    """Where to write."""
    path: Path
    seconds: float = 0

def note(path, message):
    with path.open("a") as file:
        file.write(message.title + "\\n")

class Slow(Consumer[Options]):
    """Takes its time; a message `poison` kills its process, `parent` its process's parent."""

    def consume(self, message: Message) -> None:
        """Kill, or note."""
        if message.title == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if message.title == "parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        note(self.config.path.with_suffix(".begun"), message)
        time.sleep(self.config.seconds)
        note(self.config.path, message)
'''


@dataclass
class Place:
    """A directory with pipelines, a store and a queue."""

    root: Path
    settings: Settings
    store: Store
    queue: CeleryQueue

    def deliver(self, step: str, messages: list[Message], *, in_a_batch: int = 10) -> None:
        """Queue messages for a consumer."""
        parts = [messages[start : start + in_a_batch] for start in range(0, len(messages), in_a_batch)]
        self.queue.publish([Batch(job="deliver", queue=f"out.{step}", pipeline="a", step=step, messages=part) for part in parts])

    def lines(self, name: str) -> list[str]:
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []

    def delivered(self, step: str) -> int:
        return sum(count for (_, at, outcome), count in self.store.counts().items() if (at, outcome) == (step, "delivered"))

    def worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.root / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "worker", *arguments],
                env=os.environ | self.settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self.root / "worker.log").read_text()


def messages(titles: list[str]) -> list[Message]:
    when = datetime(2026, 3, 1, tzinfo=UTC)
    return [Message(source="t", time=when, title=title) for title in titles]


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """End a worker with its children, which are of its session."""
    if process.poll() is None:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    process.wait(60)


class Restarted:
    """A worker that is started again whenever it dies, as a supervisor does."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.starts = 0
        self._start = start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.starts += 1
            process = self._start()
            while process.poll() is None and not self._stop.wait(0.1):
                pass
            end(process)


class Proxy:
    """Forwards to a URL's host and port; `url` leads through it."""

    def __init__(self, url: str, port: int) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        own = f"127.0.0.1:{self._listening.getsockname()[1]}"
        login = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{login}@{own}" if login else own).geturl()
        self.flowing = threading.Event()
        self.flowing.set()
        self.delay = 0.0
        """Seconds by which each piece of an answer is late."""
        self.accepted = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def answer(self, piece: bytes) -> None:
        """Send something to the last who connected, as if it came from the server."""
        self._sockets[-2].sendall(piece)

    def close(self) -> None:
        self.flowing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.accepted += 1
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, drain: socket.socket, answers: bool) -> None:
        with source, contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self.flowing.wait()
                if answers:
                    time.sleep(self.delay)
                drain.sendall(piece)
        with contextlib.suppress(OSError):
            drain.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(consumers: dict[str, float], *, broker: str | None = None) -> Place:
        configs = tmp_path / "configs"
        (configs / "plugins").mkdir(parents=True)
        (configs / "plugins" / "slow.py").write_text(PLUGINS)
        steps = "".join(
            f"  - slow: {{path: {json.dumps(str(tmp_path / name))}, seconds: {seconds}}}\n    as: {name}\n"
            for name, seconds in consumers.items()
        )
        (configs / "a.yaml").write_text(f"name: a\nproducers: [http]\nconsumers:\n{steps}")
        settings = Settings(config=(configs,), data=tmp_path / "data", broker=SecretStr(broker) if broker else None)
        settings.data.mkdir()
        store = Store(settings.store_url)
        store.migrate()
        made.append(Place(tmp_path, settings, store, CeleryQueue.from_settings(settings)))
        return made[-1]

    yield make
    for one in made:
        one.queue.close()
        one.store.close()


@pytest.fixture
def text_messages() -> Callable[[list[str]], list[Message]]:
    return messages


@pytest.fixture
def ending() -> Callable[..., None]:
    return end


@pytest.fixture
def restarted() -> type[Restarted]:
    return Restarted


@pytest.fixture
def new_proxy() -> Iterator[Callable[[str, int], Proxy]]:
    made: list[Proxy] = []

    def make(url: str, port: int) -> Proxy:
        made.append(Proxy(url, port))
        return made[-1]

    yield make
    for one in made:
        one.close()
