"""The watchdog beside real queues: it tells idleness beside a backlog from work, and from a queue that is empty or away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery.worker import state

from pipeline.engine.batch import Batch
from pipeline.message import Message
from pipeline.queue.app import make_app
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.watchdog import PATIENCE, Watchdog


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"siftbell-sqlite:///{tmp_path / 'queue.db'}"
        return
    from redis import Redis

    found = request.getfixturevalue("require_redis").rsplit("/", 1)[0] + "/11"
    with Redis.from_url(found) as client:
        client.flushdb()
        yield found
        client.flushdb()


@pytest.fixture
def watch(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[[float], int], CeleryQueue]]:
    """Give a look at a given second, which tells how often a stall was found, and the queue that is looked at."""
    app = make_app(broker(url), ["in"])
    queue = CeleryQueue(app)
    found: list[int] = []
    dog = Watchdog(app, ["in"], stalled=lambda: found.append(1))
    monkeypatch.setattr(state, "total_count", type(state.total_count)())
    monkeypatch.setattr(state, "reserved_requests", set())

    def look(second: float) -> int:
        dog.look(second)
        return len(found)

    yield look, queue
    queue.close()


def batch() -> Batch:
    return Batch(job="process", queue="in", pipeline="toy", messages=[Message(source="test")])


def looks(first: float, last: float) -> list[float]:
    """Give the seconds of the looks of a worker that is not stopped: every ten."""
    return [first + 10 * n for n in range(int((last - first) // 10) + 2)]


def test_idle_beside_a_backlog_is_a_stall_when_it_lasts(watch) -> None:
    look, queue = watch
    queue.publish([batch()])
    found = [look(second) for second in looks(0, PATIENCE)]
    assert (found[0], found[-1]) == (0, 1)


def test_an_empty_queue_is_no_backlog(watch) -> None:
    look, _ = watch
    assert [look(second) for second in looks(0, 2 * PATIENCE)][-1] == 0


def test_a_worker_that_begins_something_or_has_something_under_way_is_not_idle(watch) -> None:
    look, queue = watch
    queue.publish([batch()])
    assert [look(second) for second in looks(0, PATIENCE / 2)][-1] == 0
    state.total_count["siftbell.process"] += 1
    assert [look(second) for second in looks(PATIENCE / 2 + 10, PATIENCE + 10)][-1] == 0
    state.reserved_requests.add("one")
    assert [look(second) for second in looks(PATIENCE + 20, 3 * PATIENCE)][-1] == 0
    state.reserved_requests.clear()
    assert [look(second) for second in looks(3 * PATIENCE + 10, 5 * PATIENCE)][-1] > 0


def test_a_worker_that_was_stopped_for_a_while_is_not_idle_for_that(watch) -> None:
    look, queue = watch
    queue.publish([batch()])
    assert [look(second) for second in (0, 10, 20, 20 + PATIENCE, 30 + PATIENCE)] == [0] * 5


def test_a_broker_that_is_away_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dog = Watchdog(make_app(broker("redis://127.0.0.1:1/0")), ["in"], stalled=lambda: pytest.fail("no stall"))
    for second in range(0, 125, 25):
        dog.look(second)
