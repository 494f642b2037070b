"""The queue's file: who may read it, what is refused, and what happens when it cannot be used."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import kombu
import pytest

from pipeline.queue import sqlite
from pipeline.queue.sqlite import file as sqlite_file
from pipeline.queue.sqlite import owners as sqlite_owners

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = """
import os, sys, resource
import kombu
from pipeline.queue import sqlite
sqlite.register()
def connect(path, **options):
    options = {"path": path, "busy_timeout": 5} | options
    return kombu.Connection(transport=sqlite.Transport, transport_options=options)
"""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", CLIENT + script, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


def connect(path: Path, **options: object) -> kombu.Connection:
    return kombu.Connection(transport=sqlite.Transport, transport_options={"path": str(path)} | options)


@pytest.fixture
def connection(path: Path) -> Iterator[kombu.Connection]:
    with connect(path) as connection:
        connection.connect()
        yield connection


def put(connection: kombu.Connection, *bodies: object) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key="q")


def get(connection: kombu.Connection) -> kombu.Message:
    return kombu.Queue("q")(connection.default_channel).get()


def test_file_and_directories_are_private(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        path = tmp_path / "new" / "deeper" / "queue.db"
        with connect(path) as connection:
            put(connection, "x")
            get(connection)
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == dict.fromkeys(("queue.db", "queue.db-wal", "queue.db-shm", "queue.db-owners"), 0o600)
        assert {stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path.parent.parent)} == {0o700}
    finally:
        os.umask(old)


def test_publishing_is_fsynced_and_acknowledging_is_not(path: Path) -> None:
    for synchronous, lasting in (("full", 2), ("normal", 1)):
        with connect(path, synchronous=synchronous) as connection:
            connection.connect()
            rows = connection.transport.opened()
            for file, expected in ((rows._lasting, lasting), (rows.passing, 1)):
                with file.reading() as handle:
                    assert handle.execute("PRAGMA synchronous").fetchone() == (expected,)
                    assert handle.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_many_processes_may_create_the_file_at_once(path: Path) -> None:
    script = "with connect(sys.argv[1]) as c: c.Producer().publish('x', routing_key='q')"
    command = [sys.executable, "-c", CLIENT + script, str(path)]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    with connect(path) as connection:
        assert connection.default_channel.queue_declare("q", passive=True).message_count == 4


def test_file_that_is_not_sqlite_is_refused(path: Path) -> None:
    path.write_text("This is somebody's diary. " * 50)
    with connect(path) as connection, pytest.raises(sqlite.WrongQueueFileError, match="is not an SQLite file"):
        connection.connect()
    assert path.read_text().startswith("This is somebody's diary.")


def test_sqlite_file_of_something_else_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as handle:
        handle.execute("CREATE TABLE letters (text)")
    with connect(path) as connection, pytest.raises(sqlite.WrongQueueFileError, match="of something else"):
        connection.connect()
    with closing(sqlite3.connect(path)) as handle:
        assert handle.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_other_schema_is_refused(path: Path) -> None:
    with connect(path) as connection:
        put(connection, "x")
    with closing(sqlite3.connect(path)) as handle:
        handle.execute("PRAGMA user_version = 99")
    with connect(path) as connection, pytest.raises(sqlite.WrongQueueFileError, match="has schema 99"):
        connection.connect()


def test_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with connect(path) as connection, pytest.raises(sqlite.WrongQueueFileError, match=r"needs SQLite 3\.35"):
        connection.connect()


def test_damaged_file_is_named(path: Path) -> None:
    with connect(path) as connection:
        put(connection, *["x" * 1000] * 50)
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 20)
    with connect(path) as connection, pytest.raises(sqlite.QueueFileError, match=r"queue\.db: it is damaged"):
        connection.default_channel.queue_purge("q")


def test_locked_file_is_waited_for_and_then_an_error(path: Path) -> None:
    with connect(path, busy_timeout=0.2) as connection, closing(sqlite3.connect(path, isolation_level=None)) as other:
        put(connection, "before")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite.QueueFileError, match=r"locked for longer than 0\.2 s"):
            put(connection, "during")
        with pytest.raises(kombu.exceptions.OperationalError, match=r"locked for longer than 0\.2 s"):
            connection.Producer().publish("x", routing_key="q", retry=True, retry_policy={"max_retries": 2})
        other.execute("ROLLBACK")
        put(connection, "after")
        assert [get(connection).payload for _ in range(2)] == ["before", "after"]


def test_file_locked_against_reading_is_an_error_too(path: Path) -> None:
    with connect(path) as connection:
        put(connection, "x")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE x (y)")
        with connect(path, busy_timeout=0.05) as connection, pytest.raises(sqlite.QueueFileError, match="locked"):
            connection.connect()


@pytest.mark.parametrize("ends", [True, False])
def test_switch_to_the_log_waits_for_readers(path: Path, ends: bool) -> None:
    with connect(path) as connection:
        put(connection, "x")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM messages").fetchall()
        timer = threading.Timer(0.2 if ends else 0, other.execute, args=["ROLLBACK" if ends else "SELECT 1"])
        timer.start()
        with connect(path, busy_timeout=30 if ends else 0.05) as connection:
            if ends:
                assert get(connection).payload == "x"
            else:
                with pytest.raises(sqlite.QueueFileError, match="locked"):
                    connection.connect()
        timer.join()


def test_lock_that_ends_in_time_is_not_noticed(connection: kombu.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, other.execute, args=["ROLLBACK"])
        timer.start()
        put(connection, "x")
        timer.join()
    assert get(connection).payload == "x"


def test_acknowledgement_that_could_not_be_written_is_made_up_for(path: Path) -> None:
    with connect(path, busy_timeout=0.05) as connection, closing(sqlite3.connect(path, isolation_level=None)) as other:
        put(connection, *range(4))
        held: list[kombu.Message] = []
        consumer = connection.Consumer([kombu.Queue("q")], on_message=held.append)
        consumer.qos(prefetch_count=3)
        with consumer:
            for _ in range(3):
                connection.drain_events(timeout=1)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite.QueueFileError, match="locked"):
                held[0].ack()
            held[1].ack()
            held[2].requeue()
            with pytest.raises(sqlite.QueueFileError, match="locked"):
                connection.drain_events(timeout=1)
            other.execute("ROLLBACK")
            connection.drain_events(timeout=1)
            assert [message.payload for message in held[3:]] == [2]
            assert other.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_closing_while_the_file_is_locked_gives_everything_back(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with connect(path) as reader, closing(sqlite3.connect(path, isolation_level=None)) as other:
        put(reader, "x")
        connection = connect(path, busy_timeout=0.05)
        queue = kombu.Queue("auto", auto_delete=True)
        consumer = connection.Consumer([queue], on_message=print)
        consumer.consume()
        assert get(connection).payload == "x"
        other.execute("BEGIN IMMEDIATE")
        connection.release()
        other.execute("ROLLBACK")
        assert "1 messages go back to their queues when this connection ends" in caplog.text
        assert "queue auto goes on until this connection ends" in caplog.text
        assert get(reader) is None
        assert reader.transport.opened().clear_up()
        assert get(reader).payload == "x"
        assert other.execute("SELECT count(*) FROM queues").fetchone() == (0,)


def test_registration_that_fails_leaves_no_trace(path: Path) -> None:
    with connect(path, busy_timeout=0.05) as connection, connect(path) as other:
        put(other, "x")
        blocked = sqlite_owners._open(path.resolve())
        sqlite_owners._close_idle(path.resolve())
        assert blocked.numbers == set()
        script = (
            "from pathlib import Path; from pipeline.queue.sqlite import owners as sqlite_owners\n"
            "sqlite_owners.hold(Path(sys.argv[1]), 1); print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT + script, str(path.resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as holder:  # fmt: skip
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(sqlite.QueueFileError):
                get(connection)
            holder.communicate("")
        assert get(connection).payload == "x"


def test_full_disk_is_an_error_and_loses_nothing(path: Path) -> None:
    script = """
limit = int(sys.argv[2])
with connect(sys.argv[1]) as connection:
    connection.Producer().publish("x", routing_key="q")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    stored = 1
    try:
        while stored < 1000:
            connection.Producer().publish("x" * 20000, routing_key="q")
            stored += 1
    except sqlite.QueueFileError as error:
        print(stored, str(error).partition(": ")[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    connection.Producer().publish("after", routing_key="q")
"""
    stored, _, words = run(script, path, 400_000).partition(" ")
    assert 1 < int(stored) < 100
    assert "space" in words
    with connect(path) as connection:
        assert connection.default_channel.queue_declare("q", passive=True).message_count == int(stored) + 1


def test_read_only_file_is_an_error() -> None:
    script = """
print("imported")
if os.geteuid() == 0:
    os.setuid(65534)
with connect(sys.argv[1]) as connection:
    try:
        connection.Producer().publish("x", routing_key="q")
    except sqlite.QueueFileError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory(prefix="siftbell-test-") as directory:
        path = Path(directory) / "queue.db"
        with connect(path) as connection:
            put(connection, "x")
        path.chmod(0o444)
        Path(directory).chmod(0o555)
        words = run(script, path).splitlines()[1]
        Path(directory).chmod(0o755)
        assert "by this user: look at the rights of the file and its directory" in words


def test_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        connect(tmp_path / "file" / "queue.db") as connection,
        pytest.raises(sqlite.QueueFileError, match=r"queue\.db: Not a directory"),
    ):
        connection.connect()


@pytest.mark.parametrize("replaced", [False, True])
def test_removed_file_is_noticed(connection: kombu.Connection, path: Path, replaced: bool) -> None:
    put(connection, "lost with the file")
    for each in path.parent.glob("queue.db*"):
        each.unlink()
    if replaced:
        with connect(path) as other:
            put(other, "new")
    for _ in range(2):
        with pytest.raises(sqlite.QueueFileError, match="removed or replaced while in use"):
            put(connection, "x")
    with pytest.raises(sqlite.QueueFileError, match="removed or replaced while in use"):
        get(connection)
    connection.Producer().publish("x", routing_key="q", retry=True)
    assert get(connection).payload == ("new" if replaced else "x")


def test_file_does_not_grow_for_ever(connection: kombu.Connection, path: Path) -> None:
    body = "x" * 10_000
    sizes = []
    for _ in range(8):
        for _ in range(200):
            put(connection, body)
            get(connection).ack()
        sizes.append(path.stat().st_size + path.with_name("queue.db-wal").stat().st_size)
    assert sizes[-1] == sizes[-4]
    assert sizes[-1] < sqlite_file.WAL_LIMIT + 10 * len(body)


def test_what_is_done_is_not_written_over(connection: kombu.Connection, path: Path) -> None:
    log = path.with_name("queue.db-wal")
    put(connection, "x" * 400_000)
    came = get(connection)
    before = log.stat().st_size
    came.ack()
    assert log.stat().st_size - before < 40_000


def test_freed_pages_are_left_and_the_log_is_long(path: Path) -> None:
    file = sqlite_file.QueueFile(path, durable=True, busy_timeout=5)
    with file.reading() as handle:
        found = {name: handle.execute(f"PRAGMA {name}").fetchone()[0] for name in ("secure_delete", "wal_autocheckpoint")}
    file.close()
    assert found == {"secure_delete": 2, "wal_autocheckpoint": sqlite_file.LOGGED_PAGES}


def test_transaction_that_fails_is_undone(path: Path) -> None:
    file = sqlite_file.QueueFile(path, durable=True, busy_timeout=1)

    def fail() -> None:
        with file.writing() as handle:
            handle.execute("INSERT INTO owners (pid, since) VALUES (1, 1)")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with (
        pytest.raises(sqlite.QueueFileError, match=r"the statement failed \(SQLite: no such table: none"),
        file.writing() as handle,
    ):
        handle.execute("INSERT INTO none VALUES (1)")
    with file.reading() as handle:
        assert handle.execute("SELECT count(*) FROM owners").fetchone() == (0,)
    file.close()
    with pytest.raises(sqlite.QueueFileError, match="closed"), file.reading():
        pass


def test_limits_are_still_those_of_the_process() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
