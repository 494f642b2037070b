"""Deduplicate: repeats are silent, what is new is not, and nobody is silenced by what reached nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import ValidationError

from filters import deduplicate
from filters.deduplicate import Deduplicate, DeduplicateConfig
from pipeline import Dropped, Message, TemporaryError
from pipeline.present import Pretence, pretending
from pipeline.testing import Recollection, RememberingFilterContract

MINUTE = timedelta(minutes=1)


class TestDeduplicate(RememberingFilterContract):
    plugin = Deduplicate
    options = {"by": ["labels.alertname", "key"], "within": "5m", "label": "repeats"}


class TestByDefault(RememberingFilterContract):
    plugin = Deduplicate


class Desk:
    """A filter with a memory, and a clock for both."""

    def __init__(self, **options):
        self.filter = Deduplicate(DeduplicateConfig.model_validate(options))
        self.memory = Recollection()
        self.numbers = iter(range(1, 10_000))

    def __call__(self, *, after=timedelta(), **fields):
        """Give the message as it passed, or the reason for which it was dropped."""
        self.memory.now += after
        fields = {"id": f"id-{next(self.numbers)}", "source": "test", "key": "disk", "severity": "warning"} | fields
        with at(self.memory):
            (out,) = self.filter.filter(Message(**fields), self.memory)
        return out.reason if isinstance(out, Dropped) else out.id


@contextmanager
def at(memory: Recollection) -> Iterator[None]:
    with pretending(Pretence(lambda: memory.now, lambda: str(uuid4()), lambda low, _high: low)):
        yield


def test_repeats_are_dropped_with_a_reason_until_the_time_is_over():
    desk = Desk(within="10m")
    assert desk() == "id-1"
    assert desk(after=3 * MINUTE) == "repeat 1 of id-1 since 2026-11-21 08:30:00 UTC, within 10m"
    assert desk(after=timedelta(seconds=419)) == "repeat 2 of id-1 since 2026-11-21 08:30:00 UTC, within 10m"
    assert desk(after=timedelta(seconds=1)) == "id-4"
    assert desk().startswith("repeat 1 of id-4 since 2026-11-21 08:40:00")


def test_with_a_window_that_slides_only_quiet_ends_it():
    desk = Desk(within="10m", sliding=True)
    assert desk() == "id-1"
    for number in range(1, 6):
        assert desk(after=9 * MINUTE).startswith(f"repeat {number} of id-1 since 2026-11-21 08:30:00")
    assert desk(after=10 * MINUTE) == "id-7"


def test_a_change_passes_at_once_and_so_does_the_change_back():
    desk = Desk()
    assert desk() == "id-1"
    assert desk(severity="critical") == "id-2"
    assert desk(severity="critical").startswith("repeat 1 of id-2")
    assert desk(severity="critical", status="resolved") == "id-4"
    assert desk(severity="critical", status="resolved").startswith("repeat 1 of id-4")
    assert desk(severity="critical") == "id-6"
    assert desk(severity="warning") == "id-7"


def test_which_changes_count_is_an_option():
    none = Desk(changes=[])
    assert none() == "id-1"
    assert none(status="resolved").startswith("repeat 1 of id-1")
    version = Desk(changes=["labels.version"])
    assert version(labels={"version": "1"}) == "id-1"
    assert version(labels={"version": "1"}, severity="critical").startswith("repeat")
    assert version(labels={"version": "2"}) == "id-3"


@pytest.mark.parametrize(
    ("options", "repeats", "others"),
    [
        ({}, {"title": "other", "source": "other", "labels": {"a": "b"}}, {"key": "other"}),
        ({"by": ["labels.a"]}, {"key": "other", "labels": {"a": "1", "b": "2"}}, {"labels": {"a": "2"}}),
        ({"by": "title"}, {"key": "other", "labels": {"a": "1"}}, {"title": "other", "labels": {"a": "1"}}),
        ({"by": ["..."]}, {"key": "other", "labels": {"a": "1"}}, {"labels": {"a": "1", "b": ""}}),
    ],
    ids=["key", "label", "title", "all labels"],
)
def test_what_is_a_repeat(options, repeats, others):
    desk = Desk(**options)
    assert desk(labels={"a": "1"}) == "id-1"
    assert desk(**repeats).startswith("repeat 1 of id-1")
    assert desk(**others) == "id-3"


def test_without_a_key_all_that_a_person_reads_must_be_the_same():
    desk = Desk()
    first = {"key": "", "title": "backup failed", "text": "disk 1"}
    assert desk(**first) == "id-1"
    assert desk(**first, labels={"a": "b"}).startswith("repeat 1 of id-1")
    assert desk(**first | {"text": "disk 2"}) == "id-3"
    assert desk(**first | {"source": "other"}) == "id-4"
    assert desk(key='["test","backup failed","disk 1"]') == "id-5", "a key that looks like it is another key"


def test_a_message_that_comes_again_is_no_repeat_of_itself():
    desk = Desk()
    assert desk() == "id-1"
    assert desk().startswith("repeat 1 of id-1")
    assert desk(id="id-1") == "id-1"
    assert desk().startswith("repeat 2 of id-1")


def test_what_reached_nobody_silences_nobody():
    desk = Desk(label="repeats")
    desk.filter.lost = {"id-1"}.__contains__
    assert desk() == "id-1"
    assert desk() == "id-2"
    assert desk().startswith("repeat 1 of id-2")


def test_whether_it_reached_anybody_is_asked_of_the_one_that_was_told():
    desk, asked = Desk(), []
    desk.filter.lost = lambda message_id: bool(asked.append(message_id))
    for _ in range(3):
        desk()
    assert asked == ["id-1", "id-1"]


def test_the_store_being_away_decides_nothing():
    def away(_message_id):
        raise TemporaryError("the store is away")

    desk = Desk()
    desk()
    desk.filter.lost = away
    with pytest.raises(TemporaryError):
        desk()
    desk.filter.lost = lambda _message_id: False
    assert desk().startswith("repeat 1 of id-1")


def labelled(desk, **fields):
    with at(desk.memory):
        (out,) = desk.filter.filter(Message(**{"source": "test", "key": "disk", "labels": {"team": "db"}} | fields), desk.memory)
    return out.labels if isinstance(out, Message) else None


def test_the_next_one_that_passes_tells_how_many_were_dropped():
    desk = Desk(within="10m", label="repeats")
    assert labelled(desk) == {"team": "db"}
    assert [labelled(desk) for _ in range(3)] == [None] * 3
    desk.memory.now += 15 * MINUTE
    again = Message(source="test", key="disk").id
    assert labelled(desk, id=again) == {"team": "db", "repeats": "3"}
    assert labelled(desk, id=again) == {"team": "db", "repeats": "3"}, "as it did when its worker died"
    assert labelled(desk) is None
    assert labelled(desk, status="resolved") == {"team": "db", "repeats": "1"}
    assert labelled(desk, status="firing") == {"team": "db"}


def test_what_was_dropped_before_one_that_reached_nobody_is_told_by_the_next():
    desk = Desk(label="repeats")
    labelled(desk)
    labelled(desk)
    labelled(desk)
    labelled(desk, status="resolved", id="told-to-nobody")
    labelled(desk, status="resolved")
    desk.filter.lost = {"told-to-nobody"}.__contains__
    assert labelled(desk, status="resolved") == {"team": "db", "repeats": "3"}


def test_without_a_label_nothing_is_known_any_more_when_the_time_is_over():
    desk = Desk(within="10m")
    desk()
    desk()
    desk.memory.now += 10 * MINUTE
    assert desk.memory.recall('["disk"]') is None


@pytest.mark.parametrize("text", ["", "{}", "null", '["id"]', "[1,2]"])
def test_what_another_version_remembered_otherwise_lets_the_next_one_pass(text):
    desk = Desk()
    desk.memory.remember('["disk"]', text, MINUTE)
    assert desk() == "id-1"
    assert desk().startswith("repeat 1 of id-1")


def test_a_memory_that_is_away_decides_nothing():
    desk = Desk()
    desk.memory.away = ["swap"]
    with pytest.raises(TemporaryError):
        desk()
    desk.memory.away = []
    assert desk() == "id-2"


class Busy(Recollection):
    """A memory in which somebody else is faster, so many times."""

    times = 2

    def swap(self, key, old, new, within):
        self.times -= 1
        return self.times < 0 and super().swap(key, old, new, within)


def test_who_is_slower_than_another_worker_looks_again(monkeypatch):
    desk = Desk()
    desk.memory = Busy()
    assert desk() == "id-1"
    assert desk().startswith("repeat 1 of id-1")
    desk.memory.times = 3
    monkeypatch.setattr(deduplicate, "TRIES", 3)
    with pytest.raises(TemporaryError, match="none could be counted"):
        desk()
    assert desk().startswith("repeat 2 of id-1")


@pytest.mark.parametrize("options", [{"within": "0s"}, {"within": 5}, {"by": ["team"]}, {"changes": ["labels"]}, {"sliding": 3}])
def test_options_that_are_none(options):
    with pytest.raises(ValidationError):
        DeduplicateConfig.model_validate(options)


def test_a_bare_value_is_the_time():
    assert DeduplicateConfig.shorthand == "within"
