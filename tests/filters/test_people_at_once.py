"""Receivers and a consumer's own `render` in the engine: whatever dies or comes twice, everybody who is named is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import Message, TemporaryError
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.redrive import Redrive
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.store.selection import Selection

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DEATHS = ("filtering", "settled", "worked", "delivering", "claimed")
KNOWN = {"ann", "bob", "carl"}
PIPELINE = """
name: people
producers: [http]
filters:
  - receivers:
      users: {ann: {chat: 1}, bob: {chat: 2}, carl: {chat: 3}}
      to: labels.by
consumers:
  - log:
    render: {title: "{{ title }} for {{ labels.receiver }}", text: "{{ labels.team }}"}
  - file: {path: all.jsonl}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("people") / "people.yaml"
    file.write_text(PIPELINE)
    return load([file])


STORY = st.lists(
    st.tuples(st.lists(st.sampled_from([*sorted(KNOWN), "dora", "emil"]), max_size=4, unique=True), st.booleans()), max_size=8
)
TROUBLES = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([*DEATHS, "restart", "forget", "away"])), max_size=5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=STORY,
    troubles=TROUBLES,
    seed=st.none() | st.integers(0, 99),
    workers=st.sampled_from([1, 8]),
    skews=st.lists(st.integers(-4, 4), max_size=1),
)
def test_everybody_who_is_named_is_told_and_the_rest_is_in_the_dead_letters(spec, story, troubles, seed, workers, skews):
    with Simulation(spec, start=START, workers=workers, skew=[skew * SECOND for skew in skews]) as simulation:
        simulation.chaos(seed)
        for number, (names, has_team) in enumerate(story):
            for when, what in troubles:
                if when == number:
                    trouble(simulation, what)
            labels = {"by": ",".join(names)} | ({"team": "db"} if has_team else {})
            simulation.accept([Message(source="t", title=f"m{number}", time=START, labels=labels)])
            simulation.run_until(simulation.now + 2 * SECOND)
        simulation.chaos(None)
        assert simulation.run_until_idle()
        named = [(f"m{number}", name, has_team) for number, (names, has_team) in enumerate(story) for name in names]
        told = {one.title for _, one in simulation.deliveries["log"]}
        assert told == {f"{title} for {name}" for title, name, has_team in named if name in KNOWN and has_team}
        filed = {(one.title, one.labels["receiver"]) for _, one in simulation.deliveries["file"]}
        assert filed == {(title, name) for title, name, _ in named if name in KNOWN}
        dead = {
            (letter.step, letter.message.title, letter.message.labels.get("receiver", "")) for letter in simulation.dead_letters()
        }
        unrendered = {("log", title, name) for title, name, has_team in named if name in KNOWN and not has_team}
        unknown = {("receivers", f"m{number}", "") for number, (names, _) in enumerate(story) if {*names} - KNOWN or not names}
        assert dead == unrendered | unknown
        if not troubles and seed is None:
            assert len(simulation.deliveries["log"]) == len(told)


def trouble(simulation, what):
    """Lets a worker or a clock die, or something be away for a while."""
    if what == "away":
        simulation.fail("log", TemporaryError("away"), for_=30 * SECOND)
    elif what in ("restart", "forget"):
        getattr(simulation, what)()
    else:
        simulation.kill_next(what)


def test_who_is_told_by_a_label_of_strangers_is_nobody_where_it_is_removed_before(tmp_path):
    """A sender may name `receiver_unknown`; a copy that is redriven goes on behind that step, and keeps its own."""
    file = tmp_path / "people.yaml"
    file.write_text(PIPELINE.replace("filters:\n", "filters:\n  - remove: [labels.receiver_*]\n"))
    labels = {"by": "ann, dora", "team": "db", "receiver_unknown": "name:bob"}
    with Simulation(spec := load([file]), start=START) as simulation:
        simulation.accept([Message(source="t", title="m", time=START, labels=labels)])
        assert simulation.run_until_idle()
        for _ in range(2):
            assert [one.labels["receiver"] for _, one in simulation.deliveries["file"] if one.title == "m"] == ["ann"]
            assert [letter.message.labels["receiver_unknown"] for letter in simulation.dead_letters()] == ["name:dora"]
            simulation.run_until(simulation.now + SECOND)
            (moved,) = Redrive(Pipelines(spec), simulation.store, now=lambda: simulation.now).run(Selection())
            assert sum(moved.left.values()) == 1
            other = Message(source="t", title="n", time=START, labels={"by": "bob", "team": "db"})
            simulation.accept([other])  # so that it looks at the store, which somebody else has changed
            assert simulation.run_until_idle()
