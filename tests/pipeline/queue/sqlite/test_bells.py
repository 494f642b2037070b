"""The bell of the SQLite transport: who waits is woken, who is gone is forgotten, and without it all goes on more slowly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import kombu
import pytest
from kombu.asynchronous import Hub

from pipeline.queue.sqlite import transport
from pipeline.queue.sqlite.bells import Bell, ring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANGS = """
import sys, time
from pathlib import Path
from pipeline.queue.sqlite.bells import Bell
bell = Bell.hung(Path(sys.argv[1]))
print("hung", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def bell(path: Path) -> Iterator[Bell]:
    bell = Bell.hung(path)
    assert bell is not None
    yield bell
    bell.close()


def pipes(path: Path) -> int:
    return len(list(path.with_name("queue.db-bells").iterdir()))


def connect(path: Path, **options: object) -> kombu.Connection:
    return kombu.Connection(transport="pipeline.queue.sqlite:Transport", transport_options={"path": str(path), **options})


def put(connection: kombu.Connection, *bodies: object) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key="q")


def test_it_is_heard_once_by_those_who_wait_for_the_queue(bell: Bell, path: Path) -> None:
    assert not bell.heard(["q"])
    ring(path, {"q", "other"})
    ring(path, {"q"})
    assert bell.heard(["q"])
    assert not bell.heard(["q"])
    ring(path, {"q"})
    assert not bell.heard(["another"])
    assert not bell.heard(["q"])


def test_one_that_nobody_hears_is_never_waited_for(bell: Bell, path: Path) -> None:
    for _ in range(100_000 // 256):
        ring(path, {str(number) for number in range(2000)})  # a pipe holds 64 KiB
    assert bell.heard(["q"])


def test_who_was_killed_is_rung_once_more(bell: Bell, path: Path) -> None:
    command = [sys.executable, "-c", HANGS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert pipes(path) == 2
        process.send_signal(signal.SIGKILL)
    ring(path, {"q"})
    assert pipes(path) == 1
    assert bell.heard(["q"])


def test_a_child_does_not_take_its_parents_down(bell: Bell, path: Path) -> None:
    if (child := os.fork()) == 0:
        bell.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert pipes(path) == 1


def test_a_place_that_can_have_none_has_none(path: Path) -> None:
    path.with_name("queue.db-bells").write_text("")
    assert Bell.hung(path) is None
    ring(path, {"q"})


class Worker:
    """A connection on an event loop of its own."""

    def __init__(self, connection: kombu.Connection) -> None:
        self.hub = Hub()
        self.got: list[Any] = []
        self.queue = kombu.Queue("q")
        self.consumer = connection.Consumer([self.queue], on_message=self._take)
        self.consumer.consume()
        connection.transport.register_with_event_loop(connection.connection, self.hub)

    def _take(self, message: Any) -> None:
        self.got.append(message.payload)
        message.ack()

    def until(self, count: int) -> None:
        while len(self.got) < count:
            self.hub.run_once()


def test_nothing_that_is_there_waits_for_the_next_poll(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "WHERE_IT_RINGS", 1_000_000)
    with connect(path) as sender, connect(path) as connection:
        put(sender, *range(3 * transport.BATCH))
        worker = Worker(connection)
        try:
            worker.until(3 * transport.BATCH)
            for number in range(100, 105):
                put(sender, number)
                worker.until(len(worker.got) + 1)
            worker.consumer.cancel_by_queue("q")
            put(sender, 200)
            worker.hub.run_once()
            worker.consumer.add_queue(worker.queue)
            worker.consumer.consume()
            worker.until(3 * transport.BATCH + 6)
        finally:
            worker.hub.close()
        assert worker.got == [*range(3 * transport.BATCH), *range(100, 105), 200]
        connection.transport.unregister_from_event_loop(connection.connection, worker.hub)
        assert pipes(path) == 0


def test_without_a_bell_messages_are_found_by_polling(path: Path) -> None:
    path.with_name("queue.db-bells").write_text("")
    with connect(path) as sender, connect(path) as connection:
        worker = Worker(connection)
        try:
            worker.hub.run_once()
            put(sender, 1)
            worker.until(1)
        finally:
            worker.hub.close()
