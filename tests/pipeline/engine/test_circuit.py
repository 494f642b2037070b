"""A consumer that fails again and again is left alone, tried now and then, and gets everything when it works again."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from pydantic import Field

from pipeline import BatchConsumer, Config, Consumer, HttpConsumer, HttpRequest, NoOptions, PermanentError, TemporaryError
from pipeline.engine.batch import Batch
from pipeline.engine.circuit import PROBE_LEASE, THRESHOLD, Circuits
from pipeline.spec.model import Retry
from pipeline.store.rows import CircuitState
from pipeline.testing import Answer, LoopbackServer
from pipeline.units import parse_rate


class Service:
    """The other side: down or up; counts its calls."""

    def __init__(self):
        self.error = None
        self.calls = []
        self.got = []

    def consumer(self, kind=Consumer):
        service = self

        class Calls(Consumer[NoOptions]):
            """Calls the service."""

            def consume(self, message):
                service.calls.append(message.id)
                if service.error is not None:
                    raise service.error
                service.got.append(message.id)

        class CallsOnce(BatchConsumer[NoOptions]):
            """Calls the service once for all."""

            def consume_many(self, messages):
                service.calls.append([message.id for message in messages])
                if service.error is not None:
                    raise service.error
                service.got += [message.id for message in messages]
                return {}

        return Calls if kind is Consumer else CallsOnce


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def toy(engine, consumer, service):
    """An engine with one consumer, `calls`, whose service can be sent away."""

    def make(**siblings):
        siblings.setdefault("concurrency", 1)
        return engine(consumers=[consumer(service.consumer(), label="calls", **siblings)])

    return make


def state(run):
    return run.store.circuit("toy", "calls")


def test_five_failures_in_a_row_open_the_circuit_and_the_rest_is_not_tried(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    messages = [message() for _ in range(20)]
    run.send(*messages)
    run.work()
    assert len(service.calls) == THRESHOLD
    circuit = state(run)
    assert (circuit.state, circuit.failures, circuit.error) == (CircuitState.OPEN, THRESHOLD, "503")
    tried = [m for m in messages if m.id in service.calls]
    untried = [m for m in messages if m.id not in service.calls]
    for one in tried:
        (record,) = run.store.history(one.id)
        assert (record.outcome, record.attempt, record.reason) == ("held", 1, "503")
    for one in untried:
        (record,) = run.store.history(one.id)
        assert (record.outcome, record.attempt) == ("held", 0)
        assert record.reason == "not tried: the circuit is open since 2026-03-01 12:00:00 UTC: 503"


def test_single_failures_with_successes_between_open_nothing(toy, service, message):
    run = toy()
    for number in range(4 * THRESHOLD):
        service.error = TemporaryError("busy") if number % 2 else None
        run.send(message())
        run.work()
    assert state(run).state is CircuitState.CLOSED
    assert len(service.calls) == 4 * THRESHOLD


def test_failures_are_counted_over_batches_and_processes(toy, service, message):
    run, other = toy(), toy()
    service.error = TemporaryError("busy")
    for number in range(THRESHOLD):
        assert state(run) is None or state(run).state is CircuitState.CLOSED
        one = run if number % 2 else other
        one.send(message())
        one.work()
    assert state(run).state is CircuitState.OPEN


def test_what_the_other_side_refuses_is_no_failure_of_the_service(toy, service, message):
    run = toy()
    service.error = PermanentError("400")
    run.send(*[message() for _ in range(3 * THRESHOLD)])
    run.work()
    assert state(run) is None
    assert len(service.calls) == 3 * THRESHOLD


def test_while_it_is_open_the_service_is_tried_with_one_message_at_ever_longer_waits(toy, service, message):
    run = toy(retry=Retry(first=timedelta(seconds=1), longest=timedelta(seconds=64)))
    service.error = TemporaryError("503")
    run.send(*[message() for _ in range(300)])
    run.work()
    calls, waits = [], []
    for _ in range(12):
        circuit, before = state(run), len(service.calls)
        waits.append((circuit.until - run.moment[0]).total_seconds())
        run.later(seconds=waits[-1] - 0.001)
        assert len(service.calls) == before, "nobody called it before its time"
        run.later(seconds=0.002)
        calls.append(len(service.calls) - before)
    assert calls == [1] * 12
    for number, wait in enumerate(waits):
        longest = min(64, 2**number)
        assert longest / 2 - 0.1 <= wait <= longest
    assert state(run).since == min(record.at for record in run.store.history(service.calls[0])) or state(run).openings == 13


def test_recovery_delivers_everything_once(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    messages = [message() for _ in range(300)]
    run.send(*messages)
    run.work()
    run.later(seconds=10)
    service.error = None
    run.later(seconds=10)
    assert state(run).state is CircuitState.CLOSED
    for _ in range(20):
        run.later(seconds=1)
    assert sorted(service.got) == sorted(m.id for m in messages)
    assert run.store.held_counts() == {}


def test_what_comes_back_comes_back_the_oldest_first_and_not_all_at_once(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    messages = [message() for _ in range(400)]
    run.send(*messages)
    run.work()
    service.error = None
    run.runner.circuits.succeeded("toy", "calls")
    order = sorted(m.id for m in messages)
    run.later(seconds=1)
    assert 90 <= len(service.got) <= 110
    assert set(service.got) <= set(order[:120])
    run.later(seconds=1)
    assert 190 <= len(service.got) <= 210
    run.later(seconds=3)
    assert sorted(service.got) == order


def test_an_outage_of_one_consumer_is_nothing_to_another(engine, consumer, service, message):
    other = Service()
    steps = [consumer(service.consumer(), label="calls"), consumer(other.consumer(), label="works")]
    run = engine(consumers=steps)
    service.error = TemporaryError("503")
    messages = [message() for _ in range(50)]
    for one in messages:
        run.send(one)
        run.work()
    assert other.got == [m.id for m in messages]
    assert len(service.calls) == THRESHOLD
    assert run.store.circuit("toy", "works") is None


def test_a_wait_that_the_service_asked_for_sets_the_time_of_the_next_try(toy, service, message):
    run = toy()
    service.error = TemporaryError("429", retry_after=120)
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    assert 120 <= (state(run).until - run.moment[0]).total_seconds() <= 132
    run.later(seconds=119)
    assert len(service.calls) == THRESHOLD


def test_a_consumer_that_cannot_be_opened_opens_its_circuit_at_once(engine, consumer, message):
    class Shut(Consumer[NoOptions]):
        """Does not open."""

        opened = 0

        def open(self):
            Shut.opened += 1
            raise OSError("no such device")

        def consume(self, one):
            raise AssertionError

    run = engine(consumers=[consumer(Shut)])
    run.send(message())
    run.work()
    circuit = run.store.circuit("toy", "shut")
    assert circuit.state is CircuitState.OPEN
    assert circuit.error == "the consumer could not be opened: OSError: no such device"
    run.send(message())
    run.work()
    assert Shut.opened == 1


def test_a_batch_that_failed_as_one_call_is_one_failure(engine, consumer, service, message):
    run = engine(consumers=[consumer(service.consumer(BatchConsumer), label="calls")])
    service.error = TemporaryError("503")
    for number in range(THRESHOLD):
        assert number == 0 or state(run).state is CircuitState.CLOSED
        run.send(*[message() for _ in range(10)])
        run.work()
    assert state(run).state is CircuitState.OPEN


def test_what_waited_for_as_long_as_retry_lasts_is_buried_with_the_last_error(toy, service, message):
    run = toy(retry=Retry(timedelta(minutes=30)))
    service.error = TemporaryError("503")
    messages = [message() for _ in range(150)]
    run.send(*messages)
    run.work()
    for _ in range(50):
        run.later(minutes=1)
    letters = {letter.message.id: letter for letter in run.store.dead_letters(limit=1000)}
    assert set(letters) == {m.id for m in messages}
    assert run.store.held_counts() == {}
    untried = [letter for letter in letters.values() if letter.message.id not in service.calls]
    assert len(untried) > 100
    for letter in untried:
        assert letter.attempts == 0
        assert re.fullmatch(r"given up after 0 attempts: the circuit is open since .* UTC: 503", letter.error)
    assert len(service.calls) < 60, "it was tried, but not for each message"


def test_a_message_that_waits_in_vain_is_known_to_wait_since_its_first_failure(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    early, late = message(), message()
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    run.moment[0] += timedelta(milliseconds=100)
    run.send(early)
    run.work()
    start = run.moment[0]
    for _ in range(3):
        run.later(minutes=15)
    run.send(late)
    run.work()
    (record,) = run.store.history(early.id)
    assert record.since == start


def test_of_two_workers_one_tries(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    run.moment[0] = state(run).until
    other = Circuits(run.store, lambda: run.moment[0])
    assert [run.runner.circuits.probe("toy", "calls"), other.probe("toy", "calls")] == [True, False]
    assert state(run).state is CircuitState.HALF_OPEN


def test_a_worker_that_dies_while_it_tries_is_followed_by_another(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    messages = [message() for _ in range(THRESHOLD + 1)]
    run.send(*messages)
    run.work()
    run.moment[0] = state(run).until
    assert run.runner.circuits.probe("toy", "calls"), "and then it is killed"
    service.error = None
    before = len(service.calls)
    run.later(seconds=PROBE_LEASE.total_seconds() - 1)
    assert len(service.calls) == before, "its right to try is respected while it may live"
    for _ in range(6):
        run.later(seconds=1)
    assert sorted(service.got) == sorted(m.id for m in messages)


def test_a_memory_that_is_away_behind_the_try_costs_no_duplicate(toy, service, message, monkeypatch):
    """The first message was given; the turns of the others cannot be asked for."""
    run = toy(rate=parse_rate("100/s"))
    service.error = TemporaryError("503", retry_after=30)
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    service.error = None
    reserve, asked = run.runner.memory.reserve, []

    def away_at_the_second(*place, **counts):
        asked.append(place)
        if len(asked) == 2:
            raise TemporaryError("the memory is away")
        return reserve(*place, **counts)

    monkeypatch.setattr(run.runner.memory, "reserve", away_at_the_second)
    run.moment[0] += timedelta(seconds=33)
    sent = [message() for _ in range(3)]
    run.send(*sent)
    run.work()
    assert service.got == [sent[0].id]
    for _ in range(6):
        run.later(seconds=10)
    assert len(service.got) == len(set(service.got)) == THRESHOLD + 3


def test_a_try_that_is_refused_closes_the_circuit(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    service.error = PermanentError("400")
    run.later(seconds=2)
    assert state(run).state is CircuitState.CLOSED


def test_a_batch_that_comes_twice_from_the_queue_is_delivered_once_after_it_waited(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    one = message()
    batch = Batch(job="deliver", queue="out.calls", pipeline="toy", step="calls", messages=[one])
    run.runner.run(batch)
    run.runner.run(batch)
    service.error = None
    for _ in range(30):
        run.later(seconds=1)
    run.runner.run(batch)
    assert service.got.count(one.id) == 1


def test_secrets_in_a_last_error_are_masked(engine, consumer, service, message):
    run = engine(consumers=[consumer(service.consumer(), label="calls")])
    pipeline = next(iter(run.runner.pipelines))
    pipeline.mask = lambda text: text.replace("hunter2", "***")
    service.error = TemporaryError("refused hunter2")
    run.send(*[message() for _ in range(THRESHOLD + 2)])
    run.work()
    assert "hunter2" not in repr(state(run))
    assert all("hunter2" not in record.reason for m in service.calls for record in run.store.history(m))


def test_what_was_held_while_the_circuit_closed_comes_back(toy, service, message, monkeypatch):
    """A worker that saw it open may write what it holds after another one has closed it and called everything back."""
    run = toy()
    service.error = TemporaryError("503", retry_after=3000)
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    service.error = None
    settle = run.store.settle

    def close_before(**rows):
        Circuits(run.store, lambda: run.moment[0]).succeeded("toy", "calls")
        settle(**rows)

    monkeypatch.setattr(run.store, "settle", close_before)
    one = message()
    run.send(one)
    run.work()
    monkeypatch.setattr(run.store, "settle", settle)
    run.later(seconds=2)
    assert one.id in service.got


def test_a_clock_does_not_drag_what_waits_through_the_queue(toy, service, message):
    run = toy(retry=Retry(first=timedelta(seconds=60), longest=timedelta(seconds=60)))
    service.error = TemporaryError("503")
    run.send(*[message() for _ in range(500)])
    run.work()
    published = []
    publish = run.queue.publish

    def count(batches):
        published.extend(message for batch in batches for message in batch.messages)
        publish(batches)

    run.queue.publish = count
    for _ in range(20):
        run.later(seconds=30)
    assert len(service.calls) - THRESHOLD == pytest.approx(12, abs=5)
    assert len(published) <= 5 * (len(service.calls) - THRESHOLD), "for each try one message of each attempt, not all 500"


def test_what_could_not_be_made_to_wait_longer_is_not_lost(toy, service, message, monkeypatch):
    """Rows that another transaction holds at that moment are passed over: they come back when the clock's lease has ended."""
    run = toy()
    service.error = TemporaryError("503", retry_after=30)
    sent = [message() for _ in range(THRESHOLD + 5)]
    run.send(*sent)
    run.work()
    monkeypatch.setattr(run.store, "postpone", lambda *_, **__: None)
    for _ in range(3):
        run.later(seconds=31)
    monkeypatch.undo()
    service.error = None
    for _ in range(5):
        run.later(seconds=60)
    assert sorted(service.got) == sorted(one.id for one in sent)


def test_the_metric_shows_the_state(toy, service, message):
    run = toy()
    service.error = TemporaryError("503")

    def shown():
        run.moment[0] += timedelta(seconds=5)
        run.clock.tick()
        return REGISTRY.get_sample_value("siftbell_circuit_state", {"pipeline": "toy", "consumer": "calls"})

    changes = {"pipeline": "toy", "consumer": "calls", "state": "open"}
    before = REGISTRY.get_sample_value("siftbell_circuit_changes_total", changes) or 0
    assert shown() == 0
    service.error = TemporaryError("503", retry_after=3000)
    run.send(*[message() for _ in range(THRESHOLD)])
    run.work()
    assert shown() == 2
    assert REGISTRY.get_sample_value("siftbell_circuit_changes_total", changes) == before + 1
    run.runner.circuits.succeeded("toy", "calls")
    assert shown() == 0


def test_a_store_that_is_away_hinders_no_record_of_what_was_delivered(toy, service, message, monkeypatch):
    run = toy()
    service.error = TemporaryError("503")
    run.send(message())
    run.work()
    service.error = None

    def away(*_, **__):
        raise TemporaryError("the store is away")

    monkeypatch.setattr(run.store, "change_circuit", away)
    one = message()
    run.send(one)
    run.work()
    assert run.outcomes(one) == {"calls": "delivered"}


class Url(Config):
    """Options."""

    url: str = Field(description="Where to.")


class Post(HttpConsumer[Url]):
    """Posts the title."""

    total_timeout = 2.0

    def request(self, message):
        return HttpRequest(self.config.url, message.title.encode())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=503),
        Answer(status=429, headers={"Retry-After": "30"}),
        Answer(fault="close"),
        Answer(fault="cut"),
        Answer(fault="garbage"),
        Answer(fault="silence"),
    ],
    ids=lambda answer: answer.fault or str(answer.status),
)
def test_a_web_service_that_fails_is_left_alone_until_it_works_again(engine, consumer, message, answer):
    with LoopbackServer() as down, LoopbackServer() as up:
        steps = [
            consumer(Post, label="down", config=Url(url=f"{down.url}/"), concurrency=THRESHOLD),
            consumer(Post, label="up", config=Url(url=f"{up.url}/")),
        ]
        run = engine(consumers=steps)
        down.answer = answer
        messages = [message(title=str(number)) for number in range(40)]
        run.send(*messages)
        run.work()
        assert len(up.received) == 40
        circuit = run.store.circuit("toy", "down")
        assert circuit.state is CircuitState.OPEN
        wait = (circuit.until - run.moment[0]).total_seconds()
        assert (30 <= wait <= 33) if answer.status == 429 else (0.5 <= wait <= 1)
        calls = len(down.received)
        assert calls <= 2 * THRESHOLD
        run.later(seconds=wait - 0.01)
        assert len(down.received) == calls
        down.answer = Answer()
        for _ in range(6):
            run.later(seconds=10)
        assert {request.body for request in down.received[calls:]} == {m.title.encode() for m in messages}
        assert len(down.received) == calls + 40
