"""Starts are counted, and what a trial tells is done."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.engine.batch import decode
from pipeline.message import new_id
from pipeline.queue import suspects
from pipeline.queue.suspects import AGAIN, STARTS_BEFORE_TRIAL, work


class Memory:
    """Counts starts, as a memory does."""

    def __init__(self):
        self.counts = {}

    def scoped(self, *_):
        return self

    def count(self, key, within):
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def forget(self, key):
        del self.counts[key]


class Runner:
    """Runs, fails, or dies; buries what is no batch."""

    def __init__(self):
        self.memory, self.ran, self.buried, self.taken_apart, self.error = Memory(), [], [], [], None

    def read(self, text):
        try:
            return decode(text)
        except msgspec.MsgspecError:
            self.buried.append(text)

    def run(self, batch):
        self.ran.append(batch)
        if self.error:
            raise self.error

    def lost(self, batch):
        self.taken_apart.append(batch)


class Request:
    """A task's request."""

    id = "task"

    def __init__(self, **fields):
        self.fields = {"delivery_info": {"redelivered": fields.pop("redelivered", False)}, **fields}

    def get(self, name):
        return self.fields.get(name)


TEXT = '{"job": "deliver", "queue": "out.x", "pipeline": "a", "step": "x", "messages": []}'


@pytest.mark.parametrize("request_of", [{"redelivered": True}, {"x-delivery-count": 2}], ids=["redelivered", "counted"])
def test_starts_that_ended_count_nothing_and_others_lead_to_a_trial(request_of):
    runner, tried = Runner(), []

    def hold_trial(text):
        tried.append(text)
        return 0

    for _ in range(10):
        work(runner, Request(**request_of), [TEXT], hold_trial)
    assert (len(runner.ran), tried, runner.memory.counts) == (10, [], {})
    runner.error = OSError("the store is away")
    with pytest.raises(OSError, match="store"):
        work(runner, Request(**request_of), [TEXT], hold_trial)
    assert runner.memory.counts == {}, "a batch that goes back in an orderly way has killed nobody"
    runner.memory.counts = {"task": STARTS_BEFORE_TRIAL - 1}
    work(runner, Request(**request_of), [TEXT], hold_trial)
    assert [decode(text) for text in tried] == [decode(TEXT)]


def test_a_batch_that_comes_for_the_first_time_is_not_counted():
    runner = Runner()
    runner.memory = None
    work(runner, Request(), [TEXT], lambda text: 0)
    assert runner.ran == [decode(TEXT)]


def test_what_a_trial_tells_is_done(monkeypatch):
    monkeypatch.setattr(suspects, "PAUSE", 0)
    runner = Runner()
    suspected = TEXT.replace("[]}", '[], "deaths": 1}')
    for unknown in (AGAIN, 1):  # 1: a configuration that cannot be read proves nothing against a message
        with pytest.raises(suspects.TemporaryError, match="was away"):
            work(runner, Request(), [suspected], lambda text, code=unknown: code)
    assert runner.taken_apart == []
    work(runner, Request(), [suspected], lambda text: -9)
    assert [batch.deaths for batch in runner.taken_apart] == [1]
    assert runner.ran == []


def test_what_came_together_is_run_as_one_and_what_is_no_batch_is_the_runners_to_bury():
    runner = Runner()
    one, other = (TEXT.replace("[]", f'[{{"id": "{new_id()}", "source": "{name}"}}]') for name in "ab")
    work(runner, Request(), [one, "what", other], lambda text: 0)
    assert [[message.source for message in batch.messages] for batch in runner.ran] == [["a", "b"]]
    assert runner.buried == ["what"]


def test_what_is_no_batch_is_the_runners_to_bury():
    runner = Runner()
    work(runner, Request(redelivered=True), ["what"], lambda text: 0)
    assert (runner.ran, runner.buried) == ([], ["what"])
