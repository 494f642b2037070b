"""One contract for the memory, wherever it is; and what it says when its place is away."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from pipeline import ConfigError, TemporaryError
from pipeline.memory import RedisMemory, SqlMemory, open_memory
from pipeline.memory.redis import PREFIX
from pipeline.store import StoreAway

MINUTE = timedelta(minutes=1)
ROOT = Path(__file__).parents[2]


class Moment:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def moment():
    return Moment()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def url(request, tmp_path):
    if request.param == "redis":
        return request.getfixturevalue("require_redis")
    if request.param == "postgres":
        return request.getfixturevalue("migrated_postgres")
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(scope="session")
def migrated_postgres(new_postgres):
    return new_postgres()


@pytest.fixture
def backend(url, moment):
    with closing(open_memory(url, now=moment)) as made:
        if isinstance(made, SqlMemory):
            made.migrate()
        yield made


@pytest.fixture
def pipeline():
    """A name of the test's own: in Redis, all it leaves is gone after a minute."""
    return uuid4().hex


@pytest.fixture
def memory(backend, pipeline):
    return backend.scoped(pipeline, "deduplicate")


def test_the_first_call_is_the_first_and_no_other(memory):
    assert [memory.first("k", MINUTE) for _ in range(3)] == [True, False, False]
    assert memory.first("other", MINUTE)


def test_calls_are_counted(memory):
    assert [memory.count("k", MINUTE) for _ in range(3)] == [1, 2, 3]
    assert memory.count("other", MINUTE) == 1


def test_first_and_count_of_one_key_do_not_know_one_another(memory):
    assert memory.count("k", MINUTE) == 1
    assert memory.first("k", MINUTE)
    assert memory.count("k", MINUTE) == 2


def test_what_is_forgotten_begins_anew(memory):
    memory.first("k", MINUTE)
    memory.count("k", MINUTE)
    memory.first("other", MINUTE)
    memory.forget("k")
    memory.forget("never seen")
    assert memory.first("k", MINUTE)
    assert memory.count("k", MINUTE) == 1
    assert not memory.first("other", MINUTE)


def test_steps_do_not_see_one_anothers_keys(backend, pipeline, memory):
    assert memory.first("k", MINUTE)
    assert backend.scoped(pipeline, "other").first("k", MINUTE)
    assert backend.scoped(pipeline + "2", "deduplicate").first("k", MINUTE)
    assert not backend.scoped(pipeline, "deduplicate").first("k", MINUTE)


def test_a_message_that_comes_again_is_not_counted_again(backend, pipeline):
    """A batch is run again as long as the broker is away: its messages must not become too many by that."""
    for _ in range(3):
        counts = [backend.scoped(pipeline, "throttle", asker).count("k", MINUTE) for asker in ("one", "two")]
        assert counts == [1, 2]
    assert backend.scoped(pipeline, "throttle", "one").count("other", MINUTE) == 1
    assert backend.scoped(pipeline, "throttle", "three").count("k", MINUTE) == 3


def test_a_count_that_was_told_is_forgotten_with_its_window(tmp_path, moment):
    with closing(open_memory(f"sqlite:///{tmp_path / 'store.db'}", now=moment)) as backend:
        backend.migrate()
        assert [backend.scoped("p", "throttle", asker).count("k", MINUTE) for asker in ("one", "two")] == [1, 2]
        moment.now += 2 * MINUTE
        assert [backend.scoped("p", "throttle", asker).count("k", MINUTE) for asker in ("two", "one")] == [1, 2]


def test_a_message_that_comes_again_is_no_duplicate_of_itself(backend, pipeline):
    one, two = (backend.scoped(pipeline, "deduplicate", asker) for asker in ("one", "two"))
    assert [one.first("k", MINUTE), two.first("k", MINUTE), one.first("k", MINUTE)] == [True, False, True]
    assert not backend.scoped(pipeline, "deduplicate").first("k", MINUTE)


def test_a_text_is_kept_until_it_is_replaced_or_forgotten(backend, pipeline, memory):
    assert memory.recall("k") is None
    memory.remember("k", "1503435956.000247", MINUTE)
    memory.remember("k", "ü☂", MINUTE)
    assert memory.recall("k") == "ü☂"
    assert memory.first("k", MINUTE)
    assert memory.count("k", MINUTE) == 1
    assert backend.scoped(pipeline, "other").recall("k") is None
    assert backend.scoped(pipeline, "deduplicate", "an-asker").recall("k") == "ü☂"
    memory.forget("k")
    assert memory.recall("k") is None


def test_a_text_is_kept_for_its_time(memory, moment, backend):
    within = timedelta(milliseconds=50) if isinstance(backend, RedisMemory) else MINUTE
    memory.remember("k", "v", within)
    end = time.monotonic() + 10
    while memory.recall("k") is not None:
        assert time.monotonic() < end
        moment.now += within / 5


def test_a_text_is_swapped_where_it_is_the_one_that_is_expected(backend, pipeline, memory):
    assert memory.swap("k", None, "one", MINUTE)
    assert not memory.swap("k", None, "other", MINUTE)
    assert not memory.swap("k", "two", "other", MINUTE)
    assert memory.swap("k", "one", "ü☂", MINUTE)
    assert memory.recall("k") == "ü☂"
    assert memory.swap("k", "ü☂", "nothing", MINUTE)
    assert not memory.swap("k", None, "other", MINUTE), "a text that is called so is a text"
    assert backend.scoped(pipeline, "other").recall("k") is None
    memory.forget("k")
    assert not memory.swap("k", "nothing", "other", MINUTE)
    assert memory.swap("k", None, "", MINUTE)
    assert memory.swap("k", "", "x", MINUTE)


def test_a_text_whose_time_is_over_is_not_there_to_be_swapped(memory, moment, backend):
    within = timedelta(milliseconds=50) if isinstance(backend, RedisMemory) else MINUTE
    assert memory.swap("k", None, "one", within)
    end = time.monotonic() + 10
    while memory.recall("k") is not None:
        assert time.monotonic() < end
        moment.now += within / 5
    assert not memory.swap("k", "one", "two", within)
    assert memory.swap("k", None, "two", MINUTE)
    assert memory.recall("k") == "two"


def test_a_swap_lets_the_time_begin_anew(memory, moment, backend):
    within = timedelta(milliseconds=300) if isinstance(backend, RedisMemory) else MINUTE
    assert memory.swap("k", None, "one", within)
    assert memory.swap("k", "one", "two", 1000 * within)
    if isinstance(backend, RedisMemory):
        digest = memory._digest("text", "k")
        assert backend._redis.pttl(PREFIX + digest) > 100_000
    moment.now += 2 * within
    assert memory.recall("k") == "two"


def test_of_eight_threads_each_swap_counts(memory):
    def count_up(_):
        for _ in range(10):
            while not memory.swap("k", kept := memory.recall("k"), str(int(kept or 0) + 1), MINUTE):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(8)))
    assert memory.recall("k") == "80"


def test_members_are_added_and_removed(backend, pipeline, memory):
    assert memory.members("k") == []
    assert memory.add("k", "two", MINUTE) == ["two"]
    assert memory.add("k", "one", MINUTE) == ["one", "two"]
    assert memory.add("k", "two", MINUTE) == ["one", "two"]
    assert memory.add("other", "ü☂", MINUTE) == ["ü☂"]
    memory.remove("k", "two")
    memory.remove("k", "never")
    assert memory.members("k") == ["one"]
    assert memory.members("other") == ["ü☂"]
    assert backend.scoped(pipeline, "other").members("k") == []
    assert backend.scoped(pipeline, "deduplicate", "an-asker").members("k") == ["one"]
    memory.remove("k", "one")
    assert memory.members("k") == []


def test_members_go_with_all_else_that_is_forgotten(memory):
    memory.add("k", "one", MINUTE)
    memory.add("other", "one", MINUTE)
    memory.forget("k")
    assert memory.members("k") == []
    assert memory.add("k", "two", MINUTE) == ["two"]
    assert memory.members("other") == ["one"]


def test_members_know_nothing_of_texts_and_counts(memory):
    memory.add("k", "one", MINUTE)
    assert memory.recall("k") is None
    assert memory.first("k", MINUTE)
    assert memory.count("k", MINUTE) == 1
    assert memory.members("k") == ["one"]


def test_each_member_has_an_end_of_its_own_and_none_when_it_is_added_anew(memory, moment, backend):
    within = timedelta(milliseconds=200) if isinstance(backend, RedisMemory) else MINUTE
    memory.add("k", "short", within)
    memory.add("k", "again", within)
    memory.add("k", "long", 1000 * within)
    assert memory.add("k", "again", 1000 * within) == ["again", "long", "short"]
    end = time.monotonic() + 10
    while memory.members("k") != ["again", "long"]:
        assert time.monotonic() < end
        moment.now += within / 5
    assert memory.add("k", "new", MINUTE) == ["again", "long", "new"]


def test_a_member_may_be_given_an_earlier_end(memory, moment, backend):
    within = timedelta(milliseconds=50) if isinstance(backend, RedisMemory) else MINUTE
    memory.add("k", "one", 1000 * within)
    memory.add("k", "one", within)
    end = time.monotonic() + 10
    while memory.members("k"):
        assert time.monotonic() < end
        moment.now += within / 5


def test_of_a_thousand_members_the_one_that_would_end_first_goes(memory, monkeypatch):
    for kind in ("sql", "redis"):
        monkeypatch.setattr(f"pipeline.memory.{kind}.MOST_MEMBERS", 10)
    for number in range(25):
        found = memory.add("k", f"{number:02}", MINUTE + number * timedelta(seconds=1))
        assert len(found) == min(10, number + 1)
    assert memory.members("k") == found == [f"{number:02}" for number in range(15, 25)]
    assert memory.add("k", "late", timedelta(seconds=30)) == found, "it would end before all others"


def test_of_members_that_eight_threads_add_each_sees_one_more(memory):
    """In whatever order they come, the first sees itself alone, and the last sees all."""
    for key in range(5):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda number: memory.add(str(key), str(number), MINUTE), range(8)))  # noqa: B023 - done by then
        assert sorted(map(len, found)) == list(range(1, 9))
        assert memory.members(str(key)) == [str(number) for number in range(8)]


def test_threads_that_add_and_remove_leave_what_should_be_there(memory):
    def come_and_go(number):
        for _ in range(5):
            memory.add("k", f"goes {number}", MINUTE)
            memory.remove("k", f"goes {number}")
            memory.add("k", "stays", MINUTE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert memory.members("k") == ["stays"]


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_members_that_are_over_are_deleted_with_all_else(backend, memory, moment, monkeypatch):
    monkeypatch.setattr("pipeline.memory.sql._CHUNK", 10)
    moment.now += timedelta(days=1)  # what other tests left is over
    backend.purge()
    for number in range(25):
        memory.add(str(number % 3), str(number), MINUTE)
    memory.add("0", "longer", 2 * MINUTE)
    memory.first("k", MINUTE)
    assert backend.purge() == 0
    moment.now += MINUTE
    assert backend.purge() == 26
    assert len(sql(backend, "SELECT 1 FROM members")) == 1
    assert memory.members("0") == ["longer"]


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_members_that_others_add_meanwhile_do_not_hinder_their_deletion(backend, memory, moment):
    """Nor the other way: who deletes waits for nobody who adds, and both have an end."""
    for number in range(200):
        memory.add("k", str(number), timedelta(seconds=number % 7 + 1))

    def work(number):
        for step in range(20):
            if number % 4:
                memory.add("k", str((number * 37 + step * 11) % 200), timedelta(seconds=step % 5 + 1))
            else:
                backend.purge()
            moment.now += timedelta(milliseconds=50)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    moment.now += MINUTE
    backend.purge()
    assert memory.members("k") == []


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_members_in_redis_have_an_end_with_the_last_of_them(backend, memory):
    memory.add("k", "long", 10 * MINUTE)
    memory.add("k", "short", MINUTE)
    left = backend._redis.pttl(PREFIX + memory._digest("members", "k"))
    assert 9 * 60_000 < left <= 10 * 60_000


@pytest.mark.parametrize("key", ["", "x" * 100_000, "nul \0", "\ud800", "a b\n☂"])
def test_any_text_is_a_key(memory, key):
    assert memory.first(key, MINUTE)
    assert not memory.first(key, MINUTE)
    assert memory.first(key + "'", MINUTE)


def test_a_window_ends(memory, moment, backend):
    """Redis goes by its own clock, so its window is short and is waited for."""
    within = timedelta(milliseconds=50) if isinstance(backend, RedisMemory) else MINUTE
    assert memory.first("k", within)
    assert memory.count("k", within) == 1
    end = time.monotonic() + 10
    while not memory.first("k", within):
        assert time.monotonic() < end
        moment.now += within / 5
    while memory.count("k", within) != 1:
        assert time.monotonic() < end
        moment.now += within / 5


RACE = """
import json, sys, threading
from datetime import timedelta
from pipeline.memory import open_memory
backend = open_memory(sys.argv[1])
firsts, counts = [], []
def race():
    memory = backend.scoped(sys.argv[2], "race")
    for key in range(20):
        firsts.append((key, memory.first(str(key), timedelta(seconds=30))))
        counts.append((key, memory.count(str(key), timedelta(seconds=30))))
threads = [threading.Thread(target=race) for _ in range(8)]
backend.purge()
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
backend.close()
print(json.dumps([firsts, counts]))
"""


def test_of_eight_threads_in_each_of_two_processes_one_is_first(backend, url, pipeline):
    backend.purge()
    with ExitStack() as stack:
        command = [sys.executable, "-W", "error", "-c", RACE, url, pipeline]
        processes = []
        for _ in range(2):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            processes.append(stack.enter_context(process))
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline()) for process in processes]
    firsts = Counter(key for first, _ in found for key, won in first if won)
    assert firsts == dict.fromkeys(range(20), 1)
    counts = sorted((key, count) for _, counted in found for key, count in counted)
    assert counts == [(key, count) for key in range(20) for count in range(1, 17)]


def sql(backend, statement):
    with backend._database.reading() as connection:
        return connection.execute(text(statement)).all()


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_what_is_over_is_deleted_in_chunks(backend, memory, moment, monkeypatch):
    monkeypatch.setattr("pipeline.memory.sql._CHUNK", 10)
    backend.purge()
    sql_before = len(sql(backend, "SELECT 1 FROM memory"))
    for key in range(25):
        memory.first(str(key), MINUTE)
    memory.first("longer", 2 * MINUTE)
    assert backend.purge() == 0
    moment.now += MINUTE
    assert backend.purge() == 25
    assert len(sql(backend, "SELECT 1 FROM memory")) == sql_before + 1
    assert not memory.first("longer", MINUTE)


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_deleting_ends_at_a_bound(backend, memory, moment, monkeypatch):
    monkeypatch.setattr("pipeline.memory.sql._CHUNK", 10)
    monkeypatch.setattr("pipeline.memory.sql._MOST", 20)
    for key in range(25):
        memory.first(str(key), MINUTE)
    moment.now += MINUTE
    assert backend.purge() == 20


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_keys_are_not_stored_as_they_are(backend, memory):
    memory.first("geheim", MINUTE)
    assert "geheim" not in str(sql(backend, "SELECT * FROM memory"))


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_keys_in_redis_bear_the_prefix_and_an_end_and_are_not_stored_as_they_are(backend, memory, require_redis):
    from redis import Redis

    memory.first("geheim", MINUTE)
    memory.count("geheim", MINUTE)
    digests = [memory._digest(kind, "geheim") for kind in ("first", "count")]
    assert not any("geheim" in digest for digest in digests)
    with Redis.from_url(require_redis) as server:
        assert all(0 < server.pttl(PREFIX + digest) <= 60_000 for digest in digests)


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
def test_the_memory_does_not_wait_for_the_disk(backend):
    if backend._database.file:
        assert sql(backend, "PRAGMA synchronous") == [(1,)]
    else:
        assert sql(backend, "SHOW synchronous_commit") == [("off",)]


@pytest.fixture
def closed_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def test_redis_away(closed_port):
    with closing(open_memory(f"redis://:geheim@127.0.0.1:{closed_port}/0")) as backend:
        memory = backend.scoped("p", "s")
        for call in (
            lambda: memory.first("k", MINUTE),
            lambda: memory.count("k", MINUTE),
            lambda: memory.forget("k"),
            backend.purge,
        ):
            with pytest.raises(TemporaryError, match=r"redis at 127.0.0.1:\d+\) is away: ConnectionError") as caught:
                call()
            assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_redis_goes_on_after_its_connections_were_cut(backend, memory):
    assert memory.first("k", MINUTE)
    backend._redis.connection_pool.disconnect()
    assert not memory.first("k", MINUTE)


def test_sql_away(tmp_path):
    with closing(open_memory(f"sqlite:///{tmp_path / 'store.db'}")) as backend, pytest.raises(StoreAway):
        backend.scoped("p", "s").first("k", MINUTE)


def test_a_missing_redis_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r'pip install "siftbell\[redis\]"'):
        open_memory("redis://127.0.0.1")


@pytest.mark.parametrize("url", ["nothing://geheim", "redis://127.0.0.1:geheim/0"])
def test_a_url_that_cannot_be_used(url):
    with pytest.raises(ConfigError, match="URL") as caught:
        open_memory(url)
    assert "geheim" not in str(caught.value)


def test_without_a_clock_windows_go_by_the_real_time(tmp_path):
    with closing(open_memory(f"sqlite:///{tmp_path / 'store.db'}")) as backend:
        assert isinstance(backend, SqlMemory)
        backend.migrate()
        memory = backend.scoped("p", "s")
        assert memory.first("k", MINUTE)
        assert not memory.first("k", MINUTE)
        assert memory.first("k2", timedelta(0))
        assert memory.first("k2", timedelta(0))


SECOND = timedelta(seconds=1)
PATIENCE = 10 * SECOND


def reserve(backend, pipeline, again=0, fresh=0):
    return backend.reserve(pipeline, "sink", SECOND, PATIENCE, again=again, fresh=fresh)


def seconds(time):
    return pytest.approx(time, abs=0.45)


def test_turns_come_one_in_each_interval_as_far_as_one_is_patient(backend, pipeline):
    answer = reserve(backend, pipeline, fresh=30)
    assert answer.granted == 11, "from half a second ago to ten seconds from now"
    assert answer.first.total_seconds() == seconds(-0.5)
    assert answer.line.total_seconds() == seconds(10.5)
    again = reserve(backend, pipeline, fresh=1)
    assert again.granted == 0
    assert again.line.total_seconds() == seconds(10.5 + 19)


def test_turns_that_were_given_make_no_line(backend, pipeline):
    assert reserve(backend, pipeline, fresh=3).granted == 3
    answer = reserve(backend, pipeline, fresh=3)
    assert answer.granted == 3
    assert answer.first.total_seconds() == seconds(2.5)


def test_who_comes_again_goes_before_those_that_are_new(url, moment, backend, pipeline):
    if not isinstance(backend, SqlMemory):
        pytest.skip("Redis goes by its own clock")
    assert reserve(backend, pipeline, fresh=20).granted == 11
    moment.now += 5 * SECOND
    assert reserve(backend, pipeline, fresh=5).granted == 0
    assert reserve(backend, pipeline, again=2, fresh=5).granted == 2
    assert reserve(backend, pipeline, again=7).granted == 3
    moment.now += MINUTE
    answer = reserve(backend, pipeline, fresh=5)
    assert (answer.granted, answer.first.total_seconds()) == (5, -0.5), "what was not used for a minute is gone"


def test_another_rate_begins_anew(backend, pipeline):
    reserve(backend, pipeline, fresh=1000)
    answer = backend.reserve(pipeline, "sink", timedelta(milliseconds=10), SECOND, again=0, fresh=5)
    assert answer.granted == 5


def test_no_two_get_the_same_turn(backend, pipeline):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: reserve(backend, pipeline, again=2), range(16)))
    assert sum(answer.granted for answer in answers) in {11, 12}, "twelve where half a second went by"
    starts = sorted(answer.first.total_seconds() for answer in answers if answer.granted)
    assert all(later - earlier > 1 for earlier, later in pairwise(starts))


def test_a_rate_that_is_not_used_is_purged(backend, moment, pipeline):
    if not isinstance(backend, SqlMemory):
        pytest.skip("Redis forgets by itself")
    while backend.purge():
        pass
    reserve(backend, pipeline, fresh=20)
    assert backend.purge() == 0
    moment.now += MINUTE
    assert backend.purge() >= 1
