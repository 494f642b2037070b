"""An alert that Prometheus sends each minute, under one id for as long as it fires, and the filters that let messages wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import Request
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FILTERS = {
    "hold": "hold: {for: 2m}",
    "flap": "flap: {changes: 9, within: 10m, stable: 10m}",
    "hours": "hours: {open: ['MON-FRI 08:00-13:00'], timezone: UTC, cancel: true}",
    "inhibit": 'inhibit: [{source: alertname="Cause", target: alertname!="Cause"}]',
    "group": "group: {by: [labels.alertname], wait: 10s, interval: 1m}",
}


@pytest.fixture
def simulation(tmp_path):
    def simulate(step, start=START):
        file = tmp_path / "again.yaml"
        file.write_text(f"name: again\nproducers: [prometheus]\nfilters:\n  - {step}\nconsumers: [log]\n")
        return Simulation(load([file]), start=start, workers=2)

    return simulate


class Prometheus:
    """Posts what fires each minute, and what is over for some minutes; it says of each that it ends in four minutes."""

    def __init__(self, simulation):
        self.simulation = simulation
        self.alerts: dict[str, list[datetime | None]] = {}

    def fires(self, *names):
        self.alerts |= {name: [self.now, None] for name in names}

    def over(self, *names):
        for name in names:
            self.alerts[name][1] = self.now

    @property
    def now(self):
        return self.simulation.now

    def minutes(self, number):
        for _ in range(number):
            body = [
                {
                    "labels": {"alertname": name},
                    "startsAt": begun.isoformat(),
                    "endsAt": (over or self.now + 4 * MINUTE).isoformat(),
                }
                for name, (begun, over) in self.alerts.items()
                if over is None or over + 5 * MINUTE > self.now
            ]
            path = "/in/again/prometheus/api/v2/alerts"
            request = Request(json.dumps(body).encode(), {"content-type": "application/json"}, path=path)
            assert self.simulation.send("prometheus", request).status == 200
            self.simulation.run_until(self.now + MINUTE)


def told(simulation):
    return [(message.status, message.time) for _, message in simulation.deliveries["log"]]


@pytest.mark.parametrize("step", FILTERS.values(), ids=FILTERS)
def test_each_time_that_an_alert_fires_is_told_once_and_so_is_its_end(simulation, step):
    with simulation(step) as running:
        prometheus = Prometheus(running)
        for _ in range(2):
            prometheus.fires("A")
            prometheus.minutes(20)
            prometheus.over("A")
            prometheus.minutes(10)
        running.run_until(START + timedelta(days=1))
        assert [status for status, _ in told(running)] == ["firing", "resolved"] * 2
        assert running.dead_letters() == []


@pytest.mark.parametrize("step", FILTERS.values(), ids=FILTERS)
def test_an_alert_of_which_nothing_was_heard_for_a_while_is_not_lost(simulation, step):
    """Its Prometheus was down for half an hour, and goes on to send it under the same start, which is the same id."""
    with simulation(step) as running:
        prometheus = Prometheus(running)
        prometheus.fires("A")
        prometheus.minutes(10)
        running.run_until(running.now + 30 * MINUTE)
        prometheus.minutes(10)
        statuses = [status for status, _ in told(running)]
        assert statuses[-1] == "firing", "whoever reads it knows that it fires"
        prometheus.over("A")
        prometheus.minutes(10)
        running.run_until(START + timedelta(days=1))
        assert [status for status, _ in told(running)][-1] == "resolved"


def test_each_window_of_throttle_has_its_summary_though_the_same_alerts_come(simulation):
    with simulation("throttle: {most: 1, within: 10m}") as running:
        prometheus = Prometheus(running)
        prometheus.fires("A", "B", "C")
        prometheus.minutes(31)
        summaries = [message for _, message in running.deliveries["log"] if message.type == "summary"]
        assert len(summaries) == 3
        assert len({message.id for message in summaries}) == 3


def test_a_digest_is_not_full_of_what_is_sent_again(simulation):
    with simulation("digest: {within: 1h, most: 200}") as running:
        prometheus = Prometheus(running)
        prometheus.fires(*(f"A{number}" for number in range(20)))
        prometheus.minutes(30)
        prometheus.fires("late")
        prometheus.minutes(31)
        assert [(at - START, message.data["count"]) for at, message in running.deliveries["log"]] == [(timedelta(hours=1), 21)]
