"""The rehearsal: which way a test message goes, and when it is known what became of it. A thread is the worker."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from pipeline import BatchConsumer, Consumer, Filter, NoOptions, PermanentError, TemporaryError
from pipeline.engine.explanation import State
from pipeline.engine.rehearsal import Part, make_message, rehearse
from pipeline.store.rows import Circuit, CircuitState

LONG = 60.0
"""Seconds: no test waits for so long."""


class DropAll(Filter[NoOptions]):
    def filter(self, message):
        return []


class Keep(BatchConsumer[NoOptions]):
    got = []

    def consume_many(self, messages):
        self.got.extend(messages)
        return {}


class Refuse(Consumer[NoOptions]):
    def consume(self, message):
        raise PermanentError("no such chat")


class Busy(Consumer[NoOptions]):
    def consume(self, message):
        raise TemporaryError("later", retry_after=600)


class Broken(Consumer[NoOptions]):
    def consume(self, message):
        raise ValueError("broken")


@pytest.fixture
def working():
    """Let a thread work off what is on an engine's queue."""
    ending = threading.Event()
    threads = []

    def work(engine):
        def run():
            while not ending.wait(0.01):
                engine.work()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return engine

    yield work
    ending.set()
    for thread in threads:
        thread.join()


def rehearsed(engine, within=LONG, **labels):
    pipeline = next(iter(engine.runner.pipelines))
    parts = [Part(pipeline.spec, step) for step in pipeline.spec.consumers]
    return rehearse(engine.runner, parts, within, labels)


def test_neither_filters_nor_conditions_see_it(engine, working, filter_step, consumer):
    Keep.got.clear()
    made = working(engine(filters=[filter_step(DropAll)], consumers=[consumer(Keep, when='severity == "critical"')]))
    (outcome,) = rehearsed(made, team="db")
    assert outcome.delivered
    assert outcome.seconds is not None
    (message,) = Keep.got
    assert message.id == outcome.message_id
    assert message.labels == {"siftbell_test": "true", "team": "db"}
    assert made.outcomes(message) == {"keep": "delivered"}


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        (Refuse, State.BURIED, "no such chat"),
        (Busy, State.HELD, "later"),
        (Broken, State.BURIED, "ValueError: broken"),
    ],
)
def test_what_the_other_side_said_is_known_at_once(engine, working, consumer, kind, state, reason):
    (outcome,) = rehearsed(working(engine(consumers=[consumer(kind)])))
    assert outcome.entry is not None
    assert (outcome.entry.state, outcome.entry.attempts) == (state, 1)
    assert reason in outcome.entry.reason
    assert (outcome.entry.due is not None) == (state is State.HELD)


def test_an_open_circuit_is_not_waited_for(engine, working, consumer):
    made = engine(consumers=[consumer(Keep)])
    until = made.moment[0] + timedelta(hours=1)
    opened = {"state": CircuitState.OPEN, "failures": 5, "openings": 1, "since": made.moment[0], "until": until, "error": "503"}
    assert made.store.change_circuit(Circuit(pipeline="toy", step="keep", version=1, **opened))
    (outcome,) = rehearsed(working(made))
    assert outcome.entry is not None
    assert (outcome.entry.state, outcome.entry.attempts, outcome.entry.due) == (State.WAITING, 0, until)
    assert "the circuit is open" in outcome.entry.reason


def test_nobody_takes_it(engine, consumer):
    made = engine(consumers=[consumer(Keep), consumer(Refuse)])
    outcomes = rehearsed(made, within=0.01)
    assert [(outcome.entry, outcome.delivered, outcome.seconds) for outcome in outcomes] == [(None, False, None)] * 2
    assert [batch.queue for batch in made.queue.batches] == ["out.keep", "out.refuse"]


def test_each_has_a_key_of_its_own(spec, consumer):
    part = Part(spec(), consumer(Keep))
    first, second = make_message(part), make_message(part)
    assert first.key != second.key
    assert first.severity == "info"
    assert first.title == "Test of Siftbell: consumer keep of pipeline toy"
