"""docs/mapping.md: whatever a message comes from, one condition holds for it; and the words are those of the code."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from pipeline import Condition, Message, Request, message, normal_severity, normal_status
from producers.http import Http, HttpConfig
from producers.prometheus import Prometheus
from producers.prometheus.options import PrometheusConfig
from producers.sql import Sql
from producers.sql.options import SqlConfig

PAGE = Path(__file__).parents[1] / "docs" / "mapping.md"
CONDITION = 'severity in ["critical", "error"] && labels.team == "db" && key != "" && status == "firing"'
LABELS = {"alertname": "DiskFull", "severity": "major", "team": "db"}
STARTED = "2026-11-20T08:30:00Z"


def posted(producer, body, path="/") -> list[Message]:
    return list(producer.receive(Request(json.dumps(body).encode(), {"content-type": "application/json"}, path=path)))


def polled(producer) -> list[Message]:
    producer.open()
    with closing(producer):
        return [message for message, _ in producer.poll(None) if message is not None]


def by_http(*_) -> list[Message]:
    return posted(Http(HttpConfig()), {"title": "t", "severity": "major", "labels": {"team": "db"}, "key": "k"})


def by_alertmanager(*_) -> list[Message]:
    return posted(Prometheus(PrometheusConfig()), {"version": "4", "alerts": [{"labels": LABELS, "startsAt": STARTED}]})


def by_prometheus(*_) -> list[Message]:
    return posted(Prometheus(PrometheusConfig()), [{"labels": LABELS, "startsAt": STARTED}], "/in/a/prometheus/api/v2/alerts")


def of_alerts(server: HTTPServer, _: Path) -> list[Message]:
    alerts = [{"labels": LABELS, "annotations": {}, "state": "firing", "activeAt": STARTED, "value": "1"}]
    server.expect_request("/api/v1/alerts").respond_with_json({"status": "success", "data": {"alerts": alerts}})
    return polled(Prometheus(PrometheusConfig(url=server.url_for(""))))


def of_a_query(server: HTTPServer, _: Path) -> list[Message]:
    data = {"resultType": "vector", "result": [{"metric": {"team": "db"}, "value": [datetime.now(UTC).timestamp(), "1"]}]}
    server.expect_request("/api/v1/query").respond_with_json({"status": "success", "data": data})
    options = {"url": server.url_for(""), "query": "up == 0", "labels": {"severity": "P2"}}
    return polled(Prometheus(PrometheusConfig.model_validate(options)))


def of_rows(_: HTTPServer, directory: Path) -> list[Message]:
    with closing(sqlite3.connect(directory / "jobs.db")) as connection:
        connection.execute("CREATE TABLE jobs (name, state, team)")
        connection.execute("INSERT INTO jobs VALUES ('backup', 'FAILED', 'db')")
        connection.commit()
    query = "SELECT name AS title, state AS status, team, 'major' AS severity FROM jobs"
    options = {"url": f"sqlite:///{directory}/jobs.db", "query": query, "changed": True, "labels": {"team": "{{ data.team }}"}}
    return polled(Sql(SqlConfig.model_validate(options)))


@pytest.mark.parametrize("source", [by_http, by_alertmanager, by_prometheus, of_alerts, of_a_query, of_rows])
def test_one_condition_holds_for_every_source(source, httpserver, tmp_path):
    (made,) = source(httpserver, tmp_path)
    assert Condition(CONDITION).matches(made)
    assert made.severity == "error"


@pytest.mark.parametrize(
    ("head", "mean", "known"),
    [("severity", normal_severity, {*message._SEVERITIES}), ("status", normal_status, message._FIRING | message._OVER)],
    ids=["severity", "status"],
)
def test_the_words_on_the_page_are_those_of_the_code_and_mean_what_it_says(head, mean, known):
    table = PAGE.read_text().split(f"| {head} | words |", 1)[1].split("\n\n", 1)[0]
    rows = {meant: words.split(", ") for meant, words in re.findall(r"\| `(\w+)` \| (.+) \|", table)}
    assert {word for words in rows.values() for word in words} == known
    for meant, words in rows.items():
        assert {mean(word.upper()) for word in words} == {meant}
