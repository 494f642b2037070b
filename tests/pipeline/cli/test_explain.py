"""`siftbell explain` as a person calls it: what it finds, what it says where it finds nothing, and both forms of output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cli.tree import Tree
from pipeline.message import Message, new_id
from pipeline.settings import Settings
from pipeline.store import DeadLetter, Outcome, Record, Store

PIPELINE = """
name: first
producers: [{http: {}}]
filters:
  - match: 'severity != "debug"'
    as: quiet
consumers:
  - file: {path: "${SIFTBELL_DATA}/first.jsonl"}
"""


@pytest.fixture
def store(project):
    made = Store(Settings().store_url)
    made.migrate()
    yield made
    made.close()


def deliver(store, message_id):
    records = [Record(message_id=message_id, pipeline="alerts", step="oncall", outcome=Outcome.DELIVERED, at=datetime.now(UTC))]
    store.settle(records=records)


def test_the_sentence_comes_first_then_the_story(siftbell, store):
    message_id = new_id()
    deliver(store, message_id)
    done = siftbell("explain", message_id)
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[:3] == [message_id, "delivered to oncall; nothing yet from tell", ""]
    assert [line.split()[1:4] for line in lines[3:5]] == [["intake", "accepted", "into"], ["oncall", "(tell)", "delivered"]]
    assert lines[5].split() == [
        "tell",
        "nothing",
        "yet",
        "on",
        "the",
        "queue",
        "out.tell,",
        "or",
        "newer",
        "than",
        "the",
        "message",
    ]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_programs_get_all_of_it_with_times_in_utc(siftbell, store, output):
    message_id = new_id()
    deliver(store, message_id)
    done = siftbell("explain", message_id, "-o", output)
    assert (done.code, done.err) == (0, "")
    if output == "json":
        assert list(done.json) == ["id", "answer", "accepted", "title", "source", "entries", "origins", "became", "records"]
        assert done.json["entries"][0]["at"].endswith("Z")
        assert done.json["entries"][0]["place"].endswith("alerts.yaml:14:5")
        assert [entry["state"] for entry in done.json["entries"]] == ["delivered", "nothing yet"]
    else:
        assert "state: delivered" in done.out
        assert "!!" not in done.out


def test_files_are_named_from_the_working_directory_on(siftbell, store, project):
    message_id, why = new_id(), f"by match: it is no alert at {project}/configs/alerts.yaml:5:5"
    record = Record(
        message_id=message_id, pipeline="alerts", step="quiet", outcome=Outcome.DROPPED, at=datetime.now(UTC), reason=why
    )
    store.settle(records=[record])
    assert "  by match: it is no alert at configs/alerts.yaml:5:5" in siftbell("explain", message_id).out
    assert siftbell("explain", message_id, "-o", "json").json["entries"][0]["reason"] == why


def test_the_beginning_of_an_id_will_do_where_it_is_the_only_one(siftbell, store):
    message_id = new_id()
    deliver(store, message_id)
    assert siftbell("explain", message_id[:20]).out == siftbell("explain", message_id).out
    other = message_id[:-1] + ("0" if message_id[-1] != "0" else "1")
    deliver(store, other)
    done = siftbell("explain", message_id[:20])
    assert (done.code, done.out) == (2, "")
    assert all(one in done.err for one in (message_id, other))


def test_more_ids_than_are_worth_naming(siftbell, store):
    head = new_id()[:-2]
    for number in range(12):
        deliver(store, f"{head}{number:02x}")
    lines = siftbell("explain", head).err.splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  …"


@pytest.mark.parametrize(
    ("message_id", "words"),
    [
        (new_id, "it waits on the queue since "),
        (lambda: "01900000-0000-7000-8000-000000000000", "records are kept for 7d (SIFTBELL_RETENTION)"),
        (lambda: "mine-1", "its records are older than 7d"),
        (lambda: "0190", "its records are older than 7d"),
        (lambda: "\x1b[31m", "\\x1b[31m"),
    ],
    ids=["young", "old", "foreign", "prefix", "control"],
)
def test_of_an_id_that_is_not_known_is_said_what_that_can_mean(siftbell, store, message_id, words):
    done = siftbell("explain", message_id())
    assert (done.code, done.out) == (4, "")
    assert words in done.err
    assert "another installation (--data, SIFTBELL_STORE), or never" in done.err


def test_a_configuration_that_does_not_load_hides_no_records(siftbell, store, project):
    message_id = new_id()
    deliver(store, message_id)
    (project / "configs" / "alerts.yaml").write_text("name: [")
    done = siftbell("explain", message_id)
    assert done.code == 0
    assert "delivered to oncall" in done.out
    assert "consumers without a record are not shown" in done.err


def test_how_to_try_it_again_stands_in_one_piece(siftbell, store, monkeypatch):
    message = Message(source="test", title="disk full")
    store.settle(dead=[DeadLetter(message=message, pipeline="alerts", step="tell", error="no", at=datetime.now(UTC))])
    monkeypatch.setenv("COLUMNS", "40")
    assert siftbell("explain", message.id).out.splitlines()[-1] == f"siftbell dead-letters redrive {message.id}"


def test_without_a_store_it_is_said_where_it_was_looked_for(siftbell, project):
    done = siftbell("explain", new_id())
    assert done.code == 3
    assert "store.db" in done.err


@pytest.mark.e2e
def test_a_message_through_a_running_tree(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(PIPELINE)
    own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
    settings = {"SIFTBELL_DATA": "data", "SIFTBELL_PORT": "0", "SIFTBELL_CONFIG": "first.yaml", "TZ": "Asia/Tokyo"}

    def siftbell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        return subprocess.run(command, env=own | settings, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    def explained(message_id: str, answer: str) -> str:
        end = datetime.now(UTC) + timedelta(seconds=60)
        while _answer(found := siftbell("explain", message_id)) != answer:
            assert datetime.now(UTC) < end, found.stdout + found.stderr
        return found.stdout

    with Tree(tmp_path / "log", own | settings, (), directory=tmp_path) as tree:
        loud = siftbell("send", "first", "title=disk full").stdout.strip()
        quiet = siftbell("send", "first", "title=chatter", "severity=debug").stdout.strip()
        assert "at the first attempt" in explained(loud, "delivered to file")
        story = explained(quiet, "dropped by quiet")
        assert tree.stop() == 0
    assert 'by match: severity != "debug" does not hold at ' in story
    assert "first.yaml:5:5\n" in story
    assert "times of UTC+09:00" in story
    assert json.loads(siftbell("explain", loud, "-o", "json").stdout)["entries"][0]["state"] == "delivered"


def _answer(found: subprocess.CompletedProcess[str]) -> str:
    lines = found.stdout.splitlines()
    return lines[1] if len(lines) > 1 else ""
