"""SQL: rows in SQLite, PostgreSQL and MariaDB; what is refused, what comes again, and what is away."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from time import monotonic, sleep

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from consumers.sql import Sql, SqlConfig
from pipeline import ConfigError, Message, PermanentError, TemporaryError
from pipeline.testing import BatchConsumerContract, sample_messages

pytestmark = pytest.mark.against("consumer sql", "{foreign_database}")

ALL = """CREATE TABLE messages (
    id CHAR(36) PRIMARY KEY, source VARCHAR(255), type VARCHAR(60), time {time}, title VARCHAR(255), text TEXT,
    severity VARCHAR(20), status VARCHAR(20), labels {json}, {key} VARCHAR(255), url TEXT, data {json})"""
STATE = "CREATE TABLE alerts ({key} VARCHAR(60) PRIMARY KEY, title VARCHAR(20) NOT NULL, seen INTEGER DEFAULT 7, number INTEGER)"
UNIQUE = "CREATE TABLE tickets (id CHAR(36) PRIMARY KEY, number INTEGER NOT NULL UNIQUE, CHECK (number < 1000))"


class TestSql(BatchConsumerContract):
    plugin = Sql
    options = {"url": "sqlite:///{tmp}/ops.db", "table": "messages"}
    away_options = {"url": "postgresql://writer:very-secret-password@127.0.0.1:9/ops", "table": "messages"}

    @pytest.fixture(autouse=True)
    def table(self, tmp_path):
        Database(f"sqlite:///{tmp_path}/ops.db").execute(ALL)


class TestStatement(TestSql):
    options = {**TestSql.options, "table": None, "statement": "INSERT INTO messages (id, title) VALUES (:id, :title)"}
    away_options = {**options, "url": TestSql.away_options["url"]}


class Database:
    """One of somebody else's, by its URL."""

    def __init__(self, url):
        self.url = url
        self.kind = url.partition(":")[0].partition("+")[0]
        self.engine = create_engine(url.replace("mariadb://", "mariadb+pymysql://"))

    def execute(self, statement, **values):
        """Execute a statement; gives its rows as lists. Fills in what the dialects write differently."""
        words = {"sqlite": ("TEXT", "TEXT", '"key"'), "postgresql": ("TIMESTAMPTZ", "JSONB", '"key"')}
        time, kind, key = words.get(self.kind, ("DATETIME(6)", "JSON", "`key`"))
        with self.engine.begin() as connection:
            result = connection.execute(text(statement.format(time=time, json=kind, key=key)), values)
            return [list(row) for row in result] if result.returns_rows else []


@pytest.fixture
def database(foreign_database):
    made = Database(foreign_database)
    yield made
    made.engine.dispose()


@pytest.fixture
def write(database):
    """Gives a consumer's `consume_many`."""
    made = []

    def prepare(**options):
        plugin = Sql(SqlConfig(**{"url": database.url} | options))
        plugin.open()
        made.append(plugin)
        return plugin.consume_many

    yield prepare
    for plugin in made:
        plugin.close()


def numbered(*numbers, **fields):
    return [Message(source="t", title=f"no {number}", data={"number": number}, **fields) for number in numbers]


def test_each_field_goes_into_the_column_of_its_name(database, write):
    database.execute(ALL)
    messages = sample_messages()
    assert write(table="messages")(messages) == {}
    rows = {row[0]: row for row in database.execute("SELECT id, title, text, {key}, labels, data, time, url FROM messages")}
    rich = messages[0]
    assert rows[rich.id][1:4] == [rich.title, rich.text, rich.key]
    labels, data = (json.loads(value) if isinstance(value, str) else value for value in rows[rich.id][4:6])
    assert (labels, data) == (rich.labels, rich.data)
    assert str(rows[rich.id][6])[:19] == "2026-11-21 08:30:00"
    odd, long = messages[3], messages[4]
    assert rows[odd.id][1] == odd.title
    if database.kind == "sqlite":
        assert rows[long.id][1:3] == [long.title, long.text]
    else:
        assert rows[long.id][1] == long.title[:254] + "…"
    assert len(rows[long.id][2].encode()) == (65_535 if database.kind == "mariadb" else len(long.text))


def test_times_are_utc(database, write):
    database.execute(
        "CREATE TABLE t (at {time}, plain TIMESTAMP NULL)" if database.kind != "sqlite" else "CREATE TABLE t (at, plain)"
    )
    moment = datetime(2026, 11, 21, 10, 0, 0, 500_000, tzinfo=timezone(timedelta(hours=2)))
    write(table="t", columns={"at": "time", "plain": "time"})([Message(source="t", time=moment)])
    ((at, plain),) = database.execute("SELECT at, plain FROM t")
    at = at.astimezone(UTC).replace(tzinfo=None) if database.kind == "postgresql" else at
    assert str(at) == "2026-11-21 08:00:00.500000"
    if database.kind != "mariadb":  # a TIMESTAMP is shown there in the session's zone
        assert str(plain).startswith("2026-11-21 08:00:00")


def test_columns_are_fields_parts_and_templates_of_any_type(database, write):
    database.execute(
        "CREATE TABLE t (a INTEGER, b DOUBLE PRECISION, c BOOLEAN, d VARCHAR(40), e VARCHAR(40), f VARCHAR(40), g INTEGER)"
    )
    columns = {
        "a": "data.n.1",
        "b": "data.f",
        "c": "data.yes",
        "d": "labels.a.b/c",
        "e": "{{ title | upper }}",
        "f": "data.o",
        "g": "{{ 6 * 7 }}",
    }
    messages = [
        Message(source="t", title="x\0y", labels={"a.b/c": "l"}, data={"n": [1, 2], "f": 1.5, "yes": True, "o": {"k": "a\0"}}),
        Message(source="t", data=None),
    ]
    assert write(table="t", columns=columns)(messages) == {}
    first, second = database.execute("SELECT a, b, c, d, e, f, g FROM t ORDER BY e DESC")
    assert first == [2, 1.5, True, "l", "X\ufffdY", '{"k":"a\ufffd"}', 42]
    assert second == [None, None, None, None, "", None, 42]


def test_upsert_keeps_the_newest(database, write):
    database.execute(STATE)
    columns = {"key": "key", "title": "title", "number": "data.number"}
    send = write(table="alerts", columns=columns, upsert=["key"])
    assert send(numbered(1, 2, 3, key="disk") + numbered(4, key="cpu")) == {}
    assert send(numbered(5, key="cpu")) == {}
    rows = database.execute("SELECT {key}, title, seen, number FROM alerts ORDER BY {key}")
    assert rows == [["cpu", "no 5", 7, 5], ["disk", "no 3", 7, 3]]


def test_upsert_of_keys_alone_and_of_long_ones(database, write):
    database.execute(STATE.replace("NOT NULL", ""))
    send = write(table="alerts", columns={"key": "key"}, upsert=["key"])
    long = [*numbered(1, key="k" * 99 + "1"), *numbered(2, key="k" * 99 + "2")]
    assert send(long + long) == send(long) == {}
    assert len(database.execute("SELECT * FROM alerts")) == 2


def test_a_row_that_is_refused_does_not_hold_up_the_others(database, write):
    database.execute(UNIQUE)
    send = write(table="tickets", columns={"id": "id", "number": "data.number"})
    messages = numbered(1, 2, 2, 3, 5000, 4, None, 6, "seven", 8)
    failures = send(messages)
    bad = [messages[index].id for index in (2, 4, 6, 8)]
    assert [*failures] == bad
    assert all(isinstance(error, PermanentError) for error in failures.values())
    assert "tickets" in str(failures[bad[0]]) or "Duplicate" in str(failures[bad[0]])
    assert database.execute("SELECT number FROM tickets ORDER BY 1") == [[1], [2], [3], [4], [6], [8]]


def test_messages_that_come_again_are_written_once(database, write):
    database.execute(UNIQUE)
    send = write(table="tickets", columns={"id": "{{ id }}", "number": "data.number"})
    messages = numbered(*range(60))
    assert send(messages[:40]) == send(messages) == send(messages[10:20]) == {}
    assert len(database.execute("SELECT * FROM tickets")) == 60
    other = numbered(5)
    assert [*send(other + messages)] == [other[0].id]


def test_a_statement_of_ones_own(database, write):
    database.execute(STATE)
    database.execute("INSERT INTO alerts ({key}, title, seen) VALUES ('disk', 'a', 0), ('cpu', '12:30', 0)")
    statement = "UPDATE alerts SET seen = seen + :more, title = '12:30 \\:x' WHERE {key} = :about;".format(
        key="`key`" if database.kind == "mariadb" else '"key"'
    )
    send = write(statement=statement, columns={"about": "key", "more": "data.number"})
    assert send(numbered(1, 2, key="disk")) == {}
    assert database.execute("SELECT {key}, title, seen FROM alerts ORDER BY 1") == [["cpu", "12:30", 0], ["disk", "12:30 :x", 3]]


def test_a_template_that_fails_buries_its_message_alone(database, write):
    database.execute(STATE)
    send = write(table="alerts", columns={"key": "key", "title": "{{ labels.team }}"})
    good, bad = Message(source="t", key="a", labels={"team": "x"}), Message(source="t", key="b")
    failures = send([bad, good])
    assert [*failures] == [bad.id]
    assert str(failures[bad.id]).startswith("columns.title: ")
    assert len(database.execute("SELECT * FROM alerts")) == 1


def test_a_table_that_does_not_fit(database, write):
    with pytest.raises(PermanentError, match="has no table 'alerts'"):
        write(table="alerts")(numbered(1))
    database.execute(STATE)
    with pytest.raises(PermanentError, match="has no column 'titel'; it has key, title, seen, number"):
        write(table="alerts", columns={"titel": "title"})(numbered(1))
    database.execute("CREATE TABLE other (a INTEGER)")
    with pytest.raises(PermanentError, match="give `columns`"):
        write(table="other")(numbered(1))
    if database.kind != "mariadb":  # which updates where any unique key is met
        failures = write(table="alerts", columns={"key": "key", "title": "title"}, upsert=["title"])(numbered(1))
        assert "unique" in str(*failures.values()).lower()


def test_a_table_that_was_changed_is_looked_at_again(database, write):
    database.execute("CREATE TABLE t (title VARCHAR(4))")
    send = write(table="t")
    assert send([Message(source="t", title="abcdefgh")]) == {}
    database.execute("DROP TABLE t")
    assert len(send([Message(source="t", title="abcdefgh")])) == 1
    database.execute("CREATE TABLE t (title VARCHAR(6))")
    assert send([Message(source="t", title="abcdefgh")]) == {}
    assert database.execute("SELECT title FROM t") == [["abcdefgh" if database.kind == "sqlite" else "abcde…"]]


def test_a_table_in_a_schema(database, write):
    if database.kind == "sqlite":
        schema = "main"
    elif database.kind == "postgresql":
        schema = "ops"
        database.execute("CREATE SCHEMA ops")
    else:
        schema = database.url.rpartition("/")[2]
    database.execute(f"CREATE TABLE {schema}.t (title VARCHAR(40))")
    assert write(table=f"{schema}.t")(numbered(1)) == {}
    assert database.execute(f"SELECT title FROM {schema}.t") == [["no 1"]]


def test_a_row_that_somebody_holds_is_tried_again(database, write):
    database.execute(STATE)
    database.execute("INSERT INTO alerts ({key}, title) VALUES ('disk', 'a')")
    send = write(table="alerts", columns={"key": "key", "title": "title"}, upsert=["key"], timeout="1s")
    assert send(numbered(0, key="cpu")) == {}
    began = monotonic()
    with database.engine.connect() as holder:
        holder.execute(text("UPDATE alerts SET title = 'held'"))
        failures = send(numbered(1, 2, key="disk"))
        holder.rollback()
    assert monotonic() - began < 10
    assert len(failures) == 2
    assert all(isinstance(error, TemporaryError) for error in failures.values())
    assert send(numbered(1, key="disk")) == {}


WAITING = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    "mariadb": "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


def test_a_deadlock_is_tried_again(database, write):
    if database.kind == "sqlite":
        pytest.skip("SQLite has one writer")
    database.execute(STATE)
    database.execute("INSERT INTO alerts ({key}, title) VALUES ('a', 'x'), ('b', 'x')")
    send = write(table="alerts", columns={"key": "key", "title": "title"}, upsert=["key"], timeout="20s")
    by_key = (
        "UPDATE alerts SET seen = 1 WHERE `key` = :key"
        if database.kind == "mariadb"
        else 'UPDATE alerts SET seen = 1 WHERE "key" = :key'
    )
    told = []
    with database.engine.connect() as other:
        if database.kind == "mariadb":
            for number in range(50):  # the server ends the transaction that has changed less
                other.execute(text("INSERT INTO alerts (`key`, title) VALUES (:key, 'x')"), {"key": f"weight {number}"})
        else:
            other.execute(text("SET deadlock_timeout = '15s'"))  # whoever waits this long looks for one: the consumer, first
        other.execute(text(by_key), {"key": "b"})
        sending = threading.Thread(target=lambda: told.append(send(numbered(1, key="a") + numbered(2, key="b"))))
        sending.start()
        end = monotonic() + 15
        while not database.execute(WAITING[database.kind]) and monotonic() < end:
            sleep(0.2)  # MariaDB looks anew where nobody has asked for 0.1 s
        other.execute(text(by_key), {"key": "a"})
        other.rollback()
        sending.join(20)
    (failures,) = told
    assert [type(error) for error in failures.values()] == [TemporaryError] * 2
    assert "eadlock" in str(next(iter(failures.values())))


def test_a_connection_that_was_ended_meanwhile_is_made_anew(database, write):
    database.execute("CREATE TABLE t (title VARCHAR(40))")
    send = write(table="t")
    assert send(numbered(1)) == {}
    if database.kind == "postgresql":
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        database.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    elif database.kind == "mariadb":
        name = database.url.rpartition("/")[2]
        query = f"SELECT id FROM information_schema.processlist WHERE db = '{name}' AND id <> CONNECTION_ID()"
        for (connection,) in database.execute(query):
            database.execute(f"KILL {connection}")
    assert send(numbered(2)) == {}
    assert len(database.execute("SELECT * FROM t")) == 2


def test_a_login_that_fails_is_tried_again_and_tells_no_password(database, write):
    if database.kind != "mariadb":
        pytest.skip("the other servers here ask for no password")
    send = write(url="mysql://nobody:very-secret-password@127.0.0.1:3306/x", table="t")
    with pytest.raises(TemporaryError, match="Access denied") as caught:
        send(numbered(1))
    assert "very-secret" not in str(caught.value)


def test_a_full_batch_is_quick(database, write):
    database.execute(ALL)
    send = write(table="messages")
    messages = numbered(*range(500))
    began = monotonic()
    assert send(messages) == {}
    assert send(messages) == {}
    assert monotonic() - began < 20
    assert database.execute("SELECT count(*) FROM messages") == [[500]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "either `table` or `statement`"),
        ({"table": "t", "statement": "DELETE FROM t"}, "either `table` or `statement`"),
        ({"table": "t", "columns": {"a": "titel"}}, "did you mean 'title'"),
        ({"table": "t", "columns": {"a": "firing"}}, "a constant is written"),
        ({"table": "t", "columns": {"a": "title.x"}}, "neither a field"),
        ({"table": "t", "columns": {"a": "{{ titel }}"}}, "titel"),
        ({"table": "t", "columns": {"a": "title"}, "upsert": ["b"]}, "has no 'b'"),
        ({"statement": "DELETE FROM t WHERE id = :id", "upsert": ["id"]}, "write it into the statement"),
        ({"statement": "DELETE FROM t WHERE id = :number"}, r"nothing stands for :number; a colon is written \\:number"),
        ({"statement": "DELETE FROM t", "columns": {"a": "title"}}, "the statement has no :a"),
        ({"table": "t", "url": "oracle+nothing://x"}, "no database that SQLAlchemy knows"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        SqlConfig(**{"url": "sqlite:///x.db"} | options)


def test_upsert_is_known_for_some_databases_only(monkeypatch):
    plugin = Sql(SqlConfig(url="sqlite:///x.db", table="t", upsert=["id"]))
    monkeypatch.setattr("consumers.sql.SqlDatabase.__init__", lambda self, *_, **__: setattr(self, "dialect", "oracle"))
    with pytest.raises(ConfigError, match="oracle"):
        plugin.open()


def test_a_preview_shows_the_row():
    config = SqlConfig(url="sqlite:///x.db", table="t", columns={"a": "title", "b": "{{ severity }}", "c": "labels"})
    message = Message(source="t", title="x", severity="info", labels={"k": "v"})
    assert Sql(config).preview(message) == {"table": "t", "row": {"a": "x", "b": "info", "c": {"k": "v"}}}
