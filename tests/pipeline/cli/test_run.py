"""`siftbell run` as a person meets it: what it prints, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from urllib.request import urlopen

import pytest
import typer

from pipeline.cli import run as run_module
from pipeline.cli.failures import Failure
from pipeline.cli.output import Output
from pipeline.cli.run import Facts, parts, shipped
from pipeline.cli.tree import Tree
from pipeline.errors import ConfigError
from pipeline.keys import digest_of
from pipeline.settings import Settings
from pipeline.store import Store

PIPELINE = """
name: first
producers: [{http: {}}]
consumers:
  - file: {path: "${SIFTBELL_DATA}/first.jsonl"}
"""


def environment(place: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
    return own | {"SIFTBELL_DATA": str(place / "data"), "SIFTBELL_PORT": "0", "SIFTBELL_CONFIG": str(place / "first.yaml")} | more


def start(place: Path, *arguments: str, **more: str) -> Tree:
    (place / "first.yaml").write_text(PIPELINE)
    return Tree(place / "log", environment(place, **more), arguments, directory=place)


def until(condition: Callable[[], bool], what: str, within: float = 60) -> None:
    end = monotonic() + within
    while not condition():
        assert monotonic() < end, f"not within {within:g} s: {what}"
        select.select([], [], [], 0.05)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    with start(tmp_path_factory.mktemp("run")) as running:
        yield running
        assert running.stop() == 0


@pytest.mark.e2e
def test_the_printed_line_sends_a_message_that_arrives(tree: Tree) -> None:
    sent = subprocess.run(tree.ready["curl"], shell=True, capture_output=True, check=True, text=True)
    (message,) = json.loads(sent.stdout)["ids"]
    file = Path(tree.ready["data"], "first.jsonl")
    until(lambda: any(message in line for line in lines(file)), "the message is in the file")


@pytest.mark.e2e
def test_metrics_of_all_parts_are_at_the_web_server_s(tree: Tree) -> None:
    def shown() -> str:
        with urlopen(tree.ready["url"] + "/metrics") as answer:
            return answer.read().decode()

    until(lambda: re.search(r'siftbell_messages_decided_total\{[^}]*outcome="delivered"[^}]*\} [1-9]', shown()) is not None, "")
    assert 'siftbell_messages_accepted_total{pipeline="first",producer="http"}' in shown()


@pytest.mark.e2e
def test_what_it_keeps_is_for_its_owner_only(tree: Tree) -> None:
    data = Path(tree.ready["data"])
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "api-key").stat().st_mode & 0o777 == 0o600
    assert (data / "api-key").read_text().strip() == tree.ready["key"]
    assert (data / "url").read_text().strip() == tree.ready["url"]


@pytest.mark.e2e
def test_every_log_line_is_an_object_and_bears_its_part(tmp_path: Path) -> None:
    with start(tmp_path) as tree:
        until(lambda: tree.log.read_text().count(" ready.") == 2, "both workers are ready")
    found = {json.loads(line)["part"] for line in lines(tree.log)}
    assert found <= {"run", "web", "clock", "filters", "deliveries"}
    assert {"run", "filters", "deliveries"} <= found
    assert json.loads(lines(tree.log)[-1])["event"] == "stopped"


@pytest.mark.e2e
def test_what_it_waits_for_is_told(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(PIPELINE)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run"],
            env=environment(tmp_path, SIFTBELL_BROKER=f"redis://:hunter2@127.0.0.1:{port}"),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        until(lambda: "not ready yet" in log.read_text(), "it tells that it is not ready")
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert said == b""
    (told,) = [json.loads(line) for line in lines(log) if "not ready yet" in line]
    assert told["waits_for"].startswith("broker: ")
    assert "hunter2" not in log.read_text()


@pytest.mark.e2e
def test_a_key_that_works_is_kept_and_one_that_does_not_is_replaced(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        key = first.ready["key"]
    store = Store(f"sqlite:///{tmp_path}/data/store.db")
    assert store.key_by_digest(digest_of(key) or "") is not None
    with start(tmp_path) as second:
        assert second.ready["key"] == key
    (kept,) = store.keys()
    assert kept.name.startswith(f"run on {socket.gethostname()}, ")
    store.close()
    (tmp_path / "data" / "api-key").write_text("sb_no_key_at_all")
    (tmp_path / "data" / "metrics" / "left-over.db").write_text("")
    with start(tmp_path, "--host", "127.0.0.1") as third:
        assert third.ready["key"] not in {key, "sb_no_key_at_all"}
        assert not (tmp_path / "data" / "metrics" / "left-over.db").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("verb", [["run"], ["serve"], ["worker"], ["clock"]], ids=" ".join)
def test_a_configuration_with_errors_is_told_once_and_ends_with_78(tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "first.yaml").write_text(PIPELINE.replace("http", "htpp"))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *verb], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.count("no producer is called 'htpp'") == 1
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigError, match="in use"):
        run_module.run(data=tmp_path, config=[tmp_path], host="127.0.0.1", port=busy.getsockname()[1])


def test_a_tree_that_cannot_start_tells_why(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"(?s)exit code 2.*No such option"), start(tmp_path, "--nonsense"):
        pass


def test_a_tree_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.tree.READY_WITHIN", 0.0)
    tree = start(tmp_path)
    with pytest.raises(Failure, match="not ready within 0 s"), tree:
        pass
    assert tree.process.returncode == -signal.SIGKILL


@pytest.mark.e2e
def test_a_tree_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.tree.STOPS_WITHIN", 0.0)
    with start(tmp_path) as tree:
        assert tree.stop() == -signal.SIGKILL


def test_the_parts_know_their_place_and_share_no_port(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, metrics_port=9100)
    made = {part.name: part for part in parts(settings, tmp_path / "metrics", 7)}
    assert [(part.name, part.stage, part.late, dict(part.inherited)) for part in made.values()] == [
        ("web", 0, False, {"SIFTBELL_LISTENING": 7}),
        ("clock", 1, True, {}),
        ("filters", 2, True, {}),
        ("deliveries", 2, True, {}),
    ]
    for name, part in made.items():
        assert part.environment["SIFTBELL_PART"] == name
        assert part.environment["SIFTBELL_METRICS_PORT"] == ""
        assert part.environment["SIFTBELL_DATA"] == str(tmp_path)


def facts(*producers: tuple[str, str]) -> Facts:
    names = sorted({pipeline for pipeline, _ in producers})
    pipelines = [
        {
            "name": name,
            "steps": [
                {"plugin": plugin, "url": None if plugin == "poll" else f"/in/{name}/{plugin}"}
                for pipeline, plugin in producers
                if pipeline == name
            ],
        }
        for name in names
    ]
    return Facts("http://h:1", "sb_k", Path("/d"), pipelines)


def test_what_it_prints_for_people() -> None:
    told = run_module._announce(facts(("alerts", "http"), ("alerts", "prometheus"), ("hello", "http")), Output.TABLE)
    assert "Siftbell is ready at http://h:1\nAPI key sb_k (kept in /d/api-key)" in told
    assert (
        "  alerts  http://h:1/in/alerts/http\n          http://h:1/in/alerts/prometheus\n  hello   http://h:1/in/hello/http"
        in told
    )
    assert "  curl -sS http://h:1/in/hello/http -H 'Authorization: Bearer sb_k'" in told


def test_without_a_pipeline_that_takes_json_there_is_no_line_to_paste() -> None:
    told = run_module._announce(facts(("mail", "poll")), Output.TABLE)
    assert "none takes requests" in told
    assert "curl" not in told


def test_the_examples_run_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_module._configs((Path("configs"),)) == (shipped(),)
    assert "running the examples" in capsys.readouterr().err
    assert {"hello.yaml", "alerts.yaml"} <= {path.name for path in shipped().iterdir()}
    (tmp_path / "configs").mkdir()
    assert run_module._configs((Path("configs"),)) == (tmp_path / "configs",)
    assert run_module._configs((Path("a"), Path("/b"))) == (tmp_path / "a", Path("/b"))


def test_it_ends_with_the_supervisor_s_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first.yaml").write_text(PIPELINE)
    monkeypatch.setattr(run_module, "parts", lambda *_: [])
    monkeypatch.setattr("pipeline.cli.supervisor.Supervisor.run", _ended)
    monkeypatch.setattr("pipeline.telemetry.configure_logging", lambda *_, **__: None)
    with pytest.raises(typer.Exit) as ended:
        run_module.run(data=tmp_path / "data", config=[tmp_path], host="127.0.0.1", port=0)
    assert ended.value.exit_code == 78


async def _ended(self: object, started: object, *, stopping: Callable[[], None]) -> int:
    stopping()
    return 78
