"""Group: what waits together, what is told of it and when, and that it is what the real Alertmanager tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError
from timelines import differences, play, read_recorded

from filters.group import Group, GroupConfig
from filters.group.alerts import alert_of, merged
from filters.group.state import Seen, State
from pipeline import Dropped, Keep, Message, Opened, Stay, spell_of
from pipeline.testing import Recollection, WindowFilterContract

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
RULE = {"source": 'severity="critical"', "target": ['severity="warning"'], "equal": ["cluster"]}


class TestGroup(WindowFilterContract):
    plugin = Group
    options = {"by": ["labels.alertname"], "inhibit": [RULE]}


class TestGroupOfEach(WindowFilterContract):
    plugin = Group
    options = {"by": "...", "wait": "0s", "resolved": False, "most": 1, "title": "{{ data.counts.firing }}"}


def alert(number=0, status="firing", at=NOW, *, ends=None, starts=None, severity="warning", **fields):
    labels = {"alertname": "DiskFull", "cluster": "eu", "instance": f"db-{number}", "severity": severity}
    data = {"annotations": {"summary": f"disk of db-{number} is full", "description": "used by postgres\nand others"}}
    data |= {name: moment.isoformat() for name, moment in (("endsAt", ends), ("startsAt", starts)) if moment is not None}
    given = {"title": data["annotations"]["summary"], "text": data["annotations"]["description"], "key": f"k{number}"}
    url = "http://prometheus.example.com/graph"
    given |= {"source": "http://prometheus.example.com", "type": "alert", "url": url, "labels": labels, "data": data}
    return Message(time=at, status=status, severity=severity, **(given | fields))


class Played:
    """A group in the hands of a small engine: what it told, and when."""

    def __init__(self, **options):
        self.plugin = Group(GroupConfig.model_validate({"by": ["labels.cluster"]} | options))
        self.memory = Recollection()
        self.memory.now = NOW
        self.waiting, self.kept, self.due, self.out = [], None, None, []

    def hear(self, *messages, after=timedelta()):
        self.pass_on(after)
        for message in messages:
            window = self.plugin.window(message, self.memory.now, self.memory)
            self.waiting.append(window.message)
            self.due = window.due if self.due is None else min(self.due, window.due)

    def pass_on(self, by):
        end = self.memory.now + by
        while self.due is not None and self.due <= end:
            self.memory.now = self.due
            self.open()
        self.memory.now = end

    def open(self):
        opened = Opened('["eu"]', self.waiting, self.kept, self.due, self.memory.now, self.memory)
        out = [*self.plugin.release(opened)]
        self.waiting = [one.message for one in out if isinstance(one, Stay)]
        keep = next((one for one in out if isinstance(one, Keep)), None)
        self.kept = None if keep is None else msgspec.json.decode(msgspec.json.encode(keep.value))
        self.due = None if keep is None else keep.due
        self.out += [((self.memory.now - NOW).total_seconds(), one) for one in out if not isinstance(one, Keep | Stay)]

    @property
    def told(self):
        return [(at, shown(one)) for at, one in self.out if isinstance(one, Message)]

    @property
    def dropped(self):
        return [one.reason for _, one in self.out if isinstance(one, Dropped)]


def shown(message):
    return " ".join(f"{one['status'][0]}{one['fingerprint']}" for one in message.data["alerts"])


def test_a_group_is_told_after_wait_then_when_something_is_new_then_after_repeat():
    group = Played(repeat="12m")
    group.hear(alert(1))
    group.hear(alert(2), after=20 * SECOND)
    group.hear(alert(3), after=MINUTE)
    group.pass_on(20 * MINUTE)
    assert group.told == [(30, "fk1 fk2"), (330, "fk1 fk2 fk3"), (1230, "fk1 fk2 fk3")]


def test_an_alert_that_is_over_is_told_so_once_and_an_empty_group_is_gone():
    group = Played()
    group.hear(alert(1), alert(2))
    group.hear(alert(1, "resolved", NOW + MINUTE), after=MINUTE)
    group.hear(alert(2, "resolved", NOW + 6 * MINUTE), after=5 * MINUTE)
    group.pass_on(HOUR)
    assert group.told == [(30, "fk1 fk2"), (330, "fk2 rk1"), (630, "rk2")]
    assert (group.kept, group.due, group.dropped) == (None, None, ["its alerts are over, and there was nothing to tell"] * 2)
    assert group.out[-3][1].status == "resolved"


def test_what_began_long_ago_is_told_at_once_and_what_is_over_before_it_is_told_is_not_told():
    group = Played()
    group.hear(alert(1, at=NOW - HOUR, starts=NOW - HOUR))
    group.pass_on(SECOND)
    assert group.told == [(0, "fk1")]
    group = Played()
    group.hear(alert(1))
    group.hear(alert(1, "resolved", NOW + SECOND), after=2 * SECOND)
    group.pass_on(HOUR)
    assert (group.told, group.dropped) == ([], ["its alerts are over, and there was nothing to tell"] * 2)


def test_what_is_heard_of_again_goes_on_and_what_is_not_is_over():
    group = Played()
    for minute in range(10):
        at = NOW + minute * MINUTE
        group.hear(alert(1, starts=NOW, ends=at + 4 * MINUTE), after=MINUTE if minute else timedelta())
    group.pass_on(HOUR)
    assert group.told == [(30, "fk1"), (930, "rk1")], "the last word was at nine minutes: it holds for four"


def test_what_names_no_end_is_over_after_a_time():
    group = Played(resolve_after="10m")
    group.hear(alert(1))
    group.pass_on(HOUR)
    assert group.told == [(30, "fk1"), (630, "rk1")]


def test_ends_are_not_told_where_nobody_wants_them():
    group = Played(resolved=False)
    group.hear(alert(1), alert(2))
    group.hear(alert(1, "resolved", NOW + MINUTE), after=MINUTE)
    group.hear(alert(2, "resolved", NOW + 6 * MINUTE), alert(3), after=5 * MINUTE)
    group.pass_on(6 * MINUTE)
    group.hear(alert(3, "resolved", NOW + 12 * MINUTE))
    group.pass_on(HOUR)
    assert group.told == [(30, "fk1 fk2"), (630, "fk3")]


def test_one_alert_silences_another_until_it_is_over():
    group = Played(inhibit=[RULE])
    group.hear(alert(1), alert(2, severity="critical"))
    group.hear(alert(2, "resolved", NOW + MINUTE, severity="critical"), after=MINUTE)
    group.pass_on(10 * MINUTE)
    assert group.told == [(30, "fk2"), (330, "fk1 rk2")]


def test_what_was_told_is_told_to_be_over_whatever_silences_it_by_then():
    group = Played(inhibit=[RULE])
    group.hear(alert(1))
    group.hear(alert(2, severity="critical"), after=MINUTE)
    group.hear(alert(1, "resolved", NOW + 6 * MINUTE), after=5 * MINUTE)
    group.pass_on(10 * MINUTE)
    assert group.told == [(30, "fk1"), (330, "fk2"), (630, "fk2 rk1")]


def test_what_has_no_room_waits_and_is_counted_until_there_is_some():
    group = Played(most=2)
    for number in range(5):
        group.hear(alert(number), after=SECOND if number else timedelta())
    group.hear(alert(4, "resolved", NOW + MINUTE), alert(0, "resolved", NOW + MINUTE), alert(3), after=MINUTE)
    group.pass_on(11 * MINUTE)
    assert group.told == [(30, "fk0 fk1"), (330, "fk1 rk0"), (630, "fk1 fk2")]
    assert [one.data["truncatedAlerts"] for _, one in group.out if isinstance(one, Message)] == [3, 2, 1]
    assert sorted(group.dropped) == [
        *["it was over before there was room in its group"],
        *["the alert was heard of again"] * 2,
    ]
    assert len(group.waiting) == 1, "each alert waits once"


def test_a_group_that_was_looked_at_is_not_opened_by_each_message():
    group = Played()
    group.hear(alert(1, at=NOW - HOUR, starts=NOW - HOUR))
    group.pass_on(SECOND)
    window = group.plugin.window(alert(2, at=NOW - HOUR, starts=NOW - HOUR), group.memory.now, group.memory)
    assert window.due == NOW + 5 * MINUTE
    group.memory.forget('due ["eu"]')
    window = group.plugin.window(alert(2, at=NOW - HOUR, starts=NOW - HOUR), group.memory.now, group.memory)
    assert window.due == group.memory.now, "where that is forgotten it opens for nothing"
    group.waiting, group.due = [window.message], window.due
    group.pass_on(MINUTE)
    assert (group.told, group.due) == ([(0, "fk1")], NOW + 5 * MINUTE)


def test_an_opening_that_is_late_puts_nothing_off_and_makes_up_for_nothing():
    group = Played(repeat="1h")
    group.hear(alert(1))
    group.pass_on(MINUTE)
    group.memory.now = NOW + 12 * MINUTE
    group.open()
    assert group.due == NOW + 17 * MINUTE
    group.memory.now = NOW + 17 * MINUTE + 10 * SECOND
    group.open()
    assert group.due == NOW + 22 * MINUTE, "a little late is on time"


def test_what_fired_while_all_clocks_were_down_is_told_and_then_its_end():
    group = Played()
    group.hear(alert(1, starts=NOW, ends=NOW + 4 * MINUTE))
    group.memory.now = NOW + 10 * MINUTE
    group.open()
    group.pass_on(6 * MINUTE)
    assert group.told == [(600, "fk1"), (900, "rk1")]


def test_what_is_over_is_over_by_a_slow_clock_too():
    group = Played()
    group.hear(alert(1))
    group.pass_on(MINUTE)
    group.memory.now = NOW + 5 * MINUTE + 32 * SECOND
    group.hear(alert(1, "resolved", group.memory.now))
    group.memory.now -= 2 * SECOND
    group.open()
    assert group.told == [(30, "fk1"), (330, "rk1")]


def test_the_message_of_a_group():
    group = Played()
    group.hear(
        alert(1), alert(2, severity="critical"), alert(3, title="odd", text="", data=None, labels={"cluster": "eu"}, url="")
    )
    group.hear(alert(1, "resolved", NOW + 40 * SECOND), after=40 * SECOND)
    group.pass_on(5 * MINUTE)
    (_, first), (_, second) = group.out
    assert first.title == "eu: 3 firing"
    assert first.text.splitlines() == [
        "✗ disk of db-2 is full (DiskFull, critical): used by postgres",
        "✗ disk of db-1 is full (DiskFull, warning): used by postgres",
        "✗ odd",
    ]
    assert second.title == "eu: 2 firing, 1 resolved"
    assert second.text.splitlines()[-1].startswith("✓ disk of db-1 is full")
    assert (first.type, first.status, first.severity, first.key) == ("alert", "firing", "critical", second.key)
    assert (first.labels, first.time, first.source) == ({"cluster": "eu"}, NOW, "http://prometheus.example.com")
    assert first.url == "http://prometheus.example.com/graph"
    assert {name: value for name, value in first.data.items() if name != "alerts"} == {
        "version": "4",
        "groupKey": '{}:{cluster="eu"}',
        "status": "firing",
        "groupLabels": {"cluster": "eu"},
        "commonLabels": {"cluster": "eu"},
        "commonAnnotations": {},
        "commonTitle": "",
        "counts": {"firing": 3, "resolved": 0},
        "truncatedAlerts": 0,
    }
    assert second.data["alerts"][2] == {
        "status": "resolved",
        "labels": {"alertname": "DiskFull", "cluster": "eu", "instance": "db-1", "severity": "warning"},
        "annotations": {"summary": "disk of db-1 is full", "description": "used by postgres\nand others"},
        "startsAt": "2026-11-21T08:30:00.000Z",
        "endsAt": "2026-11-21T08:30:40.000Z",
        "generatorURL": "http://prometheus.example.com/graph",
        "fingerprint": "k1",
        "title": "disk of db-1 is full",
        "text": "used by postgres\nand others",
        "severity": "warning",
        "ownLabels": {"alertname": "DiskFull", "instance": "db-1", "severity": "warning"},
    }


def test_a_group_of_one_is_shown_as_its_alert():
    group = Played(by=["labels.alertname"])
    group.hear(alert(1))
    group.pass_on(MINUTE)
    assert (group.out[0][1].title, group.out[0][1].text) == ("disk of db-1 is full", "✗ disk of db-1 is full: used by postgres")


def test_a_template_that_fails_costs_no_notification():
    group = Played(title="{{ labels.nobody_has_it }}", text="{{ data.alerts[7].title }}")
    group.hear(alert(1))
    group.pass_on(MINUTE)
    (_, told), *_ = group.out
    assert told.title == "disk of db-1 is full"
    shown, *failed = told.text.splitlines()
    assert shown.startswith("✗ disk of db-1 is full")
    assert [line.split(":")[0] for line in failed] == ["(title", "(text"]


def test_twenty_alerts_are_listed_and_the_others_counted():
    group = Played()
    group.hear(*(alert(number) for number in range(30)))
    group.pass_on(MINUTE)
    lines = group.out[0][1].text.splitlines()
    assert (len(lines), lines[-1]) == (21, "and 10 more")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"interval": "0s"}, "a duration above zero"),
        ({"by": ["labels"]}, "a label such as labels.team"),
        ({"most": 0}, "greater than or equal to 1"),
        ({"inhibit": [{"source": "a=b", "target": "a~b"}]}, "target"),
        ({"inhibit": [{"source": [], "target": "a=b"}]}, "label matchers such as"),
    ],
)
def test_what_cannot_be_is_refused(options, text):
    with pytest.raises(ValidationError, match=text):
        GroupConfig.model_validate(options)


@pytest.mark.parametrize("later", [0, 1, 5, 60])
def test_what_ends_and_fires_anew_within_a_batch_fires(later):
    """The end is not the last word because both were taken at one moment, as when nobody worked for a while."""
    group = Played()
    group.hear(alert(1, starts=NOW, ends=NOW + HOUR))
    group.pass_on(MINUTE)
    end = NOW + 50 * SECOND
    anew = alert(1, starts=end + later * SECOND, ends=NOW + HOUR)
    over = alert(1, "resolved", end, starts=NOW)
    group.hear(anew, over)
    group.pass_on(10 * MINUTE)
    assert [one.status for _, one in group.out if isinstance(one, Message)] == (["firing"] if later else ["firing", "resolved"])


def heard(message, at=NOW):
    return alert_of(message, spell_of(message, at, HOUR), at)


def test_what_was_overtaken_changes_nothing():
    fired, over = alert(1, at=NOW, starts=NOW, ends=NOW + HOUR), alert(1, "resolved", NOW + MINUTE)
    ended = merged(heard(fired), heard(over, NOW + MINUTE))
    assert ended.over
    assert merged(heard(over, NOW + MINUTE), heard(fired, NOW + MINUTE + SECOND)) is None, "the end came first"
    assert merged(heard(fired, NOW + MINUTE + 9 * SECOND), heard(over, NOW + MINUTE)).over, "clocks differ"
    assert not merged(ended, heard(fired, NOW + 5 * MINUTE)).over, "it does fire, says somebody later"
    again = alert(1, at=NOW + 2 * MINUTE, starts=NOW + 2 * MINUTE, ends=NOW + HOUR)
    assert not merged(ended, heard(again, NOW + MINUTE)).over, "it fires anew"
    assert merged(heard(again), heard(over, NOW + 3 * MINUTE)) is None, "the end of the time before"


def test_ends_and_starts_overlap_as_in_alertmanager():
    long = heard(alert(1, starts=NOW, ends=NOW + HOUR))
    short = heard(alert(1, starts=NOW + SECOND, ends=NOW + MINUTE), NOW + SECOND)
    assert (merged(long, short).starts, merged(long, short).ends) == (NOW, NOW + HOUR)
    assert merged(short, long) == merged(long, short), "in any order"
    assumed = heard(alert(1, starts=NOW))
    assert merged(assumed, short).ends == NOW + MINUTE, "what is said counts more than what is assumed"


@given(some.permutations(range(6)))
def test_the_order_in_which_an_alert_is_heard_of_within_seconds_is_nothing(order):
    moments = [heard(alert(1, starts=NOW, ends=NOW + HOUR + number * MINUTE), NOW + number * SECOND) for number in range(5)]
    moments.append(heard(alert(1, "resolved", NOW + 4 * SECOND), NOW + 5 * SECOND))
    known = moments[order[0]]
    for number in order[1:]:
        known = merged(known, moments[number]) or known
    assert (known.over, known.ends) == (True, NOW + 4 * SECOND)


def test_how_large_what_is_kept_becomes():
    """The figures of docs/filters/group.md: an alert as Prometheus sends it, and a full group."""
    group = Played(most=500)
    group.hear(*(alert(number) for number in range(501)))
    group.pass_on(MINUTE)
    size = len(json.dumps(group.kept))
    assert 450 < size / 500 < 700
    assert size < 400_000
    assert len(msgspec.json.encode(group.out[0][1])) < 500_000


RECORDED = [(timeline, told) for timeline, told in read_recorded() if timeline.kind != "alone"]
DEVIATING = [28, 31, 89, 96, 112, 113, 172, 175, 184, 204, 242, 250, 251, 255, 256, 260, 273, 284]
"""The seeds of timelines in which an alert that was told as firing is over while another one silences it: `group` tells that, and
Alertmanager never does. Whoever was woken by it would wait for the end for ever."""


def as_alertmanager(state, moment, silenced):
    """Give what may be told as Alertmanager has it: nothing of what is silenced, whatever was told before."""
    alerts = [msgspec.structs.replace(one, told=False) for one in state.alerts.values() if not silenced(one)]
    return Seen([one for one in alerts if one.fires(moment)], [one for one in alerts if not one.fires(moment)])


@pytest.fixture(scope="module")
def apart():
    return [timeline.seed for timeline, told in RECORDED if differences(play(timeline).told, told)]


def test_it_tells_what_alertmanager_tells(apart):
    assert len(RECORDED) - len(apart) >= 200
    assert apart == DEVIATING


def test_where_it_tells_something_else_one_rule_is_the_cause(monkeypatch, apart):
    monkeypatch.setattr(State, "seen", as_alertmanager)
    pairs = [(play(timeline).told, told) for timeline, told in RECORDED if timeline.seed in apart]
    assert [differences(ours, theirs) for ours, theirs in pairs] == [[]] * len(DEVIATING)


@settings(max_examples=20, deadline=None)
@given(some.sampled_from(RECORDED), some.floats(0, 0.45))
def test_a_clock_that_is_late_changes_nothing(recorded, late):
    timeline, _ = recorded
    prompt, lazy = (play(timeline, late=by).told for by in (0, late))
    assert differences(prompt, lazy) == []
