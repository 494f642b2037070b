"""Inhibit: targets wait while a source fires, and pass when it is over, or end with their resolution if nobody knew of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import timelines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError
from timelines import differences, ends_by_itself, read_recorded
from timelines import play as play_timeline

from filters.inhibit import Inhibit, InhibitConfig
from pipeline import Dropped, Inhibition, InhibitionRule, Message, Stay, Window, spell_of
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.store import Why
from pipeline.testing import Recollection, WindowFilterContract

START = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
PIPELINE = """
name: quiet
producers: [http]
filters:
  - inhibit:
      rules:
        - {source: role=cause, target: role=effect, equal: [cluster]}
        - {source: severity=critical, target: severity=info}
consumers: [log]
"""
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")


class TestInhibit(WindowFilterContract):
    plugin = Inhibit
    options = {"rules": [{"source": "severity=critical", "target": "severity!=critical", "equal": ["team"]}]}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("quiet") / "quiet.yaml"
    file.write_text(PIPELINE)
    return load([file])


def alert(name, at=START, status="firing", *, cluster="eu", role="", severity="warning", **fields):
    labels = {"cluster": cluster, "role": role, "severity": severity}
    key = f"{cluster} {name}"
    return Message(source="t", type="alert", title=name, status=status, time=at, labels=labels, key=key, **fields)


CAUSE, EFFECT = {"role": "cause"}, {"role": "effect"}


class Play:
    """The filter in the engine, with what passed: the seconds, the alert and its status."""

    def __init__(self, simulation):
        self.simulation = simulation
        simulation.accept([alert("first of all", role="cause", cluster="elsewhere")])
        simulation.run_until(START + MINUTE)

    def at(self, second):
        self.simulation.run_until(START + MINUTE + second * SECOND)
        return self

    def say(self, name, status="firing", **labels):
        message = alert(name, self.simulation.now, status, **labels)
        self.simulation.accept([message])
        self.simulation.work()
        return message

    @property
    def passed(self):
        rows = [(at - START - MINUTE, message) for at, message in self.simulation.deliveries["log"][1:]]
        return [(round(at.total_seconds()), message.title, message.status) for at, message in rows]

    def reason(self, message):
        (record,) = (record for record in self.simulation.records(message.id) if record.step == "inhibit")
        return f"{record.outcome.value}: {record.reason.removeprefix('by inhibit: ').split(' at /')[0]}"


@pytest.fixture
def play(spec):
    with Simulation(spec, start=START) as simulation:
        yield Play(simulation)


def test_a_target_waits_and_passes_when_the_source_is_over(play):
    play.say("cause", **CAUSE)
    held = play.at(5).say("effect", **EFFECT)
    play.say("elsewhere", cluster="us", **EFFECT)
    play.say("unconcerned")
    assert play.reason(held) == "held: until 2026-11-21 08:32:05 UTC"
    play.at(200).say("cause", "resolved", **CAUSE)
    play.at(201)
    assert play.passed == [
        (0, "cause", "firing"),
        (5, "elsewhere", "firing"),
        (5, "unconcerned", "firing"),
        (200, "cause", "resolved"),
        (200, "effect", "firing"),
    ]


def test_what_is_over_while_it_is_held_back_nobody_hears_of(play):
    play.say("cause", **CAUSE)
    fired = play.at(20).say("effect", **EFFECT)
    over = play.at(50).say("effect", "resolved", **EFFECT)
    play.at(51).say("cause", "resolved", **CAUSE)
    play.at(500)
    assert [name for _, name, _ in play.passed] == ["cause", "cause"]
    assert play.reason(fired) == "dropped: it was over while it was held back"
    assert play.reason(over) == "dropped: it was over while it was held back: nobody had heard of it"


def test_the_end_of_what_was_told_before_passes(play):
    play.say("effect", **EFFECT)
    play.at(5).say("cause", **CAUSE)
    again = play.at(60).say("effect", **EFFECT)
    play.at(70).say("effect", "resolved", **EFFECT)
    play.at(300)
    told = [(0, "effect", "firing"), (5, "cause", "firing"), (70, "effect", "resolved")]
    assert play.passed == told
    assert play.reason(again) == "dropped: it is over, and was told before"


def test_with_a_lost_memory_an_end_too_many_is_told_never_one_too_few(play):
    play.say("effect", **EFFECT)
    play.at(5).simulation.forget()
    play.say("cause", **CAUSE)
    play.at(6).say("effect", **EFFECT)
    play.at(70).say("effect", "resolved", **EFFECT)
    play.at(300)
    assert (70, "effect", "resolved") in play.passed


def test_a_source_that_says_nothing_more_ends_with_its_time(play):
    ends = (play.simulation.now + 90 * SECOND).isoformat()
    play.say("cause", data={"endsAt": ends}, **CAUSE)
    play.at(5).say("effect", **EFFECT)
    play.at(300)
    assert play.passed == [(0, "cause", "firing"), (125, "effect", "firing")], "looked at each minute"


def test_two_sources_hold_until_both_are_over(play):
    play.say("cause", **CAUSE)
    play.say("worse", severity="critical")
    play.at(5).say("effect", severity="info", **EFFECT)
    play.at(10).say("cause", "resolved", **CAUSE)
    play.at(100).say("worse", "resolved", severity="critical")
    play.at(300)
    at, *_ = next(row for row in play.passed if row[1] == "effect")
    assert 100 < at <= 160, "the end of another rule's source is seen when it is looked at"


def test_what_fires_anew_after_it_was_over_is_held_anew(play):
    play.say("cause", **CAUSE)
    play.at(20).say("effect", **EFFECT)
    play.at(40).say("effect", "resolved", **EFFECT)
    play.at(45).say("effect", **EFFECT)
    play.at(80).say("cause", "resolved", **CAUSE)
    play.at(300)
    assert play.passed == [(0, "cause", "firing"), (80, "cause", "resolved"), (80, "effect", "firing")]


def test_what_is_repeated_while_it_waits_passes_once(play):
    play.say("cause", **CAUSE)
    first, second, last = (play.at(5 + 100 * number).say("effect", **EFFECT) for number in range(3))
    assert play.at(300).reason(first) == f"dropped: {second.id} is newer, and waits in its place"
    assert play.simulation.store.held_counts() == {("quiet", "inhibit", Why.WINDOW): 1}
    play.say("cause", "resolved", **CAUSE)
    play.at(301)
    assert [name for _, name, _ in play.passed] == ["cause", "cause", "effect"]
    assert play.reason(last) == "passed: left the window as itself"


def test_what_ends_and_fires_anew_at_once_is_told_in_this_order(play):
    """As a batch has it that nobody took for a while."""
    play.say("effect", **EFFECT)
    play.at(5).say("effect", "resolved", **EFFECT)
    play.simulation.now += SECOND / 10
    play.say("effect", **EFFECT)
    play.at(10)
    assert [status for *_, status in play.passed] == ["firing", "resolved", "firing"]


def noted(rules, *messages):
    memory = Recollection()
    inhibition = Inhibition([InhibitionRule.model_validate(rule) for rule in rules])
    for message in messages:
        memory.now = max(memory.now, message.time)
        inhibition.note(message, spell_of(message, message.time, MINUTE), message.time, memory)
    return inhibition, memory


BOTH = {"source": 'role=~"cause|both"', "target": ['role=~"effect|both"'], "equal": ["zone"]}


@pytest.mark.parametrize(
    ("source", "target", "silenced"),
    [
        ("cause", "effect", True),
        ("cause", "both", True),
        ("both", "effect", True),
        ("both", "both", False),
        ("effect", "effect", False),
        ("cause", "", False),
    ],
)
def test_what_matches_both_sides_is_silenced_by_none_that_does_so_too(source, target, silenced):
    inhibition, memory = noted([BOTH], alert("s", role=source))
    found = inhibition.by({"role": target, "zone": ""}, memory)
    assert found == ('inhibited by eu s (role=~"cause|both")' if silenced else ""), "a missing label is an empty one"
    assert not inhibition.by({"role": target, "zone": "a"}, memory)


def test_a_source_ends_by_a_word_or_by_itself_and_what_was_overtaken_does_not_bring_it_back():
    inhibition, memory = noted([BOTH], alert("s", role="cause"), alert("s", START + SECOND, "resolved", role="cause"))
    assert not inhibition.by({"role": "effect"}, memory)
    late = alert("s", role="cause")
    inhibition.note(late, spell_of(late, memory.now, MINUTE), memory.now, memory)
    assert not inhibition.by({"role": "effect"}, memory), "it began before the end that is known"
    anew = alert("s", START + 2 * SECOND, role="cause")
    memory.now = anew.time
    inhibition.note(anew, spell_of(anew, memory.now, MINUTE), memory.now, memory)
    assert inhibition.by({"role": "effect"}, memory)
    memory.now += MINUTE
    assert not inhibition.by({"role": "effect"}, memory)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rules": []}, "at least one rule"),
        ({"rules": [{"source": "a=b"}]}, "target"),
        ({"rules": [{"source": "{}", "target": "a=b"}]}, "label matchers such as"),
        ({"rules": [{"source": "a=b", "target": "b=~["}]}, "not a regular expression"),
        ({"rules": [{"source": "a=b", "target": "b=c", "equals": ["x"]}]}, "equals"),
    ],
)
def test_what_cannot_be_is_refused(options, text):
    with pytest.raises(ValidationError, match=text):
        InhibitConfig.model_validate(options)


def test_what_no_rule_is_about_is_not_looked_at():
    made = Inhibit(InhibitConfig.model_validate({"rules": [BOTH]}))
    away = Recollection(away=("recall", "remember", "add", "remove", "members"))
    assert made.window(alert("x"), START, away) is None
    assert isinstance(made.window(alert("x", START, "resolved", role="effect"), START, Recollection()), Window)


TIMELINE = some.lists(
    some.tuples(some.integers(15, 200), some.sampled_from(["cause", "effect", "other"])), min_size=1, max_size=12
)


@given(
    TIMELINE,
    some.lists(some.tuples(some.integers(0, 11), some.sampled_from([*DEATHS, "restart", "forget"])), max_size=6),
    some.integers(0, 99),
    some.lists(some.integers(-3, 3), min_size=3, max_size=3),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_dies_no_alert_and_no_end_is_lost(spec, timeline, troubles, seed, skews):
    with Simulation(spec, start=START, workers=3, skew=[number * SECOND for number in skews]) as simulation:
        states = run(simulation, timeline, seed=seed, troubles=troubles)
        for key, status in states.items():
            told = [message.status for _, message in simulation.deliveries["log"] if message.title == key]
            if status == "resolved":
                assert told[-1:] in ([], ["resolved"])
            elif key != "effect" or states.get("cause") != "firing":
                assert told[-1:] == ["firing"]
        assert simulation.dead_letters() == []


@given(TIMELINE)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_worker_and_eight_give_the_same(spec, timeline):
    found = []
    for workers in (1, 8):
        with Simulation(spec, start=START, workers=workers) as simulation:
            run(simulation, timeline)
            found.append([(at, message.title, message.status) for at, message in simulation.deliveries["log"]])
    assert found[0] == found[1]


def run(simulation, timeline, *, seed=None, troubles=()):
    """Let alerts fire and end in turns, and five minutes pass; give what is so at the end."""
    simulation.chaos(seed)
    states = {}
    for number, (gap, name) in enumerate(timeline):
        for when, what in troubles:
            if when == number:
                {"restart": simulation.restart, "forget": simulation.forget}.get(what, lambda: simulation.kill_next(what))()  # noqa: B023 - called at once
        states[name] = "firing" if states.get(name, "resolved") == "resolved" else "resolved"
        simulation.accept([alert(name, simulation.now, states[name], role=name if name != "other" else "")])
        simulation.run_until(simulation.now + gap * SECOND)
    simulation.chaos(None)
    simulation.run_until(simulation.now + 5 * MINUTE)
    return states


RECORDED = [(timeline, told) for timeline, told in read_recorded() if timeline.kind == "alone"]


DEVIATING = [
    *(1004, 1015, 1021, 1033, 1034, 1041, 1043, 1047, 1048, 1049),
    *(1062, 1072, 1082, 1106, 1124, 1126, 1131, 1132, 1142, 1148),
]
"""The seeds of timelines in which an alert that was told as firing is over while another one silences it: here it is told."""
RESENT = [(number + 0.25) * timelines.RESEND * SECOND for number in range(4)]
"""How long after its end Alertmanager, which is told of it four times, looks whether it may tell it."""


class AsAlertmanager(Inhibit):
    """Without that rule: an end is told where nothing silences it when it is told of, and until then counts as untold."""

    def release(self, opened):
        for one in super().release(opened):
            is_end = isinstance(one, Message) and one.status == "resolved"
            yield self._as_alertmanager(one, opened) if is_end else one

    def _as_alertmanager(self, end, opened):
        looks = [end.time + after for after in RESENT]
        if not self._fires_anew(end, opened):
            due = any(look <= opened.now < look + SECOND / 5 for look in looks)
            if due and not self._inhibition.by(end.labels, opened.memory):
                return end
        opened.memory.forget(f"ended {end.key}")
        next_look = min((look for look in looks if look > opened.now), default=None)
        if next_look is None or self._fires_anew(end, opened):
            return Dropped("not told of any more", end)
        return Stay(end, next_look)

    def _fires_anew(self, end, opened):
        passed = opened.memory.recall(f"passed {end.key}")
        waits = any(one.key == end.key and one.status == "firing" and one.time > end.time for one in opened.messages)
        return waits or (passed is not None and datetime.fromisoformat(passed) > end.time)


def changes(told):
    """Leave out what Alertmanager does not tell twice: what it was told last."""
    last = {}
    return [one for one in told if last.get(one.group) != one.alerts and last.update({one.group: one.alerts}) is None]


def apart(tell=list):
    """The seeds of the timelines in which the filter tells something else."""
    return [line.seed for line, told in RECORDED if differences(tell(play_timeline(line).told), told, but=ends_by_itself(line))]


def test_it_lets_pass_what_alertmanager_tells():
    assert len(RECORDED) == 150
    assert apart() == DEVIATING


def test_where_it_tells_something_else_one_rule_is_the_cause(monkeypatch):
    monkeypatch.setattr(timelines, "Inhibit", AsAlertmanager)
    assert apart(changes) == []


def test_the_ends_that_alertmanager_does_not_tell_pass_here():
    for line in (timeline for timeline, _ in RECORDED if timeline.seed in DEVIATING):
        told = play_timeline(line).told
        for index in {*range(len(line.lines))} - ends_by_itself(line):
            statuses = [one.alerts[index] for one in told if one.group == index]
            assert statuses[-1:] in ([], ["resolved"])
            assert all(one != other for one, other in pairwise(statuses)), "in turns"
