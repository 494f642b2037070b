"""`deduplicate` and `throttle` with real workers and a memory in Redis: as many pass as should, though a worker is killed."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from trees import Running, until

from pipeline.cli.tree import Tree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KEYS, REPEATS, TEAMS, MOST = 25, 40, 4, 7
PIPELINE = f"""
name: quiet
producers: [{{http: {{}}}}]
filters:
  - deduplicate: 1h
    when: type == "once"
  - throttle: {{by: labels.team, most: {MOST}, within: 1h}}
    when: type == "many"
consumers:
  - file: {{path: "${{SIFTBELL_DATA}}/out.jsonl"}}
"""


@pytest.fixture
def redis(require_redis: str) -> Iterator[list[str]]:
    """The URLs of two Redis databases that are empty before and after."""
    from redis import Redis

    urls = [urlsplit(require_redis)._replace(path=f"/{number}").geturl() for number in (12, 13)]
    clients = [Redis.from_url(url) for url in urls]
    for client in clients:
        client.flushdb()
    yield urls
    for client in clients:
        client.flushdb()
        client.close()


def filter_processes(supervisor: int) -> set[int]:
    """Give the processes that filter, but for the one that started them."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                before, _, after = (entry / "stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if after.split()[0] != "Z":
                parents[int(entry.name)], names[int(entry.name)] = int(after.split()[1]), before.partition("(")[2]
    leaders = {pid for pid, parent in parents.items() if parent == supervisor and names[pid] == "filters"}
    return {pid for pid, parent in parents.items() if parent in leaders and names[pid] == "filters"}


def test_as_many_pass_as_should_though_a_worker_is_killed(tmp_path: Path, redis: list[str]) -> None:
    (tmp_path / "quiet.yaml").write_text(PIPELINE)
    data = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")} | {
        "SIFTBELL_CONFIG": str(tmp_path / "quiet.yaml"),
        "SIFTBELL_DATA": str(data),
        "SIFTBELL_PORT": "0",
        "SIFTBELL_BROKER": redis[0],
        "SIFTBELL_MEMORY": redis[1],
    }
    with Tree(tmp_path / "log", environment, directory=tmp_path) as tree:
        running = Running(tree.ready["url"], tree.ready["key"], data, tmp_path / "log")
        before = until(lambda: filter_processes(tree.process.pid), "filters run")

        def send(number: int) -> list[str]:
            once = [{"type": "once", "title": "again", "key": f"key {key}"} for key in range(KEYS)]
            many = [{"type": "many", "title": f"{number}", "labels": {"team": f"team {team}"}} for team in range(TEAMS)]
            if number == REPEATS // 3:
                os.kill(min(before), signal.SIGKILL)
            return running.send("quiet", "http", [*once, *many])

        with ThreadPoolExecutor(4) as pool:
            accepted = {message_id for ids in pool.map(send, range(REPEATS)) for message_id in ids}
        assert len(accepted) == REPEATS * (KEYS + TEAMS)
        until(lambda: filter_processes(tree.process.pid) - before, "another filter process is started")
        expected = {("deduplicate", "dropped"): KEYS * (REPEATS - 1), ("throttle", "dropped"): TEAMS * (REPEATS - MOST - 1)}
        expected |= {("file", "delivered"): KEYS + TEAMS * MOST, ("throttle", "held"): TEAMS}

        def decided() -> bool:  # what a killed worker had decided may be counted twice
            counts = {(one["step"], one["outcome"]): one["count"] for one in running.stats()["decided"]}
            return all(counts.get(place, 0) >= count for place, count in expected.items())

        until(decided, "each message is decided about", seconds=120)
        assert running.stats()["dead"] == []
        assert tree.stop() == 0
    passed = defaultdict(set)
    for line in (data / "out.jsonl").read_text().splitlines():
        message = json.loads(line)
        passed[message.get("key") or message["labels"]["team"]].add(message["id"])
    assert {len(ids) for name, ids in passed.items() if name.startswith("key")} == {1}
    assert {len(ids) for name, ids in passed.items() if name.startswith("team")} == {MOST}
    assert len(passed) == KEYS + TEAMS
