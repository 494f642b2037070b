"""The database away, locked, full, forked, too old or too new: what the store says, and that nothing is half done."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, text

from pipeline import TemporaryError
from pipeline.errors import ConfigError
from pipeline.message import new_id
from pipeline.store import Store, StoreAway, database
from pipeline.store import migrate as migrate_module
from pipeline.store.tables import metadata

MIGRATE = """
store.migrate()
print(store.keys())
store.close()
"""


@pytest.fixture
def opened():
    """Makes stores that are closed at the end."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(closing(Store(url)))


@pytest.fixture
def file_store(tmp_path, opened):
    store = opened(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    return store


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    monkeypatch.setattr(migrate_module, "BUSY_SECONDS", 0.1)
    monkeypatch.setitem(database._POSTGRES_OPTIONS, "options", "-c lock_timeout=100ms")


def test_tables_that_are_current_are_found_to_be_without_alembic(empty_url, opened):
    code = "import sys; from pipeline.store import Store; Store(sys.argv[1]).migrate(); print('alembic' in sys.modules)"
    command = [sys.executable, "-c", code, empty_url]
    said = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() for _ in range(2)]
    assert said == ["True", "False"]


def test_migrations_make_the_tables_that_the_code_knows(empty_url, opened):
    store = opened(empty_url)
    store.migrate()
    store.migrate()
    with store._database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_migrations_by_several_processes_at_once(empty_url, make, opened, spawned):
    with ExitStack() as stack:
        processes = [stack.enter_context(spawned(MIGRATE, empty_url, make.now.isoformat())) for _ in range(4)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["[]\n"] * 4
        assert [process.wait() for process in processes] == [0] * 4
    opened(empty_url).ping()


def test_tables_of_a_newer_version_are_left_alone(empty_url, opened):
    store = opened(empty_url)
    store.migrate()
    with store._database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer version of Siftbell"):
        store.migrate()


def test_a_store_without_tables_says_what_to_do(empty_url, opened):
    store = opened(empty_url)
    store.migrate()
    with store._database.writing() as connection:
        connection.execute(text("DROP TABLE api_keys"))
        connection.execute(text("DROP TABLE records"))
        connection.execute(text("ALTER TABLE cursors DROP COLUMN cursor"))
    for call in (store.keys, lambda: store.cursor("p", "x"), lambda: store.records("p", "x", ["1"])):
        with pytest.raises(ConfigError, match="siftbell db upgrade"):
            call()


def test_the_file_is_its_owners_alone(file_store, make):
    file_store.settle(records=[make.record(new_id())])
    files = list(file_store._database.file.parent.iterdir())
    assert {"store.db", "store.db-wal"} <= {file.name for file in files}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_sqlite_writes_ahead_waits_for_the_disk_and_for_others_a_bounded_time(file_store):
    with file_store._database.writing() as connection:
        values = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "busy_timeout")]
    assert values == ["wal", 2, 5000]


def test_postgres_waits_for_the_disk_and_for_others_a_bounded_time(postgres_url, opened):
    names = ("synchronous_commit", "lock_timeout", "statement_timeout")
    with opened(postgres_url)._database.reading() as connection:
        values = [connection.execute(text(f"SHOW {name}")).scalar() for name in names]
    assert values == ["on", "5s", "15s"]


def test_no_file_is_made_but_by_migrate(tmp_path, opened):
    store = opened(f"sqlite:///{tmp_path / 'store.db'}")
    with pytest.raises(StoreAway, match="no such file"):
        store.ping()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path, opened):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAway, match=r"cannot be made: File exists"):
        opened(f"sqlite:///{tmp_path / 'file' / 'store.db'}").migrate()


def test_a_file_that_is_no_database(tmp_path, opened):
    (tmp_path / "store.db").write_text("this is a text, and long enough to be taken for a header" * 99)
    store = opened(f"sqlite:///{tmp_path / 'store.db'}")
    with pytest.raises(StoreAway, match="not a database"):
        store.migrate()
    with pytest.raises(StoreAway, match="not a database"):
        store.ping()


@pytest.mark.usefixtures("impatient")
def test_a_locked_file_is_away_and_then_back(tmp_path, opened, make):
    store = opened(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    record = make.record(new_id())
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="locked"):
            store.settle(records=[record])
        assert store.history(record.message_id) == []
    store.settle(records=[record])
    assert store.history(record.message_id) == [record]


@pytest.mark.usefixtures("impatient")
def test_a_file_that_is_locked_before_it_writes_ahead(tmp_path, opened):
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreAway, match="locked"):
            opened(f"sqlite:///{tmp_path / 'store.db'}").migrate()


@pytest.mark.usefixtures("impatient")
def test_a_locked_table_is_away_and_then_back(postgres_url, opened, make):
    store = opened(postgres_url)
    record = make.record(new_id())
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("LOCK TABLE records")
        with pytest.raises(StoreAway, match="lock timeout"):
            store.settle(records=[record])
    store.settle(records=[record])
    assert store.history(record.message_id) == [record]


@pytest.mark.usefixtures("impatient")
def test_all_connections_in_use_is_away(file_store, tmp_path, opened):
    store = opened(f"sqlite:///{tmp_path / 'store.db'}")
    with ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(store._database.reading())
        with pytest.raises(StoreAway, match="QueuePool limit"):
            store.ping()
    store.ping()


def test_a_full_disk_is_away_and_nothing_is_half_written(file_store, make):
    engine = file_store._database.engine
    engine.dispose()
    pages = [40]
    event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA max_page_count={pages[0]}"))
    held = [make.held(make.message(text="x" * 5000)) for _ in range(100)]
    with pytest.raises(StoreAway, match="full"):
        file_store.settle(records=[make.record(held[0].message.id)], held=held)
    assert file_store.history(held[0].message.id) == []
    assert file_store.held_counts() == {}
    engine.dispose()
    pages[0] = 4000
    file_store.settle(held=held)
    assert sum(file_store.held_counts().values()) == 100


def terminate(postgres_url):
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(ended.fetchall())


def test_connections_that_the_server_ended_are_opened_again(postgres_url, opened, make):
    store = opened(postgres_url)
    store.ping()
    assert terminate(postgres_url) >= 1
    record = make.record(new_id())
    store.settle(records=[record])
    assert store.history(record.message_id) == [record]


def test_a_server_that_ends_a_transaction_is_away(postgres_url, opened, make):
    store = opened(postgres_url)
    before = store.counts()

    def end(*_):
        terminate(postgres_url)

    event.listen(store._database.engine, "commit", end)
    with pytest.raises(StoreAway):
        store.settle(records=[make.record(new_id())])
    event.remove(store._database.engine, "commit", end)
    assert store.counts() == before


@pytest.mark.parametrize("moment", ["checkout", "begin"])
def test_a_connection_that_ends_before_a_batchs_statements_is_away_and_then_another_one(
    postgres_url, opened, make, caplog, moment
):
    store = opened(postgres_url)
    record = make.record(new_id())
    engine, ended = store._database.engine, []

    def end(*_):
        if not ended:
            ended.append(terminate(postgres_url))

    store.ping()
    event.listen(engine, moment, end)
    call = (lambda: store.records("p", "s", ["1"])) if moment == "checkout" else lambda: store.settle(records=[record])
    with pytest.raises(StoreAway, match="terminat"):
        call()
    assert ended
    assert ended[0] >= 1
    call()
    event.remove(engine, moment, end)
    assert caplog.text == ""


@pytest.mark.parametrize("where", ["127.0.0.1:1/x", "127.0.0.1:1/x?sslmode=disable"])
def test_a_server_that_is_not_there_is_away_and_its_password_is_not_told(where, opened):
    store = opened(f"postgresql+psycopg://someone:geheim@{where}")
    with pytest.raises(StoreAway, match=re.escape("postgresql at 127.0.0.1:1/x")) as caught:
        store.migrate()
    assert isinstance(caught.value, TemporaryError)
    for told in (str(caught.value), repr(store), repr(store._database), str(store.url)):
        assert "geheim" not in told


def test_what_is_not_allowed_is_a_matter_of_configuration(postgres_url, opened):
    role = f"siftbell_test_{os.getpid()}"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(ConfigError, match="permission denied for table api_keys"):
                opened(postgres_url.replace("postgres@", f"{role}@")).keys()
        finally:
            server.execute(f"DROP ROLE {role}")


def test_a_bug_is_not_taken_for_the_database_being_away(store, make):
    with pytest.raises(Exception, match=r"(?i)null value|not null") as caught, store._database.writing() as connection:
        connection.execute(text("INSERT INTO cursors VALUES ('p', :cursor, NULL)"), {"cursor": "geheim"})
    assert not isinstance(caught.value, TemporaryError)
    with pytest.raises(Exception, match=r"(?i)null value|not null") as caught:
        store.settle(records=[make.record(new_id(), attempt=None)])
    assert not isinstance(caught.value, TemporaryError)


@pytest.mark.parametrize(
    "url", ["", "x", "sqlite://", "sqlite:///:memory:", "mysql://u:geheim@h/d", "redis://h", "postgresql+nothing:geheim"]
)
def test_a_url_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match="is expected") as caught:
        Store(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_postgres_by_any_of_its_names(postgres_url, opened, scheme):
    opened(postgres_url.replace("postgresql+psycopg", scheme)).ping()


def test_a_missing_driver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=re.escape('pip install "siftbell[postgres]"')):
        Store("postgresql+psycopg://u@h/d")


FORKING = """
import os
from concurrent.futures import ThreadPoolExecutor
from pipeline.store import Outcome, Record

def write(number):
    store.settle(records=[Record(message_id=str(number), pipeline="p", step="s", outcome=Outcome.DELIVERED, at=now)])

write(0)
children = []
for number in range(1, 5):
    if (child := os.fork()) == 0:
        ended = 1
        try:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(write, range(number * 100, number * 100 + 50)))
            store.close()
            ended = 0
        finally:
            os._exit(ended)
    children.append(child)
for number in range(50):
    write(number)
print([os.waitpid(child, 0)[1] for child in children], store.counts())
store.close()
"""


def test_a_store_goes_on_in_forked_children(store, url, make, spawned):
    with spawned(FORKING, url, make.now.isoformat()) as process:
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("[0, 0, 0, 0] {('p', 's'")
        assert process.wait() == 0
    ids = [str(number * 100 + each) for number in range(5) for each in range(50)]
    assert len(store.records("p", "s", ids)) == 250


def test_a_closed_store_opens_again(store):
    store.close()
    store.ping()


START = datetime(2026, 3, 1, tzinfo=UTC)

INHERITING = """
import os, subprocess, sys
from pipeline.store import Outcome, Record

def write(name):
    store.settle(records=[Record(message_id=name, pipeline="p", step="s", outcome=Outcome.DELIVERED, at=now)])

write("parent")
told, tell = os.pipe()
done, finish = os.pipe()
if (child := os.fork()) == 0:
    write("child, first")
    os.write(finish, b".")
    os.read(told, 1)
    write("child, second")
    os._exit(0)
os.read(done, 1)
store.close()
looks = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM records').fetchall(); c.close()"
file = str(store.url.database)
subprocess.run([sys.executable, "-c", looks, file], check=True)
print(os.path.exists(file + "-wal"))
os.write(tell, b".")
print(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_keeps_the_log_when_everybody_else_has_left(file_store, spawned):
    """SQLite removes the log with its last user; a child that inherited void locks would not count as one."""
    file_store.close()
    with spawned(INHERITING, str(file_store.url), START.isoformat()) as process:
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
        assert process.stdout.readline() == "0\n"
    assert len(file_store.records("p", "s", ["parent", "child, first", "child, second"])) == 3


def test_a_fork_waits_for_what_is_under_way(file_store):
    inside, go, forked = threading.Event(), threading.Event(), threading.Event()

    def write():
        with file_store._database.writing() as connection:
            inside.set()
            go.wait(10)
            connection.execute(text("SELECT 1"))

    def fork():
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
        forked.set()

    threads = [threading.Thread(target=write), threading.Thread(target=fork)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert not forked.wait(0.2)
    go.set()
    assert forked.wait(10)
    for thread in threads:
        thread.join()
    file_store.ping()
