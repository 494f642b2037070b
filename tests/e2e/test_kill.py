"""`siftbell run` under kill -9, of everything and of each part: what was accepted arrives, nothing outlives its supervisor."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from typing import Self

import pytest

from pipeline.cli.tree import Tree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PIPELINE = """
name: hello
producers: [{http: {}}]
filters: [{match: severity != "debug"}]
consumers:
  - file: {path: "${SIFTBELL_DATA}/hello.jsonl"}
"""
PARTS = ("web", "clock", "filters", "deliveries")
IN_FLIGHT = 2 * os.cpu_count() * 500 + 16 * 100
"""Messages that a tree works on at once at most: batches of 500 in each filter process, one begun and one just done, and
batches of 100 in each of the 16 threads that deliver to the file."""


def environment(data: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
    return own | {
        "SIFTBELL_CONFIG": str(data.parent / "hello.yaml"),
        "SIFTBELL_DATA": str(data),
        "SIFTBELL_PORT": "0",
        "SIFTBELL_LOG_FORMAT": "json",
    }


def start(place: Path) -> Tree:
    (place / "hello.yaml").write_text(PIPELINE)
    return Tree(place / "log", environment(place / "data"), directory=place)


def until(condition: Callable[[], bool], what: str, within: float = 60) -> None:
    """Look until a condition holds."""
    end = monotonic() + within
    while not condition():
        if monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what}")
        select.select([], [], [], 0.02)


class Sender:
    """Posts arrays of messages from several threads, and keeps the ids that were answered 202."""

    def __init__(self, tree: Tree, accepted: set[str], *, size: int = 20, threads: int = 4) -> None:
        self.accepted = accepted
        self._host = tree.ready["url"].removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {tree.ready['key']}", "Content-Type": "application/json"}
        self._body = json.dumps([{"title": f"number {number}", "severity": "info"} for number in range(size)])
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        connection = HTTPConnection(self._host, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/in/hello/http", self._body, self._headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, HTTPException):  # the web server was killed: nothing of this request is accepted
                connection.close()
                self._stop.wait(0.05)
                continue
            if answer.status == 202:
                self.accepted.update(json.loads(text)["ids"])
            else:
                assert answer.status == 503, text
                self._stop.wait(0.1)
        connection.close()


class Output:
    """What the file consumer has written, by id; a kill may have cut a line short, which is then no delivery."""

    def __init__(self, place: Path) -> None:
        self._path = place / "data" / "hello.jsonl"
        self._read = 0
        self.found: Counter[str] = Counter()

    def look(self) -> Counter[str]:
        """Count what is new."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
            self._read += len(whole + end)
            for line in whole.splitlines():
                with suppress(ValueError):
                    self.found[json.loads(line)["id"]] += 1
        return self.found

    def holds(self, accepted: set[str], within: float = 120) -> Counter[str]:
        """Wait until every accepted message is there."""
        until(lambda: accepted <= self.look().keys(), "every accepted message is in the file", within)
        return self.found


def family(pid: int) -> dict[int, str]:
    """Give the processes below a supervisor, with the name of the part that each belongs to."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: dict[int, str] = {}
    for _ in range(3):
        for child, parent in parents.items():
            if parent == pid or parent in found:
                found[child] = part_of(child)
    return found


def part_of(pid: int) -> str:
    """Give a process's name as `ps` shows it: its part's; empty for one that has ended."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if after.split()[0] == "Z" else before.partition("(")[2]


def leader(tree: Tree, part: str) -> int:
    """Give the process of a part that the supervisor started, 0 while there is none."""
    members = [pid for pid, name in family(tree.process.pid).items() if name == part]
    return next((pid for pid in members if os.getsid(pid) == pid), 0)


def children(tree: Tree, part: str) -> set[int]:
    return {pid for pid, name in family(tree.process.pid).items() if name == part} - {leader(tree, part)}


def all_run(tree: Tree) -> bool:
    return all(leader(tree, part) for part in PARTS) and len(children(tree, "filters")) > 0


def test_kill_9_of_everything_amid_ten_thousand_accepted_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted: set[str] = set()
    output = Output(tmp_path)
    with start(tmp_path) as tree:
        until(lambda: all_run(tree), "all parts run")
        with Sender(tree, accepted):
            until(lambda: len(accepted) >= 10_000 and len(output.look()) >= 2000, "10,000 accepted, some delivered")
            for pid in [tree.process.pid, *family(tree.process.pid)]:
                os.kill(pid, signal.SIGKILL)
        tree.process.wait()
    outstanding = len(accepted - output.look().keys())
    assert outstanding > 0, "the kill came too late to prove anything"
    with start(tmp_path) as again:
        found = output.holds(accepted)
        assert again.stop() == 0
    duplicates = sum(found.values()) - len(found)
    with capsys.disabled():
        print(
            f"\nkill -9 of everything: {len(accepted)} accepted, {outstanding} of them not yet delivered; "
            f"0 lost, {duplicates} duplicates; ready again after {again.seconds:.1f} s"
        )
    assert duplicates <= IN_FLIGHT


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tree, Path]]:
    place = tmp_path_factory.mktemp("shared")
    with start(place) as tree:
        until(lambda: all_run(tree), "all parts run")
        yield tree, place
        assert tree.stop() == 0


@pytest.mark.parametrize("part", [*PARTS, "a filter process"])
def test_kill_9_of_a_part_loses_nothing(shared: tuple[Tree, Path], part: str) -> None:
    tree, place = shared
    accepted: set[str] = set()
    with Sender(tree, accepted, threads=2):
        until(lambda: len(accepted) > 200, "messages are accepted")
        if part in PARTS:
            victim = leader(tree, part)
            os.kill(victim, signal.SIGKILL)
            until(lambda: leader(tree, part) not in {0, victim}, f"{part} is started again")
        else:
            victims = children(tree, "filters")
            os.kill(min(victims), signal.SIGKILL)
            until(lambda: len(children(tree, "filters") - victims) > 0, "another filter process is started")
        count = len(accepted)
        until(lambda: len(accepted) > count + 200, "messages are accepted afterwards")
    found = Output(place).holds(accepted)
    duplicates = sum(count - 1 for message, count in found.items() if message in accepted)
    assert duplicates <= IN_FLIGHT
    if part in PARTS:
        assert "was ended by SIGKILL; it is started again" in tree.log.read_text()


def test_a_second_start_on_the_same_directory_is_refused_with_one_line(shared: tuple[Tree, Path]) -> None:
    tree, place = shared
    second = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run"],
        env=environment(place / "data"),
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (1, "", 1)
    assert str(tree.process.pid) in second.stderr


def test_sigterm_drains_and_a_killed_supervisor_takes_its_parts_along(tmp_path: Path) -> None:
    accepted: set[str] = set()
    output = Output(tmp_path)
    with start(tmp_path) as tree:
        with Sender(tree, accepted):
            until(lambda: len(accepted) > 1000, "messages are accepted")
            tree.process.terminate()
            assert tree.process.wait(90) == 0
        stopped = [line for line in tree.log.read_text().splitlines() if "waiting for parts to finish" in line]
        assert [json.loads(line)["parts"] for line in stopped] == ["web", "clock", "filters, deliveries"]
    with start(tmp_path) as again:
        found = output.holds(accepted)
        assert sum(found.values()) == len(found), "an orderly end makes no duplicates"
        assert again.ready["key"] == tree.ready["key"]
        until(lambda: all_run(again), "all parts run")
        members = family(again.process.pid)
        again.process.kill()
        again.process.wait()
        until(lambda: not any(part_of(pid) == part for pid, part in members.items()), "all parts have ended", within=10)
