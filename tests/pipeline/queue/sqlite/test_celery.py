"""Celery on the SQLite transport, from its URL alone: real workers, controlled, watched, stopped and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from pipeline.queue import sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

APP = """
import os, time
from celery import Celery
from pipeline.queue import sqlite

sqlite.register()
app = Celery("app", broker=os.environ["BROKER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4)
app.conf.update(worker_cancel_long_running_tasks_on_connection_loss=True)

@app.task(name="mark", shared=False)
def mark(number, pause=0.0):
    note("begin", number)
    time.sleep(pause)
    note("end", number)

@app.task(name="spread", shared=False)
def spread(start, count):
    for number in range(start, start + count):
        mark.delay(number)

def note(word, number):
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word} {number}\\n".encode())
    os.close(descriptor)
"""


class Place:
    """A directory with the app, its broker's file and what its tasks have noted."""

    def __init__(self, directory: Path) -> None:
        (directory / "sqlite_test_app.py").write_text(APP)
        self.directory = directory
        self.path = directory / "queue.db"
        self.notes = directory / "notes"
        sqlite.register()
        self.app = Celery("client", broker=sqlite.url(self.path), set_as_current=False)
        self.environment = os.environ | {"BROKER": sqlite.url(self.path), "NOTES": str(self.notes)}

    def send(self, numbers: range, pause: float = 0.0) -> None:
        for number in numbers:
            self.app.send_task("mark", args=[number, pause])

    def noted(self, word: str) -> Counter[int]:
        text = self.notes.read_text() if self.notes.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        lines = (line.split() for line in whole.splitlines())
        return Counter(int(number) for said, number in lines if said == word)

    def left(self, where: str = "owner = 0") -> int:
        with closing(sqlite3.connect(self.path)) as handle:
            count: int = handle.execute(f"SELECT count(*) FROM messages WHERE queue = 'celery' AND {where}").fetchone()[0]
            return count

    def celery(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "celery", "-A", "sqlite_test_app", *arguments]
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, check=False, capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr

    @contextmanager
    def worker(self, *arguments: str, name: str = "one") -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "celery", "-A", "sqlite_test_app", "worker", "-n", name, "-l", "info", *arguments]
        with (
            (self.directory / f"{name}.log").open("ab") as log,
            subprocess.Popen(
                command, cwd=self.directory, env=self.environment, stdout=log, stderr=log, start_new_session=True
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def log(self, name: str = "one") -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.app.close()


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


@pytest.mark.parametrize("pool", [("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "4"), ("-P", "solo")])
def test_every_pool_runs_each_task_once_and_answers(place: Place, pool: tuple[str, ...]) -> None:
    place.send(range(300))
    with place.worker(*pool) as process:
        place.send(range(300, 500))
        until(lambda: len(place.noted("end")) == 500)
        assert place.app.control.inspect(timeout=30, limit=1).ping() == {"celery@one": {"ok": "pong"}}
        place.app.control.shutdown()
        assert process.wait(timeout=60) == 0
    assert set(place.noted("end").values()) == {1}
    assert place.left("TRUE") == 0


def test_children_of_a_prefork_worker_publish(place: Place) -> None:
    with place.worker("-c", "2", "--max-tasks-per-child", "3"):
        for start in range(0, 200, 20):
            place.app.send_task("spread", args=[start, 20])
        until(lambda: place.noted("end") == Counter(range(200)))


def test_commands_work_from_the_address_alone(place: Place) -> None:
    with place.worker("-P", "solo", "-E"):
        until(lambda: "ready" in place.log())
        assert "pong" in place.celery("inspect", "ping", "--timeout", "3")
        assert "OK" in place.celery("status", "--timeout", "3")
        assert "mark" in place.celery("inspect", "registered", "--timeout", "3")


def test_events_reach_a_monitor_and_do_not_pile_up(place: Place) -> None:
    seen: list[str] = []
    with place.worker("-P", "solo", "-E"):
        until(lambda: "ready" in place.log())
        with place.app.connection() as connection:
            receiver = place.app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})
            with connection.Consumer([receiver.queue], callbacks=[receiver._receive], accept=["json"]):
                place.send(range(3))
                until(lambda: drain(connection) or seen.count("task-succeeded") == 3)
        place.send(range(3, 6))
        until(lambda: len(place.noted("end")) == 6)
        with closing(sqlite3.connect(place.path)) as handle:
            assert handle.execute("SELECT count(*) FROM messages WHERE queue LIKE 'celeryev%'").fetchone() == (0,)
            assert handle.execute("SELECT count(*) FROM queues WHERE name LIKE 'celeryev%'").fetchone() == (0,)


def drain(connection: object) -> None:
    try:
        connection.drain_events(timeout=0.2)  # type: ignore[attr-defined]  # put there by the test
    except TimeoutError:
        return


def test_stopped_worker_hands_back_what_it_had_fetched(place: Place) -> None:
    place.send(range(20), pause=0.5)
    with place.worker("-c", "2") as process:
        until(lambda: len(place.noted("end")) >= 1)
        assert place.left("owner > 0") > 2
        process.terminate()
        assert process.wait(timeout=60) == 0
    begun = place.noted("begin")
    assert begun == place.noted("end")
    assert place.left("owner > 0") == 0
    # Celery 5.7 itself drops a late acknowledgement now and then at a warm shutdown; with Redis in 2 of 6 runs here.
    assert 20 - len(begun) <= place.left() <= 20 - len(begun) + 2
    with place.worker("-c", "4"):
        until(lambda: len(place.noted("end")) == 20 and place.left("TRUE") == 0)
    assert sum(place.noted("end").values()) <= 22


def test_killed_worker_loses_nothing(place: Place) -> None:
    place.send(range(500), pause=0.002)
    for name in ("one", "two"):
        before = len(place.noted("end"))
        with place.worker("-c", "2", name=name) as process:
            until(lambda before=before: len(place.noted("end")) > before + 50)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert len(place.noted("end")) < 500
    with place.worker("-c", "2", name="three"):
        until(lambda: len(place.noted("end")) == 500 and place.left("TRUE") == 0)
    assert sum(place.noted("end").values()) <= 500 + 2 * 8


def test_worker_outlives_a_locked_file(place: Place) -> None:
    place.environment["BROKER"] += "?busy_timeout=0.1"
    with place.worker("-c", "2"):
        place.send(range(50))
        until(lambda: len(place.noted("end")) == 50)
        with closing(sqlite3.connect(place.path, isolation_level=None)) as handle:
            place.send(range(50, 60), pause=0.3)
            until(lambda: len(place.noted("begin")) > 50)
            handle.execute("BEGIN IMMEDIATE")
            until(lambda: "locked for longer than 0.1 s" in place.log())
            handle.execute("ROLLBACK")
        place.send(range(60, 100))
        until(lambda: len(place.noted("end")) == 100 and place.left("TRUE") == 0)
