"""What `deduplicate`, `throttle` and `sample` count on real memories, where eight threads are faster than one another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from filters.deduplicate import Deduplicate, DeduplicateConfig
from filters.sample import Sample, SampleConfig
from filters.throttle import Throttle, ThrottleConfig
from pipeline import Dropped, Message, Opened, Window
from pipeline.memory import MemoryBackend, SqlMemory, open_memory

NOW = datetime.now(UTC)
THREADS = 8


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def backend(request, tmp_path) -> Iterator[MemoryBackend]:
    urls = {"sqlite": lambda: f"sqlite:///{tmp_path / 'store.db'}"}
    urls |= {
        "postgres": lambda: request.getfixturevalue("one_postgres"),
        "redis": lambda: request.getfixturevalue("require_redis"),
    }
    with closing(open_memory(urls[request.param]())) as made:
        if isinstance(made, SqlMemory):
            made.migrate()
        yield made


@pytest.fixture
def at_once(backend):
    """Have messages decided by eight workers, each of which has a filter of its own; a message may come to several of them."""
    pipeline = uuid4().hex

    def at_once(worker: Callable[[], Callable[[Message, Any], Any]], messages: Sequence[Message]) -> list[tuple[Message, Any]]:
        def work(number: int) -> list[tuple[Message, Any]]:
            decide = worker()
            return [(one, decide(one, backend.scoped(pipeline, "step", one.id))) for one in messages[number::THREADS]]

        with ThreadPoolExecutor(THREADS) as pool:
            return [pair for pairs in pool.map(work, range(THREADS)) for pair in pairs]

    at_once.memory = backend.scoped(pipeline, "step", "the clock")
    return at_once


def messages(count: int, keys: str = "ab") -> list[Message]:
    found = [Message(source="test", key=keys[number % len(keys)], title=f"of {number % 4}") for number in range(count)]
    random.Random(7).shuffle(found)
    return found


def twice(some: Sequence[Message]) -> list[Message]:
    """Give each message a second time, at about the same time to another worker."""
    return [message for one in some for message in (one, one)]


@pytest.mark.parametrize("repeated", [list, twice], ids=["once", "twice"])
def test_of_each_key_one_passes(at_once, repeated):
    def worker():
        plugin = Deduplicate(DeduplicateConfig(within=timedelta(hours=1)))
        return lambda message, memory: next(iter(plugin.filter(message, memory)))

    decided = at_once(worker, repeated(messages(80)))
    passed = {message.key: message.id for message, given in decided if isinstance(given, Message)}
    assert len({message.id for message, given in decided if isinstance(given, Message)}) == 2
    for message, given in decided:
        if message.id == passed[message.key]:
            assert given == message
        else:
            assert f" of {passed[message.key]} since" in given.reason
    for key in "ab":
        numbers = [int(given.reason.split()[1]) for one, given in decided if one.key == key and isinstance(given, Dropped)]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "each repeat is counted, once"


def test_as_many_changes_pass_as_there_were_in_whatever_order(at_once):
    """Each that passes differs from the one before it: the label of each says how many repeats were dropped in between."""
    statuses = ["firing", "resolved"]
    some = [Message(source="test", key="a", status=statuses[number % 2]) for number in range(80)]

    def worker():
        plugin = Deduplicate(DeduplicateConfig(within=timedelta(hours=1), label="repeats"))
        return lambda message, memory: next(iter(plugin.filter(message, memory)))

    decided = at_once(worker, some)
    passed = [given for _, given in decided if isinstance(given, Message)]
    counts = Counter(message.status for message in passed)
    assert abs(counts["firing"] - counts["resolved"]) <= 1
    last = sum(1 for _, given in decided if isinstance(given, Dropped)) - sum(int(one.labels.get("repeats", 0)) for one in passed)
    assert last >= 0
    silenced = Counter(given.reason.split()[3] for _, given in decided if isinstance(given, Dropped))
    assert last in {*silenced.values(), 0}, "what was dropped since the last one that passed, nobody has told yet"


@pytest.mark.parametrize("repeated", [list, twice], ids=["once", "twice"])
def test_of_each_key_so_many_pass_and_the_others_are_counted(at_once, repeated):
    config = ThrottleConfig.model_validate({"by": "key", "most": 5, "within": "1h"})

    def worker():
        plugin = Throttle(config)
        return lambda message, memory: plugin.window(message, NOW, memory)

    decided = at_once(worker, repeated(messages(80)))
    for key in "ab":
        passed = {message.id for message, given in decided if message.key == key and given is None}
        waiting = {message.id: given for message, given in decided if message.key == key and isinstance(given, Window)}
        dropped = [message.id for message, given in decided if message.key == key and isinstance(given, Dropped)]
        assert len(passed) == 5
        assert len(waiting) == 1
        assert len(passed | set(waiting) | set(dropped)) == 40
        assert len({*dropped} & (passed | set(waiting))) == 0
        (window,) = waiting.values()
        opened = Opened(window.key, [window.message], None, window.due, window.due, at_once.memory)
        (summary,) = Throttle(config).release(opened)
        assert summary.data["suppressed"] == len(dropped) + 1
        assert sum(kind["count"] for kind in summary.data["kinds"]) == len(dropped) + 1


def test_none_is_uncounted_that_comes_while_the_summary_is_made(at_once):
    """It belongs to the summary, or to the next window."""
    config = ThrottleConfig.model_validate({"most": 1, "within": "1h"})
    plugin, some = Throttle(config), messages(60)
    for one in some[:2]:
        waits = plugin.window(one, NOW, at_once.memory)
    assert isinstance(waits, Window)
    opened = Opened(waits.key, [waits.message], None, waits.due, waits.due, at_once.memory)
    made: list[Message] = []

    def worker():
        def decide(message, memory):
            if message is some[30]:
                made.extend(plugin.release(opened))
            return plugin.window(message, NOW, memory)

        return decide

    decided = at_once(worker, some[2:])
    assert len([given for _, given in decided if given is None]) == 1
    (window,) = [given for _, given in decided if isinstance(given, Window)]
    (later,) = plugin.release(Opened(window.key, [window.message], None, window.due, window.due, at_once.memory))
    (summary,) = made
    assert summary.data["suppressed"] + later.data["suppressed"] + 2 == 60


def test_of_each_key_every_so_many_pass(at_once):
    def worker():
        plugin = Sample(SampleConfig.model_validate({"every": 7, "by": "key"}))
        return lambda message, memory: next(iter(plugin.filter(message, memory)))

    decided = at_once(worker, messages(100))
    passed = Counter(message.key for message, given in decided if isinstance(given, Message))
    assert passed == {"a": 8, "b": 8}, "of fifty each"
