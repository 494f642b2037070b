"""Script: executables in sh and Python decide about messages; what they do wrong, and how they end, costs no message."""

from __future__ import annotations

import json
import re
import signal
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from os import kill
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from uuid_utils import uuid7

from filters.script import Script, ScriptConfig
from pipeline import Dropped, Message, PermanentError, TemporaryError, present
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.spec.model import Retry
from pipeline.testing import FilterContract

pytestmark = pytest.mark.against("filter script", "sh and Python")

ANSWERS = """#!python
import json, os, sys, time
open("{tmp}/started", "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    message = json.loads(line)
    open("{tmp}/taken", "a").write(line)
    text = message.get("text", "")
    if text == "die":
        print("no more: " + os.environ.get("SCRIPT_TOKEN", ""), file=sys.stderr)
        sys.exit(3)
    if text == "hang":
        time.sleep(600)
    if text == "kill":
        os.kill(os.getpid(), 9)
    if text == "large":
        print("x" * 2_000_000, flush=True)
    if text == "told":
        print("a word: " + os.environ["SCRIPT_TOKEN"], file=sys.stderr, flush=True)
    print(text[2:].replace("SAME", json.dumps(message)) if text.startswith("> ") else "{}", flush=True)
"""
SHOUT = """#!/bin/sh
while read -r line; do echo '{"title": "loud"}'; done
"""
SHY = "#!/bin/sh\nexit 1\n"


@pytest.fixture(autouse=True)
def scripts(script):
    script(ANSWERS, "answers")
    script(SHOUT, "shout")
    script(SHY, "shy")


class TestShout(FilterContract):
    plugin = Script
    options = {"command": "{tmp}/shout"}


class TestAnswers(FilterContract):
    plugin = Script
    options = {"command": ["{tmp}/answers"], "keep": 2}


@contextmanager
def opened(command="answers", **options):
    with closing(Script(ScriptConfig(command=command, **options))) as plugin:
        plugin.open()
        yield plugin


@pytest.fixture
def started(tmp_path):
    return lambda: (tmp_path / "started").read_text().split() if (tmp_path / "started").exists() else []


@pytest.fixture
def message():
    return Message(source="prometheus", title="disk full", severity="info", labels={"team": "db"}, key="k", data={"a": [1, None]})


@pytest.fixture
def clock():
    """A clock that moves only where a test moves it."""
    moment = [present.now()]
    with present.pretending(present.Pretence(lambda: moment[0], lambda: str(uuid4()), lambda low, _high: low)):
        yield lambda **by: moment.__setitem__(0, moment[0] + timedelta(**by))


def answered(message, text, **options):
    with opened(**options) as plugin:
        return [*plugin.filter(message.replace(text=f"> {text}"))]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("{}", [{}]),
        ("SAME", [{}]),
        ('{"title": "x", "labels": {"a": 1, "b": null, "c": "d", "": "e"}}',
         [{"title": "x", "labels": {"a": "1", "c": "d", "": "e"}}]),
        ('{"severity": "CRIT", "status": "ok", "url": null, "text": null, "labels": null}',
         [{"severity": "critical", "status": "resolved", "text": "", "labels": {}}]),
        ('{"data": {"b": [{}]}}', [{"data": {"b": [{}]}}]),
        ('{"data": null, "type": 7}', [{"data": None, "type": "7"}]),
        ('[{"title": "x"}, {}, {"title": "y", "data": 5}]', [{"title": "x"}, {}, {"title": "y", "data": 5}]),
    ],
)  # fmt: skip
def test_what_it_answers_is_changed_and_the_rest_stays(message, text, changes):
    message = message.replace(text=f"> {text}")
    assert answered(message, text) == [message.replace(**change) for change in changes]


def test_a_time_is_read(message):
    (out,) = answered(message, '{"time": "2026-11-21T09:30:00+01:00"}')
    assert out.time == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("null", "its answer is null"), ("[]", "its answer is []"), ('{"drop": "not ours"}', "not ours"), ('{"drop": ""}', "")],
)
def test_what_it_drops_is_dropped_with_its_reason(message, text, reason):
    assert answered(message, text) == [Dropped(reason)]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('{"refused": "no such team"}', PermanentError, "^no such team$"),
        ('{"retry": "the inventory is away", "after": 30}', TemporaryError, "^the inventory is away$"),
        ('{"titel": "x"}', PermanentError, "names 'titel', which is no field"),
        ('{"drop": 5}', PermanentError, "cannot be understood"),
        ('{"drop": "x", "title": "y"}', PermanentError, "cannot be understood"),
        ('{"severity": {}}', PermanentError, "severity: a text is expected"),
        ('{"status": "perhaps"}', PermanentError, "status: firing or resolved"),
        ('{"time": "soon"}', PermanentError, "^time: "),
        ('{"source": null}', PermanentError, "source: a message always has one"),
        ('{"labels": ["a"]}', PermanentError, "labels: an object of texts is expected"),
        ('{"labels": {"a": {}}}', PermanentError, "labels: an object of texts is expected"),
        ('"done"', PermanentError, "no object, and no list of them"),
        ("7", PermanentError, "no object"),
        ("true", PermanentError, "no object"),
        ("[7]", PermanentError, "no object"),
        (f"[{'{},' * 1000}{{}}]", PermanentError, "more than 1000 parts"),
        ('{"title": "torn', TemporaryError, "cannot be read"),
        ("{}\n{}", TemporaryError, "printed 2 lines"),
        ('{"id": "0190"}', TemporaryError, "the id of another message"),
        ('[{"id": "0190"}]', TemporaryError, "the id of another message"),
        ("die", TemporaryError, "ended with exit code 3: no more"),
        ("kill", TemporaryError, "ended by signal 9"),
        ("large", TemporaryError, "a line of more than 1MiB"),
        ("hang", TemporaryError, "did not answer in time"),
    ],
)  # fmt: skip
def test_what_else_it_does_is_told_and_the_next_message_is_served(message, clock, text, error, words):
    with opened(timeout="2s" if text == "hang" else "10s") as plugin:
        assert [*plugin.filter(message)] == [message]
        with pytest.raises(error, match=words) as caught:
            [*plugin.filter(message.replace(text=text if text.isalpha() and text != "true" else f"> {text}"))]
        assert [*plugin.filter(message)] == [message]
    assert getattr(caught.value, "retry_after", None) == (30 if "after" in text else None)


def test_what_it_refuses_does_not_end_it_and_what_is_out_of_step_does(message, started):
    with opened() as plugin:
        for text, starts in (("{}", 1), ('{"refused": "no"}', 1), ('{"titel": 1}', 1), ('{"id": "0190"}', 1), ("{}", 2)):
            with pytest.raises((PermanentError, TemporaryError)) if text != "{}" else _nothing():
                [*plugin.filter(message.replace(text=f"> {text}"))]
            assert len(started()) == starts


@contextmanager
def _nothing():
    yield


def test_it_reads_the_message_as_it_is_also_where_that_is_large(message, tmp_path):
    with opened() as plugin:
        for size in (0, 3_000_000):
            [*plugin.filter(message.replace(text="x" * size))]
    lines = (tmp_path / "taken").read_bytes().splitlines()
    assert [len(json.loads(line).get("text", "")) for line in lines] == [0, 3_000_000]
    assert json.loads(lines[0]) == message.plain()


def test_one_that_gives_no_answer_is_started_ever_more_rarely(message, script, clock, started):
    script("#!/bin/sh\necho $$ >> {tmp}/started; exit 1\n")
    with opened("script") as plugin:
        for starts, pause in ((1, 1), (2, 2), (3, 4), (4, 8)):
            with pytest.raises(TemporaryError, match="exit code 1"):
                plugin.filter(message)
            for _ in range(3):
                with pytest.raises(TemporaryError, match="exit code 1; it is started again in") as caught:
                    plugin.filter(message)
                assert caught.value.retry_after == pytest.approx(pause)
            assert len(started()) == starts
            clock(seconds=pause)
        script(SHOUT)
        assert [one.title for one in plugin.filter(message)] == ["loud"]


def test_one_that_has_answered_is_started_again_at_once(message, clock, started):
    with opened() as plugin:
        for text in ("{}", "die", "{}", "die", "{}"):
            with pytest.raises(TemporaryError) if text == "die" else _nothing():
                plugin.filter(message.replace(text=text))
    assert len(started()) == 3


def test_what_was_killed_between_two_messages_is_started_again(message, started):
    with opened() as plugin:
        assert [*plugin.filter(message)] == [message]
        kill(int(started()[0]), signal.SIGKILL)
        _gone(started()[0])
        assert [*plugin.filter(message)] == [message]
    assert len(started()) == 2
    _gone(started()[1])


def _gone(pid):
    """Waits until a process is no more."""
    for _ in range(2000):
        if not Path(f"/proc/{pid}").exists():
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"process {pid} is still there")


def test_what_it_says_is_in_the_log_without_the_values_of_its_variables(message, monkeypatch, capsys):
    monkeypatch.setenv("SCRIPT_TOKEN", "hush-hush-hush")
    with opened(environment=["SCRIPT_TOKEN"]) as plugin:
        plugin.filter(message.replace(text="told"))
        with pytest.raises(TemporaryError) as caught:
            plugin.filter(message.replace(text="die"))
    said = capsys.readouterr()
    assert "a word: ***" in said.out + said.err
    assert "no more: ***" in str(caught.value)
    assert "hush-hush" not in said.out + said.err + str(caught.value)


def test_it_has_no_variables_but_those_that_are_named(message, script, monkeypatch):
    monkeypatch.setenv("SCRIPT_TOKEN", "x")
    script('#!/bin/sh\nread -r line; echo "{\\"title\\": \\"<$SCRIPT_TOKEN>\\"}"; read -r line\n')
    with opened("script") as plugin:
        assert [one.title for one in plugin.filter(message)] == ["<>"]
    with opened("script", environment=["SCRIPT_TOKEN"]) as plugin:
        assert [one.title for one in plugin.filter(message)] == ["<x>"]


@pytest.mark.parametrize("keep", [1, 3])
def test_threads_get_the_answers_to_their_own_messages(message, script, started, keep):
    script("""#!python
import json, os, sys
open("{tmp}/started", "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    print(json.dumps({"title": json.loads(line)["title"] + "!"}), flush=True)
""")
    wrong = []

    def ask(name):
        for number in range(20):
            one = message.replace(title=f"{name} {number}")
            if [out.title for out in plugin.filter(one)] != [f"{one.title}!"]:
                wrong.append(one.title)

    with opened("script", keep=keep) as plugin:
        threads = [threading.Thread(target=ask, args=(str(name),)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert 1 <= len(started()) <= keep


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["title", "labels", "data", "drop", "retry", "refused", "id", "time", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


def test_whatever_it_answers_a_message_goes_on_is_dropped_or_is_told_of(script, clock):
    script("""#!python
import json, sys
for line in sys.stdin:
    print(json.loads(line)["text"], flush=True)
""")
    with opened("script") as plugin:

        @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(answer=JSON)
        def holds(answer):
            one = Message(source="t", text=json.dumps(answer))
            try:
                out = [*plugin.filter(one)]
            except (PermanentError, TemporaryError):
                return
            finally:
                clock(minutes=10)
            assert out
            assert all(isinstance(part, Dropped) or part.id == one.id for part in out)

        holds()


PIPELINE = """
producers: [http]
filters:
  - script: {command: answers}
consumers: [log]
"""


def test_a_message_that_kills_it_is_buried_in_the_end_and_no_other_suffers(message, script, tmp_path, monkeypatch):
    script(
        """#!/bin/sh
while read -r line; do
    case "$line" in *die*) echo "no more" >&2; exit 3 ;; *never*) echo null ;; *) echo "{}" ;; esac
done
""",
        "answers",
    )
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE)
    # for as long as else, in fewer attempts: each one starts a process
    monkeypatch.setattr("pipeline.engine.filtering.Retry", partial(Retry, longest=timedelta(hours=2)))
    sent = [message.replace(id=str(uuid7()), text=text) for text in ("a", "die", "b", "never", "c")]
    with Simulation(load([file]), start=datetime(2026, 11, 21, tzinfo=UTC), workers=2) as run:
        run.accept(sent)
        assert run.run_until_idle()
        assert [one.text for _, one in run.deliveries["log"]] == ["a", "b", "c"]
        assert [run.records(sent[3].id)[0].reason] == [f"by script: its answer is null at {file}:4:5"]
        (letter,) = run.dead_letters()
    assert letter.message.text == "die"
    assert re.fullmatch(r"given up after \d+ attempts.*: answers ended with exit code 3: no more.*", letter.error)
    assert letter.at - datetime(2026, 11, 21, tzinfo=UTC) < timedelta(hours=7)


def test_what_is_broken_is_tried_until_it_works_and_loses_nothing(message, script, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.replace("answers", "script"))
    script("#!/bin/sh\necho $$ >> {tmp}/started\nexit 1\n")
    start = datetime(2026, 11, 21, tzinfo=UTC)
    with Simulation(load([file]), start=start) as run:
        run.accept([message.replace(id=str(uuid7()), title=str(number)) for number in range(30)])
        run.run_until(start + timedelta(minutes=10))
        assert run.deliveries["log"] == []
        starts = len((tmp_path / "started").read_text().split())
        script(SHOUT)
        assert run.run_until_idle()
        assert len(run.deliveries["log"]) == 30
        assert run.dead_letters() == []
    assert starts < 20


@pytest.mark.parametrize("options", [{"timeout": "2m"}, {"keep": 0}, {"timeout": "0s"}])
def test_what_is_wrong_is_told(options):
    with pytest.raises(ValidationError):
        ScriptConfig(command="answers", **options)
