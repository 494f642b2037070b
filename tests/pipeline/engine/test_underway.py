"""Two threads never have the same message at the same step at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import Consumer, NoOptions
from pipeline.engine.batch import Batch
from pipeline.engine.underway import Underway

STEP = ("toy", "mail")


def test_those_that_share_nothing_are_under_way_at_once() -> None:
    underway = Underway()
    together = threading.Barrier(3)

    def work(place: tuple[str, str], *ids: str) -> None:
        with underway.alone(place, ids):
            together.wait(timeout=10)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(work, STEP, "a", "b"), pool.submit(work, STEP, "c"), pool.submit(work, ("toy", "chat"), "a", "b")]
    assert [one.result() for one in done] == [None] * 3


def test_those_that_share_one_come_after_one_another_and_a_failure_lets_go() -> None:
    underway = Underway()
    having: list[str] = []
    most: list[int] = []

    def work(number: int) -> None:
        with underway.alone(STEP, ["shared", str(number)]):
            having.append("shared")
            most.append(len(having))
            having.pop()
            if number % 2:
                raise ZeroDivisionError

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(work, number) for number in range(200)]
    assert sum(one.exception() is not None for one in done) == 100
    assert set(most) == {1}


@pytest.mark.timeout(60)
def test_a_batch_that_comes_twice_at_once_is_delivered_once(engine, consumer, message):
    started, go_on = threading.Event(), threading.Event()
    got: list[str] = []

    class Slow(Consumer[NoOptions]):
        """Takes its time."""

        def consume(self, message):
            started.set()
            assert go_on.wait(20)
            got.append(message.id)

    run = engine(consumers=[consumer(Slow)])
    sent = [message() for _ in range(3)]
    first = Batch(job="deliver", queue="out.slow", pipeline="toy", step="slow", messages=sent[:2])
    second = Batch(job="deliver", queue="out.slow", pipeline="toy", step="slow", messages=sent[1:])
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(run.runner.run, first)
        assert started.wait(20)
        two = pool.submit(run.runner.run, second)
        go_on.set()
        one.result()
        two.result()
    assert sorted(got) == sorted(one.id for one in sent)
