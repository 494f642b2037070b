"""Heartbeats with real clients, and scripts, through whole process trees that are stopped, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from trees import Running, alertmanager_run, ask, siftbell_run, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

WATCH = """
name: watch
producers:
  - heartbeat: {{names: {{backup: {every}, other: 1h}}, grace: 0s}}
    schedule: 1s
consumers:
  - file: {{path: "{tmp}/told.jsonl"}}
"""
SCRIPTS = """
name: scripts
producers:
  - script: [count, one]
    schedule: 1s
    as: asked
  - script: follow
    as: kept
consumers:
  - script: {{command: take, keep: true}}
  - script: [take-one]
    as: one-by-one
"""
COUNT = """#!/bin/bash
next=$(( ${SIFTBELL_CURSOR:-0} + 1 ))
echo '{"title": "asked '$next'"}'
echo '{"cursor": '$next'}'
"""
FOLLOW = """#!/usr/bin/env node
const fs = require('fs')
fs.appendFileSync(process.argv[1] + '.pids', `${process.pid}\\n`)
console.log(JSON.stringify({ title: `kept ${process.pid}` }))
setInterval(() => {}, 1000)
"""
TAKE = """#!/bin/bash
while read -r line; do echo "$line" >> "$0.taken"; echo '{"ok": true}'; done
"""
TAKE_ONE = """#!/bin/bash
cat >> "$0.taken"
"""


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def titles(file: Path) -> list[str]:
    return [json.loads(line).get("title", "") for line in file.read_text().splitlines()] if file.exists() else []


def last_call(directory: Path) -> str:
    """Give the note of the watchdog's last call."""
    with closing(sqlite3.connect(directory / "data" / "store.db")) as store:
        return "".join(text for (text,) in store.execute("SELECT text FROM notes WHERE name = 'watchdog/'"))


def call(tree: Running, *command: str, path: str = "backup") -> str:
    """Call with a client; gives what it printed."""
    url = f"{tree.url}/in/watch/heartbeat/{path}"
    done = subprocess.run([*command, f"X-API-Key: {tree.key}", url], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


@pytest.mark.against("producer heartbeat", "curl and wget")
def test_what_does_not_call_is_told_and_its_return_after_everything_was_started_again(tmp_path, require_binary):
    curl = [require_binary("curl", "curl"), "-fsS", "-H"]
    wget = [require_binary("wget", "wget"), "-q", "-O", "-", "--header"]
    config, told = tmp_path / "watch.yaml", tmp_path / "told.jsonl"
    config.write_text(WATCH.format(every="5s", tmp=tmp_path))
    with siftbell_run(config, tmp_path / "data") as tree:
        assert json.loads(call(tree, *curl)) == {"ids": [], "count": 0}
        assert json.loads(call(tree, *wget, path="other")) == {"ids": [], "count": 0}
        call(tree, curl[0], "-fsS", "-I", "-H")  # HEAD
        call(tree, curl[0], "-fsS", "-d", "no space left", "-H", path="other/1")
        until(lambda: len(titles(told)) == 2, "one has failed and one is late")
        assert sorted(titles(told)) == ["backup did not call in time", "other failed with exit code 1"]
        with pytest.raises(subprocess.CalledProcessError, match="exit status 22"):
            call(tree, *curl, path="unknown")
        with pytest.raises(subprocess.CalledProcessError, match="exit status 22"):
            call(tree, curl[0], "-fsS", "-X", "DELETE", "-H")
    config.write_text(WATCH.format(every="1h", tmp=tmp_path))
    with siftbell_run(config, tmp_path / "data") as tree:
        call(tree, *curl)
        until(lambda: len(titles(told)) == 3, "it is back")
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert (lines[-1]["title"], lines[-1]["status"]) == ("backup called again", "resolved")
    assert lines[-1]["key"] == next(line["key"] for line in lines if line["title"] == "backup did not call in time")
    assert [line["text"] for line in lines if line["title"].startswith("other")] == ["no space left"]


@pytest.mark.against("producer heartbeat", "Alertmanager of Debian 12")
def test_an_alertmanager_that_is_gone_is_missed(tmp_path, require_binary):
    binary = require_binary("prometheus-alertmanager", "prometheus-alertmanager")
    config, told = tmp_path / "watch.yaml", tmp_path / "told.jsonl"
    config.write_text(WATCH.format(every="10s", tmp=tmp_path).replace("backup", "watchdog"))
    with siftbell_run(config, tmp_path / "data") as tree:
        posting = f"""
route: {{receiver: siftbell, group_wait: 0s, group_interval: 1s, repeat_interval: 1s}}
receivers:
  - name: siftbell
    webhook_configs:
      - url: {tree.url}/in/watch/heartbeat/watchdog
        send_resolved: false
        http_config: {{authorization: {{credentials: {tree.key}}}}}
"""
        with alertmanager_run(binary, posting, tmp_path / "alertmanager", ending=signal.SIGKILL) as url:
            ask(f"{url}/api/v2/alerts", body=[{"labels": {"alertname": "Watchdog"}}])
            first = until(lambda: last_call(tmp_path), "it has called")
            until(lambda: last_call(tmp_path) != first, "it has called again")
            assert titles(told) == []
        until(lambda: titles(told), "it is missed")
        assert titles(told) == ["watchdog did not call in time"]


@pytest.mark.against("producer script", "a whole process tree")
@pytest.mark.against("consumer script", "a whole process tree")
def test_scripts_are_asked_kept_and_given_messages_and_end_with_the_tree(tmp_path, require_binary):
    require_binary("node", "nodejs")
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name, text in {"count": COUNT, "follow": FOLLOW, "take": TAKE, "take-one": TAKE_ONE}.items():
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    config = tmp_path / "scripts.yaml"
    config.write_text(SCRIPTS.format())
    pids, taken = scripts / "follow.pids", scripts / "take.taken"
    with siftbell_run(config, tmp_path / "data", {"SIFTBELL_SCRIPTS": str(scripts)}):
        until(lambda: "asked 3" in titles(taken), "it was asked three times", seconds=120)
        until(lambda: any(title.startswith("kept") for title in titles(taken)), "the kept one was heard")
        os.kill(int(pids.read_text().split()[0]), signal.SIGKILL)
        until(lambda: sum(title.startswith("kept") for title in titles(taken)) == 2, "it was started again")
    before = titles(taken)
    assert sorted({*before}) == sorted(before), "a message was given twice"
    assert {*titles(scripts / "take-one.taken")} == {*before}
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())
    with siftbell_run(config, tmp_path / "data", {"SIFTBELL_SCRIPTS": str(scripts)}):
        until(lambda: len(titles(taken)) > len(before) + 2, "it goes on", seconds=120)
        kept = pids.read_text().split()
        clock = parent(parent(int(kept[-1])))
        os.kill(clock, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{kept[-1]}").exists(), "what the clock kept running has ended with it")
        until(lambda: len(pids.read_text().split()) > len(kept), "another clock keeps it running", seconds=120)
        asked = len(titles(taken))
        until(lambda: len(titles(taken)) > asked + 2, "it is asked as well", seconds=120)
    numbers = [int(title.split()[1]) for title in titles(taken) if title.startswith("asked")]
    assert {*numbers} == {*range(1, max(numbers) + 1)}
    assert len(numbers) <= max(numbers) + 1, "no more than the poll in which the clock was killed may be told twice"
