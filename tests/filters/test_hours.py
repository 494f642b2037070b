"""Hours: what comes while nobody is there waits or goes to a deputy; whatever happens, nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from filters.hours import Hours
from filters.hours.options import HoursConfig
from pipeline import Keep, Message, Opened
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.testing import Recollection, WindowFilterContract

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 3, 27, 16, 0, tzinfo=UTC)  # Friday, 17:00 in Berlin, two nights before the clocks go forward
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PIPELINE = """
name: office
producers: [http]
filters:
  - hours: {options}
consumers: [log]
"""
OFFICE = "{timezone: Europe/Berlin, open: [MON-FRI 08:00-18:00, SUN 10:00-12:00]%s}"
CANCEL = OFFICE % ", cancel: true"
STAFF = """
      timezone: Europe/Berlin
      open: [MON-FRI 08:00-18:00]
      people:
        ann: {leave: [2026-03-30..2026-04-02], deputy: bob}
        bob: {timezone: America/New_York, deputy: cem}
        cem: {open: "SAT,SUN 10:00-20:00"}
        dee: {deputy: a-service}
"""
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")
SLOW = settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestHours(WindowFilterContract):
    plugin = Hours
    options = {
        "timezone": "Europe/Berlin",
        "open": ["MON-FRI 08:00-18:00"],
        "holidays": ["2026-12-24"],
        "by": "labels.team",
        "cancel": True,
        "fold": True,
        "people": {"db": {"open": ["22:00-06:00"], "leave": ["2026-11-21"], "deputy": "web"}},
    }


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    @cache
    def read(options):
        file = tmp_path_factory.mktemp("office") / "office.yaml"
        file.write_text(PIPELINE.replace("{options}", options))
        return load([file])

    return read


def message(after=timedelta(), status="firing", key="disk", receiver="", **fields):
    """A message whose time is so long after the start."""
    labels = {"receiver": receiver} if receiver else {}
    given = {"source": "test", "title": f"{key} {status}", "text": f"{after}"}
    return Message(**given | {"time": START + after, "status": status, "key": key, "labels": labels} | fields)


def send(simulation, *messages):
    """Send each at its time."""
    for one in sorted(messages, key=lambda one: one.time):
        simulation.run_until(max(simulation.now, one.time))
        simulation.accept([one])


def told(simulation, zone=BERLIN):
    """What was told, and when on the wall."""
    return [(f"{at.astimezone(zone):%a %H:%M}", one.title) for at, one in simulation.deliveries["log"]]


def receivers(simulation):
    return [(one.labels.get("receiver"), one.labels.get("deputy_for")) for _, one in simulation.deliveries["log"]]


def reason(simulation, one):
    (record,) = (record for record in simulation.records(one.id) if record.step == "hours")
    return record.reason.removeprefix("by hours: ").rpartition(" at ")[0]


def test_what_comes_outside_waits_until_the_hours_begin_and_leaves_in_order(spec_of):
    with Simulation(spec_of(OFFICE % ""), start=START) as simulation:
        send(simulation, message(), *(message((2 + number) * HOUR, key=f"{number}") for number in range(60)))
        simulation.run_until_idle()
        assert told(simulation) == [
            ("Fri 17:00", "disk firing"),
            *(("Sun 10:00", f"{number} firing") for number in range(39)),
            ("Sun 11:00", "39 firing"),
            *(("Mon 08:00", f"{number} firing") for number in range(40, 60)),
        ]


def test_holidays_are_no_days(spec_of):
    with Simulation(spec_of(OFFICE % ", holidays: [2026-03-29, 2026-03-30..2026-03-31]"), start=START) as simulation:
        send(simulation, message(2 * HOUR))
        simulation.run_until_idle()
        assert f"{simulation.now.astimezone(BERLIN):%m-%d %H:%M}" == "04-01 08:00"


def test_a_night_shift_in_the_night_in_which_the_clocks_go_back(spec_of):
    options = "{timezone: Europe/Berlin, open: [SAT 22:00-06:00]}"
    with Simulation(spec_of(options), start=datetime(2026, 10, 24, 19, 59, tzinfo=UTC)) as simulation:
        for _ in range(12):
            simulation.accept([message(key=f"{simulation.now.astimezone(BERLIN):%H:%M%z}")])
            simulation.run_until(simulation.now + HOUR)
        simulation.run_until(datetime(2026, 11, 1, 0, 0, tzinfo=UTC))
        assert [(at, title) for at, title in told(simulation) if at[4:] != title[:5]] == [
            ("Sat 22:00", "21:59+0200 firing"),
            ("Sat 22:00", "06:59+0100 firing"),
            ("Sat 22:00", "07:59+0100 firing"),
        ]
        assert len(told(simulation)) == 12


def test_what_cannot_wait_passes_at_any_time(spec_of):
    with Simulation(spec_of(OFFICE % ', pass: severity == "critical"'), start=START) as simulation:
        send(simulation, message(3 * HOUR, severity="critical"), message(3 * HOUR, key="cpu"))
        simulation.run_until_idle()
        assert told(simulation) == [("Fri 20:00", "disk firing"), ("Sun 10:00", "cpu firing")]


def test_what_comes_outside_is_dropped_on_request_and_the_reason_says_so(spec_of):
    with Simulation(spec_of(OFFICE % ", otherwise: drop"), start=START) as simulation:
        one = message(3 * HOUR)
        send(simulation, message(), one)
        simulation.run_until_idle()
        assert told(simulation) == [("Fri 17:00", "disk firing")]
        assert reason(simulation, one) == "outside of the hours: MON-FRI 08:00-18:00, SUN 10:00-12:00 Europe/Berlin"


def test_only_the_newest_of_each_key_leaves_on_request(spec_of):
    with Simulation(spec_of(OFFICE % ", fold: true"), start=START) as simulation:
        first, last = message(3 * HOUR), message(6 * HOUR, "resolved")
        send(
            simulation,
            first,
            message(4 * HOUR, key="cpu"),
            message(5 * HOUR),
            last,
            *(message(after, key="") for after in (DAY, DAY)),
        )
        simulation.run_until_idle()
        assert [title for _, title in told(simulation)] == ["cpu firing", "disk resolved", " firing", " firing"]
        assert reason(simulation, first) == f"of what waited of its key only the newest leaves, {last.id}"


def test_what_was_over_before_the_hours_began_is_told_as_it_came(spec_of):
    with Simulation(spec_of(OFFICE % ""), start=START) as simulation:
        send(simulation, message(3 * HOUR), message(4 * HOUR, "resolved"))
        simulation.run_until_idle()
        assert [title for _, title in told(simulation)] == ["disk firing", "disk resolved"]


def test_what_was_over_before_the_hours_began_is_not_told_on_request(spec_of):
    with Simulation(spec_of(CANCEL), start=START) as simulation:
        over = [message(3 * HOUR), message(4 * HOUR), message(5 * HOUR, "resolved"), message(6 * HOUR, "resolved")]
        send(simulation, *over, message(7 * HOUR, key="cpu"))
        simulation.run_until_idle(7 * DAY)
        assert told(simulation) == [("Sun 10:00", "cpu firing")]
        assert reason(simulation, over[0]) == "over at 2026-03-27 21:00:00 UTC, before the hours began"


def test_the_end_of_what_was_told_is_told(spec_of):
    """Though it was repeated while nobody was there: that is no reason to drop its resolve."""
    with Simulation(spec_of(CANCEL), start=START) as simulation:
        send(simulation, message(), message(3 * HOUR), message(4 * HOUR, "resolved"))
        send(simulation, message(30 * HOUR), message(31 * HOUR, "resolved"))
        simulation.run_until_idle(7 * DAY)
        assert told(simulation) == [("Fri 17:00", "disk firing"), ("Sun 10:00", "disk firing"), ("Sun 10:00", "disk resolved")]


def test_what_is_short_and_within_the_hours_is_told(spec_of):
    with Simulation(spec_of(CANCEL), start=START) as simulation:
        simulation.accept([message(), message(SECOND, "resolved")])
        simulation.run_until_idle(7 * DAY)
        assert told(simulation) == [("Fri 17:00", "disk firing"), ("Fri 17:00", "disk resolved")]


@pytest.mark.parametrize(
    ("at", "receiver", "gets"),
    [
        ("2026-03-27T12:00", "ann", ("ann", None)),  # a Friday
        ("2026-03-27T19:00", "ann", ("bob", "ann")),  # 14:00 in New York
        ("2026-03-28T12:00", "ann", ("cem", "ann")),  # at the weekend: the deputy's deputy
        ("2026-03-30T15:00", "ann", ("bob", "ann")),  # ann is on leave
        ("2026-03-28T12:00", "dee", ("a-service", "dee")),
        ("2026-03-27T12:00", "eve", ("eve", None)),  # nobody knows her: the hours of all
        ("2026-03-27T12:00", "", (None, None)),
    ],
)
def test_a_deputy_gets_it(spec_of, at, receiver, gets):
    with Simulation(spec_of(STAFF), start=datetime.fromisoformat(at).replace(tzinfo=BERLIN)) as simulation:
        simulation.accept([message(receiver=receiver)])
        simulation.run_until(simulation.now + SECOND)
        assert receivers(simulation) == [gets]


def test_it_waits_for_the_first_who_is_there(spec_of):
    with Simulation(spec_of(STAFF), start=datetime(2026, 3, 30, 0, 0, tzinfo=BERLIN)) as simulation:
        simulation.accept([message(receiver="ann"), message(receiver="eve")])
        simulation.run_until_idle()
        assert told(simulation) == [("Mon 08:00", "disk firing"), ("Mon 14:00", "disk firing")]  # in New York it is eight
        assert receivers(simulation) == [("eve", None), ("bob", "ann")]


@pytest.mark.parametrize("options", [STAFF, STAFF + "      cancel: true\n"])
def test_a_resolve_goes_to_the_deputy_who_was_told(spec_of, options):
    with Simulation(spec_of(options), start=START) as simulation:
        send(simulation, message(3 * HOUR, receiver="ann"), message(20 * HOUR, "resolved", receiver="ann"))
        assert receivers(simulation) == [("bob", "ann")]
        simulation.run_until(simulation.now + SECOND)
        assert receivers(simulation) == [("bob", "ann"), ("bob", "ann")]
        friday = 7 * DAY - HOUR
        send(simulation, message(friday, receiver="ann"), message(friday + MINUTE, "resolved", receiver="ann"))
        simulation.run_until_idle(DAY)
        assert receivers(simulation)[2:] == [("ann", None), ("ann", None)]


def test_what_a_deputy_was_told_of_one_person_is_nothing_to_another(spec_of):
    with Simulation(spec_of(STAFF), start=START) as simulation:
        send(simulation, message(3 * HOUR, receiver="ann"), message(3 * HOUR, receiver="dee"))
        send(simulation, *(message(4 * HOUR, "resolved", receiver=name) for name in ("ann", "dee")))
        simulation.run_until(simulation.now + SECOND)
        assert sorted(receivers(simulation)) == [("a-service", "dee")] * 2 + [("bob", "ann")] * 2


def test_a_lost_memory_costs_no_message(spec_of):
    with Simulation(spec_of(STAFF), start=START) as simulation:
        send(simulation, message(3 * HOUR, receiver="ann"))
        simulation.run_until(simulation.now + MINUTE)
        simulation.forget()
        simulation.restart()
        send(simulation, message(4 * HOUR, "resolved", receiver="ann"))
        simulation.run_until_idle()
        assert receivers(simulation) == [("bob", "ann"), ("bob", "ann")]


def test_a_deputy_for_all(spec_of):
    with Simulation(spec_of(OFFICE % ", by: labels.team, deputy: night"), start=START) as simulation:
        send(simulation, message(), message(3 * HOUR), message(4 * HOUR, key="cpu", labels={"team": "db"}))
        simulation.run_until_idle()
        assert [one.labels for _, one in simulation.deliveries["log"]] == [
            {},
            {"team": "night"},
            {"team": "night", "deputy_for": "db"},
        ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "open"),
        ({"open": []}, "open"),
        ({"open": ["08:00-18:00"], "timezone": "Berlin"}, "a time zone such as"),
        ({"open": ["08:00-18:00"], "by": "receiver"}, "by"),
        ({"open": ["08:00-18:00"], "holidays": ["2026-01-01..2027-02-01"]}, "no hours begin within a year of 2026-01-01"),
        (
            {"open": ["08:00-18:00"], "holidays": ["2027-06-01"], "people": {"ann": {"leave": ["2026-06-01..2027-06-02"]}}},
            "people.ann: no hours begin within a year of 2026-06-01",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, error):
    with pytest.raises(ValidationError, match=error):
        HoursConfig.model_validate(options)


def test_what_is_kept_is_small():
    config = HoursConfig.model_validate({"open": ["00:00-24:00"], "cancel": True})
    (kept,) = (
        one
        for one in Hours(config).release(Opened("k", [message()], None, START, START, Recollection()))
        if isinstance(one, Keep)
    )
    assert kept.value == "told"


# What may happen: at an hour, a key fires (again) or is resolved.
stories = some.lists(
    some.tuples(some.integers(0, 100), some.booleans(), some.sampled_from("ab")),
    max_size=14,
    unique_by=lambda one: (one[0], one[2]),
)


def messages_of(story, receiver=""):
    return [message(hour * HOUR, "firing" if fires else "resolved", key, receiver) for hour, fires, key in sorted(story)]


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.sampled_from(DEATHS), max_size=4), some.booleans())
@example([(hour, hour % 2 == 0, "a") for hour in range(14)], 1, ["opened", "releasing", "opening", "claimed"], False)
def test_everything_is_told_while_somebody_is_there_whoever_dies(spec_of, story, seed, deaths, staff):
    """By eight workers, with batches in any order and twice; at no time that is outside of the hours."""
    messages, spec = messages_of(story, "bob" if staff else ""), spec_of(STAFF if staff else OFFICE % "")
    with Simulation(spec, start=START, workers=8) as simulation:
        simulation.chaos(seed)
        for number, one in enumerate(messages):
            simulation.run_until(one.time)
            simulation.forget()
            if number < len(deaths):
                simulation.kill_next(deaths[number])
            simulation.accept([one])
        simulation.run_until_idle()
        texts = {(one.key, one.status, one.text) for _, one in simulation.deliveries["log"]}
        assert texts == {(one.key, one.status, one.text) for one in messages}
        staff_of = HoursConfig.model_validate(spec.pipelines["office"].filters[0].config.model_dump(by_alias=True))
        for at, one in simulation.deliveries["log"]:
            assert at in staff_of.hours_of(one.labels.get("receiver"))
        assert simulation.dead_letters() == []


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.sampled_from(DEATHS), max_size=4), some.booleans())
def test_with_cancel_what_is_told_last_is_what_holds(spec_of, story, seed, deaths, disturbed):
    """By one worker as by eight: no key is left firing that is resolved, and none that fires is silent."""
    messages = messages_of(story)
    with Simulation(spec_of(CANCEL), start=START, workers=8 if disturbed else 1) as simulation:
        for number, one in enumerate(messages):
            simulation.run_until(one.time)
            if disturbed:
                simulation.chaos(seed)
                simulation.forget()
                if number < len(deaths):
                    simulation.kill_next(deaths[number])
            simulation.accept([one])
        simulation.run_until_idle(14 * DAY)
        said = {one.key: one.status for one in messages}
        heard = {one.key: one.status for _, one in simulation.deliveries["log"]}
        assert heard.items() <= said.items()
        assert {key for key, status in said.items() if status == "firing"} <= heard.keys()
        for one in messages:
            if "over at" in reason(simulation, one) and one.status == "resolved":
                earlier = [other for other in messages if other.key == one.key and other.time < one.time]
                assert earlier


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.integers(-4, 4), min_size=3, max_size=3))
def test_in_another_order_and_with_clocks_that_differ_nothing_is_lost(spec_of, story, seed, seconds):
    messages = messages_of(story)
    skew = [second * SECOND for second in seconds]
    with Simulation(spec_of(OFFICE % ", fold: true"), start=START + 101 * HOUR, workers=3, skew=skew) as simulation:
        for one in Random(seed).sample(messages, len(messages)):
            simulation.accept([one])
            simulation.run_until(simulation.now + HOUR)
        simulation.run_until_idle()
        heard = {one.id for _, one in simulation.deliveries["log"]}
        for one in messages:
            assert one.id in heard or "only the newest leaves" in reason(simulation, one)
