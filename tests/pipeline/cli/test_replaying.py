"""`siftbell replay` as a person calls it: what would be different, where it has nothing to run, and both forms of output."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import Message
from pipeline.cli import replaying
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.runner import Runner
from pipeline.engine.simulation.stage import ListQueue
from pipeline.memory import open_memory
from pipeline.settings import Settings
from pipeline.spec import load
from pipeline.store import Store

KEEPING = """name: team
keep: 24h
producers: [take]
filters:
  - match: severity != "debug"
consumers:
  - file: {path: out.jsonl}
    as: oncall
  - file: {path: all.jsonl}
    as: archive
"""
CHANGED = KEEPING.replace('severity != "debug"', 'severity == "critical" || title == "noise"')
BEGAN = datetime.now(UTC).replace(microsecond=0, second=0) - timedelta(hours=2)
SENT = (("disk full", "critical"), ("disk slow", "warning"), ("noise", "debug"))


@pytest.fixture
def store(project):
    made = Store(Settings().store_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def record(store):
    """Runs messages through a pipeline's file, a minute apart each, from two hours ago on."""

    def record(text=KEEPING, sent=SENT):
        Path("configs/team.yaml").write_text(text)
        moment = [BEGAN]
        pipelines = Pipelines(load([Path("configs/team.yaml")]))
        memory, queue = open_memory(str(store.url)), ListQueue()
        runner = Runner(pipelines, store, memory, queue, now=lambda: moment[0])
        messages = [Message(source="take", title=title, severity=severity) for title, severity in sent]
        for message in messages:
            runner.accept(pipelines["team"], "take", [message])
            while len(queue):
                runner.run(queue.take())
            moment[0] += timedelta(minutes=1)
        pipelines.close()
        memory.close()
        return [message.id for message in messages]

    return record


def lines(done):
    return [line.rstrip() for line in done.out.splitlines()]


def test_a_person_sees_what_would_be_different_first_then_the_messages(siftbell, record):
    ids = record()
    Path("configs/team.yaml").write_text(CHANGED)
    done = siftbell("replay", "team", "--since", "24h", "--dry-run")
    first, last = (f"{BEGAN + timedelta(minutes=minute):%Y-%m-%d %H:%M:%S}" for minute in (0, 2))
    clock = [f"{BEGAN + timedelta(minutes=minute):%H:%M:%S}" for minute in (1, 2)]
    if first[:10] != last[:10]:
        clock = [f"{BEGAN + timedelta(minutes=minute):%m-%d %H:%M:%S}" for minute in (1, 2)]
    why = 'severity == "critical" || title == "noise" does not hold'
    was = 'severity != "debug" does not hold'
    assert lines(done) == [
        f"team: 3 messages, {first} to {last} UTC",
        "2 messages would be told differently",
        "  1  oncall, archive: delivered → dropped by match at configs/team.yaml:5:5",
        "  1  oncall, archive: dropped by match at configs/team.yaml:5:5 → delivered",
        "notifications: oncall 2 as then, archive 2 as then",
        "",
        f"{clock[0]}  {ids[1]}  disk slow  oncall, archive: delivered → dropped by match: {why} at configs/team.yaml:5:5",
        f"{clock[1]}  {ids[2]}  noise      oncall, archive: dropped by match: {was} at configs/team.yaml:5:5 → delivered",
    ]
    assert (done.code, done.err) == (0, "nothing was sent\n")


def test_an_unchanged_pipeline(siftbell, record):
    record()
    done = siftbell("replay", "team", "--dry-run")
    assert lines(done)[1:] == ["nothing would be told differently", "notifications: oncall 2 as then, archive 2 as then"]


def test_a_changed_file_elsewhere_is_tried_before_it_is_put_in_place(siftbell, record, tmp_path):
    record()
    new = tmp_path / "new.yaml"
    new.write_text(CHANGED.replace("keep: 24h\n", ""))
    done = siftbell("replay", "team", "--dry-run", "--config", new, "--config", "configs/plugins")
    assert done.code == 78
    (tmp_path / "plugins").symlink_to(tmp_path / "configs" / "plugins")
    done = siftbell("replay", "team", "--dry-run", "--config", new)
    assert "2 messages would be told differently" in done.out
    assert "→ dropped by match at new.yaml:4:5" in done.out


def test_programs_get_all_of_it(siftbell, record):
    ids = record()
    Path("configs/team.yaml").write_text(CHANGED)
    found = siftbell("replay", "team", "--dry-run", "-o", "json").json
    assert {name: value for name, value in found.items() if name not in ("messages", "since", "until")} == {
        "pipeline": "team",
        "different": 2,
        "unknown": 0,
        "failed": 0,
        "left_out": 0,
        "changes": [
            {
                "consumers": ["oncall", "archive"],
                "then": "delivered",
                "now": "dropped by match at configs/team.yaml:5:5",
                "count": 1,
            },
            {
                "consumers": ["oncall", "archive"],
                "then": "dropped by match at configs/team.yaml:5:5",
                "now": "delivered",
                "count": 1,
            },
        ],
        "notifications": [{"consumer": "oncall", "then": 2, "now": 2}, {"consumer": "archive", "then": 2, "now": 2}],
    }
    assert [(one["id"], one["title"], one["different"]) for one in found["messages"]] == [
        (ids[0], "disk full", False),
        (ids[1], "disk slow", True),
        (ids[2], "noise", True),
    ]
    end = found["messages"][1]["ends"][0]
    assert (end["consumer"], end["then"]["state"], end["then"]["told_by"], end["different"]) == (
        "oncall", "delivered", [ids[1]], True,
    )  # fmt: skip
    assert end["now"]["reason"].endswith("does not hold at configs/team.yaml:5:5")
    assert "state: dropped" in siftbell("replay", "team", "--dry-run", "-o", "yaml").out


def test_only_the_newest_of_a_time(siftbell, record):
    record()
    Path("configs/team.yaml").write_text(CHANGED)
    done = siftbell("replay", "team", "--dry-run", "--limit", "1")
    assert lines(done)[1:3] == [
        "2 messages of that time that came before were left out: --limit",
        "1 message would be told differently",
    ]
    until = f"{BEGAN + timedelta(minutes=2):%Y-%m-%dT%H:%M}"
    found = siftbell("replay", "team", "--dry-run", "--until", until, "--limit", "1", "-o", "json").json
    assert ([one["title"] for one in found["messages"]], found["left_out"]) == (["disk slow"], 1)


def test_many_messages_are_not_all_shown(siftbell, record, monkeypatch):
    monkeypatch.setattr(replaying, "MOST_LINES", 2)
    record(sent=[(str(number), "warning") for number in range(5)])
    Path("configs/team.yaml").write_text(CHANGED)
    done = siftbell("replay", "team", "--dry-run")
    assert len(re.findall("delivered → dropped by match: ", done.out)) == 2
    assert lines(done)[-1] == "… 3 more: -o json has them"


def test_what_is_not_on_record_is_told(siftbell, record, store):
    record()
    store.purge(datetime.now(UTC), 100)
    done = siftbell("replay", "team", "--dry-run")
    assert lines(done)[1:] == [
        "nothing can be compared",
        "notifications: oncall 0 → 2, archive 0 → 2",
        "3 messages without a record of what was done, compared with nothing: on a queue, or purged",
    ]


def test_what_a_simulation_buries_is_not_told_as_if_it_lay_in_the_dead_letters(siftbell, record, store):
    record(KEEPING.replace("debug", "x"), sent=[("a", "error")])
    Path("configs/team.yaml").write_text(KEEPING.replace('match: severity != "debug"', "change: break"))
    done = siftbell("replay", "team", "--dry-run")
    assert "delivered → buried by change" in done.out
    assert "ValueError: broken" in done.out
    assert done.err == "nothing was sent\n"
    assert store.count_dead() == {}


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (("team",), "say --dry-run: a replay only compares", 2),
        (("teem", "--dry-run"), "no pipeline is called 'teem': did you mean 'team'?", 4),
        (("team", "--dry-run", "--since", "yesterday"), "--since: a time such as 2026-11-21T08:30, or how long ago", 2),
        (("team", "--dry-run", "--until", "x"), "--until: a time such as", 2),
        (("team", "--dry-run", "--until", "20h"), "pipeline 'team' kept no message in that time: it has 3 messages, from ", 4),
        (("alerts", "--dry-run"), "pipeline 'alerts' keeps no messages: with 'keep: 24h' beside its name it does", 4),
        (("new", "--dry-run"), "pipeline 'new' has kept no message yet: with 'keep: 1d' it does so", 4),
        (("team", "--dry-run", "--data", "nowhere"), "no such file; `siftbell run` makes it", 3),
    ],
)
def test_where_there_is_nothing_to_run(siftbell, record, arguments, text, code):
    record()
    Path("configs/new.yaml").write_text(KEEPING.replace("name: team", "name: new"))
    done = siftbell("replay", *arguments)
    assert text in done.err
    assert (done.code, done.out) == (code, "")


def test_a_narrow_terminal_has_no_room_for_ids_and_long_titles(siftbell, record, monkeypatch):
    (message_id,) = record(sent=[("a title that is longer than anybody needs to know it by", "warning")])
    Path("configs/team.yaml").write_text(CHANGED)
    monkeypatch.setattr(replaying, "console", lambda: Console(force_terminal=True, width=100, no_color=True, highlight=False))
    done = siftbell("replay", "team", "--dry-run")
    assert message_id not in done.out
    assert "a title that is longer than anybody nee…  oncall" in done.out


def test_on_a_terminal_it_shows_how_far_it_is(record, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with replaying._progress(3) as tell:
        tell(2)
    assert "2/3" in capsys.readouterr().err
