"""What consumers may do wrong, and what then becomes of their messages."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pipeline import BatchConsumer, Consumer, NoOptions, PermanentError, TemporaryError
from pipeline.engine import delivery, runner
from pipeline.engine.batch import Batch
from pipeline.engine.retry import NotTriedError


def delivered(plugin, messages, concurrency=2):
    return delivery.deliver(plugin(NoOptions()), messages, concurrency=concurrency)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SystemExit(1), PermanentError),
        (KeyboardInterrupt(), PermanentError),
        (GeneratorExit(), PermanentError),
        (asyncio.CancelledError(), TemporaryError),
    ],
)
def test_what_no_exception_handler_expects_is_the_outcome_of_its_message_alone(message, error, kind):
    class Leaves(Consumer[NoOptions]):
        """Raises for one message, on the loop."""

        async def consume(self, one):
            if one.title == "bad":
                raise error

    class LeavesThread(Consumer[NoOptions]):
        """Raises for one message, in a thread."""

        def consume(self, one):
            if one.title == "bad":
                raise error

    class LeavesAll(BatchConsumer[NoOptions]):
        """Raises for all."""

        def consume_many(self, messages):
            raise error

    good, bad = message(title="good"), message(title="bad")
    for plugin in (Leaves, LeavesThread):
        outcomes = delivered(plugin, [bad, good])
        assert outcomes[good.id] is None
        assert type(outcomes[bad.id]) is kind
        assert delivered(plugin, [good]) == {good.id: None}, "the loop still runs"
    assert {type(outcome) for outcome in delivered(LeavesAll, [good, bad]).values()} == {kind}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_consumer_has_no_more_calls_under_way_than_it_says(message, asynchronous):
    under_way, beside = [], threading.Event()

    class One(Consumer[NoOptions]):
        """Looks whether another call comes while one is under way."""

        at_once = 1

        def consume(self, one):
            return self._later() if asynchronous else self._now()

        def _now(self):
            under_way.append(1)
            if len(under_way) > 1:
                beside.set()
            beside.wait(0.05)
            under_way.pop()

        async def _later(self):
            await asyncio.to_thread(self._now)

    messages = [message() for _ in range(4)]
    assert delivered(One, messages, concurrency=4) == dict.fromkeys(one.id for one in messages)
    assert not beside.is_set()


def test_an_awaitable_from_a_def_is_awaited(message):
    got = []

    class Hands(Consumer[NoOptions]):
        """Hands on what an async method gives."""

        def consume(self, one):
            return self._later(one)

        async def _later(self, one):
            await asyncio.sleep(0)
            if one.title == "bad":
                raise TemporaryError("busy")
            got.append(one)

    good, bad = message(title="good"), message(title="bad")
    outcomes = delivered(Hands, [good, bad])
    assert got == [good]
    assert outcomes[good.id] is None
    assert isinstance(outcomes[bad.id], TemporaryError)


@pytest.mark.parametrize("told", [None, [], {"nobody": PermanentError("x")}, "itself"])
def test_a_batch_consumer_that_tells_nonsense_buries_its_messages(message, told):
    class Odd(BatchConsumer[NoOptions]):
        """Tells nonsense."""

        def consume_many(self, messages):
            return {messages[0].id: "not an error"} if told == "itself" else told

    one = message()
    (outcome,) = delivered(Odd, [one]).values()
    assert isinstance(outcome, PermanentError)
    assert "consume_many gave" in str(outcome)


def test_a_batch_consumer_that_hangs_gives_its_messages_back(message, monkeypatch):
    monkeypatch.setattr(delivery, "BATCH_LIMIT", 0.05)
    released = threading.Event()

    class Stuck(BatchConsumer[NoOptions]):
        """Never answers."""

        def consume_many(self, messages):
            released.wait()
            return {}

    (outcome,) = delivered(Stuck, [message()]).values()
    released.set()
    assert isinstance(outcome, TemporaryError)


@pytest.mark.parametrize(("told", "failures", "answered"), [("tt", 1, 0), ("pt", 1, 0), ("tp", 1, 0), ("pp", 0, 0), ("t", 0, 1)])
def test_a_batch_without_a_success_is_a_failure_where_one_of_its_errors_may_pass(message, told, failures, answered):
    kinds = {"t": TemporaryError, "p": PermanentError}

    class Away(BatchConsumer[NoOptions]):
        """Has an error for the first messages."""

        def consume_many(self, messages):
            return {one.id: kinds[kind]("x") for one, kind in zip(messages, told, strict=False)}

    fuse = delivery.Fuse(9)
    delivery.deliver(Away(NoOptions()), [message(), message()], concurrency=1, fuse=fuse)
    assert (fuse.failures, fuse.answered) == (failures, bool(answered))


def test_a_batch_consumer_may_be_async(message, monkeypatch):
    class Async(BatchConsumer[NoOptions]):
        """Refuses one message, and hangs at another."""

        async def consume_many(self, messages):
            assert asyncio.get_running_loop()
            if any(one.title == "hangs" for one in messages):
                await asyncio.Event().wait()
            return {one.id: PermanentError("no") for one in messages if one.title == "bad"}

    good, bad = message(title="good"), message(title="bad")
    outcomes = delivered(Async, [good, bad])
    assert outcomes[good.id] is None
    assert isinstance(outcomes[bad.id], PermanentError)
    monkeypatch.setattr(delivery, "BATCH_LIMIT", 0.05)
    (outcome,) = delivered(Async, [message(title="hangs")]).values()
    assert isinstance(outcome, TemporaryError)


@pytest.mark.parametrize("batches", [True, False])
def test_a_consumer_of_both_kinds_is_given_what_its_options_say(message, batches):
    calls = []

    class Both(Consumer[NoOptions], BatchConsumer[NoOptions]):
        """Notes its calls."""

        @classmethod
        def takes_batches(cls, config):
            return batches

        def consume(self, one):
            calls.append(1)

        def consume_many(self, messages):
            calls.append(len(messages))
            return {}

    assert set(delivered(Both, [message(), message()]).values()) == {None}
    assert calls == ([2] if batches else [1, 1])


def test_a_consumer_that_blocks_the_loop_gives_back_what_is_not_done(message, monkeypatch):
    monkeypatch.setattr(delivery, "BATCH_LIMIT", 0.1)
    monkeypatch.setattr(delivery, "CALL_LIMIT", 0.05)
    released = threading.Event()

    class Blocks(Consumer[NoOptions]):
        """Blocks the whole loop at its second message."""

        async def consume(self, one):
            if one.title == "bad":
                released.wait()

    good, bad = message(title="good"), message(title="bad")
    outcomes = delivered(Blocks, [good, bad], concurrency=1)
    released.set()
    assert outcomes[good.id] is None
    assert isinstance(outcomes[bad.id], TemporaryError)


def test_the_same_message_twice_in_a_batch_is_delivered_once(engine, consumer, message):
    class Counts(Consumer[NoOptions]):
        """Fails at its first call."""

        calls: list = []

        def consume(self, one):
            Counts.calls.append(one.id)

    run = engine(consumers=[consumer(Counts)])
    one = message()
    run.send(one, one)
    run.work()
    assert Counts.calls == [one.id]
    assert run.outcomes(one) == {"counts": "delivered"}


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), 1e300, -5.0])
def test_a_wait_that_no_clock_knows_costs_nothing(engine, consumer, message, wait):
    class Busy(Consumer[NoOptions]):
        """Is busy at the first call."""

        calls: list = []

        def consume(self, one):
            Busy.calls.append(one.id)
            if len(Busy.calls) == 1:
                raise TemporaryError("busy", retry_after=wait)

    run = engine(consumers=[consumer(Busy)])
    one = message()
    run.send(one)
    run.work()
    assert run.outcomes(one) == {"busy": "held"}
    run.later(days=2)
    assert run.outcomes(one) == {"busy": "delivered"}


def test_a_store_that_is_away_for_a_moment_costs_no_duplicate(engine, consumer, message, monkeypatch):
    class Counts(Consumer[NoOptions]):
        """Counts its calls."""

        calls: list = []

        def consume(self, one):
            Counts.calls.append(one.id)

    run = engine(consumers=[consumer(Counts)])
    settle, refused = run.store.settle, []

    def away(**rows):
        if len(refused) < 3:
            refused.append(rows)
            raise TemporaryError("the store is away")
        settle(**rows)

    monkeypatch.setattr(run.store, "settle", away)
    monkeypatch.setattr(runner, "RECORD_PAUSE", 0.0)
    one = message()
    run.runner.run(Batch(job="deliver", queue="out.counts", pipeline="toy", step="counts", messages=[one]))
    assert len(refused) == 3
    assert Counts.calls == [one.id]
    assert run.outcomes(one) == {"counts": "delivered"}


def test_a_store_that_stays_away_gives_the_batch_back(engine, consumer, message, monkeypatch):
    class Silent(Consumer[NoOptions]):
        """Does nothing."""

        def consume(self, one):
            pass

    def away(**rows):
        raise TemporaryError("the store is away")

    run = engine(consumers=[consumer(Silent)])
    monkeypatch.setattr(run.store, "settle", away)
    monkeypatch.setattr(runner, "RECORD_LIMIT", -1.0)
    batch = Batch(job="deliver", queue="out.silent", pipeline="toy", step="silent", messages=[message()])
    with pytest.raises(TemporaryError):
        run.runner.run(batch)


def test_all_batches_of_a_consumer_share_its_concurrency(message):
    class Waits(Consumer[NoOptions]):
        """Counts its calls, and waits for a word."""

        now = 0

        async def consume(self, one):
            self.now += 1
            await self.go.wait()

    async def two_batches():
        plugin.go = asyncio.Event()
        batches = [[message(), message()], [message(), message()]]
        course = delivery._Course(delivery.Fuse(9), {}, delivery.monotonic() + 60)
        running = asyncio.gather(*(delivery._on_loop(plugin, batch, 3, course, outcomes) for batch in batches))
        for _ in range(20):
            await asyncio.sleep(0)
        at_once = plugin.now
        plugin.go.set()
        await running
        return at_once

    plugin, outcomes = Waits(NoOptions()), {}
    assert asyncio.run(two_batches()) == 3
    assert list(outcomes.values()) == [None] * 4


def test_all_batches_of_a_consumer_share_its_threads(message):
    class Waits(Consumer[NoOptions]):
        """Waits for a word."""

        go = threading.Event()

        def consume(self, one):
            self.go.wait()

    plugin, outcomes = Waits(NoOptions()), {}

    def deliver():
        outcomes.update(delivery.deliver(plugin, [message(), message()], concurrency=3))

    batches = [threading.Thread(target=deliver) for _ in range(2)]
    for batch in batches:
        batch.start()
    end = delivery.monotonic() + 30
    while (pool := delivery._pools.get(plugin)) is None or pool._work_queue.qsize() != 1:
        assert delivery.monotonic() < end, "three calls of four are under way, and one waits"
    plugin.go.set()
    for batch in batches:
        batch.join()
    assert list(outcomes.values()) == [None] * 4


def test_threads_that_hang_are_not_waited_for_by_the_next_batch(message, monkeypatch):
    class Hangs(Consumer[NoOptions]):
        """Hangs with one message."""

        released = threading.Event()

        def consume(self, one):
            if one.title == "bad":
                self.released.wait()

    plugin, good = Hangs(NoOptions()), message(title="good")
    with monkeypatch.context() as patched:
        patched.setattr(delivery, "BATCH_LIMIT", 0.05)
        patched.setattr(delivery, "CALL_LIMIT", 0.05)
        bad, behind = message(title="bad"), message(title="good")
        outcomes = delivery.deliver(plugin, [bad, behind], concurrency=1)
    assert type(outcomes[bad.id]) is TemporaryError
    assert isinstance(outcomes[behind.id], NotTriedError), "its call was never begun"
    assert delivery.deliver(plugin, [good], concurrency=1) == {good.id: None}
    plugin.released.set()
