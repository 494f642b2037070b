"""Translate: tables in the options, in files that change and break, and in databases that go away."""

from __future__ import annotations

import os
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.translate import Translate, TranslateConfig
from pipeline import Dropped, Message, PermanentError, TemporaryError
from pipeline.testing import FilterContract, sample_messages


class TestTranslate(FilterContract):
    plugin = Translate
    options = {"severity": {"critical": "page", "info": "INFO"}, "labels.team": {"db": 7}, "missing": "drop"}


class TestTranslateFromAFile(FilterContract):
    plugin = Translate
    options = {"from": "labels.team", "to": {"labels.owner": "owner"}, "csv": "{tmp}/teams.csv", "default": "{{ source }}"}

    def messages(self):
        return sample_messages()

    @pytest.fixture(autouse=True)
    def table(self, tmp_path):
        (tmp_path / "teams.csv").write_text("team,owner,room\ndb,Ada,R1\n")


class TestTranslateFromADatabase(FilterContract):
    plugin = Translate
    options = {
        "from": "labels.team",
        "to": "labels.owner",
        "sql": {"url": "postgresql://ops:secret-word@127.0.0.1:9/x", "query": "SELECT owner FROM teams WHERE name = :value"},
    }


MESSAGE = Message(
    source="t",
    title="disk full",
    severity="blocker",
    labels={"env": "prd", "instance": "db1", "team": "DB"},
    data={"code": 404, "order": {"id": "a"}},
)


def opened(**options):
    plugin = Translate(TranslateConfig.model_validate(options))
    plugin.open()
    return plugin


def translated(message=MESSAGE, **options):
    with closing(opened(**options)) as plugin:
        (out,) = plugin.filter(message)
    return out


def first(plugin, message=MESSAGE):
    return next(iter(plugin.filter(message)))


HOSTS = {"db1": {"name": "Database 1", "room": "R1"}, "web1": {"name": "Web 1"}}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"severity": {"blocker": "critical", "trivial": "debug"}}, {"severity": "critical"}),
        ({"severity": {"BLOCKER": "CRIT", "P1": "critical", "critical": "error"}}, {"severity": "critical"}),
        ({"labels.env": {"prd": "production"}, "labels.x": {"a": "b"}}, {"labels": MESSAGE.labels | {"env": "production"}}),
        ({"labels.x": {"": "none"}}, {"labels": MESSAGE.labels | {"x": "none"}}),
        ({"data.code": {"404": "not found"}}, {"data": MESSAGE.data | {"code": "not found"}}),
        ({"from": "labels.env", "table": {"prd": "production"}}, {"labels": MESSAGE.labels | {"env": "production"}}),
        ({"from": "data.code", "to": "title", "table": {"404": "not found"}}, {"title": "not found"}),
        ({"from": "labels.instance", "to": "labels.port", "table": {"db1": 5432}}, {"labels": MESSAGE.labels | {"port": "5432"}}),
        ({"from": "labels.instance", "to": {"title": "name", "labels.room": "room"}, "table": HOSTS},
         {"title": "Database 1", "labels": MESSAGE.labels | {"room": "R1"}}),
        ({"labels.team": {"db": "one"}}, {"labels": MESSAGE.labels | {"team": "one"}}),
        ({"labels.team": {"db": "one", "DB": "two"}}, {"labels": MESSAGE.labels | {"team": "two"}}),
        ({"labels.team": {"db": "one", "Db": "two"}}, {}),
        ({"from": "labels.x", "to": "title", "table": {"a": "b"}}, {}),
        ({"from": "labels.x", "to": "title", "table": {"a": "b"}, "default": "no {{ labels.env }}\n"}, {"title": "no prd"}),
        ({"labels.env": {"x": "y"}, "severity": {"blocker": "error"}, "default": "other"},
         {"labels": MESSAGE.labels | {"env": "other"}, "severity": "error"}),
    ],
)  # fmt: skip
def test_what_the_table_has_is_written(options, expected):
    assert translated(**options) == MESSAGE.replace(**expected)


def test_no_entry_is_what_the_option_says():
    options = {"from": "labels.env", "to": "title", "table": {"a": "b"}}
    assert translated(**options) is MESSAGE
    assert translated(**options, missing="drop") == Dropped('the table has no entry for labels.env "prd"')
    with pytest.raises(PermanentError, match=r'^the table has no entry for labels\.env "prd"$'):
        translated(**options, missing="bury")
    with pytest.raises(PermanentError, match=r"^title: the template, line 1: the message has no labels\.rack"):
        translated(**options, default="{{ labels.rack }}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "from, and one of table, csv and sql, are required"),
        ({"from": "key"}, "from, and one of table, csv and sql, are required"),
        ({"table": {"a": "b"}}, "from, and one of table, csv and sql, are required"),
        ({"from": "key", "to": "title", "table": {"a": "b"}, "csv": "x.csv"}, "one of table, csv and sql"),
        ({"from": "key", "csv": "x.csv"}, "to: it is required"),
        ({"from": "id", "table": {"a": "b"}}, "to: it is required"),
        ({"from": "kye", "table": {"a": "b"}}, "did you mean 'key'?"),
        ({"from": "labels", "table": {"a": "b"}}, "a label such as labels.team"),
        ({"from": "key", "table": {}}, "at least 1"),
        ({"from": "key", "to": "labels.x", "table": HOSTS}, "an entry is a mapping of columns where `to` is one"),
        ({"from": "key", "to": {"labels.x": "y"}, "table": {"a": "b"}}, "an entry is a mapping of columns where `to` is one"),
        ({"from": "key", "to": {"labels.x": "y"}, "table": HOSTS}, "to: the table has no column 'y'"),
        ({"from": "key", "to": {}, "table": HOSTS}, "at least 1"),
        ({"severity": {"a": "b"}, "from": "key"}, "write two steps"),
        ({"severity": {}}, "at least 1"),
        ({"severity": {"P1": "error"}}, "severity: P1 arrives as critical, as producers know the word; write critical for it"),
        ({"from": "severity", "table": {"minor": "info"}}, "severity: minor arrives as warning"),
        ({"severty": {"a": "b"}}, "did you mean 'severity'?"),
        ({"severity": {"a": "b"}, "default": "x", "missing": "drop"}, "one of them says what to do"),
        ({"from": "key", "to": "title", "sql": {"url": "sqlite:////x", "query": "SELECT 1"}}, "the query has one place, :value"),
        (
            {"from": "key", "to": "title", "sql": {"url": "sqlite:////x", "query": "SELECT :key"}},
            "the query has one place, :value",
        ),
        ({"from": "key", "to": "title", "csv": {"file": "x", "delimiter": "ab"}}, "at most 1"),
    ],
)
def test_mistakes_are_told(options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        TranslateConfig.model_validate(options)


WORDS = st.text("aAbBß", max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, st.sampled_from(["one", "two"]), min_size=1), WORDS)
def test_a_value_is_found_as_written_or_as_the_only_one(table, word):
    """As it is written; else by letters of either case where that is one entry; else not at all."""
    alike = [text for key, text in table.items() if key.casefold() == word.casefold()]
    expected = table.get(word) or (alike[0] if len(alike) == 1 else None)
    out = translated(Message(source="t", labels={"x": word}), **{"labels.x": table})
    assert out.labels["x"] == (word if expected is None else expected)


@pytest.fixture
def hosts(tmp_path):
    """A file of hosts, and what writes it anew, as a whole and with another look each time."""
    file = tmp_path / "hosts.csv"

    def write(text, *, encoding="utf-8"):
        new = file.with_suffix(".new")
        new.write_bytes(text.encode(encoding))
        new.replace(file)

    write("host, owner ,room\ndb1, Ada ,R1\nweb1,Bob,\n")
    return file, write


TO_OWNER = {"from": "labels.instance", "to": {"labels.owner": "owner", "labels.room": "room"}}


def test_a_file_says_by_its_first_line_what_is_where(hosts):
    file, write = hosts
    assert translated(**TO_OWNER, csv=str(file)).labels == MESSAGE.labels | {"owner": "Ada", "room": "R1"}
    web = MESSAGE.replace(labels={"instance": "web1", "room": "R9"})
    assert translated(web, **TO_OWNER, csv=str(file)).labels == {"instance": "web1", "owner": "Bob", "room": "R9"}
    assert translated(MESSAGE.replace(labels={}), **TO_OWNER, csv=str(file)).labels == {}
    by_owner = {"from": "labels.x", "to": {"title": "host"}, "csv": {"file": str(file), "column": "owner"}}
    assert translated(MESSAGE.replace(labels={"x": "bob"}), **by_owner).title == "web1"
    write('\ufeffname;text\r\n"d;1";"a ""b""\nc"\r\n\r\n')
    one = {"from": "labels.x", "to": "text", "csv": {"file": str(file), "delimiter": ";"}}
    assert translated(MESSAGE.replace(labels={"x": "d;1"}), **one).text == 'a "b"\nc'


def test_a_file_is_read_again_when_it_changes(hosts):
    file, write = hosts
    with closing(opened(**TO_OWNER, csv=str(file))) as plugin:
        assert first(plugin).labels["owner"] == "Ada"
        write("host,owner,room\ndb1,Eve,R1\n")
        assert first(plugin).labels["owner"] == "Eve"


BROKEN = [
    ("host,owner,room\ndb1,Eve\n", "line 2: 3 columns are expected, there are 2"),
    ("host,owner,room\ndb1,Eve,R1\ndb1,Bob,R2\n", "line 3: its entry is there already"),
    ("host,owner\ndb1,Eve\n", "there is no column 'room'"),
    ("host,owner,room,room\ndb1,Eve,a,b\n", "two columns have the same name"),
    ('host,owner,room\ndb1,"Eve,R1\n', "unexpected end of data"),
    ("", "it is empty"),
    ("host,owner,room\n" + "".join(f"h{number},a,b\n" for number in range(100_001)), "more than 100000 entries"),
    (f"host,owner,room\nh,{'x' * 33 * 2**20},b\n", "more than 32 MiB"),
]


@pytest.mark.parametrize(("text", "problem"), BROKEN, ids=[problem for _, problem in BROKEN])
def test_a_broken_file_leaves_the_last_good_one_and_says_so(hosts, text, problem):
    file, write = hosts
    with closing(opened(**TO_OWNER, csv=str(file))) as plugin, structlog.testing.capture_logs() as logs:
        assert first(plugin).labels["owner"] == "Ada"
        write(text)
        for _ in range(3):
            assert first(plugin).labels["owner"] == "Ada"
        with pytest.raises(TemporaryError, match=re.escape(problem)):
            plugin.probe()
        write("host,owner,room\ndb1,Eve,R1\n")
        assert first(plugin).labels["owner"] == "Eve"
        assert plugin.probe().endswith("hosts.csv, 1 entries")
    (said,) = logs
    assert (said["event"], said["log_level"], said["file"]) == ("translate.broken_table", "error", str(file))
    assert problem in said["problem"]
    assert said["until_then"] == "its last good state is used"


def test_a_file_that_is_gone_or_no_text_leaves_the_last_good_one(hosts):
    file, write = hosts
    with closing(opened(**TO_OWNER, csv=str(file))) as plugin, structlog.testing.capture_logs() as logs:
        assert first(plugin).labels["owner"] == "Ada"
        write("host,owner,room\ndb1,\xe4,\xff\n", encoding="latin-1")
        assert first(plugin).labels["owner"] == "Ada"
        file.unlink()
        assert first(plugin).labels["owner"] == "Ada"
    assert [said["problem"] for said in logs] == ["it is not UTF-8", os.strerror(2)]


@pytest.mark.parametrize("text", [None, *(text for text, _ in BROKEN[:6])])
def test_before_there_was_a_good_file_messages_wait(hosts, text):
    file, write = hosts
    write(text) if text is not None else file.unlink()
    with closing(opened(**TO_OWNER, csv=str(file), missing="drop")) as plugin:
        for _ in range(2):
            with pytest.raises(TemporaryError, match=r"hosts\.csv: "):
                [*plugin.filter(MESSAGE)]
        write("host,owner,room\ndb1,Eve,R1\n")
        assert first(plugin).labels["owner"] == "Eve"


def test_an_entry_of_a_file_takes_less_than_a_kilobyte(hosts):
    """Whatever else its line holds: a hundred thousand of them, which is the most, take less than 100 MB."""
    file, write = hosts
    write("host,owner,room,rest\n" + "".join(f"host-{n}.example.com,o{n},r{n},{'x' * 200}\n" for n in range(10_000)))
    with closing(opened(**TO_OWNER, csv=str(file))) as plugin:
        tracemalloc.start()
        first(plugin)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert first(plugin, MESSAGE.replace(labels={"instance": "host-7.example.com"})).labels["owner"] == "o7"
    assert taken < 10_000 * 1000


def test_one_place_needs_a_file_of_two_columns(hosts):
    file, _ = hosts
    with pytest.raises(TemporaryError, match="it has 3 columns: `to` has to say which one goes where"):
        translated(**{"from": "key", "to": "title", "csv": str(file)})
    file.write_text("name;owner\na;1\n")
    with pytest.raises(TemporaryError, match="it has one column: another `delimiter` may stand between them"):
        translated(**{"from": "key", "to": "title", "csv": str(file)})


def test_threads_share_a_file_that_changes(hosts):
    """While the file changes each message gets one of its states as a whole, and the last one in the end."""
    file, write = hosts
    with closing(opened(**TO_OWNER, csv=str(file))) as plugin, ThreadPoolExecutor(4) as pool:

        def look(_):
            (out,) = plugin.filter(MESSAGE)
            return out.labels["owner"], out.labels["room"]

        for number in range(30):
            write(f"host,owner,room\ndb1,o{number},r{number}\n")
            for owner, room in pool.map(look, range(20)):
                assert owner[1:] == room[1:] == str(number)


def test_a_path_begins_at_the_pipelines_file(tmp_path, hosts):
    from pipeline.registry import Registry
    from pipeline.spec.loader import load

    file, _ = hosts
    page = tmp_path / "page.yaml"
    page.write_text(
        "producers: [http]\nfilters:\n  - translate: {from: labels.instance, to: {labels.owner: owner}, csv: hosts.csv}\n"
        "consumers: [log]\n"
    )
    (pipeline,) = load([tmp_path], registry=Registry(), environ={}).pipelines.values()
    assert pipeline.filters[0].config.csv.file == file


def test_a_database_is_asked_once_in_a_while(foreign_database):
    """The value is bound, whatever it holds; several columns go to several places; NULL leaves its place as it is."""
    engine = sqlalchemy.create_engine(foreign_database.replace("mysql:", "mysql+pymysql:").replace("mariadb:", "mysql+pymysql:"))
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("CREATE TABLE hosts (name VARCHAR(40), owner VARCHAR(40), room INTEGER, rack INTEGER)")
        )
        rows = [{"name": "db1", "owner": "Ada", "room": 7}, {"name": "o'x; --", "owner": "Eve", "room": None}]
        connection.execute(sqlalchemy.text("INSERT INTO hosts VALUES (:name, :owner, :room, 1)"), rows)
    url = engine.url.render_as_string(hide_password=False)
    query = "SELECT owner, room AS place FROM hosts WHERE name = :value"
    options = {"from": "labels.instance", "to": {"title": "owner", "labels.room": "place", "data.room": "place"}}
    with closing(opened(**options, sql={"url": url, "query": query})) as plugin:
        (one,) = plugin.filter(MESSAGE)
        assert (one.title, one.labels["room"], one.data["room"]) == ("Ada", "7", 7)
        (two,) = plugin.filter(MESSAGE.replace(labels={"instance": "o'x; --", "room": "R"}))
        assert (two.title, two.labels["room"]) == ("Eve", "R")
        other = MESSAGE.replace(labels={"instance": "new"})
        assert [*plugin.filter(other)] == [other]
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO hosts VALUES ('new', 'Bob', 1, 1)"))
        assert [*plugin.filter(other)] == [other], "that there is no entry is remembered as well"
        assert plugin.probe()
    with closing(opened(**options, sql={"url": url, "query": query, "refresh": "0s"})) as plugin:
        assert first(plugin, other).title == "Bob"
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE hosts SET owner = 'Eve'"))
        assert first(plugin, other).title == "Eve"
    engine.dispose()


@pytest.fixture
def lookup(tmp_path):
    """A small database in a file."""
    file = tmp_path / "hosts.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE hosts (name TEXT, owner TEXT)"))
        connection.execute(sqlalchemy.text("INSERT INTO hosts VALUES ('db1', 'Ada')"))
    engine.dispose()
    return file


QUERY = "SELECT owner FROM hosts WHERE name = :value"


def test_one_column_goes_to_one_place(lookup):
    options = {"from": "labels.instance", "to": "labels.owner", "sql": {"url": f"sqlite:///{lookup}", "query": QUERY}}
    assert translated(**options).labels["owner"] == "Ada"
    assert translated(MESSAGE.replace(labels={}), **options, missing="drop") == Dropped(
        'the table has no entry for labels.instance ""'
    )


def test_a_database_that_is_away_has_messages_wait_or_pass(tmp_path, lookup):
    away = {"url": f"sqlite:///{tmp_path / 'nowhere.db'}", "query": QUERY}
    options = {"from": "labels.instance", "to": "labels.owner", "missing": "drop"}
    with pytest.raises(TemporaryError):
        translated(**options, sql=away)
    assert translated(**options, sql=away | {"on_error": "pass"}) is MESSAGE
    with closing(opened(**options, sql={"url": f"sqlite:///{lookup}", "query": QUERY})) as plugin:
        assert first(plugin).labels["owner"] == "Ada"
        lookup.unlink()
        assert first(plugin).labels["owner"] == "Ada", "what is known is still known"
        with pytest.raises(TemporaryError):
            [*plugin.filter(MESSAGE.replace(labels={"instance": "other"}))]


def test_a_database_that_was_away_is_left_alone_for_a_while(lookup, monkeypatch):
    """So that messages do not wait for a connection each; the log says it once."""
    now = [1000.0]
    monkeypatch.setattr("filters.translate.tables.monotonic", lambda: now[0])
    sql = {"url": f"sqlite:///{lookup}", "query": QUERY, "on_error": "pass"}
    hidden = lookup.with_suffix(".hidden")
    lookup.rename(hidden)
    options = {"from": "labels.instance", "to": "labels.owner", "sql": sql}
    with closing(opened(**options)) as plugin, structlog.testing.capture_logs() as logs:
        assert first(plugin) is MESSAGE
        hidden.rename(lookup)
        now[0] += 9.9
        assert first(plugin) is MESSAGE
        now[0] += 0.1
        assert first(plugin).labels["owner"] == "Ada"
    assert [(said["event"], said["messages"]) for said in logs] == [("translate.database_away", "they pass as they are")]


@pytest.mark.parametrize(
    ("query", "to", "reason"),
    [
        ("SELECT boss FROM hosts WHERE name = :value", "title", "no such column"),
        ("SELECT owner, name FROM hosts WHERE name = :value", "title", "the query gives 2 columns"),
        (QUERY, {"title": "boss"}, "the query gives no column 'boss'"),
    ],
)
def test_a_query_that_can_never_work_buries(lookup, query, to, reason):
    with pytest.raises(PermanentError, match=reason):
        translated(**{"from": "labels.instance", "to": to, "sql": {"url": f"sqlite:///{lookup}", "query": query}})


def test_a_query_cannot_write(lookup):
    url = f"sqlite:///{lookup}"
    with pytest.raises((TemporaryError, PermanentError)):
        translated(**{"from": "labels.instance", "to": "title", "sql": {"url": url, "query": f"DELETE{QUERY[12:]}"}})
    assert translated(**{"from": "labels.instance", "to": "title", "sql": {"url": url, "query": QUERY}}).title == "Ada"


def test_what_is_kept_of_a_database_is_bounded(lookup, monkeypatch):
    monkeypatch.setattr("filters.translate.tables.MOST_KEPT", 10)
    options = {"from": "labels.instance", "to": "labels.owner", "sql": {"url": f"sqlite:///{lookup}", "query": QUERY}}
    with closing(opened(**options)) as plugin:
        for number in range(50):
            list(plugin.filter(MESSAGE.replace(labels={"instance": f"host{number}"})))
        assert len(plugin._lookups[0].table._kept) == 10
