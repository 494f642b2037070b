"""Several processes on one queue file: killed, forked, side by side."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import kombu
import pytest

from pipeline.queue import sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CLIENT = """
import os, subprocess, sys, threading
import kombu
from pipeline.queue import sqlite
sqlite.register()
connection = kombu.Connection(transport=sqlite.Transport, transport_options={"path": sys.argv[1], "visibility_timeout": 0.1})
def put(body):
    connection.Producer().publish(body, routing_key="q")
def get():
    return kombu.Queue("q")(connection.default_channel).get()
def say(*words):
    print(*words, flush=True)
"""

HOLD = """
held = [get() for _ in range(int(sys.argv[2]))]
say("holding", sum(message is not None for message in held))
sys.stdin.readline()
for message in held:
    message.ack()
connection.release()
say("done")
"""

PEEK = """
connection.connect()
connection.transport.opened().clear_up()
message = get()
say("nothing" if message is None else message.payload)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def connection(path: Path) -> Iterator[kombu.Connection]:
    with kombu.Connection(transport=sqlite.Transport, transport_options={"path": str(path)}) as connection:
        yield connection


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CLIENT + script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def put(connection: kombu.Connection, *bodies: object) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key="q")


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as handle:
        return handle.execute(statement).fetchall()


def consume(connection: kombu.Connection, count: int) -> list[kombu.Message]:
    messages: list[kombu.Message] = []

    def take(message: kombu.Message) -> None:
        messages.append(message)
        message.ack()

    with connection.Consumer([kombu.Queue("q")], on_message=take):
        while len(messages) < count:
            connection.drain_events(timeout=30)
    return messages


def test_claims_of_a_killed_process_come_back_marked(connection: kombu.Connection, path: Path) -> None:
    put(connection, *range(20))
    with child(HOLD, path, 15) as process:
        assert line(process) == "holding 15"
        process.kill()
        process.wait()
    messages = consume(connection, 20)
    assert sorted(message.payload for message in messages) == list(range(20))
    marks = {message.payload: (message.headers["x-delivery-count"], message.delivery_info["redelivered"]) for message in messages}
    assert marks == {number: (1, True) if number < 15 else (0, False) for number in range(20)}


def test_poison_is_counted_over_several_deaths(connection: kombu.Connection, path: Path) -> None:
    put(connection, "poison")
    for _ in range(3):
        with child(HOLD, path, 1) as process:
            assert line(process) == "holding 1"
            process.kill()
            process.wait()
        connection.transport.opened().clear_up()
    assert [message.headers["x-delivery-count"] for message in consume(connection, 1)] == [3]


def test_claims_of_a_process_that_lives_are_never_given_away(connection: kombu.Connection, path: Path) -> None:
    put(connection, "held")
    with child(HOLD, path, 1) as holder:
        assert line(holder) == "holding 1"
        until(lambda: not execute(path, f"SELECT 1 FROM owners WHERE since > {time.time() - 0.2}"))
        execute(path, "UPDATE owners SET pid = 4194304, since = 0")  # whatever is said of it, its lock counts
        for _ in range(2):
            with child(PEEK, path) as process:
                assert line(process) == "nothing"
        tell(holder)
        assert line(holder) == "done"
    assert execute(path, "SELECT count(*) FROM messages") == [(0,)]


def test_pid_given_to_another_process_does_not_keep_claims(connection: kombu.Connection, path: Path) -> None:
    put(connection, "held")
    with child(HOLD, path, 1) as holder:
        assert line(holder) == "holding 1"
        holder.kill()
        holder.wait()
    execute(path, f"UPDATE owners SET pid = {os.getpid()}, since = {time.time()}")
    assert [message.payload for message in consume(connection, 1)] == ["held"]


def test_stopped_process_keeps_its_claims(connection: kombu.Connection, path: Path) -> None:
    put(connection, "held")
    with child(HOLD, path, 1) as holder:
        assert line(holder) == "holding 1"
        holder.send_signal(19)
        with child(PEEK, path) as process:
            assert line(process) == "nothing"
        holder.send_signal(18)
        tell(holder)
        assert line(holder) == "done"


def test_temporary_queues_of_a_killed_process_end(connection: kombu.Connection, path: Path) -> None:
    script = """
exchange = kombu.Exchange("x", type="fanout")
auto = kombu.Queue("auto", exchange, auto_delete=True)
mine = kombu.Queue("mine", exchange, exclusive=True)
mine(connection.default_channel).declare()
consumer = connection.Consumer([auto], on_message=print)
consumer.consume()
connection.Producer(exchange=exchange).publish("x")
say("ready")
sys.stdin.readline()
"""
    put(connection, "stays")
    with child(script, path) as process:
        assert line(process) == "ready"
        assert execute(path, "SELECT count(*) FROM messages") == [(3,)]
        process.kill()
        process.wait()
    with connection.Consumer([kombu.Queue("other")], on_message=print), pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.1)
    for table in ("queues WHERE name != 'other'", "bindings", "consumers", "owners WHERE pid != " + str(os.getpid())):
        assert execute(path, f"SELECT count(*) FROM {table}") == [(0,)], table
    assert execute(path, "SELECT queue FROM messages") == [("q",)]


def test_two_processes_share_two_thousand_messages(connection: kombu.Connection, path: Path) -> None:
    script = """
queue = kombu.Queue("q")
def take(message):
    message.ack()
    say(message.payload)
with connection.Consumer([queue], on_message=take) as consumer:
    consumer.qos(prefetch_count=8)
    say("ready")
    while True:
        try:
            connection.drain_events(timeout=3)
        except TimeoutError:
            break
"""
    with child(script, path) as one, child(script, path) as two:
        consumers = [one, two]
        assert [line(process) for process in consumers] == ["ready", "ready"]
        publishers = [
            threading.Thread(target=put, args=(connection, *range(start, start + 500))) for start in range(0, 2000, 500)
        ]
        for thread in publishers:
            thread.start()
        taken = []
        for process in consumers:
            assert process.stdout is not None
            taken.append([int(number) for number in process.stdout.read().split()])
        for thread in publishers:
            thread.join()
    assert all(taken)
    assert sorted(taken[0] + taken[1]) == list(range(2000))
    assert execute(path, "SELECT count(*) FROM messages") == [(0,)]


def test_child_of_a_fork_works_on_its_own(connection: kombu.Connection, path: Path) -> None:
    script = """
put("one")
put("two")
mine = get()
before = connection.transport.opened().owner()
pid = os.fork()
if pid == 0:
    rows = connection.transport.opened()
    try:
        mine.ack()
    except sqlite.QueueFileError as error:
        say("refused")
    other = get()
    say(other.payload, rows.owner() != before)
    put("three")
    connection.release()
    sys.exit(0)  # in good order, which must not hand back what the parent holds
os.waitpid(pid, 0)
say(connection.transport.opened().owner() == before, get().payload, get().payload, get())
mine.ack()
connection.release()
"""
    with child(script, path) as process:
        assert line(process) == "refused"
        assert line(process) == "two True"
        assert line(process) == "True two three None"
        process.wait()
    assert sorted(message.payload for message in consume(connection, 2)) == ["three", "two"]
    assert execute(path, "SELECT count(*) FROM messages") == [(0,)]


def test_fork_waits_for_transactions_of_other_threads(path: Path) -> None:
    script = """
put("first")  # with all its imports: a fork must not meet another thread inside one
stop = threading.Event()
def publish():
    while not stop.is_set():
        put("x")
threads = [threading.Thread(target=publish) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        put("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
say(connection.default_channel.queue_declare("q", passive=True).message_count > 20)
connection.release()
"""
    with child(script, path) as process:
        assert line(process) == "True"
    assert execute(path, "SELECT count(*) FROM messages WHERE CAST(body AS TEXT) = 'child'") == [(20,)]


def test_child_keeps_the_log_when_everybody_else_has_left(path: Path) -> None:
    """SQLite removes the log with the last connection; a child with inherited, void locks would not count as one."""
    script = """
put("parent")
told, tell = os.pipe()
done, finish = os.pipe()
pid = os.fork()
if pid == 0:
    put("child, first")
    os.write(finish, b".")
    os.read(told, 1)
    put("child, second")
    os._exit(0)
os.read(done, 1)
connection.release()
code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM messages').fetchall(); c.close()"
subprocess.run([sys.executable, "-c", code, sys.argv[1]], check=True)
say(os.path.exists(sys.argv[1] + "-wal"))
os.write(tell, b".")
os.waitpid(pid, 0)
say("done")
"""
    with child(script, path) as process:
        assert line(process) == "True"
        assert line(process) == "done"
    bodies = execute(path, "SELECT body FROM messages ORDER BY id")
    assert bodies == [(b"parent",), (b"child, first",), (b"child, second",)]


def test_killed_publisher_loses_nothing_it_was_answered(path: Path) -> None:
    script = """
number = 0
while True:
    put(number)
    say(number)
    number += 1
"""
    with child(script, path) as process:
        answered = [line(process) for _ in range(200)]
        process.kill()
        assert process.stdout is not None
        answered += process.stdout.read().split()
    stored = {row[0] for row in execute(path, "SELECT body FROM messages")}
    assert stored >= set(answered)
    assert len(stored) <= len(answered) + 1
