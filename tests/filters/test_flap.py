"""Flap: it is told once that something flaps, and once how it ended; nothing is lost between the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from filters.flap import Flap
from filters.flap.course import MOST, Course
from filters.flap.options import FlapConfig
from pipeline import Keep, Message, Opened, Stay
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.testing import Recollection, WindowFilterContract

START = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # half an hour before the clocks of Berlin go back
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
PIPELINE = """
name: flapping
producers: [http]
filters:
  - flap: {options}
consumers: [log]
"""
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")
SLOW = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestFlap(WindowFilterContract):
    plugin = Flap
    options = {"changes": 3, "within": "5m", "stable": "10m", "settle": "30s", "by": ["labels.alertname", "key"]}


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    @cache
    def read(options):
        file = tmp_path_factory.mktemp("flapping") / "flapping.yaml"
        file.write_text(PIPELINE.replace("{options}", options))
        return load([file])

    return read


def message(after=0.0, status="firing", key="disk", **fields):
    """A message whose time is so many seconds after the start."""
    given = {"source": "test", "title": key, "text": f"{after:g}"}
    return Message(**given | {"time": START + after * SECOND, "status": status, "key": key} | fields)


def flapping(every, until, begin=0):
    """Fires and is resolved by turns."""
    return [message(after, ("firing", "resolved")[index % 2]) for index, after in enumerate(range(begin, until, every))]


def send(simulation, *messages):
    """Send each at its time."""
    for one in sorted(messages, key=lambda one: one.time):
        simulation.run_until(max(simulation.now, one.time))
        simulation.accept([one])


def told(simulation):
    """What was told: how many seconds after the start, the title, the status, and the text."""
    return [(int((at - START) / SECOND), one.title, one.status, one.text) for at, one in simulation.deliveries["log"]]


def reason(simulation, one):
    (record,) = (record for record in simulation.records(one.id) if record.step == "flap")
    return record.reason.removeprefix("by flap: ").rpartition(" at ")[0]


def test_a_rule_that_flaps_every_20_seconds_for_ten_minutes_is_told_in_three_messages(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        messages = flapping(20, 600)
        send(simulation, *messages)
        simulation.run_until_idle()
        assert told(simulation) == [
            (0, "disk", "firing", "0"),
            (80, "disk is flapping (4 changes in 1m)", "firing", "80"),
            (1180, "disk is stable again after 29 changes in 9m20s: resolved", "resolved", "580"),
        ]
        assert [one.labels.get("flapping") for _, one in simulation.deliveries["log"]] == [None, "began", "ended"]
        assert reason(simulation, messages[1]) == "it fired again at once"
        assert reason(simulation, messages[2]) == "it fires again, and that it was over was not told"
        assert reason(simulation, messages[10]) == "it flaps, with 11 changes so far"


@pytest.mark.parametrize("every", [7, 20, 59])
def test_whatever_flaps_within_settle_is_told_in_three_messages(spec_of, every):
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, *flapping(every, 600))
        simulation.run_until_idle()
        assert len(told(simulation)) == 3


def test_what_does_not_flap_passes(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, *flapping(400, 4000), message(450), message(4001, key=""), message(4002, "resolved", key=""))
        simulation.run_until_idle()
        passed = [(0, "firing"), (400, "resolved"), (450, "firing"), (800, "firing")]
        assert [(at, status) for at, _, status, _ in told(simulation)][:4] == passed
        assert len(told(simulation)) == 13


def test_a_resolve_that_comes_at_once_waits_and_passes_when_it_stays_so(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, message(0), message(20, "resolved"), message(50, "resolved"))
        simulation.run_until_idle()
        assert told(simulation) == [(0, "disk", "firing", "0"), (80, "disk", "resolved", "50")]


def test_every_resolve_passes_at_once_where_nothing_is_to_settle(spec_of):
    with Simulation(spec_of("{settle: 0s}"), start=START) as simulation:
        send(simulation, *flapping(20, 600))
        simulation.run_until_idle()
        assert [at for at, *_ in told(simulation)] == [0, 20, 40, 60, 80, 1180]


def test_what_stays_firing_is_told_so(spec_of):
    with Simulation(spec_of("{changes: 2}"), start=START) as simulation:
        send(simulation, *flapping(20, 300), *(message(300 + 100 * more) for more in range(20)))
        simulation.run_until_idle()
        assert told(simulation) == [
            (0, "disk", "firing", "0"),
            (40, "disk is flapping (2 changes in 20s)", "firing", "40"),
            (880, "disk is stable again after 14 changes in 4m20s: firing", "firing", "800"),
            *((at, "disk", "firing", f"{at}") for at in range(900, 2300, 100)),
        ]


def test_what_becomes_graver_while_it_flaps_is_told_at_once_and_once(spec_of):
    grave = [one.replace(severity="critical" if after >= 10 else "warning") for after, one in enumerate(flapping(20, 600))]
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, *grave)
        simulation.run_until_idle()
        assert [(at, title) for at, title, *_ in told(simulation)][1:3] == [
            (80, "disk is flapping (4 changes in 1m)"),
            (200, "disk is flapping, and critical now"),
        ]
        labels = [one.labels.get("flapping") for _, one in simulation.deliveries["log"]]
        assert labels == [None, "began", "worse", "ended"]


def test_it_flaps_again_and_is_told_again(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, *flapping(20, 600), *flapping(20, 2600, begin=2000))
        simulation.run_until_idle()
        assert [one.labels.get("flapping") for _, one in simulation.deliveries["log"]] == [None, "began", "ended"] * 2


def test_an_engine_that_was_down_tells_the_same_story(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        simulation.accept(flapping(20, 600))
        simulation.now = START + HOUR
        simulation.run_until_idle()
        titles = ["disk", "disk is flapping (4 changes in 1m)", "disk is stable again after 29 changes in 9m20s: resolved"]
        assert [title for _, title, *_ in told(simulation)] == titles


def test_a_restart_and_a_lost_memory_change_nothing(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        for one in flapping(20, 600):
            send(simulation, one)
            simulation.restart()
            simulation.forget()
        simulation.run_until_idle()
        assert [at for at, *_ in told(simulation)] == [0, 80, 1180]


def test_a_time_that_is_years_ahead_keeps_nothing_for_years(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        simulation.accept([message(0)])
        simulation.run_until(START + SECOND)
        simulation.accept([message(10**9, "resolved")])
        simulation.run_until_idle(HOUR)
        assert [status for *_, status, _ in told(simulation)] == ["firing", "resolved"]


def test_what_fires_at_the_time_of_an_end_that_waits_is_told_in_one_way(spec_of):
    """What waits when its key is looked at is not looked at again."""
    over, again = message(20, "resolved", id="f" * 32), message(20, id="0" * 32)
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, message(0), over)
        simulation.run_until(START + 30 * SECOND)
        simulation.accept([again])
        simulation.run_until_idle()
        assert [(at, status) for at, _, status, _ in told(simulation)] == [(0, "firing")]
        assert reason(simulation, over) == "it fired again at once"


def test_a_sender_whose_clock_is_put_back_is_not_silenced(spec_of):
    with Simulation(spec_of("{}"), start=START) as simulation:
        send(simulation, message(0), message(1200, "resolved"))
        simulation.run_until(START + 1261 * SECOND)
        simulation.accept([message(1261 - 3600)])
        simulation.run_until(START + 1800 * SECOND)
        simulation.accept([message(1800 - 3600, "resolved")])
        simulation.run_until_idle()
        assert [(at, status) for at, _, status, _ in told(simulation)] == [
            (0, "firing"),
            (1200, "resolved"),
            (1261, "firing"),
            (1800, "resolved"),
        ]


@pytest.mark.parametrize(
    "options",
    [{"changes": 1}, {"changes": 31}, {"within": "0s"}, {"stable": "0s"}, {"within": "10s", "settle": "1m"}, {"by": "nonsense"}],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValidationError):
        FlapConfig.model_validate(options)


def test_what_is_kept_and_what_waits_is_bounded():
    """After two thousand changes one message waits, and the store keeps less than 3 kB for the key."""
    filter_ = Flap(FlapConfig(changes=30))
    kept, waiting = None, []
    for number in range(2000):
        one, now = message(number, ("firing", "resolved")[number % 2]), START + number * SECOND
        out = [*filter_.release(Opened("k", [*waiting, one], kept, now, now, Recollection()))]
        kept = msgspec.json.decode(msgspec.json.encode(next(one.value for one in out if isinstance(one, Keep))))
        waiting = [one.message for one in out if isinstance(one, Stay)]
        assert len(waiting) <= 1
    assert kept["changes"] == 1999
    assert len(kept["course"]) == MOST
    assert len(msgspec.json.encode(kept)) < 3000


def test_how_it_ended_is_told_even_where_the_message_that_waited_is_gone():
    """Somebody may have buried it: then what is kept is enough to say so."""
    filter_, changes = Flap(FlapConfig(changes=2)), [message(0), message(1, "resolved"), message(2)]
    now = START + 2 * SECOND
    kept = next(
        one.value for one in filter_.release(Opened('["disk"]', changes, None, now, now, Recollection())) if isinstance(one, Keep)
    )
    later = now + HOUR
    told, _ = filter_.release(Opened('["disk"]', [], kept, later, later, Recollection()))
    assert (told.title, told.status) == ('["disk"] is stable again after 2 changes in 1s: firing', "firing")


# What may happen: at each moment, in steps of ten seconds, a key fires (again) or is resolved.
stories = some.lists(
    some.tuples(some.integers(0, 120), some.booleans(), some.sampled_from("ab")),
    max_size=20,
    unique_by=lambda one: (one[0], one[2]),
)


def messages_of(story):
    return [message(10 * moment, "firing" if fires else "resolved", key) for moment, fires, key in sorted(story)]


def last_said(messages):
    """The status that each key has in the end."""
    return {one.key: one.status for one in sorted(messages, key=lambda one: one.time)}


def last_told(simulation):
    return {one.key: one.status for _, one in simulation.deliveries["log"]}


@given(stories, some.randoms(use_true_random=False))
def test_changes_are_counted_once_each_and_none_that_was_not(story, random):
    """In order exactly, also where messages come twice; in another order none is made up, and the status in the end is right."""
    messages = [one for one in messages_of(story) if one.key == "a"]
    statuses = [one.status for one in messages]
    changes = sum(before != after for before, after in pairwise(statuses))
    twice = [again for number, one in enumerate(messages) for again in (one, *messages[max(0, number - 2) : number])]
    for sequence, exact in ((twice, True), (random.sample(messages, len(messages)) + messages[::2], False)):
        course = Course([], within=HOUR)
        added = sum(course.add(one, one.time) for one in sequence)
        assert added == course.changes
        assert added == changes if exact else added <= changes
        assert [moment.firing for moment in course.moments][-1:] == [status == "firing" for status in statuses[-1:]]


@SLOW
@given(stories)
@example([(moment, moment % 2 == 0, "a") for moment in range(20)])
def test_what_is_told_last_is_what_holds(spec_of, story):
    messages = messages_of(story)
    with Simulation(spec_of("{changes: 3, within: 5m, stable: 5m}"), start=START) as simulation:
        send(simulation, *messages)
        simulation.run_until_idle()
        assert last_told(simulation) == last_said(messages)
        for one in messages:
            assert [record.outcome.value for record in simulation.records(one.id) if record.step == "flap"] != ["held"]
        labels = [one.labels.get("flapping") for _, one in simulation.deliveries["log"] if one.key == "a"]
        assert [label for label in labels if label] == ["began", "ended"] * labels.count("began")
        assert simulation.dead_letters() == []


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.sampled_from(DEATHS), max_size=4))
@example([(2 * moment, moment % 2 == 0, "a") for moment in range(20)], 1, ["opened", "releasing", "opening", "claimed"])
def test_eight_workers_that_die_and_forget_tell_the_same(spec_of, story, seed, deaths):
    """Batches in any order and twice, and workers that die at any point: what is told is the same, if some of it twice."""
    messages, said = messages_of(story), []
    for workers, disturbed in ((1, False), (8, True)):
        with Simulation(spec_of("{changes: 3, within: 5m, stable: 5m}"), start=START, workers=workers) as simulation:
            for number, one in enumerate(messages):
                simulation.run_until(one.time)
                if disturbed:
                    simulation.chaos(seed + number)
                    simulation.forget()
                    if number < len(deaths):
                        simulation.kill_next(deaths[number])
                simulation.accept([one])
            simulation.run_until_idle()
            said.append({(one.key, one.title, one.status, one.text) for _, one in simulation.deliveries["log"]})
            assert simulation.dead_letters() == []
    assert said[0] == said[1]


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.integers(-4, 4), min_size=3, max_size=3))
def test_late_messages_and_clocks_that_differ_by_seconds_leave_the_right_status(spec_of, story, seed, seconds):
    """As long as what is overtaken comes within a minute; later than that, what fires is told rather than silenced."""
    messages = messages_of(story)
    skew = [second * SECOND for second in seconds]
    options = "{changes: 3, within: 5m, stable: 5m}"
    with Simulation(spec_of(options), start=START + 20 * MINUTE, workers=3, skew=skew) as simulation:
        for one in Random(seed).sample(messages, len(messages)):
            simulation.accept([one])
            simulation.run_until(simulation.now + 2 * SECOND)
        simulation.run_until_idle()
        assert last_told(simulation) == last_said(messages)
