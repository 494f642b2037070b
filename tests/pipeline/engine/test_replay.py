"""The replay: a pipeline that is unchanged would do what it did; of one that is changed each difference is found, and named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import (
    Condition,
    Config,
    Consumer,
    Dropped,
    Filter,
    NoOptions,
    RememberingFilter,
    TemporaryError,
    Window,
    WindowFilter,
)
from pipeline.engine.clock import Clock
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.replay import replay
from pipeline.engine.runner import Runner
from pipeline.engine.simulation import Simulation
from pipeline.engine.simulation.stage import ListQueue
from pipeline.memory import open_memory
from pipeline.spec.model import Configuration, Keep
from pipeline.store import Store

DAY = Keep(timedelta(days=1))
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Box(Consumer[NoOptions]):
    """Takes what it gets."""

    def consume(self, message):
        pass


class Away(Consumer[NoOptions]):
    """Is never there."""

    def consume(self, message):
        raise TemporaryError("away")


class OnlyConfig(Config):
    """A severity."""

    severity: str = "critical"


class Only(Filter[OnlyConfig]):
    """Lets one severity pass."""

    def filter(self, message):
        if message.severity == self.config.severity:
            yield message
        else:
            yield Dropped(f"it is {message.severity}")


class OnceConfig(Config):
    """Minutes."""

    minutes: int = 1


class Once(RememberingFilter[OnceConfig]):
    """Lets one of a title pass in that time."""

    def filter(self, message, memory):
        if memory.first(message.title, timedelta(minutes=self.config.minutes)):
            yield message
        else:
            yield Dropped("it was told already")


class Halves(Filter[NoOptions]):
    """Makes two of one."""

    def filter(self, message):
        yield message.replace(title=f"{message.title}a")
        yield message.replace(title=f"{message.title}b")


class BatchOfConfig(Config):
    """Minutes."""

    minutes: int = 5


class BatchOf(WindowFilter[BatchOfConfig]):
    """Makes one message of those of five minutes."""

    def window(self, message, now, memory):
        return Window(message.severity, now + timedelta(minutes=self.config.minutes))

    def release(self, opened):
        first, *others = opened.messages
        yield first.replace(title=f"{first.title} and {len(others)} more")


@pytest.fixture
def filter_step(filter_step):
    return lambda plugin, **siblings: filter_step(plugin, **{"config": plugin.config_type(), **siblings})


@pytest.fixture
def done(engine, message):
    """Runs messages (title, severity) through a pipeline, a minute apart each; gives the engine with its clock an hour later."""

    def done(*sent, **steps):
        run = engine(**steps, keep=DAY)
        for title, severity in sent:
            run.send(message(title=title, severity=severity))
            run.work()
            run.later(minutes=1)
        for _ in range(4):
            run.later(minutes=15)
        return run

    return done


@pytest.fixture
def again(spec):
    """Replays what an engine kept with other steps."""

    def again(run, **steps):
        kept = list(run.store.accepted.between("toy", newest=1000))
        return replay(spec(**steps), kept, run.store, now=run.moment[0])

    return again


def changes(found):
    return {(*change.consumers, change.then, change.now): change.count for change in found.changes}


def counted(found):
    return {one.consumer: (one.then, one.now) for one in found.notifications}


def titles(found):
    return [one.title for one in found.messages if one.different]


SENT = (("a", "critical"), ("b", "info"), ("c", "critical"))


def test_what_a_filter_would_drop_is_told_with_its_place(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    found = again(run, filters=[filter_step(Only)], consumers=[consumer(Box)])
    assert (found.different, found.unknown, found.failed) == (1, 0, 0)
    assert titles(found) == ["b"]
    assert changes(found) == {("box", "delivered", "dropped by only at toy.yaml:3:5"): 1}
    assert counted(found) == {"box": (3, 2)}
    (b,) = (one for one in found.messages if one.title == "b")
    assert b.ends[0].now.reason == "by only: it is info at toy.yaml:3:5"
    assert (found.since, found.until) == (found.messages[0].at, found.messages[-1].at)


def test_what_was_dropped_would_be_delivered(done, again, filter_step, consumer):
    run = done(*SENT, filters=[filter_step(Only)], consumers=[consumer(Box), consumer(Box, label="other")])
    found = again(run, consumers=[consumer(Box), consumer(Box, label="other")])
    assert changes(found) == {("box", "other", "dropped by only at toy.yaml:3:5", "delivered"): 1}
    assert counted(found) == {"box": (2, 3), "other": (2, 3)}


def test_the_filters_see_the_times_of_then(done, again, filter_step, consumer):
    sent = [("a", "info"), ("a", "info"), ("b", "info"), ("a", "info")]
    run = done(*sent, filters=[filter_step(Once)], consumers=[consumer(Box)])
    assert counted(again(run, filters=[filter_step(Once)], consumers=[consumer(Box)])) == {"box": (4, 4)}
    hour = filter_step(Once, config=OnceConfig(minutes=60))
    assert counted(again(run, filters=[hour], consumers=[consumer(Box)])) == {"box": (4, 2)}


def test_messages_that_would_be_told_of_together(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    found = again(run, filters=[filter_step(BatchOf)], consumers=[consumer(Box)])
    assert changes(found) == {("box", "delivered", "delivered with others"): 2}
    assert counted(found) == {"box": (3, 2)}
    assert [one.ends[0].now.others for one in found.messages] == [1, 0, 1]
    back = done(*SENT, filters=[filter_step(BatchOf)], consumers=[consumer(Box)])
    apart = again(back, consumers=[consumer(Box)])
    assert ("box", "delivered with others", "delivered") in changes(apart)


def test_what_waits_now_and_did_not(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    long = filter_step(BatchOf, config=BatchOfConfig(minutes=600))
    found = again(run, filters=[long], consumers=[consumer(Box)])
    assert changes(found) == {("box", "delivered", "waiting by batchof"): 3}
    assert all(one.ends[0].now.reason.startswith("until 2026-03-01 2") for one in found.messages)


def test_a_message_that_is_split_is_told_of_by_its_parts(done, again, filter_step, consumer):
    run = done(*SENT, filters=[filter_step(Halves)], consumers=[consumer(Box)])
    same = again(run, filters=[filter_step(Halves)], consumers=[consumer(Box)])
    assert (same.different, counted(same)) == (0, {"box": (6, 6)})
    whole = again(run, consumers=[consumer(Box)])
    assert (whole.different, counted(whole)) == (0, {"box": (6, 3)})
    none = again(
        run, filters=[filter_step(Halves), filter_step(Only, config=OnlyConfig(severity="x"))], consumers=[consumer(Box)]
    )
    assert changes(none) == {("box", "delivered", "dropped by only at toy.yaml:3:5"): 3}


def test_that_a_consumer_failed_then_is_no_difference(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Away)])
    found = again(run, consumers=[consumer(Away)])
    assert (found.different, found.failed) == (0, 3)
    assert counted(found) == {"away": (0, 3)}
    dropped = again(run, filters=[filter_step(Only)], consumers=[consumer(Away)])
    assert (dropped.different, dropped.failed) == (1, 2)
    assert changes(dropped) == {("away", "failed", "dropped by only at toy.yaml:3:5"): 1}


def test_consumers_that_are_new_or_gone(done, again, filter_step, consumer):
    run = done(*SENT, filters=[filter_step(Only)], consumers=[consumer(Box, label="old"), consumer(Box, label="both")])
    steps = [consumer(Box, label="both"), consumer(Box, label="new")]
    found = again(run, filters=[filter_step(Only)], consumers=steps)
    assert changes(found) == {("old", "delivered", "no such consumer now"): 2, ("new", "no record", "delivered"): 2}
    assert counted(found) == {"both": (2, 2), "new": (0, 2), "old": (2, 0)}


def test_a_condition_of_a_consumer(done, again, consumer):
    run = done(*SENT, consumers=[consumer(Box, when=Condition("severity == 'critical'")), consumer(Box, label="all")])
    steps = [consumer(Box, when=Condition("severity == 'info'")), consumer(Box, label="all")]
    assert changes(again(run, consumers=steps)) == {
        ("box", "delivered", "dropped by when at toy.yaml:3:5"): 2,
        ("box", "dropped by when at toy.yaml:3:5", "delivered"): 1,
    }


def test_what_has_no_record_is_compared_with_nothing(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    run.store.purge(run.moment[0], 100)
    found = again(run, filters=[filter_step(Only)], consumers=[consumer(Box)])
    assert (found.different, found.unknown, found.changes) == (0, 3, ())


@pytest.mark.parametrize("ordered", [False, True])
def test_ordered_pipelines(done, again, filter_step, consumer, ordered):
    run = done(*SENT, filters=[filter_step(Once)], consumers=[consumer(Box, ordered=True)])
    found = again(run, filters=[filter_step(Only)], consumers=[consumer(Box, ordered=ordered)])
    assert changes(found) == {("box", "delivered", "dropped by only at toy.yaml:3:5"): 1}


def test_nothing_is_written_into_the_store(done, again, filter_step, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    before = [record for one in run.store.accepted.between("toy", newest=9) for record in run.store.history(one.message.id)]
    again(run, filters=[filter_step(BatchOf)], consumers=[consumer(Away)])
    after = [record for one in run.store.accepted.between("toy", newest=9) for record in run.store.history(one.message.id)]
    assert (after, run.store.held_counts()) == (before, {})


def test_it_tells_how_far_it_is(done, spec, consumer):
    run = done(*SENT, consumers=[consumer(Box)])
    kept, told = list(run.store.accepted.between("toy", newest=1000)), []
    replay(spec(consumers=[consumer(Box)]), kept, run.store, now=run.moment[0], progress=told.append)
    assert told == [1, 2, 3]


def test_a_store_on_postgresql(empty_postgres, spec, filter_step, consumer, message):
    store = Store(empty_postgres)
    store.migrate()
    steps = {"filters": [filter_step(Halves), filter_step(BatchOf)], "consumers": [consumer(Box)]}
    pipelines = Pipelines(Configuration({"toy": spec(**steps, keep=DAY)}))
    memory, queue, moment = open_memory(empty_postgres), ListQueue(), [START]
    runner = Runner(pipelines, store, memory, queue, now=lambda: moment[0])
    clock = Clock(runner, owner="test", retention=timedelta(days=7))
    for title, severity in SENT:
        runner.accept(pipelines["toy"], "in", [message(title=title, severity=severity)])
        for minutes in (0, 5):
            moment[0] += timedelta(minutes=minutes)
            clock.tick()
            while len(queue):
                runner.run(queue.take())
    kept = list(store.accepted.between("toy", newest=10))
    same = replay(spec(**steps), kept, store, now=moment[0])
    assert (len(kept), same.different, same.unknown, counted(same)) == (3, 0, 0, {"box": (3, 3)})
    changed = replay(spec(filters=[filter_step(Only)], consumers=steps["consumers"]), kept, store, now=moment[0])
    assert changes(changed) == {("box", "delivered", "dropped by only at toy.yaml:3:5"): 1}
    pipelines.close()
    memory.close()
    store.close()


STEPS = st.lists(st.sampled_from([Only, Once, Halves, BatchOf]), max_size=3, unique=True)
ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["critical", "info"]), st.integers(0, 400)), min_size=1, max_size=12
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=STEPS, arrivals=ARRIVALS, straight=st.booleans(), ordered=st.booleans())
def test_an_unchanged_pipeline_would_do_what_it_did(spec, filter_step, consumer, message, filters, arrivals, straight, ordered):
    consumers = [consumer(Box, ordered=ordered)]
    if not straight:
        consumers.append(consumer(Box, label="second", when=Condition("title != 'b'")))
    pipeline = spec(filters=[filter_step(one) for one in filters], consumers=consumers, keep=DAY)
    with Simulation(pipeline, start=START) as then:
        for title, severity, seconds in arrivals:
            then.run_until(then.now + timedelta(seconds=seconds))
            then.accept([message(title=title, severity=severity)])
            then.work()
        then.run_until(then.now + timedelta(minutes=2))
        kept = list(then.store.accepted.between("toy", newest=1000))
        found = replay(pipeline, kept, then.store, now=then.now)
    assert (len(found.messages), found.unknown, titles(found)) == (len(arrivals), 0, [])
    assert all(one.then == one.now for one in found.notifications)
