"""Messages that a running Siftbell kept are replayed: through a pipeline as it is, and through one that is not in place yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import siftbell, siftbell_run, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PIPELINE = """
name: hello
keep: 24h
producers: [http]
filters:
  - match: severity != "debug"
  - group: {by: [labels.team], wait: 1s, interval: 1s}
consumers:
  - file: {path: OUT}
    as: oncall
"""


def test_what_was_done_is_what_a_replay_says_and_a_change_shows(tmp_path: Path) -> None:
    config, data, out = tmp_path / "hello.yaml", tmp_path / "data", tmp_path / "out.jsonl"
    config.write_text(PIPELINE.replace("OUT", str(out)))
    environment = {"SIFTBELL_CONFIG": str(config), "SIFTBELL_DATA": str(data)}
    with siftbell_run(config, data) as running:
        alerts = [{"title": title, "severity": severity, "labels": {"team": "db"}} for title, severity in (
            ("disk full", "critical"), ("disk slow", "warning"), ("noise", "debug"),
        )]  # fmt: skip
        ids = running.send("hello", "http", alerts)
        until(lambda: out.exists() and out.read_text().endswith("\n"), "the group arrives")
        until(lambda: "delivered to" in siftbell(["explain", ids[0]], environment), "that is on record")
        same = json.loads(siftbell(["replay", "hello", "--dry-run", "-o", "json"], environment))
        changed = tmp_path / "changed" / "hello.yaml"
        changed.parent.mkdir()
        changed.write_text(config.read_text().replace('severity != "debug"', 'severity != "warning"'))
        other = json.loads(siftbell(["replay", "hello", "--dry-run", "-o", "json", "--config", str(changed)], environment))
        text = siftbell(["replay", "hello", "--dry-run", "--since", "1h", "--config", str(changed)], environment)
    assert [one["id"] for one in same["messages"]] == ids
    assert (same["different"], same["unknown"], same["changes"]) == (0, 0, [])
    assert same["notifications"] == other["notifications"] == [{"consumer": "oncall", "then": 1, "now": 1}]
    assert [one["different"] for one in other["messages"]] == [False, True, True]
    assert "2 messages would be told differently" in text
    assert 'dropped by match: severity != "debug" does not hold' in text
    assert len(out.read_text().splitlines()) == 1
