"""`siftbell consumers`: what it shows of open circuits, and how a person closes one."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import Message
from pipeline.store import Store
from pipeline.store.circuits import PARKED
from pipeline.store.rows import Circuit, CircuitState, Held, Lined, Why

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAR = datetime(2126, 3, 1, 12, 10, tzinfo=UTC)


@pytest.fixture
def outage(project: Path, siftbell) -> Store:
    """A store in which one consumer's circuit is open and three messages wait for it."""
    assert siftbell("db", "upgrade").code == 0
    file = project / "configs" / "alerts.yaml"
    file.write_text(file.read_text().replace("    as: oncall\n", "    as: oncall\n    rate: 20/s\n"))
    store = Store(f"sqlite:///{project / '.siftbell' / 'store.db'}")
    held = [
        Held(
            message=Message(source="t"),
            pipeline="alerts",
            step="oncall",
            why=Why.RETRY,
            due=FAR - timedelta(seconds=1),
            key=PARKED,
        )
        for _ in range(3)
    ]
    store.settle(held=held)
    opened = Circuit(
        pipeline="alerts",
        step="oncall",
        state=CircuitState.OPEN,
        failures=7,
        openings=3,
        since=START,
        until=FAR,
        error="no\x1b connection",
        version=1,
    )
    assert store.change_circuit(opened)
    yield store
    store.close()


def test_list_shows_every_consumer(outage: Store, siftbell) -> None:
    done = siftbell("consumers", "list", "-o", "json")
    assert done.code == 0
    assert done.json == [
        {
            "pipeline": "alerts",
            "consumer": "oncall",
            "plugin": "tell",
            "when": None,
            "circuit": "open",
            "since": "2026-03-01T12:00:00Z",
            "failures": 7,
            "error": "no\x1b connection",
            "next_try": "2126-03-01T12:10:00Z",
            "held": 3,
            "rate": "20/s",
        },
        {
            "pipeline": "alerts",
            "consumer": "tell",
            "plugin": "tell",
            "when": 'severity == "critical"',
            "circuit": "closed",
            "since": None,
            "failures": 0,
            "error": None,
            "next_try": None,
            "held": 0,
            "rate": None,
        },
    ]
    table = siftbell("consumers", "list").out
    assert "\x1b" not in table
    assert re.search(r'tell +tell +closed +0 +0 +severity == "critical"', table)
    assert "circuit: open" in siftbell("consumers", "list", "-o", "yaml").out


def test_the_table_says_how_long_ago_and_how_soon(outage: Store, siftbell) -> None:
    shown = siftbell("consumers", "list").out
    assert re.search(r"open +\d+ d (\d+ h )?ago +7 +in \d+ d ", shown)
    assert "2126-03" not in shown


def test_a_narrow_terminal_has_the_errors_below(outage: Store, siftbell, monkeypatch) -> None:
    (circuit,) = outage.circuits()
    now, hours = datetime.now(UTC), timedelta(days=200, hours=13, minutes=30)  # with days alone the name has room on one line
    assert outage.change_circuit(replace(circuit, since=now - hours, until=now + hours, version=circuit.version + 1))
    monkeypatch.setattr("pipeline.cli.output.UNBOUNDED", 80)
    shown = siftbell("consumers", "list").out
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"\nalerts/oncall +open +200 d 13 h ago +7 +in 200 d 13 h +3 +20/s *\n\(tell\)", shown)
    assert re.search(r"\nalerts/tell +closed +0 +0", shown)
    assert shown.endswith("\n\nalerts/oncall (tell): no\\x1b connection\n")


def test_list_counts_who_stands_in_line(outage: Store, siftbell) -> None:
    lined = [Lined(message=Message(source="t", key="db-1"), pipeline="alerts", step="oncall", due=START) for _ in range(2)]
    outage.settle(lined=lined)
    assert [row["held"] for row in siftbell("consumers", "list", "-o", "json").json] == [5, 0]


def test_close_brings_back_what_waits(outage: Store, siftbell) -> None:
    done = siftbell("consumers", "close", "alerts", "oncall")
    assert (done.code, done.err) == (0, "the circuit of oncall is closed\n")
    assert outage.circuit("alerts", "oncall").state is CircuitState.CLOSED
    assert outage.next_due() < FAR - timedelta(days=1)
    assert siftbell("consumers", "close", "alerts", "oncall").err == "the circuit of oncall was closed before\n"


def test_close_knows_what_there_is(outage: Store, siftbell) -> None:
    done = siftbell("consumers", "close", "alerts", "oncal")
    assert (done.code, done.err) == (4, "siftbell: pipeline 'alerts' has no consumer 'oncal': there are oncall, tell\n")
    assert siftbell("consumers", "close", "allerts", "oncall").code == 4
