"""A worker that lost its lanes, as it stood still or the store was away for longer than its lease, costs no message."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import Consumer, NoOptions, TemporaryError
from pipeline.store import Outcome, Record, Why


class Slow(Consumer[NoOptions]):
    """Has something happen while it is called, once; then it fails."""

    meanwhile: list
    got: list

    def consume(self, message):
        if type(self).meanwhile:
            type(self).meanwhile.pop()()
            raise TemporaryError("not now")
        type(self).got.append(message.title)


@pytest.fixture
def slow():
    return type("Slow", (Slow,), {"meanwhile": [], "got": []})


def accept(run, message, *titles):
    made = [message(title=title, key="k") for title in titles]
    run.runner.accept(run.runner.pipelines["toy"], "hook", made)
    return made


def test_what_failed_after_the_lanes_were_lost_is_tried_again(engine, consumer, slow, message):
    run = engine(consumers=[consumer(slow, ordered=True)])
    accept(run, message, "1", "2")

    def lease_ends():
        run.moment[0] += timedelta(seconds=25)
        run.clock.tick()

    slow.meanwhile.append(lease_ends)
    run.later()
    for _ in range(4):
        run.later(seconds=30)
    assert slow.got == ["1", "2"]
    assert run.store.held_counts() == {}


def test_what_the_other_worker_has_begun_then_is_tried_too(engine, consumer, slow, message, monkeypatch):
    """The first worker's failure is recorded between the second one's start and its look at the records."""
    run = engine(consumers=[consumer(slow, ordered=True)])
    first, _ = accept(run, message, "1", "2")
    run.clock.tick()
    records = run.store.records

    def failed_meanwhile(pipeline, step, ids):
        monkeypatch.undo()
        at = run.moment[0]
        record = Record(message_id=first.id, pipeline="toy", step="slow", outcome=Outcome.HELD, at=at, since=at)
        run.store.settle(records=[record])
        return records(pipeline, step, ids)

    monkeypatch.setattr(run.store, "records", failed_meanwhile)
    run.work()
    run.later(seconds=30)
    assert slow.got == ["1", "2"]


def test_a_message_that_waits_outside_too_loses_neither_place_for_the_other(engine, consumer, slow, message):
    """Its consumer became an ordered one while it was held, and the batch in which it had failed came once more."""
    run = engine(consumers=[consumer(slow)])
    one = message(title="1", key="k")
    slow.meanwhile.append(lambda: None)
    run.send(one)
    (batch,) = run.queue.take()
    run.runner.run(batch)
    assert run.store.held_counts() == {("toy", "slow", Why.RETRY): 1}
    run = engine(consumers=[consumer(slow, ordered=True)])
    run.runner.lanes.line_up([batch])
    run.later(seconds=30)
    run.later(seconds=30)
    assert slow.got == ["1"]
    assert run.store.held_counts() == {}
