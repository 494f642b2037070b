"""SQL: rows of SQLite, PostgreSQL and MariaDB become messages, late ones too, and nothing is written there."""

from __future__ import annotations

import sqlite3
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from itertools import islice
from time import monotonic, process_time
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from pipeline import PermanentError, SqlDatabase, TemporaryError
from pipeline.testing import PollingProducerContract
from producers.sql import Sql, SqlConfig
from producers.sql.cursors import MOST

pytestmark = pytest.mark.against("producer sql", "{foreign_database}")

AWAY = {"url": "postgresql://reader:very-secret-password@127.0.0.1:9/orders"}
NEW = {"query": "SELECT * FROM orders WHERE id > :cursor ORDER BY id", "cursor": "id", "start": 0}


class TestNewRows(PollingProducerContract):
    plugin = Sql
    options = {"url": "sqlite:///{tmp}/orders.db", **NEW}
    away_options = {**options, **AWAY}

    @pytest.fixture(autouse=True)
    def orders(self, tmp_path):
        with sqlite3.connect(tmp_path / "orders.db") as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT)")
            connection.executemany("INSERT INTO orders VALUES (?, ?)", [(1, "new"), (2, "new"), (5, "paid"), (6, "new")])
        connection.close()


class TestNewRowsThatShareAValue(TestNewRows):
    options = {
        **TestNewRows.options,
        "query": "SELECT length(state) AS size, id FROM orders WHERE size > :cursor ORDER BY size",
        "cursor": "size",
        "overlap": 1,
        "limit": 1,
    }
    away_options = {**options, **AWAY}


class TestChangedRows(TestNewRows):
    options = {"url": "sqlite:///{tmp}/orders.db", "query": "SELECT * FROM orders", "changed": True}
    away_options = {**options, **AWAY}


class TestResults(TestNewRows):
    options = {**TestNewRows.options, "per": "result", "limit": 1}
    away_options = {**options, **AWAY}


def execute(url, *statements, **values):
    engine = create_engine(url.replace("mariadb://", "mariadb+pymysql://"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)
    engine.dispose()


@pytest.fixture
def ask(foreign_database):
    """Polls the database as often as it is called, each time from the last cursor on."""
    made = []

    def prepare(**options):
        plugin = Sql(SqlConfig(**{"url": foreign_database} | options))
        plugin.open()
        made.append(plugin)
        cursor = None

        def poll(most=None):
            nonlocal cursor
            told = []
            for message, position in plugin.poll(cursor):
                told += [message] if message is not None else []
                cursor = position
                if len(told) == most:
                    break
            return told

        return poll

    yield prepare
    for plugin in made:
        plugin.close()


@pytest.fixture
def orders(foreign_database):
    """Makes the table of orders; gives what inserts orders, each as its id and state."""
    execute(foreign_database, "CREATE TABLE orders (id INTEGER PRIMARY KEY, state VARCHAR(20))")

    def insert(*rows):
        values = ", ".join(f"({number}, '{state}')" if state else f"({number}, NULL)" for number, state in rows)
        execute(foreign_database, f"INSERT INTO orders VALUES {values}")

    return insert


def ids(messages):
    return [message.data["id"] for message in messages]


def test_new_rows_are_told_once(ask, orders):
    poll = ask(**NEW)
    assert poll() == []
    orders((1, "new"), (2, "paid"))
    first = poll()
    assert ids(first) == [1, 2]
    assert (first[0].title, first[0].text) == ("id: 1, state: new", "id: 1\nstate: new")
    assert poll() == []
    orders((3, "new"))
    assert ids(poll()) == [3]


def test_a_row_that_is_given_again_is_the_same_message(ask, orders):
    orders((1, "new"), (2, "new"))
    one, other = ask(**NEW), ask(**NEW)
    assert [message.id for message in one()] == [message.id for message in other()]
    assert len({message.id for message in ask(**NEW | {"query": NEW["query"].replace("*", "id, state")})()}) == 2


def test_the_same_row_of_two_databases_is_two_messages(tmp_path):
    found = set()
    for name in "ab":
        execute(f"sqlite:///{tmp_path}/{name}.db", "CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")
        plugin = Sql(SqlConfig(url=f"sqlite:///{tmp_path}/{name}.db", query="SELECT id FROM t"))
        plugin.open()
        found |= {message.id for message, _ in plugin.poll(None)}
    assert len(found) == 2


def test_many_rows_are_read_in_parts(ask, orders):
    orders(*((number, "x") for number in range(1, 26)))
    assert ids(ask(**NEW, limit=10)()) == [*range(1, 26)]
    poll = ask(**NEW, limit=10)
    assert ids(poll(most=13) + poll(most=1) + poll()) == [*range(1, 26)]


def test_rows_that_share_a_value_are_all_told_wherever_a_poll_breaks_off(ask, orders):
    orders(*((number, f"s{number // 10}") for number in range(1, 31)))
    query = "SELECT * FROM orders WHERE state {} :cursor ORDER BY state, id"
    for comparison in (">", ">="):
        poll = ask(query=query.format(comparison), cursor="state", start="", limit=3)
        told = poll(most=4) + poll(most=12) + poll()
        assert ids(told) == [*range(1, 31)]
        assert poll() == []
    orders((31, "s3"))
    assert ids(poll()) == [31]


def test_rows_that_are_alike_in_every_column_are_all_told(ask, foreign_database):
    execute(foreign_database, "CREATE TABLE journal (at INTEGER, line VARCHAR(20))")
    for _ in range(3):
        execute(foreign_database, "INSERT INTO journal VALUES (7, 'same')")
    poll = ask(query="SELECT * FROM journal WHERE at > :cursor ORDER BY at", cursor="at", start=0)
    assert len({message.id for message in poll(most=2) + poll()}) == 3


def test_a_row_that_commits_late_is_told_where_there_is_an_overlap(ask, foreign_database):
    execute(foreign_database, "CREATE TABLE orders (id INTEGER PRIMARY KEY, state VARCHAR(20))")
    execute(foreign_database, "INSERT INTO orders VALUES (90, 'before the start'), (100, 'before the start')")
    start = "SELECT max(id) FROM orders"
    careless, careful = ask(**NEW | {"start": start}), ask(**NEW | {"start": start}, overlap=20)
    assert careless() == careful() == []
    engine = create_engine(foreign_database.replace("mariadb://", "mariadb+pymysql://"))
    with engine.connect() as slow:
        if not foreign_database.startswith("sqlite"):  # which has one writer at a time
            slow.execute(text("INSERT INTO orders VALUES (101, 'late')"))
        execute(foreign_database, "INSERT INTO orders VALUES (102, 'x'), (103, 'y')")
        assert ids(careless()) == ids(careful()) == [102, 103]
        if foreign_database.startswith("sqlite"):
            slow.execute(text("INSERT INTO orders VALUES (101, 'late')"))
        slow.commit()
    engine.dispose()
    assert (ids(careless()), ids(careful())) == ([], [101])
    execute(foreign_database, "INSERT INTO orders VALUES (150, 'z')")
    assert ids(careless()) == ids(careful()) == [150]
    assert careless() == careful() == []


ROUND = st.tuples(st.lists(st.integers(-8, 5), max_size=6), st.integers(0, 8))
"""By how much each new row is behind or ahead of the latest value, and after how many messages the poll breaks off."""


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(ROUND, max_size=12), limit=st.integers(1, 7), comparison=st.sampled_from([">", ">="]))
def test_each_row_that_is_late_by_no_more_than_the_overlap_is_told_once(tmp_path, rounds, limit, comparison):
    file = tmp_path / "late.db"
    file.unlink(missing_ok=True)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at INTEGER)")
    query = f"SELECT * FROM t WHERE at {comparison} :cursor ORDER BY at"
    plugin = Sql(SqlConfig(url=f"sqlite:///{file}", query=query, cursor="at", start=0, overlap=9, limit=limit))
    plugin.open()
    cursor, told, latest = None, [], 100
    for steps, most in [*rounds, ([], 1000)]:
        for step in steps:
            connection.execute("INSERT INTO t (at) VALUES (?)", [latest + step])
        latest = max([latest, *(latest + step for step in steps)])
        for message, position in islice(plugin.poll(cursor), most):
            told += ids([message]) if message is not None else []
            cursor = position
    connection.close()
    assert sorted(told) == [*range(1, sum(len(steps) for steps, _ in rounds) + 1)]


TIME = {"sqlite": "TEXT", "postgresql": "TIMESTAMPTZ", "mariadb": "DATETIME(6)"}


@pytest.mark.parametrize("start", ["2026-11-21 08:00:00", "SELECT max(at) FROM jobs WHERE id < 2"])
def test_times_are_followed_with_an_overlap_of_time(ask, foreign_database, start):
    kind = TIME[foreign_database.partition("+")[0].partition(":")[0]]
    execute(foreign_database, f"CREATE TABLE jobs (id INTEGER, at {kind})")

    def insert(number, at):
        execute(foreign_database, "INSERT INTO jobs VALUES (:id, :at)", id=number, at=f"2026-11-21 {at}")

    insert(0, "07:58:00")
    insert(1, "08:00:00")
    query = "SELECT id, at FROM jobs WHERE at > :cursor ORDER BY at"
    poll = ask(query=query, cursor="at", start=start, overlap="5m")
    assert poll() == []
    insert(2, "08:01:00.5")
    insert(3, "08:04:00")
    assert ids(poll()) == [2, 3]
    insert(4, "08:02:00")
    assert ids(poll()) == [4]
    insert(5, "08:30:00")
    assert ids(poll()) == [5]
    insert(6, "08:10:00")
    insert(7, "08:26:00")
    assert ids(poll()) == [6, 7]
    assert poll() == []


def test_more_rows_than_a_cursor_remembers_are_an_error_and_no_loss(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    execute(url, "CREATE TABLE t (id INTEGER, at INTEGER)")
    execute(
        url,
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MOST + 1}) INSERT INTO t SELECT i, 7 FROM n",
    )
    plugin = Sql(SqlConfig(url=url, query="SELECT * FROM t WHERE at > :cursor ORDER BY at", cursor="at", start=0, limit=5000))
    plugin.open()
    began = process_time()
    with pytest.raises(PermanentError, match="share a value"):
        list(plugin.poll(None))
    assert process_time() - began < 20
    plugin = Sql(SqlConfig(url=url, query="SELECT * FROM t"))
    plugin.open()
    with pytest.raises(PermanentError, match=f"more than {MOST} rows"):
        list(plugin.poll(None))


def test_changed_rows(ask, foreign_database, orders):
    poll = ask(query="SELECT id, state AS status FROM orders ORDER BY id", changed=True, severity="HIGH")
    orders((1, "firing"), (2, "ok"))
    told = poll()
    assert [(m.key, m.status, m.severity) for m in told] == [("1", "firing", "error"), ("2", "resolved", "error")]
    assert poll() == []
    execute(foreign_database, "UPDATE orders SET state = 'resolved' WHERE id = 1")
    (resolved,) = poll()
    execute(foreign_database, "UPDATE orders SET state = 'firing' WHERE id = 1", "DELETE FROM orders WHERE id = 2")
    (again,) = poll()
    assert (resolved.status, again.status) == ("resolved", "firing")
    assert len({told[0].id, resolved.id, again.id}) == 3
    orders((2, "ok"))
    assert ids(poll()) == [2]


def test_what_is_there_at_the_beginning_need_not_be_told(ask, orders):
    orders((1, "a"), (2, "b"))
    poll = ask(query="SELECT id, state FROM orders", changed=["id"], start="now")
    assert poll() == []
    orders((3, "c"))
    assert ids(poll()) == [3]


def test_an_empty_beginning_is_one_too(ask, orders):
    poll = ask(query="SELECT id, state FROM orders", changed=True, start="now")
    assert poll() == []
    orders((1, "a"))
    assert ids(poll()) == [1]


def test_rows_that_nothing_tells_apart(ask, orders):
    orders((1, "a"), (2, "a"))
    with pytest.raises(PermanentError, match="two rows have the same state"):
        ask(query="SELECT state, id FROM orders", changed=True)()
    with pytest.raises(PermanentError, match="gives no column 'host' but state, id"):
        ask(query="SELECT state, id FROM orders", changed=["host"])()


def test_everything_each_time(ask, orders):
    orders((1, "a"), (2, "b"))
    poll = ask(query="SELECT * FROM orders ORDER BY id;")
    first, second = poll(), poll()
    assert ids(first) == ids(second) == [1, 2]
    assert len({message.id for message in first + second}) == 4


def test_a_result(ask, orders):
    poll = ask(query="SELECT * FROM orders ORDER BY id", per="result", title="{{ data.count }} to do", limit=25)
    assert poll() == []
    orders(*((number, "x") for number in range(1, 31)))
    first, second = poll()
    assert (first.title, second.title, second.data["count"]) == ("25 to do", "5 to do", 5)
    assert first.data["rows"][0] == {"id": 1, "state": "x"}
    assert first.text.splitlines()[::20] == ["id: 1, state: x", "… and 5 more"]


def test_templates_and_columns_make_the_message(ask, foreign_database, orders, capsys):
    orders((7, "paid"))
    key = "`key`" if "maria" in foreign_database else '"key"'
    own = f"'A title' AS title, 'crit' AS severity, 'k 1' AS {key}, '2026-11-21 08:30:00' AS time, 'x' AS url"
    (message,) = ask(query=f"SELECT id, state, {own} FROM orders")()
    assert (message.title, message.severity, message.key, message.url) == ("A title", "critical", "k 1", "x")
    assert message.time == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    (message,) = ask(
        query="SELECT id, state FROM orders",
        title="Order {{ data.id }}\nis {{ data.state }}",
        text="{{ title }}",
        key="order-{{ data.id }}",
        severity="{{ 'warn' if data.id > 5 else 'info' }}",
        status="{{ data.stat }}",
        labels={"shop": "north", "lost": "{{ data.nothing }}"},
    )()
    assert (message.title, message.key, message.severity) == ("Order 7 is paid", "order-7", "warning")
    assert (message.text, message.status, message.labels) == ("id: 7, state: paid", "firing", {"shop": "north"})
    assert capsys.readouterr().out.count("a template failed") == 2
    assert "@" not in message.source
    assert message.source.startswith(("sqlite:///", "postgresql://127", "mariadb://127"))


TYPES = {
    "sqlite": "SELECT 1 AS i, 1.5 AS f, 'a' || char(0) || 'b' AS nul, x'00ff' AS raw, CAST(x'61ff' AS TEXT) AS odd, NULL AS n",
    "postgresql": """SELECT 1 AS i, 1.5::float8 AS f, 12.30::numeric AS d, 0.12345678901234567890::numeric AS long,
        9007199254740993::int8 AS big, 'NaN'::float8 AS nan, true AS t, '\\x00ff'::bytea AS raw, DATE '2026-11-21' AS day,
        TIME '08:30' AS clock, TIMESTAMPTZ '2026-11-21 08:30:00+01' AS at, TIMESTAMP '2026-11-21 08:30:00.5' AS local,
        INTERVAL '90 minutes' AS span, '{"a": [1, null, "b\\u00e9"]}'::jsonb AS doc, ARRAY[1, 2] AS list, '::1'::inet AS ip,
        'f47ac10b-58cc-4372-a567-0e02b2c3d479'::uuid AS uuid, to_char(TIME '08:30', 'HH24:MI') AS hour, NULL AS n""",
    "mariadb": """SELECT 1 AS i, 1.5e0 AS f, 12.30 AS d, 0.12345678901234567890 AS `long`, x'00ff' AS raw,
        DATE '2026-11-21' AS day, TIMESTAMP '2026-11-21 08:30:00.5' AS local, TIME '01:30:00' AS span,
        CONCAT('a', CHAR(0 USING utf8mb4), 'b') AS nul, NULL AS n, CAST(18446744073709551615 AS UNSIGNED) AS big""",
}
VALUES = {
    "i": 1,
    "f": 1.5,
    "d": 12.3,
    "long": "0.12345678901234567890",
    "nan": "nan",
    "t": True,
    "nul": "a\ufffdb",
    "odd": "a\ufffd",
    "raw": "00ff",
    "day": "2026-11-21",
    "clock": "08:30:00",
    "at": "2026-11-21T07:30:00Z",
    "local": "2026-11-21T08:30:00.500000",
    "span": 5400.0,
    "doc": {"a": [1, None, "bé"]},
    "list": [1, 2],
    "ip": "::1",
    "uuid": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "hour": "08:30",
    "n": None,
}


def test_values_of_every_type(ask, foreign_database):
    kind = foreign_database.partition("+")[0].partition(":")[0]
    (message,) = ask(query=TYPES[kind])()
    big = {"postgresql": 2**53 + 1, "mariadb": 2**64 - 1}.get(kind)
    assert message.data == {name: VALUES.get(name, big) for name in message.data}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Decimal("1E+3"), 1000),
        (Decimal("NaN"), "NaN"),
        (Decimal(2**60), str(2**60)),
        (Decimal("0.1"), 0.1),
        (10**20, str(10**20)),
        (float("inf"), "inf"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (date(2026, 1, 1), "2026-01-01"),
        (time(8, 30), "08:30:00"),
        (timedelta(days=1), 86400.0),
        (memoryview(b"\x01"), "01"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ip_address("::1"), "::1"),
        ("\ud800", "?"),
        ({1: {2}}, {"1": [2]}),
    ],
)
def test_plain_values(value, shown):
    assert SqlDatabase.plain(value) == shown
    assert len(SqlDatabase.plain("x" * 10**6)) == 65_536


def test_nothing_is_written(ask, foreign_database, orders):
    orders((1, "a"))
    query = "DELETE FROM orders RETURNING id"
    if foreign_database.startswith("postgresql"):
        query = f"WITH gone AS ({query}) SELECT * FROM gone"
    with pytest.raises((PermanentError, TemporaryError), match=r"(?i)read.?only|DECLARE|data-modifying"):
        ask(query=query)()
    with pytest.raises((PermanentError, TemporaryError)):
        ask(query="INSERT INTO orders VALUES (2, 'b')")()
    assert ids(ask(query="SELECT * FROM orders")()) == [1]


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(20)",
    "mariadb": "SELECT sleep(20)",
}


def test_a_query_that_takes_too_long_is_ended(ask, foreign_database):
    poll = ask(query=SLOW[foreign_database.partition("+")[0].partition(":")[0]], timeout="300ms")
    began = monotonic()
    with pytest.raises(TemporaryError, match=r"(?i)interrupt|timeout|max_statement_time"):
        poll()
    assert monotonic() - began < 5


def test_a_connection_that_is_killed_is_asked_again(ask, foreign_database):
    if foreign_database.startswith("sqlite"):
        pytest.skip("SQLite has no connection to kill")
    query = "SELECT pg_terminate_backend(pg_backend_pid())" if "postgres" in foreign_database else "KILL CONNECTION_ID()"
    with pytest.raises(TemporaryError):
        ask(query=query)()


def test_what_the_database_does_not_know_is_told_in_its_words(ask):
    with pytest.raises(PermanentError, match="nothing_here"):
        ask(query="SELECT * FROM nothing_here")()


def test_what_a_query_with_a_cursor_must_give(ask, orders):
    orders((1, None), (2, "b"))
    with pytest.raises(PermanentError, match="gives no column 'number' but id, state"):
        ask(**NEW | {"cursor": "number"})()
    with pytest.raises(PermanentError, match="no value in 'state'"):
        ask(**NEW | {"cursor": "state"})()
    with pytest.raises(PermanentError, match="coalesce"):
        ask(**NEW | {"start": "SELECT max(id) FROM orders WHERE id > 10"})()
    orders((3, "x"), (4, "z"), (5, "c"))
    with pytest.raises(PermanentError, match="do not come in the order"):
        ask(query="SELECT * FROM orders WHERE id > 1 AND state > :cursor ORDER BY id", cursor="state", start="")()
    with pytest.raises(PermanentError, match="a duration is expected"):
        ask(query="SELECT * FROM orders WHERE state > :cursor ORDER BY state", cursor="state", start="", overlap=1)()


WITHOUT_CURSOR = {"query": "SELECT 1", "cursor": None, "start": None}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"query": ""}, "at least 1 character"),
        ({"query": "SELECT id FROM t WHERE id > :id AND id > :cursor"}, r"nothing stands for :id; a colon is written \\:id"),
        ({"query": "SELECT id FROM t WHERE id > :cursor"}, "ORDER BY id"),
        ({"query": "SELECT id FROM t WHERE id > :cursor ORDER BY id LIMIT 10;"}, "leave LIMIT out"),
        ({"query": "SELECT id FROM t WHERE id > :cursor ORDER BY id FETCH FIRST 10 ROWS ONLY"}, "leave LIMIT out"),
        ({"cursor": None}, "name the column"),
        ({"start": None}, "say what :cursor is"),
        ({"changed": True}, "leave :cursor out"),
        (WITHOUT_CURSOR | {"start": 0}, "start: now"),
        (WITHOUT_CURSOR | {"cursor": "id"}, "WHERE id > :cursor"),
        (WITHOUT_CURSOR | {"overlap": 5}, "WHERE id > :cursor"),
        ({"overlap": "soon"}, "duration"),
        ({"limit": 0}, "limit"),
        ({"url": "the-secret-word"}, "the URL of a database is expected"),
        ({"url": "secretword://x"}, "no database that SQLAlchemy knows"),
        ({"url": "postgresql+asyncpg://x:the-secret-word@y/z"}, "module|asynchronous|driver"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told) as caught:
        SqlConfig(**{"url": "sqlite:///x.db"} | NEW | options)
    assert "the-secret-word" not in "; ".join(error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(
    ("url", "module", "extra"), [("mysql://x/y", "pymysql", "mysql"), ("postgres://x/y", "psycopg", "postgres")]
)
def test_a_missing_driver_is_one_line_that_names_the_extra(monkeypatch, url, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValidationError) as caught:
        SqlConfig(url=url, query="SELECT 1")
    (error,) = caught.value.errors()
    assert error["msg"] == f'Value error, the driver of this database is missing: pip install "siftbell[{extra}]"'


def test_a_file_that_is_not_there_is_asked_for_again_and_not_made(tmp_path):
    plugin = Sql(SqlConfig(url=f"sqlite:///{tmp_path}/a#1%3F b.db", query="SELECT 1"))
    plugin.open()
    with pytest.raises(TemporaryError, match="unable to open"):
        list(plugin.poll(None))
    assert [*tmp_path.iterdir()] == []
    execute(f"sqlite:///{tmp_path}/a#1%3F b.db", "CREATE TABLE t (id INTEGER)")
    assert len(list(plugin.poll(None))) == 1


def test_a_password_shows_nowhere():
    plugin = Sql(SqlConfig(**AWAY, query="SELECT 1"))
    plugin.open()
    with pytest.raises(TemporaryError) as caught:
        list(plugin.poll(None))
    assert str(caught.value).startswith("postgresql://127.0.0.1:9/orders: ")
    assert "very-secret" not in f"{caught.value!r}"


def test_a_password_of_several_words_shows_nowhere(empty_postgres):
    parts = urlsplit(empty_postgres)
    url = parts._replace(netloc=f"{parts.username}:two%20%20words@{parts.hostname}:{parts.port or 5432}").geturl()
    plugin = Sql(SqlConfig(url=url, query='SELECT "two  words"'))
    plugin.open()
    with pytest.raises((PermanentError, TemporaryError)) as caught:
        list(plugin.poll(None))
    assert "***" in str(caught.value)
    assert "words" not in str(caught.value)
