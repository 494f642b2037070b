"""A change of the files while a tree runs: taken up where it is sound, told and left where it is not."""

from __future__ import annotations

import asyncio
import json
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from pipeline.cli.reload import LastGood
from pipeline.cli.tree import Tree

PIPELINE = """
name: first
producers: [{http: {}}]
consumers:
  - file: {path: "${SIFTBELL_DATA}/first.jsonl"}
"""
MORE = (
    PIPELINE
    + """
  - file: {path: "${SIFTBELL_DATA}/second.jsonl"}
    as: second
"""
)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def until(condition: Callable[[], bool], what: str, within: float = 90) -> None:
    end = monotonic() + within
    while not condition():
        assert monotonic() < end, f"not within {within:g} s: {what}"
        select.select([], [], [], 0.05)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "first.yaml").write_text(PIPELINE)
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
    settings = {"SIFTBELL_DATA": str(tmp_path / "data"), "SIFTBELL_PORT": "0", "SIFTBELL_CONFIG": str(tmp_path / "configs")}
    with Tree(tmp_path / "log", own | settings | {"SIFTBELL_LOG_FORMAT": "json"}, directory=tmp_path) as running:
        yield running
        assert running.stop() == 0


def post(tree: Tree, title: str) -> None:
    headers = {"Authorization": f"Bearer {tree.ready['key']}", "Content-Type": "application/json"}
    with urlopen(Request(f"{tree.ready['url']}/in/first/http", json.dumps({"title": title}).encode(), headers)) as answer:
        assert answer.status == 202


def steps(tree: Tree) -> list[str]:
    request = Request(f"{tree.ready['url']}/api/v1/pipelines", headers={"Authorization": f"Bearer {tree.ready['key']}"})
    try:
        with urlopen(request) as answer:
            return [step["label"] for pipeline in json.loads(answer.read()) for step in pipeline["steps"]]
    except HTTPError:
        return []


def events(tree: Tree) -> list[dict[str, str]]:
    return [json.loads(line) for line in tree.log.read_text().splitlines() if line.startswith("{")]


def told(tree: Tree, beginning: str) -> list[dict[str, str]]:
    return [line for line in events(tree) if line["event"].startswith(beginning)]


def arrived(file: Path, title: str) -> bool:
    return file.exists() and any(json.loads(line)["title"] == title for line in file.read_text().splitlines())


def test_a_sound_change_is_taken_up_and_a_broken_one_is_told_and_left(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "configs" / "first.yaml"
    data = tmp_path / "data"
    post(tree, "before")
    file.write_text("name: first\nproducers: [{httb: {}}]\nconsumers: [{log: {}}]\n")
    until(lambda: bool(told(tree, "the changed configuration has errors")), "the errors are told")
    (line,) = told(tree, "the changed configuration has errors")
    assert f"{file}:2:14: error: no producer is called 'httb'" in line["problems"]
    assert line["problems"].endswith("; 1 error in 1 of 1 file"), "no excerpt of the file, which takes more lines than one"

    def filters() -> set[int]:
        return {int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit() and is_filters(process)}

    def is_filters(process: Path) -> bool:
        try:
            name, environment = (process / "comm").read_text().rstrip(), (process / "environ").read_bytes()
        except OSError:
            return False
        return name == "filters" and str(data).encode() in environment

    until(lambda: bool(filters()), "a filters worker runs")
    os.kill(min(filters()), 9)  # with the mistake still in the file: it comes back with what ran before
    until(lambda: bool(told(tree, "a part was ended by SIGKILL")), "the death is told")
    post(tree, "in between")
    until(lambda: arrived(data / "first.jsonl", "in between"), "the message arrived")
    file.write_text(MORE)
    until(lambda: steps(tree) == ["http", "file", "second"], "the new consumer is known")
    post(tree, "after")
    until(lambda: arrived(data / "second.jsonl", "after"), "the new consumer has the message")
    until(lambda: arrived(data / "first.jsonl", "after"), "the old consumer has it too")
    assert arrived(data / "first.jsonl", "before")
    assert not arrived(data / "second.jsonl", "before")
    assert len(told(tree, "the configuration has changed")) == 1


def test_what_is_taken_stays_until_the_next(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "first.yaml"
    file.write_text(PIPELINE)
    kept = LastGood([tmp_path / "configs", file], tmp_path / "kept")
    kept.take()
    file.write_text(MORE)
    assert [path.name for path in kept.paths] == ["0", "first.yaml"]
    assert (kept.paths[0] / "first.yaml").read_text() == kept.paths[1].read_text() == PIPELINE
    kept.take()
    assert kept.paths[1].read_text() == MORE
    assert len(list((tmp_path / "kept").iterdir())) == 2  # the copy and the link to it


def test_a_change_that_is_taken_back_leaves_what_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "first.yaml"
    file.write_text(PIPELINE)
    kept = LastGood([tmp_path / "configs"], tmp_path / "kept")
    kept.take()
    copied = (kept.paths[0] / "first.yaml").stat().st_ino
    seen: list[str] = []
    looks = iter(["name: [\n", None, "taken back", None, None, None])

    async def look(_: float) -> None:
        change = next(looks, "over")
        seen.append(change or "")
        if change == "over":
            raise asyncio.CancelledError
        if change is not None:
            file.write_text(PIPELINE if change == "taken back" else change)

    async def wrong(_: object) -> str:
        return "it has errors"

    async def changed() -> None:
        raise AssertionError("nothing has changed")

    monkeypatch.setattr("pipeline.cli.reload.asyncio.sleep", look)
    monkeypatch.setattr("pipeline.cli.reload._errors", wrong)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(kept.watch(changed))
    assert (kept.paths[0] / "first.yaml").stat().st_ino == copied, "the copy that runs was made anew"
    assert len(list((tmp_path / "kept").iterdir())) == 2, "the copy with errors is gone"
