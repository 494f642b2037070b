"""Several receivers: who has a message gets no second one, and the error of all says whether the rest is tried again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from pipeline import Message, PermanentError, Receivers, TemporaryError
from pipeline.testing import Recollection

BUSY, GONE = TemporaryError("busy"), PermanentError("no such user")


class Office:
    """Where letters go: `letters` has who got one, in order; `errors` are those of each receiver, one an attempt."""

    def __init__(self):
        self.letters, self.errors = [], {}

    def deliver(self, message, names, memory, *, refused=None, note=""):
        """Send to all who are left at once; gives what was noted before."""

        async def attempt():
            receivers = await Receivers.of(message, names, refused=refused, memory=memory)
            before, receivers.note = receivers.note, receivers.note or note
            await asyncio.gather(*(self._to(name, receivers) for name in receivers.rest))
            receivers.settle()
            return before

        return asyncio.run(attempt())

    async def _to(self, name, receivers):
        await asyncio.sleep(0)
        waiting = self.errors.get(name, [])
        if waiting:
            receivers.missed(name, waiting.pop(0))
        else:
            self.letters.append(name)
            await receivers.got(name)


@pytest.fixture
def office():
    return Office()


@pytest.fixture
def message():
    return Message(source="t", title="disk full")


def test_the_rest_alone_is_tried_again(office, message):
    memory = Recollection()
    office.errors = {"b": [BUSY, BUSY]}
    for _ in range(2):
        with pytest.raises(TemporaryError, match=r"^2 of 3 receivers have it; b: busy$"):
            office.deliver(message, "abc", memory)
    office.deliver(message, "abc", memory)
    assert office.letters == ["a", "c", "b"]
    office.deliver(message, "abc", memory)
    office.deliver(Message(source="t"), "ab", memory)
    assert office.letters == ["a", "c", "b", "a", "b"]


def test_refusals_are_told_last_and_by_receiver(office, message):
    memory = Recollection()
    office.errors = {"a": [GONE] * 2, "b": [BUSY]}
    with pytest.raises(TemporaryError, match=r"^1 of 4 receivers have it; d: no address; a: no such user; b: busy$"):
        office.deliver(message, "abc", memory, refused={"d": PermanentError("no address")})
    with pytest.raises(PermanentError, match=r"^2 of 4 receivers have it; d: no address; a: no such user$"):
        office.deliver(message, "abc", memory, refused={"d": PermanentError("no address")})
    assert office.letters == ["c", "b"]


def test_the_longest_wait_holds(office, message):
    office.errors = {"a": [TemporaryError("later", retry_after=30)], "b": [TemporaryError("soon", retry_after=5)], "c": [BUSY]}
    with pytest.raises(TemporaryError) as caught:
        office.deliver(message, "abcd", Recollection())
    assert caught.value.retry_after == 30


@pytest.mark.parametrize("error", [BUSY, GONE])
def test_a_single_receivers_error_stays_as_it_is_and_no_memory_is_asked(office, message, error):
    office.errors = {"a": [error]}
    with pytest.raises(type(error)) as caught:
        office.deliver(message, ["a", "a"], Recollection(away=["recall"]))
    assert caught.value is error


def test_a_memory_that_is_away_sends_nothing(office, message):
    with pytest.raises(TemporaryError, match="the memory is away"):
        office.deliver(message, "ab", Recollection(away=["recall"]))
    assert office.letters == []


def test_a_memory_that_is_away_afterwards_costs_no_message(office, message):
    with capture_logs() as lines:
        office.deliver(message, "ab", Recollection(away=["remember"]))
    assert office.letters == ["a", "b"]
    assert [(line["log_level"], line["id"]) for line in lines] == [("warning", message.id)] * 2


def test_without_a_memory_each_attempt_is_to_all(office, message):
    for _ in range(2):
        office.deliver(message, "ab", None)
    assert office.letters == ["a", "b", "a", "b"]


def test_it_is_remembered_for_a_week_with_a_note(office, message):
    memory = Recollection()
    office.errors = {"b": [BUSY] * 3}
    told = []
    for note in ("first", "second"):
        with pytest.raises(TemporaryError):
            office.deliver(message, "ab", memory, note=note)
    office.errors = {}
    told.append(office.deliver(message, "ab", memory))
    memory.now += timedelta(days=8)
    told.append(office.deliver(message, "ab", memory))
    assert told == ["first", ""]
    assert office.letters == ["a", "b", "a", "b"]


def test_when_nobody_has_it_nothing_is_remembered(office, message):
    office.errors = {"a": [GONE], "b": [BUSY]}
    memory = Recollection()
    with pytest.raises(TemporaryError, match=r"^0 of 2 receivers have it"):
        office.deliver(message, "ab", memory)
    assert memory._texts == {}


def test_a_text_is_cut_where_many_are_missed(office, message):
    names = [f"receiver-{number}" for number in range(500)]
    office.errors = {name: [GONE] for name in names}
    with pytest.raises(PermanentError) as caught:
        office.deliver(message, names, Recollection())
    assert len(str(caught.value)) == 2000
