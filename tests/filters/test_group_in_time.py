"""Group in the engine: it tells what Alertmanager tells; whatever dies or comes twice, no alert is lost, and no end of one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from timelines import BEGIN, END, body, differences, read_recorded, scheduled, sweeping, told_of
from timelines import play as play_timeline

from pipeline import Message, Request
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load

START = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
AS_THERE = """
name: compared
producers: [prometheus]
filters:
  - group:
      by: [labels.timeline, labels.group]
      wait: 2500ms
      interval: 5s
      repeat: 13s
      resolve_after: 6s
      inhibit: [{source: 'role=~"cause|both"', target: 'role=~"effect|both"', equal: [timeline, zone]}]
consumers: [log]
"""
PIPELINE = """
name: groups
producers: [http]
filters:
  - group:
      {by: labels.cluster, repeat: 2h, resolve_after: 7d, most: 3, inhibit: [{source: severity=critical, target: severity=info}]}
consumers: [log]
"""
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    def read(text):
        file = tmp_path_factory.mktemp("groups") / "groups.yaml"
        file.write_text(text)
        return load([file])

    return read


def test_the_engine_tells_what_alertmanager_tells(spec_of):
    """Some of the timelines, posted to the producer; the clock ticks four times a second."""
    chosen = [
        (line, told)
        for line, told in read_recorded()[:45]
        if line.kind == "told" and not differences(play_timeline(line).told, told)
    ]
    timelines = [line for line, _ in chosen]
    with sweeping(), Simulation(spec_of(AS_THERE), start=BEGIN, workers=3) as simulation:
        for at, posts in scheduled(timelines):
            simulation.run_until(BEGIN + timedelta(seconds=at))
            alerts = json.dumps(body(timelines, posts, BEGIN)).encode()
            path = "/in/compared/prometheus/api/v2/alerts"
            assert simulation.send("prometheus", Request(alerts, {"content-type": "application/json"}, path=path)).status == 200
        simulation.run_until(BEGIN + timedelta(seconds=END))
        told = {str(line.seed): [] for line in timelines}
        for at, message in simulation.deliveries["log"]:
            told[message.labels["timeline"]].append(told_of(message.data, (at - BEGIN).total_seconds()))
        assert [differences(told[str(line.seed)], theirs) for line, theirs in chosen] == [[]] * len(chosen)
        assert len(chosen) > 30
        assert simulation.dead_letters() == []


def alert(name, status, at, *, cluster="eu", severity="warning"):
    labels = {"cluster": cluster, "severity": severity, "name": name}
    return Message(
        source="t", type="alert", title=name, status=status, time=at, labels=labels, severity=severity, key=f"{cluster} {name}"
    )


def told(simulation):
    """What was told of each alert, in order."""
    found = {}
    for _, message in simulation.deliveries["log"]:
        for one in message.data["alerts"]:
            found.setdefault(one["fingerprint"], []).append(one["status"])
    return found


def test_state_survives_a_restart_and_a_lost_memory(spec_of):
    with Simulation(spec_of(PIPELINE), start=START) as simulation:
        simulation.accept([alert("a", "firing", START)])
        simulation.run_until(START + MINUTE)
        simulation.restart()
        simulation.forget()
        simulation.accept([alert("b", "firing", simulation.now), alert("a", "resolved", simulation.now)])
        simulation.run_until(START + 6 * MINUTE)
        assert [(at - START, message.title) for at, message in simulation.deliveries["log"]] == [
            (30 * SECOND, "a"),
            (330 * SECOND, "eu: 1 firing, 1 resolved"),
        ]
        first, second = (message for _, message in simulation.deliveries["log"])
        assert first.key == second.key
        assert first.id != second.id


def test_what_explain_tells(spec_of):
    with Simulation(spec_of(PIPELINE), start=START) as simulation:
        fired, ended = alert("a", "firing", START), alert("a", "resolved", START + SECOND)
        simulation.accept([fired])
        simulation.run_until(START + SECOND)
        simulation.accept([ended])
        (record,) = simulation.records(fired.id)
        assert (record.outcome.value, record.reason) == ("replaced", "waits until 2026-11-21 08:30:30 UTC")
        simulation.run_until(START + 2 * MINUTE)
        (waited,) = simulation.records(record.became[0])
        assert waited.outcome.value == "dropped"
        assert "its alerts are over, and there was nothing to tell" in waited.reason
        assert simulation.deliveries["log"] == []


NAMES = some.sampled_from(["a", "b", "c", "d", "e"])
TIMELINE = some.lists(
    some.tuples(some.integers(15, 900), some.lists(NAMES, min_size=1, max_size=4, unique=True), some.sampled_from(["eu", "us"])),
    min_size=1,
    max_size=8,
)
SEVERITIES = {"a": "critical", "b": "info"}
PATIENT = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def play(simulation, timeline, before=lambda _number: None):
    """Let alerts fire and end in turns, and a quarter of an hour pass; give what is so at the end, by alert."""
    states = {}
    for number, (gap, names, cluster) in enumerate(timeline):
        before(number)
        sent = []
        for name in names:
            status = "firing" if states.get((cluster, name), "resolved") == "resolved" else "resolved"
            states[cluster, name] = status
            sent.append(alert(name, status, simulation.now, cluster=cluster, severity=SEVERITIES.get(name, "warning")))
        simulation.accept(sent)
        simulation.run_until(simulation.now + timedelta(seconds=gap))
    simulation.chaos(None)
    simulation.run_until(simulation.now + 15 * MINUTE)
    return {f"{cluster} {name}": status for (cluster, name), status in states.items()}


def check(simulation, states):
    """No alert is lost that fires still, and no end of one that was told."""
    found = told(simulation)
    for key, status in states.items():
        cluster = key.split()[0]
        silenced = key.endswith(" b") and "firing" in [state for other, state in states.items() if other.endswith(" a")]
        firing = sum(state == "firing" for other, state in states.items() if other.startswith(cluster))
        last = found.get(key, [""])[-1]
        if status == "resolved":
            assert last in ("", "resolved"), f"{key} is over, and nobody was told"
        elif not silenced and firing <= 3:
            assert last == "firing", f"{key} fires, and nobody was told"
    assert simulation.dead_letters() == []


@given(
    TIMELINE,
    some.lists(some.tuples(some.integers(0, 7), some.sampled_from([*DEATHS, "restart", "forget"])), max_size=6),
    some.integers(0, 99),
    some.lists(some.integers(-3, 3), min_size=3, max_size=3),
)
@PATIENT
def test_whatever_dies_no_alert_and_no_end_is_lost(spec_of, timeline, troubles, seed, skews):
    skew = [number * SECOND for number in skews]
    with Simulation(spec_of(PIPELINE), start=START, workers=3, skew=skew) as simulation:

        def trouble(number):
            for when, what in troubles:
                if when == number:
                    {"restart": simulation.restart, "forget": simulation.forget}.get(what, lambda: simulation.kill_next(what))()  # noqa: B023 - called at once

        simulation.chaos(seed)
        check(simulation, play(simulation, timeline, trouble))


@given(TIMELINE)
@settings(PATIENT, max_examples=8)
def test_one_worker_and_eight_give_the_same(spec_of, timeline):
    found = []
    for workers in (1, 8):
        with Simulation(spec_of(PIPELINE), start=START, workers=workers) as simulation:
            check(simulation, play(simulation, timeline))
            found.append([(at, one.title, one.text, one.key) for at, one in simulation.deliveries["log"]])
    assert found[0] == found[1]
