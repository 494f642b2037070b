"""Few messages are filtered where they are delivered: what is decided about them is the same, and on record."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import BatchConsumer, Consumer, Filter, NoOptions, TemporaryError
from pipeline.condition import Condition
from pipeline.engine.publisher import Publisher
from pipeline.engine.routes import FEW, FEW_BYTES, first_batch
from pipeline.registry import Registry
from pipeline.spec.model import Keep


class Box(Consumer[NoOptions]):
    """Keeps what it gets."""

    def consume(self, message):
        got.append(message)


class Boxes(BatchConsumer[NoOptions]):
    """Keeps what it gets, at once."""

    def consume_many(self, messages):
        got.extend(messages)
        return {}


class Light(Filter[NoOptions]):
    """Says that it is."""

    @classmethod
    def is_light(cls, config):
        return True


class Upper(Light):
    """Writes titles in capitals."""

    def filter(self, message):
        yield message.replace(title=message.title.upper())


class OnlyLoud(Light):
    """Drops what is not loud."""

    def filter(self, message):
        if message.labels.get("loud"):
            yield message


class Late(Light):
    """Cannot work, the first time."""

    def filter(self, message):
        if message.id not in tried:
            tried.add(message.id)
            raise TemporaryError("later")
        yield message


class Spoils(Light):
    """Makes what nobody can keep."""

    def filter(self, message):
        yield message.replace(title=3)


class Exits(Light):
    """Ends its process."""

    def filter(self, message):
        raise SystemExit(message.title)


class Heavy(Upper):
    """Says nothing about what it takes."""

    @classmethod
    def is_light(cls, config):
        return False


got: list = []
tried: set[str] = set()


@pytest.fixture(autouse=True)
def _empty():
    got.clear()
    tried.clear()


def few(run, *messages):
    """Put messages on the queue as the intake does with a few; gives the batch."""
    run.queue.publish([first_batch(run.runner.pipelines["toy"], list(messages), few=True)])
    (batch,) = run.queue.batches
    return batch


@pytest.mark.parametrize("kind", [Box, Boxes])
def test_they_are_filtered_and_delivered_in_one_go_and_only_once(engine, filter_step, consumer, message, kind):
    run = engine(
        filters=[filter_step(OnlyLoud), filter_step(Upper)],
        consumers=[consumer(kind, label="box", when='title != "UNWANTED"')],
    )
    loud, unwanted = (message(title=title, labels={"loud": "yes"}) for title in ("a", "unwanted"))
    quiet = message(title="b")
    batch = few(run, loud, quiet, unwanted)
    assert (batch.job, batch.queue) == ("process", "out.box")
    for _ in range(2):
        run.queue.take()
        run.runner.run(batch)
        assert run.queue.batches == []
        assert [one.title for one in got] == ["A"]
    assert run.outcomes(loud) == {"box": "delivered"}
    assert run.outcomes(quiet) == {"onlyloud": "dropped"}
    assert run.outcomes(unwanted) == {"box": "dropped"}


def test_what_a_filter_cannot_do_now_comes_again_by_the_filters(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Late), filter_step(Upper)], consumers=[consumer(Box)])
    few(run, message(title="a"))
    run.work()
    assert got == []
    run.later(minutes=10)
    assert [one.title for one in got] == ["A"]


def test_what_cannot_be_kept_is_buried_as_it_was(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Spoils)], consumers=[consumer(Box)])
    one = message(title="a")
    few(run, one)
    run.work()
    assert got == []
    assert run.outcomes(one) == {"spoils": "buried"}


def test_they_are_kept_as_they_came(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Upper)], consumers=[consumer(Box)], keep=Keep(timedelta(days=1)))
    few(run, message(title="a"))
    run.work()
    assert [one.message.title for one in run.store.accepted.between("toy", newest=10)] == ["a"]


@pytest.mark.parametrize(
    "how", ["a heavy filter", "a heavy condition", "a queue of its own", "another consumer", "in order", "many"]
)
def test_what_does_not_go_that_way_goes_to_the_filters(engine, filter_step, consumer, message, how):
    filters = {"a heavy filter": [filter_step(Heavy)], "a queue of its own": [filter_step(Upper, queue="slow")]}
    more = [consumer(Boxes)] if how == "another consumer" else []
    steps = filters.get(how, [filter_step(Upper)])
    when = Condition('labels.exists(name, name == "a")' if how == "a heavy condition" else 'title != "a"')
    run = engine(filters=steps, consumers=[consumer(Box, ordered=how == "in order", when=when), *more])
    batch = first_batch(run.runner.pipelines["toy"], [message()], few=how != "many")
    assert (batch.job, batch.queue) == ("process", "slow" if how == "a queue of its own" else "in")


def test_where_the_filters_are_others_meanwhile_they_go_the_way_of_these(engine, filter_step, consumer, message):
    batch = few(engine(filters=[filter_step(Upper)], consumers=[consumer(Box)]), message(title="a"))
    run = engine(filters=[filter_step(Heavy)], consumers=[consumer(Box)])
    run.queue.take()
    run.runner.run(batch)
    (onward,) = run.queue.batches
    assert (onward.job, onward.queue) == ("process", "in")
    run.work()
    assert [one.title for one in got] == ["A"]


@pytest.mark.parametrize("now", ["no filter", "another queue"])
def test_where_they_can_still_be_filtered_there_they_are(engine, filter_step, consumer, message, now):
    batch = few(engine(filters=[filter_step(Upper)], consumers=[consumer(Box)]), message(title="a"))
    filters = [] if now == "no filter" else [filter_step(Upper)]
    run = engine(filters=filters, consumers=[consumer(Box, queue="box" if now == "no filter" else "other")])
    run.queue.take()
    run.runner.run(batch)
    assert run.queue.batches == []
    assert [one.title for one in got] == ["a" if now == "no filter" else "A"]


def test_a_filter_that_would_end_its_process_does_so_where_that_is_dealt_with(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Exits)], consumers=[consumer(Box)])
    batch = few(run, message(title="a"))
    run.queue.take()
    run.runner.run(batch)
    (onward,) = run.queue.batches
    assert (onward.job, onward.queue) == ("process", "in")
    with pytest.raises(SystemExit):
        run.runner.run(onward)


def test_a_worker_that_dies_over_them_buries_what_kills_it(engine, filter_step, consumer, message):
    run = engine(filters=[filter_step(Upper)], consumers=[consumer(Box)])
    bad, good = message(title="bad"), message(title="good")
    few(run, bad, good)
    while batches := run.queue.take():
        for batch in batches:
            if any(one.id == bad.id for one in batch.messages):
                run.runner.lost(batch)
            else:
                run.runner.run(batch)
    assert [one.title for one in got] == ["GOOD"]
    assert [letter.message.id for letter in run.store.dead_letters()] == [bad.id]


def test_the_intake_sends_a_few_to_the_consumer_and_many_to_the_filters(
    engine, queue, store, filter_step, consumer, message, hand_in
):
    pipeline = engine(filters=[filter_step(Upper)], consumers=[consumer(Box)]).runner.pipelines["toy"]
    publisher = Publisher(queue, store)
    try:
        few, many, large = [message()] * FEW, [message()] * (FEW + 1), [message(text="x" * FEW_BYTES)]
        for messages in (few, many, large):
            hand_in(publisher, pipeline, "http", messages).result(timeout=5)
    finally:
        publisher.close()
    assert [(batch.queue, len(batch.messages)) for batch in queue.batches] == [("out.box", FEW), ("in", FEW + 1), ("in", 1)]


@pytest.mark.parametrize(
    ("name", "options", "light"),
    [
        ("match", {"condition": 'severity == "error"'}, True),
        ("match", {"condition": 'title.matches("^a+$")'}, True),
        ("match", {"condition": "data.items.exists(one, one == 1)"}, False),
        ("drop", {"labels": ['team="db"']}, True),
        ("drop", {"condition": "labels.all(name, name != 'a')"}, False),
        ("remove", {"fields": ["url"]}, True),
        ("remove", {"redact": ["card"]}, False),
        ("set", {"severity": "error"}, True),
        ("rename", {"labels.a": "labels.b"}, True),
        ("render", {"title": "{{ title }}"}, True),
        ("split", {"list": "data.items"}, False),
    ],
)
def test_which_of_ours_are_light(name, options, light):
    plugin = Registry().find("filter", name)
    assert plugin.is_light(plugin.config_type.model_validate(options)) is light
