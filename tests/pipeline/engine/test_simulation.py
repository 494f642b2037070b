"""The simulation: the real engine under a virtual clock gives what the real one would, the same each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import (
    BatchConsumer,
    Consumer,
    Dropped,
    Filter,
    Keep,
    Memory,
    Message,
    NoOptions,
    Note,
    Opened,
    PermanentError,
    PollingProducer,
    RememberingFilter,
    Request,
    RequestError,
    TemporaryError,
    WebhookProducer,
    Window,
    WindowFilter,
    now,
)
from pipeline.engine.simulation import Simulation
from pipeline.schedule import read_schedule, read_zone
from pipeline.spec.model import Retry
from pipeline.units import Rate

START = datetime(2026, 3, 29, 0, 58, tzinfo=UTC)  # two minutes before the clocks of Berlin go forward
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


class Post(WebhookProducer[NoOptions]):
    def receive(self, request: Request) -> Iterable[Message]:
        if request.body == b"no":
            raise RequestError("no", status=400)
        yield Message(source="post", title=request.body.decode())


class Ask(PollingProducer[NoOptions]):
    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        raise AssertionError("nobody asks another system")


class Watch(WebhookProducer[NoOptions], PollingProducer[NoOptions]):
    """Tells at each poll what it has noted since."""

    def receive(self, request: Request) -> Iterable[Note]:
        yield Note("last", f"{now():%H:%M:%S}")

    def poll(self, cursor: str | None) -> Iterable[tuple[Message | None, str]]:
        told = self.notes().get("last", "")
        yield (Message(source="watch", title=f"{told} at {now():%H:%M:%S}") if told != cursor else None), told


class Once(RememberingFilter[NoOptions]):
    def filter(self, message: Message, memory: Memory) -> Iterable[Message | Dropped]:
        yield message if memory.first(message.title, 10 * MINUTE) else Dropped("it was there")


class Collect(WindowFilter[NoOptions]):
    """Holds what comes for half a minute by source, and counts what has left."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window:
        return Window(message.source, now + 30 * SECOND)

    def release(self, opened: Opened) -> Iterable[Message | Keep]:
        count = (opened.kept or 0) + len(opened.messages)
        if opened.messages:
            titles = "+".join(sorted(message.title for message in opened.messages))
            yield opened.messages[0].replace(title=titles, labels={"count": str(count)})
            yield Keep(count, opened.now + HOUR)


class Raise(Filter[NoOptions]):
    def filter(self, message: Message) -> Iterable[Message]:
        if message.title == "bad":
            raise PermanentError("this is bad")
        yield message


class Mail(Consumer[NoOptions]):
    def open(self) -> None:
        raise AssertionError("no consumer is opened")

    def consume(self, message: Message) -> None:
        raise AssertionError("nothing is sent")

    def preview(self, message: Message) -> object:
        return {"subject": message.title.upper(), "at": f"{now():%H:%M}"}


class Bulk(BatchConsumer[NoOptions]):
    def consume_many(self, messages: Sequence[Message]) -> Any:
        raise AssertionError("nothing is sent")


@pytest.fixture
def simulate(spec):
    """Make simulations, and end them."""
    opened = []

    def make(*, producers=(), filters=(), consumers=(), **options: Any) -> Simulation:
        made = Simulation(spec(producers, filters, consumers), **{"start": START} | options)
        made.__enter__()
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def messages(*titles: str, source: str = "test") -> list[Message]:
    return [Message(source=source, title=title, time=START) for title in titles]


def got(simulation: Simulation, consumer: str = "mail") -> list[tuple[float, str]]:
    """What a consumer got: seconds since the start, and titles."""
    return [((at - START).total_seconds(), message.title) for at, message in simulation.deliveries[consumer]]


def test_what_is_posted_is_delivered(simulate, producer, consumer):
    simulation = simulate(producers=[producer(Post)], consumers=[consumer(Mail), consumer(Bulk)])
    answer = simulation.send("post", Request(body=b"hello"))
    assert answer.status == 202
    assert simulation.run_until_idle()
    assert got(simulation) == [(0, "hello")]
    assert got(simulation, "bulk") == [(0, "hello")]
    (message,) = answer.messages
    assert message.time == START
    assert [record.outcome.value for record in simulation.records(message.id)] == ["delivered", "delivered"]
    assert simulation.accepted == [(START, "post", message)]


def test_a_refusal_is_answered(simulate, producer, consumer):
    simulation = simulate(producers=[producer(Post)], consumers=[consumer(Mail)])
    answer = simulation.send("post", Request(body=b"no"))
    assert (answer.status, answer.reason, answer.messages) == (400, "no", ())
    assert simulation.send("post", Request(body=b"", path="/in/toy/post/elsewhere")).status == 404
    assert simulation.run_until_idle()
    assert got(simulation) == []


def test_a_window_is_opened_to_the_second(simulate, filter_step, consumer):
    simulation = simulate(filters=[filter_step(Collect)], consumers=[consumer(Mail)])
    simulation.accept(messages("a"))
    simulation.run_until(START + 10 * SECOND)
    simulation.accept(messages("b"))
    simulation.run_until(START + 29 * SECOND)
    assert got(simulation) == []
    assert simulation.held == 2
    assert simulation.run_until_idle()
    assert got(simulation) == [(30, "a+b")]
    assert simulation.now == START + 30 * SECOND, "what is kept for a key keeps nobody waiting"


def test_what_is_kept_survives_a_restart_and_what_is_remembered_may_be_forgotten(simulate, filter_step, consumer):
    simulation = simulate(filters=[filter_step(Once), filter_step(Collect)], consumers=[consumer(Mail)])
    for change in (lambda: None, simulation.restart, simulation.forget):
        change()
        simulation.accept(messages("a", "b"))
        simulation.run_until(simulation.now + MINUTE)
    assert [message.labels["count"] for _, message in simulation.deliveries["mail"]] == ["2", "4"]


def test_a_restart_in_the_middle_of_a_window(simulate, filter_step, consumer):
    simulation = simulate(filters=[filter_step(Collect)], consumers=[consumer(Mail)])
    simulation.accept(messages("a"))
    simulation.work()
    simulation.restart()
    assert simulation.run_until_idle()
    assert got(simulation) == [(30, "a")]


def test_a_consumer_that_is_away_gets_it_when_it_is_back(simulate, consumer):
    simulation = simulate(consumers=[consumer(Mail), consumer(Bulk)])
    simulation.fail("mail", TemporaryError("away"), for_=HOUR, after=SECOND)
    simulation.accept(messages("early"))
    simulation.run_until(START + 2 * SECOND)
    simulation.accept(messages("late"))
    assert simulation.run_until_idle()
    assert got(simulation, "bulk") == [(0, "early"), (2, "late")]
    (_, (back, title)) = got(simulation)
    assert title == "late"
    assert 3601 <= back <= 3601 + 600, "tried again within `longest`"
    assert len(simulation.attempts("mail")) > 5


def test_what_fails_for_too_long_is_buried(simulate, filter_step, consumer):
    retry = Retry(lasting=5 * MINUTE)
    simulation = simulate(filters=[filter_step(Raise)], consumers=[consumer(Mail, retry=retry), consumer(Bulk)])
    simulation.fail("mail", TemporaryError("away"))
    simulation.fail("bulk", PermanentError("no such address"))
    simulation.accept(messages("good", "bad"))
    assert simulation.run_until_idle()
    letters = {(letter.step, letter.message.title, letter.error) for letter in simulation.dead_letters()}
    assert ("raise", "bad", "this is bad") in letters
    assert ("bulk", "good", "no such address") in letters
    assert {step for step, _, _ in letters} == {"raise", "bulk", "mail"}


def test_a_rate_is_kept_without_anybody_sleeping(simulate, consumer):
    simulation = simulate(consumers=[consumer(Mail, rate=Rate(2, SECOND))])
    simulation.accept(messages(*"abcdefgh"))
    assert simulation.run_until_idle()
    times = [at for at, _ in got(simulation)]
    assert len(times) == 8
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times[1:]))
    assert times[-1] <= 4


def test_what_is_ordered_keeps_its_order(simulate, consumer):
    simulation = simulate(consumers=[consumer(Mail, ordered=True)])
    simulation.chaos(7)
    for number in range(10):
        simulation.accept([Message(source="test", title=str(number), key="one", time=START)])
    simulation.fail("mail", TemporaryError("away"), for_=MINUTE)
    assert simulation.run_until_idle()
    assert [title for _, title in got(simulation)] == [str(number) for number in range(10)]


def test_a_polling_producer_is_asked_by_its_schedule(simulate, producer, consumer):
    berlin = read_schedule("0 3 * * *", read_zone("Europe/Berlin"))
    simulation = simulate(producers=[producer(Ask, schedule=berlin)], consumers=[consumer(Mail)])
    simulation.provide("ask", messages("row"))
    assert simulation.run_until_idle()
    assert got(simulation) == [(120, "row")], "at three o'clock, which is an hour earlier on that day"
    simulation.provide("ask", messages("next"))
    assert not simulation.run_until_idle(timedelta(hours=23))
    simulation.restart()
    assert simulation.run_until_idle()
    assert got(simulation)[1:] == [(120 + 86400, "next")]


def test_a_polling_producer_without_a_schedule_is_asked_at_once(simulate, producer, consumer):
    simulation = simulate(producers=[producer(Ask)], consumers=[consumer(Mail)])
    simulation.provide("ask", messages("row"))
    assert simulation.run_until_idle()
    assert got(simulation) == [(0, "row")]


def test_a_producer_that_notes_what_is_posted_is_really_asked(simulate, producer, consumer):
    simulation = simulate(producers=[producer(Watch, schedule=read_schedule("10s"))], consumers=[consumer(Mail)])
    simulation.run_until(START + 3 * SECOND)
    assert simulation.send("watch", Request(body=b"")).status == 202
    simulation.run_until(START + MINUTE)
    assert got(simulation) == [(10, "00:58:03 at 00:58:10")]


def test_a_preview_is_that_of_the_real_consumer(simulate, consumer):
    simulation = simulate(consumers=[consumer(Mail)])
    simulation.accept(messages("hello"))
    simulation.run_until(START + MINUTE)
    ((_, message),) = simulation.deliveries["mail"]
    assert simulation.sent("mail", message) == {"subject": "HELLO", "at": "00:59"}


def test_who_is_not_there_is_told(simulate, producer, consumer):
    simulation = simulate(producers=[producer(Ask)], consumers=[consumer(Mail)])
    with pytest.raises(PermanentError, match="takes no payloads"):
        simulation.send("ask", Request(body=b""))
    with pytest.raises(PermanentError, match="no producer 'other'"):
        simulation.provide("other", [])


@pytest.mark.parametrize("where", ["filtering", "settled", "worked", "delivering", "claimed", "opening", "opened", "releasing"])
@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_lost_when_somebody_dies(simulate, filter_step, consumer, where, workers):
    simulation = simulate(filters=[filter_step(Collect)], consumers=[consumer(Mail)], workers=workers)
    simulation.kill_next(where)
    simulation.accept(messages("a", "b"))
    assert simulation.run_until_idle()
    titles = [title for _, title in got(simulation)]
    assert set(titles) == {"a+b"}
    assert len({message.id for _, message in simulation.deliveries["mail"]}) == 1, "a repeat has the same id"
    assert len(titles) <= 2
    assert simulation.died == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    workers=st.integers(1, 4),
    skews=st.lists(st.integers(-3, 3), max_size=4),
    titles=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12),
)
def test_disorder_loses_nothing(spec, filter_step, consumer, seed, workers, skews, titles):
    made = spec([], [filter_step(Collect)], [consumer(Mail)])
    skew = [skew * SECOND for skew in skews[:workers]]
    with Simulation(made, start=START, workers=workers, skew=skew) as simulation:
        simulation.chaos(seed)
        for title in titles:
            simulation.accept(messages(title))
        assert simulation.run_until_idle()
        told = {part for _, title in got(simulation) for part in title.split("+")}
        assert told == set(titles)


def test_the_same_calls_give_the_same(simulate, filter_step, consumer):
    def run() -> list[Any]:
        simulation = simulate(filters=[filter_step(Once)], consumers=[consumer(Mail, rate=Rate(1, SECOND)), consumer(Bulk)])
        with_ids = [Message(id=f"019d3750-dea0-7000-8000-0000000000{n:02d}", source="x", title=str(n % 7)) for n in range(20)]
        simulation.fail("mail", TemporaryError("away"), for_=HOUR)
        simulation.chaos(3)
        for message in with_ids:
            simulation.accept([message])
        simulation.run_until_idle()
        return [[(at, message.id) for at, message in simulation.deliveries[label]] for label in ("mail", "bulk")]

    assert run() == run()


class Both(WebhookProducer[NoOptions], PollingProducer[NoOptions]):
    """Is posted to, and would ask another system as well."""

    asks_for = "url"
    opened: ClassVar[list[str]] = []

    @classmethod
    def asks(cls, config: NoOptions) -> bool:
        return True

    def open(self) -> None:
        self.opened.append("open")

    def close(self) -> None:
        self.opened.append("closed")

    def receive(self, request: Request) -> Iterable[Message]:
        errors = {b"busy": TemporaryError("later"), b"odd": PermanentError("not this"), b"teapot": RequestError("no", status=700)}
        if request.body in errors:
            raise errors[request.body]
        yield Message(source="both", title=request.body.decode())

    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        raise AssertionError("nobody asks another system")


def test_a_producer_that_asks_as_well_is_posted_to_and_given_messages(simulate, producer, consumer):
    Both.opened.clear()
    simulation = simulate(producers=[producer(Both, schedule=read_schedule("30s"))], consumers=[consumer(Mail)])
    assert simulation.send("both", Request(body=b"posted")).status == 202
    assert Both.opened == ["open", "closed"]
    simulation.provide("both", messages("asked"))
    assert simulation.run_until_idle()
    assert got(simulation) == [(0, "posted"), (30, "asked")]
    for body, status in {b"busy": 503, b"odd": 422, b"teapot": 422}.items():
        assert simulation.send("both", Request(body=body)).status == status


def test_messages_are_made_at_the_simulated_moment(simulate, consumer):
    simulation = simulate(consumers=[consumer(Mail)])
    simulation.run_until(START + HOUR)
    first, second = simulation.message(source="x"), simulation.message(source="x")
    assert first.time == START + HOUR
    assert first.id < second.id, "ids are in the order in which they were made"
    assert now() - datetime.now(UTC) < MINUTE, "it is over as soon as the simulation has answered"


def test_files_may_be_looked_at(simulate, consumer, tmp_path):
    simulation = simulate(consumers=[consumer(Mail)], directory=tmp_path)
    simulation.accept(messages("a"))
    assert simulation.run_until_idle()
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o600


def test_two_simulations_at_once_know_nothing_of_one_another(simulate, consumer):
    one, other = simulate(consumers=[consumer(Mail)]), simulate(consumers=[consumer(Mail)], start=START + HOUR)
    one.accept(messages("one"))
    other.accept(messages("other"))
    assert one.run_until_idle()
    assert other.run_until_idle()
    assert got(one) == [(0, "one")]
    assert got(other) == [(3600, "other")]


class Stubborn(Filter[NoOptions]):
    def filter(self, message: Message) -> Iterable[Message]:
        raise TemporaryError("the server is away")


def test_what_never_ends_is_told(simulate, filter_step, consumer):
    simulation = simulate(filters=[filter_step(Stubborn)], consumers=[consumer(Mail)])
    simulation.accept(messages("a"))
    assert not simulation.run_until_idle(HOUR)
    assert simulation.held == 1
    assert simulation.run_until_idle()
    (letter,) = simulation.dead_letters()
    assert "the server is away" in letter.error
