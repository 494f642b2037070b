"""The filters that look at nothing but the message, in the engine: whatever dies or comes twice, the same goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import SEVERITIES, Message
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.store.rows import Outcome

START = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DEATHS = ("filtering", "settled", "worked", "delivering", "claimed")
PIPELINE = """
name: enriched
producers: [http]
filters:
  - remove: {redact: ['secret-[0-9]+']}
  - rename: {labels.env: labels.environment}
  - translate: {from: labels.host, to: {labels.owner: owner}, csv: hosts.csv, missing: drop}
  - split: {list: data.checks, fields: {severity: level}, title: "{{ item.name }} of {{ title }}", empty: pass}
  - match: {min: warning}
  - drop: {labels: [environment=test]}
  - set: {labels.runbook: "{{ labels.owner }}/{{ data.name | default('none') }}", if_empty: {labels.environment: prod}}
consumers: [log]
"""
OWNERS = {"db": "Ada", "web": "Bob"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    directory = tmp_path_factory.mktemp("enriched")
    (directory / "hosts.csv").write_text("host,owner\n" + "".join(f"{host},{owner}\n" for host, owner in OWNERS.items()))
    (directory / "enriched.yaml").write_text(PIPELINE)
    return load([directory / "enriched.yaml"])


CHECKS = st.lists(st.fixed_dictionaries({"name": st.sampled_from("xyz"), "level": st.sampled_from(SEVERITIES)}), max_size=4)
MESSAGES = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["host", "env"]), st.sampled_from(["db", "web", "test"])),
        st.none() | CHECKS,
        st.sampled_from(["info", "error"]),
    ),
    min_size=1,
    max_size=8,
)
TROUBLES = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([*DEATHS, "restart", "forget"])), max_size=5)


def expected(number, labels, checks, severity):
    """Give what goes on of a message, by hand: title, severity, labels and key."""
    owner, environment = OWNERS.get(labels.get("host")), labels.get("env", "prod")
    if owner is None or environment == "test" or checks is None:
        return []
    parts = [
        (f"{one['name']} of m{number} ***", one["level"], f"{owner}/{one['name']}", f"k{number}/{i}")
        for i, one in enumerate(checks)
    ]
    parts = parts or [(f"m{number} ***", severity, f"{owner}/none", f"k{number}")]
    named = {"host": labels["host"], "environment": environment, "owner": owner}
    return [
        (title, level, tuple(sorted((named | {"runbook": book}).items())), key)
        for title, level, book, key in parts
        if SEVERITIES.index(level) >= SEVERITIES.index("warning")
    ]


@settings(max_examples=40, deadline=None)
@given(story=MESSAGES, troubles=TROUBLES, seed=st.none() | st.integers(0, 99), workers=st.sampled_from([1, 8]))
def test_the_same_goes_on_whatever_dies(spec, story, troubles, seed, workers):
    """What goes on is what each filter says of the message alone; what does not has a reason, or lies in the dead letters."""
    with Simulation(spec, start=START, workers=workers, skew=[3 * SECOND]) as simulation:
        simulation.chaos(seed)
        sent = []
        for number, (labels, checks, severity) in enumerate(story):
            for when, what in troubles:
                if when == number:
                    getattr(simulation, what)() if what in ("restart", "forget") else simulation.kill_next(what)
            data = {} if checks is None else {"checks": checks}
            title = f"m{number} secret-{number}"
            one = simulation.message(source="t", title=title, severity=severity, labels=labels, key=f"k{number}", data=data)
            simulation.accept([one])
            sent.append(one)
        simulation.chaos(None)
        assert simulation.run_until_idle()
        wanted = [part for number, one in enumerate(story) for part in expected(number, *one)]
        told = {
            (one.title, one.severity, tuple(sorted(one.labels.items())), one.key): one.id
            for _, one in simulation.deliveries["log"]
        }
        assert {*told} == {*wanted}
        assert len({one.id for _, one in simulation.deliveries["log"]}) == len(told), "a repeat has the same id"
        buried = {letter.message.key for letter in simulation.dead_letters()}
        assert buried == {
            f"k{number}" for number, (labels, checks, _) in enumerate(story) if checks is None and labels.get("host") in OWNERS
        }
        for number, one in enumerate(sent):
            if not expected(number, *story[number]) and one.key not in buried and not story[number][1]:
                (record,) = [record for record in simulation.records(one.id) if record.outcome is Outcome.DROPPED]
                assert any(word in record.reason for word in ("no entry for labels.host", "is below warning", "the labels match"))
        if not troubles and seed is None:
            assert len(simulation.deliveries["log"]) == len(wanted)


def test_messages_are_plain(spec):
    """The oracle above is told nothing new: one message, step by step."""
    with Simulation(spec, start=START) as simulation:
        simulation.accept(
            [
                Message(
                    source="t",
                    time=START,
                    title="a secret-1",
                    labels={"host": "db"},
                    data={"checks": [{"name": "x", "level": "error"}]},
                )
            ]
        )
        simulation.run_until_idle()
        ((_, one),) = simulation.deliveries["log"]
        assert one.title == "x of a ***"
        assert one.labels == {"host": "db", "owner": "Ada", "runbook": "Ada/x", "environment": "prod"}
