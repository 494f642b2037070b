"""A rule flaps, and a real Alertmanager tells of it to two pipelines: with `flap` it is three messages, without it dozens.

Time runs forty times as fast as in the pipeline that people would write: a change each half second for a quarter of a minute
stands for one every 20 seconds for ten minutes, and the filter's times are as much shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from trees import Running, alertmanager_run, ask, siftbell_run, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.against("filter flap", "Alertmanager of Debian 12"),
]

FASTER = 40
CHANGES = 30
PIPELINE = """
name: {name}
producers: [prometheus]
filters: {filters}
consumers:
  - file: {{path: {path}}}
"""
FLAP = f"[flap: {{within: {600 / FASTER:g}s, stable: {600 / FASTER:g}s, settle: {60 / FASTER:g}s}}]"


def config_for(siftbell: Running, key: Path) -> str:
    """Give the config of an Alertmanager that posts to both pipelines as soon as it may; the key's file is written here."""
    key.write_text(siftbell.key)
    hooks = "".join(
        f"""
      - url: {siftbell.url}/in/{name}/prometheus
        http_config: {{authorization: {{credentials_file: {key}}}}}"""
        for name in ("all", "quiet")
    )
    return f"""
route: {{receiver: siftbell, group_by: [alertname], group_wait: 0s, group_interval: 200ms, repeat_interval: 1h}}
receivers:
  - name: siftbell
    webhook_configs:{hooks}
"""


def flap(url: str) -> None:
    """Change what Prometheus says of the rule, again and again."""
    begin, start = time.monotonic(), datetime.now(UTC)
    for number in range(CHANGES):
        time.sleep(max(0.0, begin + number * 20 / FASTER - time.monotonic()))  # the rule's own pace, which is what is tested
        now = datetime.now(UTC)
        fires = number % 2 == 0
        start = now if fires else start
        alert = {
            "labels": {"alertname": "Swings", "instance": "db-1:9100", "severity": "warning"},
            "annotations": {"summary": "the load is high"},
            "startsAt": start.isoformat(),
            "endsAt": (now + timedelta(minutes=5) if fires else now).isoformat(),
        }
        assert ask(f"{url}/api/v2/alerts", body=[alert])[0] == 200


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_rule_that_flaps_is_told_in_three_messages(require_binary: Callable[[str, str], str], tmp_path: Path) -> None:
    binary = require_binary("prometheus-alertmanager", "prometheus-alertmanager")
    configs = tmp_path / "configs"
    configs.mkdir()
    for name, filters in (("all", "[]"), ("quiet", FLAP)):
        text = PIPELINE.format(name=name, filters=filters, path=tmp_path / f"{name}.jsonl")
        (configs / f"{name}.yaml").write_text(text)
    with (
        siftbell_run(configs, tmp_path / "data") as running,
        alertmanager_run(binary, config_for(running, tmp_path / "key"), tmp_path / "alertmanager") as url,
    ):
        flap(url)
        until(lambda: len(lines(tmp_path / "quiet.jsonl")) >= 3, "it is stable again", seconds=90)
        assert running.stats()["dead"] == []
    everything, told = lines(tmp_path / "all.jsonl"), lines(tmp_path / "quiet.jsonl")
    assert len(everything) >= 20
    began, ended = "is flapping (4 changes in ", "is stable again after "
    assert [one["title"][: len("the load is high")] for one in told] == ["the load is high"] * 3
    assert told[0]["title"] == "the load is high"
    assert began in told[1]["title"]
    assert ended in told[2]["title"]
    assert told[2]["title"].endswith(": resolved")
    assert told[2]["status"] == everything[-1]["status"] == "resolved"
