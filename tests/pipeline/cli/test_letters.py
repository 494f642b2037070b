"""`siftbell dead-letters`: found, grouped, edited, redriven and dropped by a person or a script."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cli import moving
from pipeline.message import Message
from pipeline.settings import Settings
from pipeline.store import DeadLetter, Outcome, Store, StoreAway, Why

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(project: Path, monkeypatch):
    monkeypatch.setattr(moving, "PATIENCE", 0)
    with closing(Store(Settings(data=project / ".siftbell").store_url)) as store:
        store.migrate()
        yield store


@pytest.fixture
def bury(store):
    """Buries a message for each error, a second apart; gives the ids."""

    def them(*errors, start=AT, **fields):
        given = {"pipeline": "alerts", "step": "oncall"} | fields
        letters = [
            DeadLetter(message=Message(source="t", title=error), error=error, at=start + timedelta(seconds=number), **given)
            for number, error in enumerate(errors)
        ]
        store.settle(dead=letters, records=[letter.record() for letter in letters])
        return [letter.message.id for letter in letters]

    return them


def on_a_terminal(*arguments: str, answer: str = "", columns: int = 80, **environment: str) -> tuple[int, str]:
    """Run the command on a terminal, and give its exit code and what the terminal showed."""
    screen, terminal = pty.openpty()
    variables = os.environ | {"COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"} | environment
    command = [sys.executable, "-m", "pipeline.cli", "dead-letters", *arguments]
    started = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=variables)
    os.close(terminal)
    if answer:
        os.write(screen, answer.encode())
    shown = b""
    try:
        while piece := os.read(screen, 65536):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(screen)
    return started.wait(60), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--error", "TIME"), ["timeout 2", "timeout 1"]),
        (("--since", "2026-03-01T12:00:01"), ["gone", "timeout 2"]),
        (("--until", "2026-03-01T13:00:01+01:00"), ["timeout 1"]),
        (("--since", "1h"), []),
        (("-p", "alerts", "-s", "oncall", "-e", "gone"), ["gone"]),
        (("--group-id", "none"), []),
    ],
)
def test_letters_are_found_by_what_is_known_of_them(bury, siftbell, arguments, found) -> None:
    bury("timeout 1", "timeout 2", "gone")
    assert [one["title"] for one in siftbell("dead-letters", "list", *arguments, "-o", "json").json] == found


def test_groups_have_one_line_each(bury, siftbell) -> None:
    bury("after 3 s", "after 4 s")
    (example,) = bury("gone", start=AT + timedelta(hours=1))
    shown = siftbell("dead-letters", "list", "--group")
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == ["2", "1"]
    assert "after 4 s" in shown.out
    assert "--group-id" in shown.err
    groups = siftbell("dead-letters", "list", "-g", "-o", "json").json
    assert [(one["count"], one["example"] == example) for one in groups] == [(2, False), (1, True)]
    assert "the largest 1 of 2 groups" in siftbell("dead-letters", "list", "-g", "--limit", "1").err
    titles = [one["title"] for one in siftbell("dead-letters", "list", "--group-id", groups[0]["group"], "-o", "json").json]
    assert titles == ["after 4 s", "after 3 s"]


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_on_a_terminal_nothing_that_is_needed_is_cut(bury, columns) -> None:
    (first, second) = bury("a long error " * 20 + "\nof two lines", "short")
    _, shown = on_a_terminal("list", columns=columns)
    assert all(len(line) <= columns for line in shown.splitlines())
    for text in (first, second, "alerts", "oncall", "2026-03-01T12:00:01Z", "short", "…"):
        assert text in shown
    _, shown = on_a_terminal("list", "-g", columns=columns)
    for text in ("alerts", "oncall", "short", "2026-03-01T12:00"):
        assert text in shown


def test_a_redrive_moves_to_the_step_that_failed(store, bury, siftbell) -> None:
    first, second = bury("no", "no")
    done = siftbell("dead-letters", "redrive", first, "--yes")
    assert (done.code, done.out.splitlines()[2].split()) == (0, ["1", "alerts", "oncall"])
    assert done.err.startswith("1 message redriven\nnothing takes them up yet")
    assert [letter.message.id for letter in store.dead_letters()] == [second]
    assert store.held_counts() == {("alerts", "oncall", Why.RETRY): 1}
    done = siftbell("dead-letters", "redrive", "--all", "-y", "--rate", "1/m", "-o", "json")
    assert (done.code, done.json["messages"], done.json["refused"]) == (0, 1, [])


def test_what_cannot_be_redriven_stays_and_is_told(store, bury, siftbell) -> None:
    bury("no", "no", "no", "no", pipeline="old")
    bury("no")
    dry = siftbell("dead-letters", "redrive", "--all", "--dry-run")
    assert dry.err.startswith("1 message would be redriven, 4 not:\n  4 of old/oncall: there is no pipeline 'old' any more (")
    assert store.count_letters() == 5
    done = siftbell("dead-letters", "redrive", "--all", "--yes", "-o", "json")
    assert done.code == 1
    (refused,) = done.json["refused"]
    assert (refused["messages"], len(refused["examples"])) == (4, 3)
    assert store.count_letters() == 4


def test_a_drop_is_for_good_and_on_record(store, bury, siftbell) -> None:
    (message_id,) = bury("no")
    done = siftbell("dead-letters", "drop", "--error", "NO", "--yes")
    assert (done.code, done.err) == (0, "1 message dropped\n")
    assert store.count_letters() == 0
    (record,) = store.history(message_id)
    assert record.outcome is Outcome.BURIED
    assert "dropped from the dead letters on " in record.reason


@pytest.mark.parametrize("verb", ["redrive", "drop"])
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "say which"),
        (("--all", "-p", "alerts"), 2, "--all is for"),
        (("-p", "alerts"), 2, "say --yes"),
        (("-p", "other", "-y"), 4, "no such dead letters"),
        (("--since", "soon", "-y"), 2, "--since: a time such as"),
    ],
)
def test_nothing_moves_by_oversight(store, bury, siftbell, verb, arguments, code, text) -> None:
    bury("no")
    done = siftbell("dead-letters", verb, *arguments)
    assert (done.code, done.out) == (code, "")
    assert text in done.err
    assert store.count_letters() == 1


def test_a_wrong_rate_is_refused(bury, siftbell) -> None:
    bury("no")
    assert siftbell("dead-letters", "redrive", "--all", "-y", "--rate", "fast").err.startswith("siftbell: --rate: a rate such as")


@pytest.mark.parametrize(("answer", "left"), [("n\n", 2), ("y\n", 0)])
def test_a_person_is_asked_with_the_number(store, bury, answer, left) -> None:
    bury("no", "no")
    code, shown = on_a_terminal("drop", "-p", "alerts", answer=answer)
    assert "Delete 2 messages for good? [y/N]" in shown
    assert (code, store.count_letters()) == (1 if left else 0, left)


def test_progress_is_told_in_lines_where_there_is_no_terminal(store, bury, siftbell, monkeypatch) -> None:
    monkeypatch.setattr(moving, "TELL_EVERY", 0)
    bury(*["no"] * 501)
    assert siftbell("dead-letters", "drop", "--all", "-y").err.splitlines()[:2] == ["500 of 501", "501 of 501"]


def test_a_store_that_goes_away_in_the_middle_is_told_with_what_was_done(store, bury, siftbell, monkeypatch) -> None:
    bury(*["no"] * 501)
    drop = Store.drop_letters

    def goes_away(self, *arguments, **options):
        if options["after"]:
            raise StoreAway("the store is away")
        return drop(self, *arguments, **options)

    monkeypatch.setattr(Store, "drop_letters", goes_away)
    done = siftbell("dead-letters", "drop", "--all", "-y")
    assert done.code == 3
    assert "500 messages dropped before that" in done.err
    assert store.count_letters() == 1


def test_it_is_said_where_a_clock_takes_up_what_was_redriven(store, bury, siftbell, monkeypatch) -> None:
    monkeypatch.setattr(moving, "PATIENCE", 30)
    bury("no")
    real = Store.next_due
    asked = []

    def taken_at_the_second_look(self):
        asked.append(1)
        if len(asked) == 2:
            self.claim_due(datetime.now(UTC), owner="clock", lease=timedelta(minutes=1), limit=9)
        return real(self)

    monkeypatch.setattr(Store, "next_due", taken_at_the_second_look)
    assert "a clock brings them to where they failed" in siftbell("dead-letters", "redrive", "--all", "-y").err
    bury("no", "no")
    asked.clear()
    done = siftbell("dead-letters", "redrive", "--all", "-y", "--rate", "1/h")
    assert "the last one at " in done.err


# Editing


def title(store: Store, message_id: str) -> str:
    (letter,) = store.dead_letter(message_id)
    return letter.message.title


def test_a_script_edits_by_fields_or_by_a_whole_message(store, bury, siftbell) -> None:
    (message_id,) = bury("no")
    done = siftbell("dead-letters", "edit", message_id, "--set", "title=better", "--set", "labels.team=db")
    assert (done.code, title(store, message_id)) == (0, "better")
    assert done.err.startswith(f"changed; `siftbell dead-letters redrive {message_id} ")
    message = json.dumps({"source": "s", "title": "best"}).encode()
    assert siftbell("dead-letters", "edit", message_id, "-f", "-", stdin=message).code == 0
    assert title(store, message_id) == "best"
    assert siftbell("dead-letters", "edit", message_id, "--set", "title=best").err == "nothing was changed\n"
    assert "\nedited " in siftbell("dead-letters", "show", message_id).out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--set", "titel=x"), 1, "titel: a message has no such field: did you mean 'title'?"),
        (("--set", "title"), 2, "--set: FIELD=VALUE is expected"),
        (("--set", "title=x", "--file", "x"), 2, "not from both"),
        (("--file", "-"), 1, "line 1, column 1: Expecting value"),
        (("--step", "mail"), 4, "is not among the dead letters there: there is --pipeline alerts --step oncall"),
        ((), 2, "there is no terminal for an editor"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(store, bury, siftbell, arguments, code, text) -> None:
    (message_id,) = bury("no")
    done = siftbell("dead-letters", "edit", message_id, *arguments)
    assert (done.code, title(store, message_id)) == (code, "no")
    assert text in done.err


def test_a_message_that_several_steps_gave_up_is_edited_at_one(store, bury, siftbell) -> None:
    (message_id,) = bury("no")
    (letter,) = store.dead_letter(message_id)
    store.settle(dead=[DeadLetter(message=letter.message, pipeline="alerts", step="tell", error="no", at=AT)])
    done = siftbell("dead-letters", "edit", message_id, "--set", "title=x")
    assert (done.code, "say which: --pipeline alerts --step oncall, --pipeline alerts --step tell" in done.err) == (2, True)
    assert siftbell("dead-letters", "edit", message_id, "--set", "title=x", "--step", "tell").code == 0
    assert {one.step: one.message.title for one in store.dead_letter(message_id)} == {"oncall": "no", "tell": "x"}
    assert siftbell("dead-letters", "edit", "nothing", "--set", "title=x").code == 4


def test_an_edit_over_somebody_elses_is_refused(store, bury, siftbell, monkeypatch) -> None:
    (message_id,) = bury("no")
    monkeypatch.setattr(Store, "edit_letter", lambda *_: False)
    done = siftbell("dead-letters", "edit", message_id, "--set", "title=x")
    assert (done.code, "by somebody else meanwhile" in done.err) == (1, True)


@pytest.fixture
def editor(tmp_path: Path):
    """Makes an editor of Python code, with `text` as what stands in the file; gives its command."""

    def make(code: str) -> str:
        script = tmp_path / "editor.py"
        start = "import sys; from pathlib import Path; place = Path(sys.argv[1]); text = place.read_text()"
        script.write_text(f"{start}\n{code}\nplace.write_text(text)")
        return f"'{sys.executable}' '{script}'"

    return make


def test_a_person_edits_in_an_editor(store, bury, editor) -> None:
    (message_id,) = bury("no")
    code, shown = on_a_terminal("edit", message_id, EDITOR=editor("text = text.replace('\"no\"', '\"better\"')"))
    assert (code, title(store, message_id)) == (0, "better"), shown
    code, shown = on_a_terminal("edit", message_id, VISUAL=editor(""))
    assert (code, "nothing was changed" in shown) == (0, True)


def test_a_text_that_is_no_message_may_be_edited_again(store, bury, editor) -> None:
    (message_id,) = bury("no")
    twice = editor("text = text.replace('\"no\"', 'oh') if '\"no\"' in text else text.replace('oh', '\"mended\"')")
    code, shown = on_a_terminal("edit", message_id, answer="y\n", EDITOR=twice)
    assert (code, title(store, message_id)) == (0, "mended"), shown
    assert "line 6, column 12" in shown
    code, shown = on_a_terminal("edit", message_id, answer="n\n", EDITOR=editor("text = ''"))
    assert (code, title(store, message_id)) == (1, "mended")
    for wrong in (editor("sys.exit(3)"), "no-such-editor"):
        code, shown = on_a_terminal("edit", message_id, EDITOR=wrong)
        assert (code, "ended with 3" in shown or "set EDITOR" in shown) == (1, True)
