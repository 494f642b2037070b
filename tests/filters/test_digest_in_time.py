"""Digest in the engine: whatever dies, comes twice or is forgotten, each message is in a digest; undisturbed in one exactly."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from pipeline import Message, attachments_of
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load

START = datetime(2026, 3, 28, 5, 30, tzinfo=UTC)  # the day before the clocks of Berlin go forward
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PIPELINE = """
name: digests
producers: [http]
filters:
  - digest: {options}
consumers: [log]
"""
WITHIN = "{within: 1h}"
DAILY = "{at: 0 8 * * *, timezone: Europe/Berlin}"
EACH = "{within: 1h, by: labels.team, most: 4, attach: csv, columns: [id]}"
URGENT = '{within: 1h, pass: severity == "critical", keep_passed: true}'
URGENT_DAILY = '{at: 0 8 * * *, pass: severity == "critical", keep_passed: true, by: labels.team}'
EMPTY = "{at: 0 8 * * *, timezone: Europe/Berlin, empty: true}"
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    @cache
    def read(options):
        file = tmp_path_factory.mktemp("digests") / "digests.yaml"
        file.write_text(PIPELINE.format(options=options))
        return load([file])

    return read


def message(title="x", *, team="db", severity="warning"):
    return Message(source="test", title=title, severity=severity, labels={"team": team}, time=START)


def digests(simulation):
    """The digests that were delivered, each once: a repeat has the same id."""
    return {one.id: one for _, one in simulation.deliveries["log"] if one.type == "digest"}


def members(simulation):
    """How many digests each message is in."""
    return Counter(one["id"] for digest in digests(simulation).values() for one in digest.data["messages"])


def times(simulation, zone=UTC):
    return [f"{at.astimezone(zone):%d %H:%M:%S}" for at, one in simulation.deliveries["log"] if one.type == "digest"]


def test_an_hour_after_the_first(spec_of):
    with Simulation(spec_of(WITHIN), start=START) as simulation:
        for number in range(3):
            simulation.accept([message(str(number))])
            simulation.run_until(simulation.now + 20 * MINUTE)
        simulation.run_until_idle()
        assert times(simulation) == ["28 06:30:00"]
        assert [one.title for one in digests(simulation).values()] == ["3 messages: 3 warning"]


def test_each_morning_by_the_clock_on_the_wall(spec_of):
    with Simulation(spec_of(DAILY), start=START) as simulation:
        for _ in range(3):
            simulation.accept([message()])
            simulation.run_until(simulation.now + DAY)
        simulation.run_until_idle()
        assert times(simulation, ZoneInfo("Europe/Berlin")) == ["28 08:00:05", "29 08:00:05", "30 08:00:05"]


def test_a_restart_changes_nothing(spec_of):
    with Simulation(spec_of(EACH), start=START) as simulation:
        simulation.accept([message(team=team) for team in ("db", "web", "db")])
        simulation.run_until(START + 30 * MINUTE)
        simulation.restart()
        simulation.accept([message(team="db")])
        simulation.run_until_idle()
        assert sorted(one.title for one in digests(simulation).values()) == [
            "1 message for web: 1 warning",
            "3 messages for db: 3 warning",
        ]
        assert {*members(simulation).values()} == {1}


def test_what_explain_tells_of_a_message_that_waits_and_of_one_that_left(spec_of):
    with Simulation(spec_of(DAILY), start=START) as simulation:
        first, second = message("a"), message("b")
        simulation.accept([first, second])
        simulation.run_until(START + MINUTE)
        (record,) = simulation.records(first.id)
        assert (record.step, record.outcome.value, record.reason) == ("digest", "held", "until 2026-03-28 07:00:05 UTC")
        simulation.run_until_idle()
        (record,) = simulation.records(first.id)
        assert (record.outcome.value, record.reason) == ("replaced", "left the window with 1 more as 1 message")
        assert record.became == (*digests(simulation),)


def test_slow_and_fast_clocks_make_one_digest(spec_of):
    """Workers whose clocks differ by six seconds get a message each second around the time of the digest."""
    with Simulation(spec_of(DAILY), start=START, workers=3, skew=[3 * SECOND, -3 * SECOND]) as simulation:
        simulation.run_until(START.replace(hour=6, minute=59, second=50))
        for _ in range(20):
            simulation.accept([message()])
            simulation.run_until(simulation.now + SECOND)
        simulation.run_until(simulation.now + DAY + MINUTE)
        assert {*members(simulation).values()} == {1}
        assert sum(members(simulation).values()) == 20
        assert len(digests(simulation)) == 2  # of today, and of what came after it


@pytest.mark.parametrize("options", [DAILY, EMPTY, URGENT_DAILY.replace("0 8", "0 7")])
def test_clocks_that_are_wrong_by_more_than_that_and_a_restart_at_the_time_itself(spec_of, options):
    """Then there are more digests; each message is in one."""
    with Simulation(spec_of(options), start=START, workers=3, skew=[11 * SECOND, -11 * SECOND]) as simulation:
        due = START.replace(hour=7, second=5, minute=0)
        simulation.run_until(due - 20 * SECOND)
        for _ in range(40):
            simulation.accept([message(), message("urgent", severity="critical")])
            simulation.run_until(simulation.now + SECOND)
            if simulation.now == due:
                simulation.restart()
        simulation.run_until(simulation.now + DAY + MINUTE)
        assert {*members(simulation).values()} == {1}
        assert sum(members(simulation).values()) == 80
        passed = 40 if options not in (DAILY, EMPTY) else 0
        assert sum(one.title == "urgent" for _, one in simulation.deliveries["log"]) == passed
        nothing = sum(one.title == "No messages" for one in digests(simulation).values())
        assert nothing == 0


def test_nothing_is_told_each_morning(spec_of):
    with Simulation(spec_of(EMPTY), start=START) as simulation:
        simulation.accept([message()])
        simulation.run_until(START + 3 * DAY)
        assert [one.title for one in digests(simulation).values()] == ["1 message: 1 warning", "No messages", "No messages"]
        assert times(simulation, ZoneInfo("Europe/Berlin")) == ["28 08:00:05", "29 08:00:05", "30 08:00:05"]


def test_what_passes_does_not_wait_and_is_in_the_digest(spec_of):
    with Simulation(spec_of(URGENT), start=START) as simulation:
        calm, urgent = message("calm"), message("urgent", severity="critical")
        simulation.accept([calm])
        simulation.run_until(START + 10 * MINUTE)
        simulation.accept([urgent])
        simulation.run_until(START + 10 * MINUTE + SECOND)
        assert [one.title for _, one in simulation.deliveries["log"]] == ["urgent"]
        simulation.run_until_idle()
        assert [(at - START, one.title) for at, one in simulation.deliveries["log"]][1:] == [
            (HOUR, "2 messages: 1 critical, 1 warning")
        ]
        assert members(simulation) == {calm.id: 1, urgent.id: 1}
        assert [(record.step, record.outcome.value) for record in simulation.records(urgent.id)] == [
            ("digest", "passed"),
            ("log", "delivered"),
        ]


def test_what_passed_and_is_sent_again_is_told_once_and_stands_in_one_digest(spec_of):
    with Simulation(spec_of(URGENT), start=START) as simulation:
        urgent = message("urgent", severity="critical")
        for _ in range(90):
            simulation.accept([urgent])
            simulation.run_until(simulation.now + MINUTE)
        simulation.run_until_idle()
        assert [one.title for _, one in simulation.deliveries["log"]] == ["urgent", "1 message: 1 critical"]
        assert members(simulation) == {urgent.id: 1}


def test_what_comes_with_the_end_of_a_digest_passes_and_is_not_what_the_others_became(spec_of):
    with Simulation(spec_of(URGENT), start=START) as simulation:
        calm, urgent = message("calm"), message("urgent", severity="critical")
        simulation.accept([calm])
        simulation.run_until(START + HOUR - SECOND / 10)
        simulation.accept([urgent])
        simulation.run_until_idle()
        assert sorted(one.title for _, one in simulation.deliveries["log"]) == ["2 messages: 1 critical, 1 warning", "urgent"]
        assert members(simulation) == {calm.id: 1, urgent.id: 1}
        (record,) = simulation.records(calm.id)
        assert (record.reason, record.became) == ("left the window as 1 message", (*digests(simulation),))


TIMELINE = some.lists(
    some.tuples(some.integers(0, 3000), some.sampled_from(["db", "web"]), some.sampled_from(["warning", "critical"])),
    min_size=1,
    max_size=15,
)
OPTIONS = some.sampled_from([WITHIN, DAILY, EACH, URGENT, URGENT_DAILY, EMPTY])
PATIENT = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def play(simulation, timeline, before=lambda _number: None):
    """Let messages come as the timeline says, and two days pass; give them by id."""
    sent = {}
    for number, (gap, team, severity) in enumerate(timeline):
        before(number)
        one = message(f"m{number}", team=team, severity=severity)
        sent[one.id] = one
        simulation.accept([one])
        simulation.run_until(simulation.now + timedelta(seconds=gap))
    simulation.chaos(None)
    simulation.run_until(simulation.now + 2 * DAY)
    return sent


@given(TIMELINE, OPTIONS)
@settings(PATIENT, max_examples=20)
def test_every_message_is_in_one_digest_and_one_worker_and_eight_give_the_same(spec_of, timeline, options):
    found = []
    for workers in (1, 8):
        with Simulation(spec_of(options), start=START, workers=workers) as simulation:
            sent = play(simulation, timeline)
            assert members(simulation) == dict.fromkeys(sent, 1)
            assert simulation.dead_letters() == []
            assert simulation.idle
            found.append([(at, one.title, one.text) for at, one in simulation.deliveries["log"]])
    assert found[0] == found[1]


@given(
    TIMELINE,
    OPTIONS,
    some.lists(some.tuples(some.integers(0, 14), some.sampled_from([*DEATHS, "restart", "forget"])), max_size=6),
    some.integers(0, 99),
    some.lists(some.integers(-4, 4), min_size=3, max_size=3),
)
@PATIENT
def test_whatever_dies_every_message_is_in_a_digest(spec_of, timeline, options, troubles, seed, skews):
    skew = [number * SECOND for number in skews]
    with Simulation(spec_of(options), start=START, workers=3, skew=skew) as simulation:

        def trouble(number):
            for when, what in troubles:
                if when == number:
                    {"restart": simulation.restart, "forget": simulation.forget}.get(what, lambda: simulation.kill_next(what))()  # noqa: B023 - called at once

        simulation.chaos(seed)
        sent = play(simulation, timeline, trouble)
        assert {*members(simulation)} == {*sent}
        assert simulation.dead_letters() == []
        rows = [row for one in digests(simulation).values() for file in attachments_of(one) for row in file.content.split()[1:]]
        assert {*rows} <= {one.encode() for one in sent}
        urgent = {one.title for one in sent.values() if one.severity == "critical"}
        if options in (URGENT, URGENT_DAILY):
            assert {one.title for _, one in simulation.deliveries["log"] if one.type != "digest"} == urgent
