"""Hold: what lasts is told, what is over before is not, and nothing that lasts is ever lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from filters.hold import Hold
from filters.hold.options import HoldConfig
from pipeline import Keep, Message, Opened
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.testing import Recollection, WindowFilterContract

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # half an hour before the clocks of Berlin go forward
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PIPELINE = """
name: holding
producers: [http]
filters:
  - hold: {options}
consumers: [log]
"""
FIVE = "{for: 5m}"
URGENT = '{for: 5m, pass: severity == "critical"}'
DEATHS = ("filtering", "settled", "worked", "claimed", "opening", "opened", "releasing")
SLOW = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestHold(WindowFilterContract):
    plugin = Hold
    options = {"for": "5m", "by": ["labels.alertname", "key"], "pass": 'severity == "critical"', "tell": "text"}


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory):
    @cache
    def read(options):
        file = tmp_path_factory.mktemp("holding") / "holding.yaml"
        file.write_text(PIPELINE.replace("{options}", options))
        return load([file])

    return read


def message(after=0.0, status="firing", key="disk", **fields):
    """A message whose time is so many seconds after the start."""
    given = {"source": "test", "title": f"{key} {status} {after:g}"}
    return Message(**given | {"time": START + after * SECOND, "status": status, "key": key} | fields)


def send(simulation, *messages):
    """Send each at its time."""
    for one in sorted(messages, key=lambda one: one.time):
        simulation.run_until(max(simulation.now, one.time))
        simulation.accept([one])


def told(simulation):
    """What was told, and how many seconds after the start."""
    return [(round((at - START) / SECOND), one.title) for at, one in simulation.deliveries["log"]]


def reason(simulation, one):
    (record,) = (record for record in simulation.records(one.id) if record.step == "hold")
    return record.reason.removeprefix("by hold: ").rpartition(" at ")[0]


def test_what_lasts_is_told_when_it_has_lasted(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, message(0))
        simulation.run_until_idle()
        assert told(simulation) == [(300, "disk firing 0")]


def test_what_is_over_before_is_not_told(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        began, over = message(0), message(120, "resolved")
        send(simulation, began, over)
        simulation.run_until_idle()
        assert told(simulation) == []
        assert {reason(simulation, one) for one in (began, over)} == {"over after 2m, before 5m"}


def test_the_newest_is_told_and_the_first_ones_time_counts(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        first, second, third = message(0), message(100), message(200)
        send(simulation, first, second, third)
        simulation.run_until_idle()
        assert told(simulation) == [(300, "disk firing 200")]
        assert reason(simulation, first) == f"{second.id} is newer, and waits in its place"


def test_repeats_and_the_resolve_of_what_was_told_pass_at_once(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, message(0), message(400), message(500, "resolved"), message(501, "resolved"), message(600))
        simulation.run_until_idle()
        assert told(simulation) == [
            (300, "disk firing 0"),
            (400, "disk firing 400"),
            (500, "disk resolved 500"),
            (501, "disk resolved 501"),
            (900, "disk firing 600"),
        ]


def test_what_is_about_nothing_passes_at_once(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, message(0, key=""))
        simulation.run_until_idle()
        assert told(simulation) == [(0, " firing 0")]


def test_a_resolve_of_something_unknown_passes_and_a_second_one_of_what_was_not_told_does_not(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        again = message(130, "resolved", key="cpu")
        send(simulation, message(0, "resolved"), message(10, key="cpu"), message(120, "resolved", key="cpu"), again)
        simulation.run_until_idle()
        assert told(simulation) == [(0, "disk resolved 0")]
        assert reason(simulation, again) == "it was over before, and nobody was told of it"


def test_what_cannot_wait_passes_and_counts_as_told(spec_of):
    with Simulation(spec_of(URGENT), start=START) as simulation:
        grave = message(60, severity="critical")
        send(simulation, message(0, severity="warning"), grave, message(90, severity="warning"), message(100, "resolved"))
        simulation.run_until_idle()
        assert told(simulation) == [(60, "disk firing 60"), (90, "disk firing 90"), (100, "disk resolved 100")]


def test_its_sender_knows_since_when_it_lasts(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        simulation.accept([message(-1800), message(10**9, key="a clock that is years ahead")])
        simulation.run_until_idle()
        assert told(simulation) == [(0, "disk firing -1800"), (360, "a clock that is years ahead firing 1e+09")]


@pytest.mark.parametrize(
    ("tell", "told"),
    [("text", ["It has lasted for 5m.", "full\nIt lasted 10m."]), ("data", [{"lasted": "5m"}, {"x": 1, "lasted": "10m"}])],
)
def test_how_long_it_has_lasted(spec_of, tell, told):
    with Simulation(spec_of(f"{{for: 5m, tell: {tell}}}"), start=START) as simulation:
        send(simulation, message(0), message(600, "resolved", text="full", data={"x": 1}))
        simulation.run_until_idle()
        assert [getattr(one, tell) for _, one in simulation.deliveries["log"]] == told


def test_what_was_told_is_remembered_for_a_while(spec_of):
    with Simulation(spec_of("{for: 5m, remember: 1d}"), start=START) as simulation:
        send(simulation, message(0), message(80_000), message(200_000))
        simulation.run_until_idle()
        assert told(simulation) == [(300, "disk firing 0"), (80_000, "disk firing 80000"), (200_300, "disk firing 200000")]


@pytest.mark.parametrize("repeated", [False, True])
def test_what_fires_and_is_over_at_one_time_is_over_whichever_id_comes_first(spec_of, repeated):
    """As heartbeats have it, whose ids sort by chance."""
    began, over = message(0, id="f" * 32), message(0, "resolved", id="0" * 32)
    with Simulation(spec_of(FIVE), start=START) as simulation:
        simulation.accept([began] if repeated else [began, over])
        simulation.run_until(START + 10 * SECOND)
        simulation.accept([over])
        simulation.run_until_idle()
        assert told(simulation) == []
        assert {reason(simulation, one) for one in (began, over)} == {"over after 0s, before 5m"}


def test_what_waits_with_a_time_that_is_years_ahead_is_over_all_the_same(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        simulation.accept([message(10**9)])
        simulation.run_until(START + 2 * MINUTE)
        simulation.accept([message(120, "resolved")])
        simulation.run_until_idle()
        assert told(simulation) == []


def test_a_sender_whose_clock_is_put_back_is_not_silenced(spec_of):
    """At 20 minutes it says that it is over; a minute later it is an hour earlier, and fires."""
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, message(0), message(1200, "resolved"))
        simulation.run_until(START + 1261 * SECOND)
        simulation.accept([anew := message(1261 - 3600)])
        simulation.run_until(START + 1800 * SECOND)
        simulation.accept([message(1800 - 3600, "resolved")])
        simulation.run_until_idle()
        assert [title for _, title in told(simulation)][2:] == [anew.title, "disk resolved -1800"]
        assert 1261 < told(simulation)[2][0] <= 1261 + 300


def test_what_was_overtaken_by_its_end_is_over(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        simulation.accept([message(10, "resolved")])
        simulation.run_until(START + 50 * SECOND)
        simulation.accept([late := message(0)])
        simulation.run_until_idle()
        assert [title for _, title in told(simulation)] == ["disk resolved 10"]
        assert reason(simulation, late) == "older than what is known, of 2026-03-29 00:30:10 UTC"


def test_a_restart_changes_nothing(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, message(0), message(1, key="cpu"))
        simulation.run_until(START + MINUTE)
        simulation.restart()
        simulation.forget()
        send(simulation, message(200, "resolved", key="cpu"))
        simulation.run_until_idle()
        assert told(simulation) == [(300, "disk firing 0")]


def test_an_engine_that_was_down_tells_what_lasted_meanwhile_and_nothing_else(spec_of):
    with Simulation(spec_of(FIVE), start=START) as simulation:
        lasted = [message(0), message(400, "resolved")]
        simulation.accept([*lasted, message(0, key="cpu"), message(60, "resolved", key="cpu")])
        simulation.now = START + HOUR  # nobody worked for an hour
        simulation.run_until_idle()
        assert [title for _, title in told(simulation)] == ["disk firing 0", "disk resolved 400"]


@pytest.mark.parametrize("options", [{}, {"for": "0s"}, {"for": "5m", "by": ["nonsense"]}, {"for": "5m", "tell": "title"}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValidationError):
        HoldConfig.model_validate(options)


def test_the_manual_shows_a_default_as_it_is_written():
    assert str(HoldConfig.model_validate({"for": "5m"}).by) == "[key]"


def test_what_is_kept_is_small():
    """What the store keeps for a key: bytes of JSON."""
    config = HoldConfig.model_validate({"for": "5m"})
    opened = Opened("k", [message(0), message(1)], None, START, START + SECOND, Recollection())
    (kept,) = (one for one in Hold(config).release(opened) if isinstance(one, Keep))
    assert len(str(kept.value)) < 220


# What may happen: at each moment, in steps of ten seconds, a key fires (again) or is resolved.
stories = some.lists(
    some.tuples(some.integers(0, 90), some.booleans(), some.sampled_from("ab")),
    max_size=14,
    unique_by=lambda one: (one[0], one[2]),
)


def messages_of(story):
    return [message(10 * moment, "firing" if fires else "resolved", key) for moment, fires, key in sorted(story)]


def expected(messages):
    """What is to be told, said in another way: the newest of what lasts at its time, and what follows."""
    found = []
    for key in {one.key for one in messages}:
        since, waiting, told = None, None, None
        for one in [*(one for one in messages if one.key == key), None]:
            if since is not None and waiting is not None and (one is None or one.time >= since + 5 * MINUTE):
                found.append((since + 5 * MINUTE, waiting.id))
                waiting, told = None, True
            if one is None:
                break
            if one.status == "firing":
                since, told = (one.time, False) if since is None else (since, told)
                if told:
                    found.append((one.time, one.id))
                else:
                    waiting = one
            else:
                if waiting is None and told is not False:
                    found.append((one.time, one.id))
                    told = True
                since, waiting = None, None
    return sorted(found)


@SLOW
@given(stories)
def test_exactly_what_lasts_is_told(spec_of, story):
    messages = messages_of(story)
    with Simulation(spec_of(FIVE), start=START) as simulation:
        send(simulation, *messages)
        simulation.run_until_idle()
        assert sorted((at.replace(microsecond=0), one.id) for at, one in simulation.deliveries["log"]) == expected(messages)
        assert simulation.dead_letters() == []


@SLOW
@given(stories, some.integers(0, 10**6), some.lists(some.sampled_from(DEATHS), max_size=4), some.booleans())
def test_eight_workers_that_die_and_forget_tell_the_same(spec_of, story, seed, deaths, forgets):
    """Batches in any order and twice, and workers that die at any point: what is told is the same, if some of it twice."""
    messages = messages_of(story)
    with Simulation(spec_of(FIVE), start=START, workers=8) as simulation:
        simulation.chaos(seed)
        for number, one in enumerate(messages):
            simulation.run_until(one.time)
            if number < len(deaths):
                simulation.kill_next(deaths[number])
            if forgets:
                simulation.forget()
            simulation.accept([one])
        simulation.run_until_idle()
        assert {one.id for _, one in simulation.deliveries["log"]} == {one for _, one in expected(messages)}
        assert simulation.dead_letters() == []


@SLOW
@given(stories, some.integers(0, 10**6))
def test_what_comes_late_and_in_another_order_does_not_hide_what_lasts(spec_of, story, seed):
    """Each key ends in firing and then stays so: whatever comes in whichever order, its last message or a newer one is told."""
    messages = [*messages_of(story), message(1000, key="a"), message(1000, key="b")]
    with Simulation(spec_of(FIVE), start=START + 20 * MINUTE) as simulation:
        simulation.chaos(seed)
        for one in Random(seed).sample(messages, len(messages)):
            simulation.accept([one])
            simulation.run_until(simulation.now + SECOND)
        simulation.run_until_idle()
        last = {one.key: one.title for _, one in simulation.deliveries["log"]}
        assert last == {"a": "a firing 1000", "b": "b firing 1000"}


@SLOW
@given(stories, some.lists(some.integers(-4, 4), min_size=3, max_size=3))
@example([(0, True, "a"), (30, False, "a")], [4, -4, 0])
def test_clocks_that_differ_by_seconds_lose_nothing(spec_of, story, seconds):
    """What is told differs only where a resolve comes within those seconds of the time at which it would have been told."""
    messages = messages_of(story)
    with Simulation(spec_of(FIVE), start=START, workers=3, skew=[second * SECOND for second in seconds]) as simulation:
        send(simulation, *messages)
        simulation.run_until_idle()
        assert {one.id for _, one in simulation.deliveries["log"]} >= {one for _, one in expected(messages)}
