"""Windows: what a filter keeps for a key, what stays, what ends with a reason; clocks that die, and clocks that are late."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from pipeline import (
    Dropped,
    Keep,
    Message,
    NoOptions,
    PermanentError,
    Stay,
    TemporaryError,
    Window,
    WindowFilter,
)
from pipeline.engine.clock import LEASE, Clock
from pipeline.engine.redrive import place
from pipeline.engine.windows import AFTER_FAILURE
from pipeline.store import Why

MINUTE = timedelta(minutes=1)


class Tally(WindowFilter[NoOptions]):
    """Tells each minute how many came in all; what is critical opens the window at once."""

    broken: Exception | None = None

    def window(self, message, now, memory):
        return Window(message.key, now if message.severity == "critical" else now + MINUTE)

    def release(self, opened):
        if self.broken is not None:
            raise self.broken
        count = (opened.kept or 0) + len(opened.messages)
        if any(message.title == "end" for message in opened.messages):
            yield Dropped("it is over")
            return
        yield Message(source="tally", title=f"{count} so far")
        yield Keep(count, opened.now + MINUTE)


@pytest.fixture
def run(engine, filter_step, consumer, box):
    return engine(filters=[filter_step(Tally)], consumers=[consumer(box)])


@pytest.fixture
def reopened(engine, filter_step, consumer, box):
    """Another engine on the same store, at the same moment."""

    def make(run, filters=None):
        again = engine(filters=[filter_step(Tally)] if filters is None else filters, consumers=[consumer(box)])
        again.moment[0] = run.moment[0]
        return again

    return make


@pytest.fixture(autouse=True)
def _whole():
    yield
    Tally.broken = None


def titles(box):
    return [message.title for message in box.got]


def send(run, *messages):
    run.send(*messages)
    run.work()


def test_what_is_kept_comes_back_and_opens_its_key_by_itself(run, box, message):
    send(run, message(key="k"), message(key="k"), message(key="other"))
    run.later(minutes=1)
    assert sorted(titles(box)) == ["1 so far", "2 so far"]
    send(run, message(key="k"))
    run.later(minutes=1)
    run.later(minutes=1)
    assert [title for title in titles(box)[2:] if title.startswith("3")] == ["3 so far", "3 so far"], "the same text, told anew"
    assert run.store.held_counts() == {}, "what is kept is no message that waits"


def test_a_message_that_is_due_earlier_opens_the_window_for_what_is_kept(run, box, message):
    send(run, message(key="k"))
    run.later(minutes=1)
    send(run, message(key="k", severity="critical"))
    run.later(seconds=1)
    assert titles(box) == ["1 so far", "2 so far"]


def test_a_key_for_which_nothing_is_kept_any_more_begins_anew(run, box, message):
    one, end, two = message(key="k"), message(key="k", title="end"), message(key="k")
    send(run, one)
    run.later(minutes=1)
    send(run, end)
    run.later(minutes=1)
    assert run.store.next_due() is None
    (told,) = run.store.history(end.id)
    assert told.outcome.value == "dropped"
    assert told.reason.startswith("by tally: it is over at ")
    send(run, two)
    run.later(minutes=1)
    assert titles(box) == ["1 so far", "1 so far"]


def test_what_is_kept_survives_a_restart(run, box, message, reopened):
    send(run, message(key="k"))
    run.later(minutes=1)
    again = reopened(run)
    again.later(minutes=1)
    assert titles(box) == ["1 so far", "1 so far"]


@pytest.mark.parametrize(
    "error", [TemporaryError("away"), PermanentError("no"), RuntimeError("oh")], ids=lambda one: type(one).__name__
)
def test_an_error_takes_the_messages_and_leaves_what_is_kept(run, box, message, error):
    send(run, message(key="k"))
    run.later(minutes=1)
    late = message(key="k")
    send(run, late)
    Tally.broken = error
    run.later(minutes=1)
    Tally.broken = None
    assert (run.outcomes(late) == {"tally": "buried"}) is not isinstance(error, TemporaryError)
    run.later(seconds=AFTER_FAILURE.total_seconds())
    run.later(minutes=1)
    counted = 2 if isinstance(error, TemporaryError) else 1
    assert titles(box)[-1] == f"{counted} so far"


def test_a_clock_that_dies_before_it_lets_go_tells_the_same_under_the_same_id(run, box, message, monkeypatch):
    send(run, message(key="k"), message(key="k"))

    def dies(turns):
        raise TemporaryError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(run.store, "turn", dies)
        with pytest.raises(TemporaryError):
            run.later(minutes=1)
    run.work()
    assert titles(box) == ["2 so far"]
    run.later(seconds=LEASE.total_seconds() + 1)
    assert titles(box) == ["2 so far"], "delivered once"
    run.later(minutes=1)
    assert titles(box) == ["2 so far", "2 so far"], "and the next one is another"


def test_a_clock_whose_lease_is_over_keeps_nothing(run, box, message, monkeypatch):
    send(run, message(key="k"))
    other = Clock(run.runner, owner="other", retention=timedelta(days=1))
    turn = run.store.turn

    def late(turns):
        monkeypatch.setattr(run.store, "turn", turn)
        run.moment[0] += LEASE + timedelta(seconds=1)
        while other.tick():
            pass
        lost = turn(turns)
        assert lost == turns, "another clock has opened the window meanwhile"
        return lost

    monkeypatch.setattr(run.store, "turn", late)
    run.later(minutes=1)
    run.later(minutes=1)
    assert titles(box) == ["1 so far", "1 so far"]
    assert run.store.next_due() is not None


class Patient(WindowFilter[NoOptions]):
    """Lets go of what is ready, and lets the others wait on."""

    def window(self, message, now, memory):
        if message.title == "at once":
            return message.replace(title="it went at once")
        return Dropped("not wanted") if message.title == "unwanted" else Window("k", now + MINUTE)

    def release(self, opened):
        for message in opened.messages:
            if message.time + 2 * MINUTE < opened.now:
                yield message
            elif message.title == "hopeless":
                yield Dropped("no use", message)
            else:
                yield Stay(message, opened.now + MINUTE)


def test_some_stay_some_go_some_end(engine, filter_step, consumer, box, message):
    run = engine(filters=[filter_step(Patient)], consumers=[consumer(box)])
    early = message(title="early", time=run.moment[0] - 2 * MINUTE)
    late = message(title="late", time=run.moment[0])
    hopeless, unwanted, prompt = (
        message(title="hopeless", time=run.moment[0]),
        message(title="unwanted"),
        message(title="at once"),
    )
    send(run, early, late, hopeless, unwanted, prompt)
    assert titles(box) == ["it went at once"]
    assert box.got[0].id == prompt.id
    assert run.store.history(unwanted.id)[0].reason.startswith("by patient: not wanted at ")
    run.later(minutes=1)
    assert titles(box)[1:] == ["early"]
    assert run.store.history(hopeless.id)[0].reason.startswith("by patient: no use at ")
    assert run.store.held_counts() == {("toy", "patient", Why.WINDOW): 1}
    assert run.outcomes(late) == {"patient": "held"}
    send(run, late)  # its batch came twice
    run.later(minutes=1)
    run.later(minutes=1)
    assert titles(box)[2:] == ["late"]
    assert run.store.held_counts() == {}


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda opened: [Stay(Message(source="stranger"), opened.now + MINUTE)],
        lambda opened: [Stay(opened.messages[0], (opened.now + MINUTE).replace(tzinfo=None))],
        lambda opened: [Keep(1, (opened.now + MINUTE).replace(tzinfo=None))],
        lambda opened: [Keep(1, opened.now + MINUTE), Keep(2, opened.now + MINUTE)],
        lambda opened: [Keep({1, object()}, opened.now + MINUTE)],
        lambda opened: [Keep(float("nan"), opened.now + MINUTE), object()],
    ],
)
def test_nonsense_buries_the_messages(engine, filter_step, consumer, box, message, nonsense):
    class Odd(Tally):
        """Yields nonsense."""

        def release(self, opened):
            return nonsense(opened)

    run = engine(filters=[filter_step(Odd)], consumers=[consumer(box)])
    one = message(key="k")
    send(run, one)
    run.later(minutes=1)
    assert run.outcomes(one) == {"odd": "buried"}
    assert run.store.next_due() is None


def test_a_filter_that_is_gone_leaves_what_it_kept_among_the_dead_letters(run, box, message, reopened):
    send(run, message(key="k"))
    run.later(minutes=1)
    again = reopened(run, filters=[])
    again.later(minutes=1)
    (letter,) = again.store.dead_letters()
    assert (letter.message.type, letter.message.data) == ("kept", 1)
    back = reopened(run)
    assert place(back.runner.pipelines, letter, None, back.moment[0]).startswith("it is what a filter kept")


def test_what_another_plugin_kept_under_the_label_goes_to_the_dead_letters_once(run, box, message, reopened, filter_step):
    class Words(WindowFilter[NoOptions]):
        """Keeps something else."""

        def window(self, message, now, memory):
            return Window(message.key, now)

        def release(self, opened):
            words = [*(opened.kept or []), *(message.title for message in opened.messages)]
            yield Message(source="words", title=" ".join(words))
            yield Keep(words, opened.now + MINUTE)

    send(run, message(key="k"), message(key="idle"))
    run.later(minutes=1)
    other = filter_step(Words, label="tally")
    again = reopened(run, filters=[dataclasses.replace(other, plugin="words")])
    for title in ("one", "two"):
        send(again, message(key="k", title=title))
        again.later(seconds=1)
    again.later(minutes=1)
    assert titles(box)[2:4] == ["one", "one two"]
    letters = again.store.dead_letters()
    assert {letter.error for letter in letters} == {"'tally' kept it, and filter 'tally' is 'words' now"}
    assert [letter.message.data for letter in letters] == [1, 1]
