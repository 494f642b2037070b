"""Heartbeat: what does not call in time is told once, and once when it is back, whatever is restarted or lost meanwhile."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import Note, Request, RequestError
from pipeline.testing import PollingProducerContract
from producers import heartbeat as module
from producers.heartbeat import Heartbeat, HeartbeatConfig

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday


class World:
    """A heartbeat with its notes, its cursor, and the time of day."""

    def __init__(self, **options):
        self.config = HeartbeatConfig.model_validate(options)
        self.now, self.notes, self.cursor, self.told = START, {}, None, []
        self.plugin = self.made()

    def made(self):
        plugin = Heartbeat(self.config)
        plugin.notes = lambda: self.notes
        plugin.drop_notes = lambda old: [self.notes.pop(name) for name in old]
        plugin.open()
        return plugin

    def call(self, path, body=b""):
        for note in self.plugin.receive(Request(body, path=f"/in/watch/heartbeat/{path}")):
            assert isinstance(note, Note)
            self.notes[note.name] = note.text

    def poll(self):
        """Give what is told now, from the stored cursor on."""
        told = []
        for message, cursor in self.made().poll(self.cursor):
            self.cursor = cursor
            told += [] if message is None else [message]
        self.told += told
        return told

    def later(self, *, step=10, **by):
        """Let time pass, with a clock that polls."""
        end, told = self.now + timedelta(**by), []
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=step))
            told += self.poll()
        return told


@pytest.fixture
def world(monkeypatch):
    """Makes a heartbeat at noon."""

    def make(**options):
        made = World(**options)
        monkeypatch.setattr(module, "_now", lambda: made.now)
        made.poll()
        return made

    return make


def shown(messages):
    return [(message.title, message.status, f"{message.time:%H:%M:%S}") for message in messages]


class TestContract(PollingProducerContract):
    """What has failed is told at once, so that the suite need not wait."""

    plugin = Heartbeat
    options = {"names": ["a", "b", "c"], "every": "1h"}

    @contextmanager
    def opened(self, config):
        with super().opened(config) as plugin:
            plugin.notes = lambda: {f"{name}/fail": json.dumps({"at": 1000, "text": "no space"}) for name in "abc"}
            yield plugin


def test_what_does_not_call_is_told_once_and_its_return_as_well(world):
    run = world(names={"backup": "5m"}, severity="critical")
    run.call("backup")
    assert run.later(minutes=5, seconds=50) == []
    (late,) = run.later(hours=3)
    assert (late.title, late.status, late.severity, late.key) == (
        "backup did not call in time",
        "firing",
        "critical",
        "heartbeat/backup",
    )
    assert late.time == START + timedelta(minutes=6)
    assert late.text == "The last call was at 2026-03-02 12:00:00 UTC, and is expected every 5m."
    run.call("backup")
    (back,) = run.later(minutes=5)
    assert (back.title, back.status, back.key, back.labels) == (
        "backup called again",
        "resolved",
        late.key,
        {"heartbeat": "backup"},
    )
    assert shown(run.later(minutes=10)) == [("backup did not call in time", "firing", "15:11:50")]


def test_one_that_never_called_is_late_too(world):
    run = world(names=["backup"], every="1h", grace="10m")
    (late,) = run.later(hours=2)
    assert late.text == "It never called; it is watched since 2026-03-02 12:00:00 UTC, and is expected every 1h."
    assert late.time == START + timedelta(minutes=70)


def test_one_that_calls_in_time_is_never_told_of(world):
    run = world(names={"agent": "1m"}, grace="0s")
    for _ in range(30):
        run.call("agent")
        assert run.later(seconds=59) == []


def test_a_cron_line_says_when_a_call_is_due_in_its_time_zone(world):
    run = world(names={"backup": {"every": "0 3 * * *", "grace": "2h"}}, timezone="Europe/Berlin")
    run.later(hours=14, minutes=1)  # 3:01 in Berlin
    run.call("backup")
    assert run.later(days=1, hours=1, minutes=50, step=60) == []
    (late,) = run.later(hours=1)
    assert late.time == datetime(2026, 3, 4, 4, 0, tzinfo=UTC)
    assert late.text.endswith("and is expected by the times 0 3 * * *.")


def test_a_call_a_moment_before_its_time_counts_for_it(world):
    run = world(names={"backup": "0 13 * * *"})
    run.later(minutes=59, seconds=50)
    run.call("backup")
    assert run.later(hours=20, step=60) == []


def test_a_failure_is_told_at_once_with_what_was_posted(world):
    run = world(names={"backup": "1h"})
    run.call("backup/fail", b"first\x00 line\n\xff\n")
    (failed,) = run.poll()
    assert (failed.title, failed.status, failed.text) == ("backup failed", "firing", "first line\n\ufffd")
    run.call("backup/fail")
    assert run.poll() == []
    run.call("backup")
    assert shown(run.later(minutes=1)) == [("backup works again", "resolved", "12:00:00")]


def test_an_exit_code_is_a_success_or_a_failure(world):
    run = world(names={"backup": "1h"})
    run.call("backup/3", b"disk full")
    (failed,) = run.poll()
    assert (failed.title, failed.text, failed.data["code"]) == ("backup failed with exit code 3", "disk full", 3)
    run.now += timedelta(seconds=1)
    run.call("backup/0")
    assert [message.status for message in run.poll()] == ["resolved"]


def test_a_failure_between_two_polls_is_told_though_it_works_again(world):
    run = world(names={"backup": "1h"})
    run.call("backup/fail")
    run.now += timedelta(seconds=1)
    run.call("backup")
    assert [message.status for message in run.poll()] == ["firing", "resolved"]


def test_what_fails_after_it_was_late_is_told_and_what_is_late_after_it_failed_is_not(world):
    run = world(names={"backup": "10m"})
    assert [message.data["state"] for message in run.later(minutes=20)] == ["late"]
    run.call("backup/fail")
    assert [message.data["state"] for message in run.later(minutes=20)] == ["failed"]


def test_work_that_begins_and_does_not_end_is_told(world):
    run = world(names={"backup": {"every": "1d", "longest": "1h"}})
    run.call("backup/start")
    assert run.later(minutes=59) == []
    (long,) = run.later(minutes=5)
    assert (long.title, long.text) == (
        "backup takes longer than it may",
        "It began at 2026-03-02 12:00:00 UTC, and has told neither success nor failure.",
    )
    run.call("backup")
    assert shown(run.later(minutes=5)) == [("backup has ended", "resolved", "13:04:00")]
    run.call("backup/start")
    run.now += timedelta(minutes=50)
    run.call("backup/fail")
    assert [message.data["state"] for message in run.later(minutes=50)] == ["failed"]


def test_a_start_is_no_sign_of_success(world):
    run = world(names={"backup": "10m"})
    run.later(minutes=9)
    run.call("backup/start")
    assert [message.data["state"] for message in run.later(minutes=5)] == ["late"]


def test_whatever_calls_is_watched_with_any_and_forgotten_after_a_while(world):
    run = world(any=True, every="5m", forget="1h", names={"core": "1m"})
    run.call("core")
    run.call("agent-7")
    assert shown(run.later(minutes=30)) == [
        ("core did not call in time", "firing", "12:02:00"),
        ("agent-7 did not call in time", "firing", "12:06:00"),
    ]
    run.later(hours=1)
    assert json.loads(run.cursor)["names"].keys() == {"core"}
    run.call("agent-7")
    run.later(minutes=1)
    assert shown(run.later(minutes=10)) == [("agent-7 did not call in time", "firing", "13:36:00")]


def test_what_was_forgotten_leaves_no_notes_and_begins_anew(world):
    run = world(any=True, every="5m", forget="1h", names={"core": "1m"})
    run.call("core")
    run.call("agent/fail", b"no space")
    run.later(minutes=1)
    run.call("agent")
    run.later(hours=2)
    assert run.notes.keys() == {"core/"}
    run.call("agent")
    assert run.later(minutes=1) == []


def test_nobody_is_forgotten_before_it_was_told_of(world):
    run = world(any=True, every="1d", forget="1h")
    run.call("agent")
    assert len(run.later(days=2, step=60)) == 1


@pytest.mark.parametrize(
    "path", ["", "/", "other", "backup/end", "backup/-1", "backup/1000", "backup/fail/x", "..", "a b", "backup\0", "ü", "x" * 101]
)
def test_what_is_not_expected_is_answered_404(world, path):
    run = world(names={"backup": "1h"}, any=path != "other", every="1h")
    with pytest.raises(RequestError) as caught:
        run.call(path)
    assert caught.value.status == 404


@given(st.text(), st.binary())
@settings(max_examples=200, deadline=None)
def test_whatever_is_called_is_noted_or_answered_404(path, body):
    plugin = Heartbeat(HeartbeatConfig(any=True, every="1m", names={"a": {}}))
    plugin.open()
    for where in (path, f"a/{path}", "a/fail"):
        try:
            (note,) = plugin.receive(Request(body, path=f"/in/watch/heartbeat/{where}"))
        except RequestError as error:
            refused = error.status
            assert refused == 404
        else:
            plugin.notes = lambda note=note: {note.name: note.text}
            assert [*plugin.poll(None)]


class TestWhatMayBeLost:
    """Processes, cursors, notes and time."""

    def test_a_poll_that_was_not_accepted_tells_the_same_again(self, world):
        run = world(names=["a", "b"], every="1m")
        run.later(seconds=110)
        run.now += timedelta(seconds=20)
        before = run.cursor
        first = run.poll()
        run.cursor = before
        assert [message.id for message in run.poll()] == [message.id for message in first]
        assert len(first) == 2

    def test_each_message_has_the_cursor_behind_it(self, world):
        run = world(names=["a", "b"], every="1m")
        run.later(seconds=110)
        run.now += timedelta(seconds=20)
        told = run.made().poll(run.cursor)
        first, run.cursor = next(told)
        assert [first.title, *(message.title for message in run.poll())] == ["a did not call in time", "b did not call in time"]

    def test_a_lost_cursor_delays_a_warning_and_suppresses_none(self, world):
        run = world(names={"backup": "5m"})
        run.call("backup")
        run.later(minutes=4)
        run.cursor = None
        assert shown(run.later(minutes=10)) == [("backup did not call in time", "firing", "12:06:00")]
        run.cursor = None
        assert shown(run.later(minutes=10)) == [("backup did not call in time", "firing", "12:06:00")]

    def test_lost_notes_repeat_a_warning_and_suppress_none(self, world):
        run = world(names={"backup": "5m"})
        run.call("backup")
        run.later(minutes=1)
        run.notes.clear()
        assert shown(run.later(minutes=10)) == [("backup did not call in time", "firing", "12:06:00")]

    def test_time_without_a_clock_does_not_count(self, world):
        run = world(names={"agent": "5m"})
        run.call("agent")
        run.later(minutes=1)
        run.now += timedelta(hours=1)
        assert run.later(minutes=4) == []
        run.call("agent")
        assert run.later(minutes=5) == []
        assert shown(run.later(minutes=5)) == [("agent did not call in time", "firing", "13:11:00")]

    def test_it_does_not_count_where_the_first_poll_was_accepted_in_part(self, world):
        run = world(names={"job": "1d", "agent": "5m"})
        run.later(minutes=1)
        run.call("job/fail")
        run.now += timedelta(hours=1)
        first, run.cursor = next(iter(run.made().poll(run.cursor)))
        assert first.title == "job failed"
        assert run.later(minutes=4) == []

    @pytest.mark.parametrize("hours", [1, 24 * 365, -24 * 365])
    @pytest.mark.parametrize("options", [{"names": {"agent": "5m"}}, {"any": True, "every": "5m"}])
    def test_a_clock_that_was_wrong_suppresses_no_warning(self, world, hours, options):
        run = world(**options)
        run.now += timedelta(hours=hours)
        run.later(minutes=1)
        run.call("agent")
        run.later(minutes=1)
        run.now -= timedelta(hours=hours)
        assert shown(run.later(hours=2, step=60))
        run.call("agent")
        run.later(minutes=1)
        run.told.clear()
        assert [message.status for message in run.later(hours=2, step=60)] == ["firing"]

    @pytest.mark.parametrize("seconds", [20, 40, 85, 120])
    def test_a_restart_is_no_silence(self, world, seconds):
        run = world(names={"agent": "1m"})
        run.call("agent")
        run.later(seconds=58)
        run.now += timedelta(seconds=seconds)
        assert run.later(seconds=40) == []

    def test_what_is_away_again_and_again_delays_a_warning_for_no_more_than_that(self, world):
        run = world(names={"agent": "5m"})
        told, began = [], run.now
        while not told and run.now < began + timedelta(days=1):
            told += run.later(minutes=1)
            run.now += timedelta(minutes=10)
        assert len(told) == 1

    @pytest.mark.parametrize(("step", "hours"), [(5, 1), (60, 3), (600, 12), (3600, 24)])
    def test_however_seldom_it_is_polled(self, world, step, hours):
        run = world(names={"agent": "5m"})
        assert len(run.later(hours=hours, step=step)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "names are missing: list them, or say 'any: true'"),
        ({"names": ["a"]}, "names.a: 'every' is missing"),
        ({"any": True}, "'any' needs 'every'"),
        ({"names": {"a": "often"}}, "an interval such as 30s"),
        ({"names": {"a/b": "5m"}}, "String should match pattern"),
        ({"names": {"a": "5m"}, "timezone": "Berlin"}, "a time zone such as Europe/Berlin"),
        ({"names": {"a": "5m"}, "severity": "loud"}, "one of debug, info"),
        ({"names": 5}, "dictionary"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, words):
    with pytest.raises(ValidationError, match=words):
        HeartbeatConfig.model_validate(options)
