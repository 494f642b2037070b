"""What filters and producers may do wrong, and what then becomes of their messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import structlog
from structlog.testing import LogCapture

from pipeline import Filter, NoOptions, PermanentError, PollingProducer, TemporaryError, Window, WindowFilter
from pipeline.engine import batch as batches
from pipeline.engine import decisions
from pipeline.store import Claim
from pipeline.store.rows import Why

UNREADABLE = {
    "a title that is none": {"title": None},
    "a label that is a number": {"labels": {"a": 1}},
    "data that JSON has no word for": {"data": object()},
    "half a character": {"title": "\ud800"},
    "a time without zone": {"time": datetime(2026, 3, 1)},  # noqa: DTZ001 - the mistake under test
    "a time that is a text": {"time": "2026-03-01T10:00:00Z"},
    "a text without zone as time": {"time": "2026-03-01T10:00:00"},
    "a status that there is not": {"status": "maybe"},
}


class Passes(Filter[NoOptions]):
    """Lets all pass."""

    def filter(self, one):
        yield one


@pytest.mark.parametrize("behind", [[], [Passes]], ids=["by the last filter", "before another"])
@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_message_that_nobody_could_read_again_is_buried_alone(engine, filter_step, consumer, box, message, change, behind):
    class Spoils(Filter[NoOptions]):
        """Makes something unreadable of one message."""

        def filter(self, one):
            yield one.replace(**change) if one.title == "bad" else one

    run = engine(filters=[filter_step(Spoils), *map(filter_step, behind)], consumers=[consumer(box)])
    good, bad = message(title="good"), message(title="bad")
    run.send(good, bad)
    for batch in run.queue.take():
        run.runner.run_text(batches.encode(batch))
    for batch in run.queue.take():
        run.runner.run_text(batches.encode(batch))
    assert box.got == [good]
    (letter,) = run.store.dead_letters()
    assert letter.message == bad
    assert letter.error.startswith("filter 'spoils' yielded a message that cannot be kept")


@pytest.mark.parametrize("text", ["short", "long " * 2000, "a\0b"], ids=["short", "long", "with a NUL"])
def test_what_the_last_filter_changed_reaches_every_consumer_in_order(engine, filter_step, consumer, box, message, text):
    class Changes(Filter[NoOptions]):
        """Says more."""

        def filter(self, one):
            yield one.replace(text=text)

    run = engine(filters=[filter_step(Changes)], consumers=[consumer(box), consumer(box, label="some", when='title > "100"')])
    sent = [message(title=f"{number:03}") for number in range(120)]
    run.send(*sent)
    run.work()
    changed = [one.replace(text=text) for one in sent]
    assert box.got == [*changed, *changed[101:]]


def test_a_producer_that_polls_something_unreadable_moves_no_cursor(engine, producer, consumer, box, message):
    class Odd(PollingProducer[NoOptions]):
        """Has a title that is none."""

        def poll(self, cursor):
            yield message(title=None), "1"

    run = engine(producers=[producer(Odd)], consumers=[consumer(box)])
    with pytest.raises(PermanentError, match="cannot be kept"):
        run.runner.poll(run.runner.pipelines["toy"], "odd")
    assert run.queue.batches == []
    assert run.store.cursor("toy", "odd") is None


@pytest.mark.parametrize(
    "window",
    [
        Window("k", datetime(2026, 3, 1)),  # noqa: DTZ001 - the mistake under test
        Window(3, datetime(2026, 3, 1, tzinfo=UTC)),  # type: ignore[arg-type] # as above
        "soon",
    ],
    ids=["naive", "key", "text"],
)
def test_a_window_that_is_none_buries_its_message(engine, filter_step, consumer, box, message, window):
    class Odd(WindowFilter[NoOptions]):
        """Gives no window that can be kept."""

        def window(self, one, now, memory):
            return window if one.title == "bad" else None

        def release(self, opened):
            return opened.messages

    run = engine(filters=[filter_step(Odd)], consumers=[consumer(box)])
    good, bad = message(title="good"), message(title="bad")
    run.send(bad, good)
    run.work()
    assert box.got == [good]
    assert run.outcomes(bad) == {"odd": "buried"}
    assert run.store.held_counts() == {}


def test_an_exit_in_a_filter_ends_the_worker_and_decides_nothing(engine, filter_step, consumer, box, message):
    """It may as well be the worker's own: billiard ends a child by SystemExit, wherever that is."""

    class Leaves(Filter[NoOptions]):
        """Calls sys.exit()."""

        def filter(self, one):
            raise SystemExit(1)

    run = engine(filters=[filter_step(Leaves)], consumers=[consumer(box)])
    one = message()
    run.send(one)
    with pytest.raises(SystemExit):
        run.work()
    assert run.outcomes(one) == {}


def test_a_filter_that_cannot_be_opened_holds_its_messages(engine, filter_step, consumer, box, message):
    class Shut(Filter[NoOptions]):
        """Opens at the second try."""

        tries = 0

        def open(self):
            Shut.tries += 1
            if Shut.tries == 1:
                raise OSError("no such file")

        def filter(self, one):
            yield one

    run = engine(filters=[filter_step(Shut)], consumers=[consumer(box)])
    one = message()
    run.send(one)
    run.work()
    assert run.outcomes(one) == {"shut": "held"}
    run.later(seconds=2)
    assert box.got == [one]


def test_a_hop_of_many_parts_goes_in_several_batches(engine, filter_step, consumer, box, message):
    class Many(Filter[NoOptions]):
        """Makes a thousand of one."""

        def filter(self, one):
            return [one] * 1000

    class Same(Filter[NoOptions]):
        """Passes."""

        def filter(self, one):
            yield one

    run = engine(filters=[filter_step(Many), filter_step(Same, queue="slow")], consumers=[consumer(box)])
    run.send(message())
    run.runner.run(run.queue.take()[0])
    assert [len(batch.messages) for batch in run.queue.batches] == [batches.MAX_PROCESS, batches.MAX_PROCESS]


def test_a_window_taken_before_the_clock_lets_go_of_the_retry_is_kept(engine, filter_step, consumer, box, message, monkeypatch):
    """The worker may have the retried message in its window before the clock deletes the row that it came from."""

    class Slow(WindowFilter[NoOptions]):
        """Is away at its first call."""

        calls = 0

        def window(self, one, now, memory):
            Slow.calls += 1
            if Slow.calls == 1:
                raise TemporaryError("away", retry_after=1)
            return Window("k", now + timedelta(seconds=30))

        def release(self, opened):
            return opened.messages

    logged = LogCapture()
    own = structlog.wrap_logger(None, processors=[logged], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(decisions, "log", own)
    run = engine(filters=[filter_step(Slow)], consumers=[consumer(box)])
    one = message()
    run.send(one)
    run.work()
    release = run.store.release

    def late(claims: list[Claim]) -> None:
        run.work()
        release(claims)

    monkeypatch.setattr(run.store, "release", late)
    run.later(seconds=2)
    assert run.store.held_counts() == {("toy", "slow", Why.WINDOW): 1}
    run.later(seconds=31)
    assert box.got == [one]
    assert [line["error"] for line in logged.entries] == ["away"], "waiting in a window is no failure"
