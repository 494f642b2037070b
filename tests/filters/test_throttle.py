"""Throttle: so many pass, the others are counted, and one message at the end says how many they were."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from filters.throttle import Throttle, ThrottleConfig, counting
from pipeline import Dropped, Message, Opened, TemporaryError, Window, foreign_id
from pipeline.testing import Recollection, WindowFilterContract

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class TestThrottle(WindowFilterContract):
    plugin = Throttle
    options = {"by": ["labels.team"], "most": 2, "within": "1h"}


class TestWithoutSummary(WindowFilterContract):
    plugin = Throttle
    options = {"most": 1, "summary": False}


class Desk:
    """A filter with a memory, and a clock for both."""

    def __init__(self, **options):
        self.filter = Throttle(ThrottleConfig.model_validate({"most": 2} | options))
        self.memory = Recollection()
        self.numbers = iter(range(1, 10_000))

    def __call__(self, number=None, *, late=timedelta(), **fields):
        """Give what a filter says of the next message, by a clock that is late."""
        number = number or next(self.numbers)
        message = Message(**{"id": foreign_id(None, str(number)), "source": "test", "title": "disk full"} | fields)
        given = self.filter.window(message, self.memory.now - late, self.memory)
        if isinstance(given, Window):
            self.waiting = given
        return "passes" if given is None else given.reason if isinstance(given, Dropped) else "waits"

    def open(self, *, after=timedelta()):
        """Open the window that somebody waits in, when it is due."""
        window = self.waiting
        self.memory.now = max(window.due, self.memory.now) + after
        (left,) = self.filter.release(Opened(window.key, [window.message], None, window.due, self.memory.now, self.memory))
        return left


def test_so_many_pass_one_waits_and_the_others_are_dropped():
    desk = Desk()
    assert [desk() for _ in range(3)] == ["passes", "passes", "waits"]
    assert desk() == "more than 2 since 2026-11-21 08:30:00 UTC, within 1h"
    assert (desk.waiting.key, desk.waiting.due) == ("until 2026-11-21 09:30:00.000000", desk.memory.now + HOUR)
    desk.memory.now += 59 * MINUTE
    assert desk().startswith("more than 2")
    desk.memory.now += MINUTE
    assert [desk() for _ in range(3)] == ["passes", "passes", "waits"]


def test_what_always_passes_is_not_counted():
    desk = Desk(**{"pass": 'severity == "critical"'})
    for _ in range(2):
        assert [desk(severity="critical"), desk()] == ["passes"] * 2
    assert [desk(), desk(severity="critical")] == ["waits", "passes"]
    assert desk(severity="critical") == "passes"
    assert desk.open().data["suppressed"] == 1


def test_each_value_has_a_window_of_its_own():
    desk = Desk(by=["labels.team"])
    for team in ("db", "web", ""):
        labels = {"team": team} if team else {}
        assert [desk(labels=labels) for _ in range(3)] == ["passes", "passes", "waits"]


def test_the_summary_says_how_many_and_which():
    desk = Desk(by=["labels.team", "severity"], within="30m")
    fields = {"labels": {"team": "db", "instance": "db-1"}, "severity": "warning", "url": "http://x", "data": {"a": 1}}
    for title in ["a", "b", "disk full", "disk full", "no backup", "disk full"]:
        desk(title=title, **fields)
    left = desk.open(after=5 * MINUTE)
    assert left == Message(
        id=left.id,
        source="test",
        type="summary",
        time=desk.waiting.due,
        title="4 more suppressed: disk full (3), no backup (1)",
        text="At most 2 within 30m pass of team db, severity warning.\ndisk full (warning): 3\nno backup (warning): 1",
        severity="warning",
        labels={"team": "db"},
        key='throttle ["db","warning"]',
        data={
            "suppressed": 4,
            "kinds": [
                {"severity": "warning", "title": "disk full", "count": 3},
                {"severity": "warning", "title": "no backup", "count": 1},
            ],
        },
    )


def test_a_summary_is_as_severe_as_the_worst_of_what_it_tells_of():
    desk = Desk(most=1)
    for severity in ("info", "page me", "", "error", "warning"):
        desk(severity=severity, status="resolved")
    left = desk.open()
    assert (left.severity, left.status) == ("error", "firing")
    assert left.text.splitlines()[1:] == [
        "disk full (page me): 1",
        "disk full: 1",
        "disk full (error): 1",
        "disk full (warning): 1",
    ]


def test_severities_that_nobody_knows_come_before_none_and_after_all_others():
    for severities, worst in ((["", "odd"], "odd"), (["odd", "debug"], "debug"), (["error", "odd", ""], "error")):
        desk = Desk(most=1)
        desk()
        for severity in severities:
            desk(severity=severity)
        assert desk.open().severity == worst


def test_a_summary_names_the_titles_that_came_most_and_is_never_long():
    desk = Desk(most=1)
    desk()
    for number in range(30):
        desk(title=f"{number} {'x' * 200}" if number else "")
    for _ in range(5):
        desk(title="")
    left = desk.open()
    assert left.title.startswith("35 more suppressed: no title (6), 1 xxx")
    assert left.title.endswith("…")
    assert left.text.endswith("\nothers: 20")
    assert len(left.text) < 1200
    assert left.data["suppressed"] == 35
    assert len(left.data["kinds"]) == 10


def test_keys_stay_the_same_from_window_to_window():
    desk, keys = Desk(by=["title"]), []
    for _ in range(2):
        for _ in range(3):
            desk()
        keys.append(desk.open().key)
    assert keys == ['throttle ["disk full"]'] * 2


def test_a_summary_of_all_messages_has_a_key_without_values():
    desk = Desk(most=1)
    assert [desk(), desk()] == ["passes", "waits"]
    assert desk.open().key == "throttle"


def test_a_message_that_comes_again_has_the_same_answer():
    desk = Desk()
    before = [desk(number) for number in range(1, 5)]
    assert [desk(number) for number in range(1, 5)] == before == ["passes", "passes", "waits", before[3]]
    due = desk.waiting.due
    desk.memory.now += HOUR
    assert [desk(number) for number in (1, 2, 3)] == before[:3], "late as it is"
    assert desk.waiting.due == due


def test_without_a_summary_nobody_waits():
    desk = Desk(summary=False)
    assert [desk() for _ in range(4)] == ["passes"] * 2 + ["more than 2 since 2026-11-21 08:30:00 UTC, within 1h"] * 2
    desk.memory.now += HOUR
    assert desk() == "passes"


def test_what_comes_by_a_clock_that_is_late_belongs_to_the_next_window_when_the_summary_is_made():
    desk = Desk()
    for _ in range(5):
        desk()
    assert desk.open().data["suppressed"] == 3
    late = timedelta(seconds=5)
    assert [desk(late=late) for _ in range(3)] == ["passes", "passes", "waits"]
    assert desk(late=late).startswith("more than 2 since 2026-11-21 09:29:55")
    assert desk.open().data["suppressed"] == 2


def test_a_summary_that_is_made_again_as_its_clock_died_says_the_same():
    desk = Desk()
    for _ in range(5):
        desk()
    once = desk.open()
    assert desk.open(after=30 * MINUTE) == once


def test_a_memory_that_was_lost_costs_a_number_and_no_message():
    desk = Desk()
    for _ in range(5):
        desk()
    waiting, desk.memory = desk.waiting, Recollection()
    assert [desk() for _ in range(3)] == ["passes", "passes", "waits"]
    assert desk.open().data["suppressed"] == 1
    desk.waiting = waiting
    assert desk.open().data["suppressed"] == 1, "the one that waited is known"


@pytest.mark.parametrize("text", ["", "{}", '["never",[],""]'])
def test_what_another_version_remembered_otherwise_begins_a_window(text):
    desk = Desk()
    desk.memory.remember("[]", text, HOUR)
    assert [desk() for _ in range(3)] == ["passes", "passes", "waits"]
    desk.memory.remember(f"after {desk.waiting.message.id}", text, HOUR)
    assert desk().startswith("more than")
    assert desk.open().data["suppressed"] == 1, "too few"


def test_what_is_remembered_has_a_bound():
    desk = Desk(most=1000)
    for _ in range(1500):
        desk(title=foreign_id(None, str(desk.numbers)) * 10)
    texts = [text for _, text in desk.memory._texts.values()]
    assert len(texts) == 2
    assert sum(map(len, texts)) < 1000 * 15 + 11 * 120


class Busy(Recollection):
    """A memory in which somebody else is always faster, for keys that begin so."""

    def __init__(self, beginning):
        super().__init__()
        self.beginning = beginning

    def swap(self, key, old, new, within):
        return not key.startswith(self.beginning) and super().swap(key, old, new, within)


def test_a_memory_that_cannot_be_told_decides_nothing(monkeypatch):
    monkeypatch.setattr(counting, "TRIES", 3)
    desk = Desk()
    desk.memory = Busy("[")
    with pytest.raises(TemporaryError, match="could not be counted"):
        desk()
    desk.memory = Busy("after")
    assert [desk() for _ in range(3)] == ["passes", "passes", "waits"]
    with pytest.raises(TemporaryError, match="could not be counted"):
        desk()
    with pytest.raises(TemporaryError, match="could not be counted"):
        desk.open()


@pytest.mark.parametrize("options", [{}, {"most": 0}, {"most": 1001}, {"most": 1, "within": "0s"}, {"most": 1, "by": ["team"]}])
def test_options_that_are_none(options):
    with pytest.raises(ValidationError):
        ThrottleConfig.model_validate(options)
