"""The redrive: each message goes once more to the step that gave it up, and to no other."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline import Consumer, Filter, NoOptions, PermanentError, TemporaryError
from pipeline.engine.batch import Batch
from pipeline.engine.editing import as_text, read_text, read_value, set_fields
from pipeline.engine.redrive import Redrive, drop
from pipeline.errors import RequestError
from pipeline.spec.model import Retry
from pipeline.store import DeadLetter, Why
from pipeline.store.rows import Worked
from pipeline.store.selection import Selection
from pipeline.units import parse_rate


class Box(Consumer[NoOptions]):
    """Keeps what it gets; raises what it is told to."""

    got: list
    answers: list

    def consume(self, message):
        if type(self).answers and (answer := type(self).answers.pop(0)) is not None:
            raise answer
        type(self).got.append(message)


@pytest.fixture
def boxes():
    return [type(name, (Box,), {"got": [], "answers": []}) for name in ("Mail", "Chat", "Page")]


@pytest.fixture
def run(engine, consumer, boxes):
    """An engine with three consumers."""
    return engine(consumers=[consumer(box) for box in boxes])


def redrive(run, selection=None, **options):
    work = Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0], **options)
    run.moment[0] += timedelta(seconds=1)
    return list(work.run(selection or Selection()))


def refused(moved):
    return [one.reason for go in moved for one in go.refused]


def test_a_redrive_goes_to_the_one_consumer_that_failed(run, boxes, message):
    mail, chat, page = boxes
    chat.answers += [PermanentError("no"), PermanentError("still no")]
    one, two = message(title="one"), message(title="two")
    run.send(one, two)
    run.work()
    assert len(run.store.dead_letters()) == 2
    (moved,) = redrive(run)
    assert moved.left == {("toy", "chat"): 2}
    assert run.store.dead_letters() == []
    run.later(seconds=0)
    assert sorted(m.title for m in chat.got) == ["one", "two"]
    assert (len(mail.got), len(page.got)) == (2, 2)
    assert run.outcomes(one) == dict.fromkeys(("mail", "chat", "page"), "delivered")


def test_what_fails_again_is_a_dead_letter_again_with_its_attempts_counted_on(run, boxes, message):
    boxes[0].answers += [PermanentError("first"), PermanentError("second"), PermanentError("third")]
    run.send(message())
    run.work()
    for attempts, error in ((1, "first"), (2, "second"), (3, "third")):
        (letter,) = run.store.dead_letters()
        assert (letter.attempts, letter.error) == (attempts, error)
        redrive(run)
        run.later(seconds=0)
    assert run.store.dead_letters() == []
    assert len(boxes[0].got) == 1


def test_the_time_for_retries_counts_from_the_redrive(engine, consumer, boxes, message):
    run = engine(consumers=[consumer(boxes[0], retry=Retry(timedelta(hours=1)))])
    boxes[0].answers += [TemporaryError("away", retry_after=60)] * 200
    one = message()
    run.send(one)
    run.work()
    for _ in range(70):
        run.later(minutes=1.2)
    (letter,) = run.store.dead_letters()
    assert letter.error.startswith("given up after")
    boxes[0].answers[:] = [TemporaryError("away", retry_after=60)]
    redrive(run)
    run.later(seconds=0)
    assert run.store.dead_letters() == []
    (record,) = run.store.history(one.id)
    assert (record.outcome, record.since) == ("held", run.moment[0])
    for _ in range(20):  # a circuit that has opened lets it wait longer than it asked
        run.later(minutes=2)
    assert [m.id for m in boxes[0].got] == [one.id]


def test_a_filter_that_failed_filters_again_and_what_is_behind_it_follows(engine, filter_step, consumer, boxes, message):
    class Count(Filter[NoOptions]):
        """Counts."""

        seen = 0

        def filter(self, message):
            type(self).seen += 1
            yield message

    class Fragile(Filter[NoOptions]):
        """Breaks once."""

        broken = True

        def filter(self, message):
            if type(self).broken:
                raise ValueError("a bug")
            yield message.replace(title="mended")

    run = engine(filters=[filter_step(Count), filter_step(Fragile)], consumers=[consumer(box) for box in boxes])
    run.send(message())
    run.work()
    Fragile.broken = False
    assert [moved.left for moved in redrive(run)] == [{("toy", "fragile"): 1}]
    run.later(seconds=0)
    assert [[m.title for m in box.got] for box in boxes] == [["mended"]] * 3
    assert Count.seen == 1


def test_what_died_before_the_first_filter_starts_there(run, boxes, message):
    one = message()
    run.runner.lost(Batch(job="process", queue="in", pipeline="toy", messages=[one], deaths=5))
    assert [letter.step for letter in run.store.dead_letters()] == [""]
    redrive(run)
    run.later(seconds=0)
    assert [[m.id for m in box.got] for box in boxes] == [[one.id]] * 3


@pytest.mark.parametrize("ordered", [False, True], ids=["queued", "in-line"])
@pytest.mark.parametrize("filters", [1, 2])
def test_what_died_behind_a_filter_does_not_pass_it_again(engine, filter_step, consumer, boxes, message, filters, ordered):
    """It goes on at the filter that would have come next; behind the last one, at each consumer that wants it."""
    passed = []

    class Notes(Filter[NoOptions]):
        """Notes what passes."""

        def filter(self, one):
            passed.append(one.title)
            yield one.replace(title=f"{one.title}!")

    steps = [filter_step(Notes, label=f"notes{number}") for number in range(filters)]
    takers = [consumer(boxes[0], ordered=ordered), consumer(boxes[1], when='title == "none"'), consumer(boxes[2])]
    run = engine(filters=steps, consumers=takers)
    one = message(title="one")
    batch = Batch(job="process", queue="in", pipeline="toy", step="notes0", messages=[one], deaths=5)
    if ordered:
        run.runner.publish([batch.replace(deaths=0)])
        while not run.store.dead_letters():
            run.clock.tick()
            for taken in run.queue.take():
                dies(run, taken)
    else:
        run.runner.lost(batch)
    expected = ["notes1"] if filters == 2 else [step.label for step in (takers[0], takers[2])]
    assert sorted(letter.step for letter in run.store.dead_letters()) == sorted(expected)
    redrive(run)
    run.later(seconds=0)
    assert len(passed) == filters - 1
    assert [[m.id for m in box.got] for box in boxes] == [[one.id], [], [one.id]]
    assert run.store.dead_letters() == []


def dies(run, batch):
    """A worker begins with a batch from lanes and dies over it; a message over which too many died is given up."""
    now = run.moment[0]
    place, ids = (batch.pipeline, batch.step), [m.id for m in batch.messages]
    rows = run.store.lanes.begin(place, ids, token=batch.claim, worker="dead", now=now, until=now + timedelta(seconds=20))
    if rows[0].deaths < 3:
        run.runner.lost(batch)
        return
    run.store.settle(worked=Worked(worker="dead", lanes=[rows[0].lane], now=now))
    run.clock.tick()
    run.runner.run(run.queue.take()[0])


def test_a_message_that_kills_its_worker_again_counts_on(run, message):
    one = message()
    dead = DeadLetter(message=one, pipeline="toy", step="mail", error="no", attempts=3, at=run.moment[0])
    run.store.settle(dead=[dead], records=[dead.record()])
    redrive(run)
    while run.clock.tick():
        pass
    (batch,) = run.queue.take()
    assert (batch.step, batch.attempt) == ("mail", 4)
    run.runner.lost(batch.replace(deaths=5))
    (letter,) = run.store.dead_letters()
    assert letter.attempts == 4
    assert run.outcomes(one) == {"mail": "buried"}


def test_a_redrive_needs_no_broker(run, boxes, message):
    boxes[0].answers += [PermanentError("no")]
    run.send(message())
    run.work()
    run.queue.away = True
    redrive(run)
    with pytest.raises(TemporaryError):
        run.later(seconds=1)
    run.queue.away = False
    run.later(seconds=1)
    assert len(boxes[0].got) == 1


def test_what_has_no_place_any_more_stays_with_the_reason(run, message):
    def letter(**fields):
        given = {"message": message(), "pipeline": "toy", "step": "mail", "error": "no", "at": run.moment[0]}
        return DeadLetter(**given | fields)

    run.runner.run_text(b"nonsense")
    delivered = letter()
    others = [letter(pipeline="old"), letter(step="fax"), delivered]
    held = DeadLetter(
        message=message(source="store", type="unreadable"), pipeline="toy", step="mail", error="no", at=run.moment[0]
    )
    run.store.settle(dead=[*others, held])
    run.send(delivered.message)
    run.work()
    moved = redrive(run)
    assert sum(sum(one.left.values()) for one in moved) == 0
    reasons = sorted(reason.partition(",")[0] for reason in refused(moved))
    assert reasons == [
        "it could not be read as a message",
        "it could not be read as a message",
        "it was delivered all the same",
        "pipeline 'toy' has no filter or consumer 'fax' any more",
        "there is no pipeline 'old' any more",
    ]
    assert len(run.store.dead_letters()) == 5


def test_a_rate_spreads_what_is_due(run, boxes, message):
    boxes[0].answers += [PermanentError("no")] * 5
    run.send(*(message() for _ in range(5)))
    run.work()
    redrive(run, rate=parse_rate("1/m"))
    for minutes in range(5):
        run.later(minutes=min(minutes, 1))
        assert len(boxes[0].got) == minutes + 1
    work = Redrive(run.runner.pipelines, run.store, start=run.moment[0] - timedelta(hours=1), now=lambda: run.moment[0])
    assert work.due == run.moment[0]


def test_what_fails_while_it_is_redriven_is_not_redriven_again(run, boxes, message):
    boxes[0].answers += [PermanentError("no")] * 900
    run.send(*(message() for _ in range(600)))
    run.work()
    work = Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0])
    run.moment[0] += timedelta(seconds=1)
    goes = []
    for moved in work.run(Selection()):
        goes.append(sum(moved.left.values()))
        run.later(seconds=1)
    assert goes == [500, 100]
    assert run.store.count_letters() == 300
    assert len(boxes[0].got) == 300


def test_a_redrive_that_is_cut_off_between_two_goes_is_finished_by_the_next(run, boxes, message):
    boxes[1].answers += [PermanentError("no")] * 1200
    messages = [message() for _ in range(1200)]
    run.send(*messages)
    run.work()
    run.moment[0] += timedelta(seconds=1)
    next(Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0]).run(Selection()))
    assert run.store.count_letters() == 700
    assert run.store.held_counts() == {("toy", "chat", Why.RETRY): 500}
    redrive(run)
    run.later(seconds=1)
    assert sorted(m.id for m in boxes[1].got) == sorted(m.id for m in messages)
    assert [len(box.got) for box in boxes] == [1200] * 3


def test_a_redrive_and_a_drop_stop_at_their_limit(run, boxes, message):
    boxes[0].answers += [PermanentError("no")] * 5
    run.send(*(message() for _ in range(5)))
    run.work()
    run.moment[0] += timedelta(seconds=1)
    work = Redrive(run.runner.pipelines, run.store, now=lambda: run.moment[0])
    (moved,) = work.run(Selection(), limit=2)
    (dropped,) = drop(run.store, Selection(), limit=2, after=moved.last, now=lambda: run.moment[0])
    assert (moved.left, dropped.left, run.store.count_letters()) == ({("toy", "mail"): 2}, {("toy", "mail"): 2}, 1)


def test_an_edited_message_is_what_goes_on(run, boxes, message):
    boxes[0].answers += [PermanentError("no title")]
    one = message()
    run.send(one)
    run.work()
    (letter,) = run.store.dead_letters()
    run.store.edit_letter(letter, letter.message.replace(title="better"), run.moment[0])
    redrive(run)
    assert "; edited on 2026-03-01 12:00:00 UTC" in {r.step: r.reason for r in run.store.history(one.id)}["mail"]
    run.later(seconds=0)
    assert [(m.id, m.title) for m in boxes[0].got] == [(one.id, "better")]


# Editing


def test_a_message_comes_back_from_its_text_as_it_was(message):
    one = message(title="Köln", labels={"a": "b"}, data={"x": [1, None]})
    assert read_text(one, as_text(one)) == one
    assert list(map(str.strip, as_text(one).splitlines()))[1] == f'"id": "{one.id}",'


def test_fields_are_set_by_their_paths(message):
    one = message(data={"a": {"b": 1}}, labels={"x": "1"})
    found = set_fields(one, {"title": "t=1", "labels.k8s.io/app": "web", "data.a.b": "2", "data.a.c": "text", "url": "[]"})
    assert (found.title, found.url) == ("t=1", "[]")
    assert found.labels == {"x": "1", "k8s.io/app": "web"}
    assert found.data == {"a": {"b": 2, "c": "text"}}
    assert one.data == {"a": {"b": 1}}
    assert set_fields(message(), {"data": "[1, 2]"}).data == [1, 2]
    assert set_fields(message(), {"labels.a": "b"}).labels == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('{"title": }', "line 1, column 11", "Expecting value"),
        ('{\n"title": "a",\n}', "line 3, column 1", "Expecting property name"),
        (b"\xff", "", "not JSON"),
        ("[" * 100_000, "", "not JSON"),
        ("[]", "", "an object is expected"),
        ('{"titel": "x"}', "titel", "did you mean 'title'?"),
        ('{"xyz": "x"}', "xyz", "it has id, source"),
        ('{"id": "other"}', "id", "it stays"),
        ('{"source": "x", "labels": {"a": 1}}', "labels[...]", "Expected `str`, got `int`"),
        ('{"source": "x", "time": "2026-03-01T12:00:00"}', "", "its time has no zone"),
        ('{"title": "x"}', "", "missing required field `source`"),
    ],
)
def test_what_is_no_message_is_told_with_its_place(message, text, where, what):
    with pytest.raises(RequestError) as refused:
        read_text(message(), text)
    (problem,) = refused.value.problems
    assert problem.where == where
    assert what in problem.text


def test_a_path_into_what_is_no_object_is_refused(message):
    for path in ("title.x", "data.a.b.c", "nothing"):
        with pytest.raises(RequestError) as refused:
            set_fields(message(title="t", data={"a": 1}), {path: "x"})
        assert refused.value.problems[0].where == path


def test_every_problem_that_is_known_is_told_at_once(message):
    with pytest.raises(RequestError) as refused:
        read_value(message(), {"id": "x", "titel": "x", "lables": {}})
    assert {one.where for one in refused.value.problems} == {"id", "titel", "lables"}
