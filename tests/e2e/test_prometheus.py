"""A real Prometheus has Siftbell for its Alertmanager, and is asked by it: a rule fires and is over. amtool adds alerts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from trees import Running, ask, free_port, siftbell_run, until
from werkzeug import Request, Response

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.against("producer prometheus", "Prometheus and amtool of Debian 12"),
]

CONFIGS = Path(__file__).parents[2] / "configs"
PIPELINE = """
name: alerts
producers:
  - prometheus
consumers:
  - file: {path: "${OUT}"}
"""
ASKING = """
name: asking
producers:
  - prometheus: {url: "${PROMETHEUS}"}
    schedule: 1s
  - prometheus:
      url: "${PROMETHEUS}"
      query: disk_used_percent > 90
      labels: {alertname: DiskQuery, severity: page}
      title: "{{ data.value }} % used on {{ labels.disk }}"
    as: query
    schedule: 1s
consumers:
  - file: {path: "${OUT}"}
"""
RULES = """
groups:
  - name: disks
    rules:
      - alert: DiskFull
        expr: disk_used_percent > 90
        labels: {severity: page}
        annotations: {summary: "{{ $labels.disk }} is full", description: "{{ $value }} % used & growing"}
"""


class Disk:
    """What Prometheus scrapes: a gauge that the test sets."""

    used = 10

    def answer(self, _request: Request) -> Response:
        return Response(f'disk_used_percent{{disk="/var"}} {self.used}\n', content_type="text/plain; version=0.0.4")


@pytest.fixture
def disk(httpserver: HTTPServer) -> Disk:
    disk = Disk()
    httpserver.expect_request("/metrics").respond_with_handler(disk.answer)
    return disk


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server that evaluates its rule, and sends its alerts again, each second."""

    url: str

    def sent(self) -> float:
        """Give how many alerts it has sent."""
        _, text = ask(f"{self.url}/metrics")
        lines = [line for line in text.splitlines() if line.startswith("prometheus_notifications_sent_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def ready(self) -> bool:
        try:
            return ask(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False


@contextmanager
def prometheus_of(binary: str, directory: Path, target: str, port: int, siftbell: Running | None = None) -> Iterator[Prometheus]:
    directory.mkdir()
    (directory / "rules.yml").write_text(RULES)
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(directory / "rules.yml")],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [target]}]}],
    }
    if siftbell is not None:
        (directory / "key").write_text(siftbell.key)
        config["alerting"] = {
            "alertmanagers": [
                {
                    "path_prefix": "/in/alerts/prometheus",
                    "authorization": {"credentials_file": str(directory / "key")},
                    "static_configs": [{"targets": [siftbell.url.removeprefix("http://")]}],
                }
            ]
        }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    running = Prometheus(f"http://127.0.0.1:{port}")
    with (directory / "log").open("w") as log:
        started = subprocess.Popen(
            [
                binary,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--web.external-url={running.url}",
                "--rules.alert.resend-delay=1s",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: started.poll() is not None or running.ready(), "Prometheus is ready")
        assert started.poll() is None, (directory / "log").read_text()
        yield running
    finally:
        started.terminate()
        started.wait(30)


@pytest.fixture
def prometheus(require_binary: Callable[[str, str], str]) -> str:
    return require_binary("prometheus", "prometheus")


@pytest.fixture
def amtool(require_binary: Callable[[str, str], str]) -> str:
    return require_binary("amtool", "prometheus-alertmanager")


@contextmanager
def siftbell_with(pipeline: str, directory: Path, **environment: str) -> Iterator[Running]:
    (directory / "pipeline.yaml").write_text(pipeline)
    out = {"OUT": str(directory / "out.jsonl"), **environment}
    with siftbell_run(directory / "pipeline.yaml", directory / "data", out) as running:
        yield running
        assert running.stats()["dead"] == []


def told(directory: Path, *, name: str = "out.jsonl", **labels: str) -> list[Any]:
    """Give the messages that reached a file, those with these labels."""
    file = directory / name
    messages = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [message for message in messages if labels.items() <= message["labels"].items()]


def post(siftbell: Running, *alerts: Any) -> None:
    url, key = f"{siftbell.url}/in/alerts/prometheus/api/v2/alerts", {"authorization": f"Bearer {siftbell.key}"}
    status, answer = ask(url, body=alerts, headers=key)
    assert status == 200, answer


def target_of(httpserver: HTTPServer) -> str:
    return f"{httpserver.host}:{httpserver.port}"


def test_prometheus_has_siftbell_for_its_alertmanager(
    prometheus: str, disk: Disk, httpserver: HTTPServer, tmp_path: Path
) -> None:
    """By the shipped pipeline `alerts`."""
    archived = partial(told, tmp_path / "data", name="archive.jsonl")
    with (
        siftbell_run(CONFIGS, tmp_path / "data") as siftbell,
        prometheus_of(prometheus, tmp_path / "prometheus", target_of(httpserver), free_port(), siftbell) as server,
    ):
        disk.used = 95
        until(archived, "it fires")
        sent = server.sent()
        until(lambda: server.sent() >= sent + 3, "Prometheus has sent it again")
        disk.used = 20
        until(lambda: len(archived()) > 1, "it is resolved")
        sent = server.sent()
        until(lambda: server.sent() >= sent + 3, "Prometheus has sent that again")
        post(siftbell, {"labels": {"alertname": "Last", "severity": "page"}})
        until(lambda: archived(alertname="Last"), "what was sent before the last alert is delivered")
        assert siftbell.stats()["dead"] == []
    firing, resolved = archived(alertname="DiskFull")
    assert [one.get("status", "firing") for one in (firing, resolved)] == ["firing", "resolved"]
    assert [one["title"] for one in (firing, resolved)] == ["✗ CRITICAL: /var is full", "✓ CRITICAL: /var is full"]
    assert firing["text"] == "95 % used & growing"
    assert firing["labels"] == {
        "alertname": "DiskFull", "severity": "page", "disk": "/var", "job": "node", "instance": target_of(httpserver)
    }  # fmt: skip
    assert firing["key"] == resolved["key"]
    assert firing["source"] == server.url
    assert firing["url"].startswith(f"{server.url}/graph?g0.expr=disk_used_percent")


def test_siftbell_asks_prometheus(prometheus: str, disk: Disk, httpserver: HTTPServer, tmp_path: Path) -> None:
    port = free_port()
    with (
        prometheus_of(prometheus, tmp_path / "prometheus", target_of(httpserver), port) as server,
        siftbell_with(ASKING, tmp_path, PROMETHEUS=server.url),
    ):
        disk.used = 95
        until(lambda: {"DiskFull", "DiskQuery"} <= {one["labels"]["alertname"] for one in told(tmp_path)}, "both tell of it")
        disk.used = 20
        until(lambda: len(told(tmp_path, alertname="DiskFull")) == 2, "the alert is resolved")
        until(lambda: len(told(tmp_path, alertname="DiskQuery")) == 2, "the series is gone")
    assert len(told(tmp_path)) == 4
    for name, title in (("DiskFull", "/var is full"), ("DiskQuery", "95 % used on /var")):
        firing, resolved = told(tmp_path, alertname=name)
        assert [(one["title"], one["severity"]) for one in (firing, resolved)] == [(title, "critical")] * 2
        assert [one.get("status", "firing") for one in (firing, resolved)] == ["firing", "resolved"]
        assert firing["key"] == resolved["key"]
        assert firing["source"] == server.url


def test_amtool_adds_alerts(amtool: str, tmp_path: Path) -> None:
    def add(siftbell: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "http.yml").write_text(f"authorization: {{credentials: {siftbell.key}}}")
        url = f"--alertmanager.url={siftbell.url}/in/alerts/prometheus"
        command = [amtool, "alert", "add", url, f"--http.config.file={tmp_path / 'http.yml'}", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    with siftbell_with(PIPELINE, tmp_path) as siftbell:
        done = add(siftbell, "alertname=Backup", "severity=warn", "--annotation=summary=no backup since Monday")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (firing,) = until(lambda: told(tmp_path, alertname="Backup"), "it fires")
        assert (firing["title"], firing["severity"]) == ("no backup since Monday", "warning")
        times = ("--start=2026-11-20T08:00:00Z", "--end=2026-11-20T09:00:00Z")
        for _ in range(2):
            assert add(siftbell, "alertname=Over", *times).returncode == 0
        (over,) = until(lambda: told(tmp_path, alertname="Over"), "it is over")
        assert (over["status"], over["time"]) == ("resolved", "2026-11-20T09:00:00Z")
        refused = add(siftbell, "alertname=Odd", "--start=2026-11-20T09:00:00Z", "--end=2026-11-20T08:00:00Z")
        assert refused.returncode == 1
        assert refused.stderr.strip().endswith("[400] postAlertsBadRequest  [0].startsAt: start time must be before end time")
    assert len(told(tmp_path)) == 2
