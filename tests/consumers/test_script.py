"""Script: executables in bash, Python and Node.js get each message, one by one or kept running, and their answer counts."""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from pydantic import ValidationError
from trees import until

from consumers.script import Script, ScriptConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import ConsumerContract

pytestmark = pytest.mark.against("consumer script", "bash, Python and Node.js")

TAKE = "#!/bin/bash\ncat >> {tmp}/taken\n"
KEPT = """#!python
import json, os, sys, time
open("{tmp}/started", "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    message = json.loads(line)
    with open("{tmp}/taken", "a") as file:
        file.write(line)
    title = message.get("title", "")
    if title == "die":
        print("no more", file=sys.stderr)
        sys.exit(3)
    if title == "hang":
        time.sleep(600)
    answers = {
        "busy": '{"retry": "the queue is full", "after": 30}',
        "bad": '{"refused": "no such project"}',
        "odd": '{}',
        "torn": '{"ok": tr',
        "twice": '{"ok": true}\\n{"ok": true}',
    }
    print(answers.get(title, '{"ok": true}'), flush=True)
"""


@pytest.fixture(autouse=True)
def scripts(script):
    script(TAKE, "take")
    script(KEPT, "kept")


class TestOneByOne(ConsumerContract):
    plugin = Script
    options = {"command": "{tmp}/take"}
    away_options = {"command": "{tmp}/gone"}


class TestKept(ConsumerContract):
    plugin = Script
    options = {"command": "{tmp}/kept", "keep": True}
    away_options = {"command": "{tmp}/gone", "keep": 2}


@contextmanager
def opened(command="script", **options):
    with closing(Script(ScriptConfig(command=command, **options))) as plugin:
        plugin.open()
        yield plugin


@pytest.fixture
def taken(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "taken").read_text().splitlines()]


@pytest.fixture
def message():
    return Message(source="prometheus", title="disk full", text="2 % left", labels={"receiver": "ops"}, data={"a": [1, None]})


COPIES = {
    "bash": '#!/bin/bash\nread -r line; echo "$line" > {tmp}/taken',
    "Python": "#!python\nimport sys\nopen('{tmp}/taken', 'w').write(sys.stdin.read())",
    "Node.js": "#!/usr/bin/env node\nconst fs = require('fs'); fs.writeFileSync('{tmp}/taken', fs.readFileSync(0))",
}


@pytest.mark.parametrize("language", COPIES)
def test_scripts_of_any_language_get_the_message(script, language, message, tmp_path, require_binary):
    if language == "Node.js":
        require_binary("node", "nodejs")
    script(COPIES[language])
    with opened() as plugin:
        plugin.consume(message)
    assert msgspec.json.decode((tmp_path / "taken").read_bytes(), type=Message) == message


def test_the_older_contract(message, taken):
    with opened("take", format="list") as plugin:
        plugin.consume(message)
        plugin.consume(Message(source="ci", title="build 7"))
    assert taken() == [
        [{"sender": "prometheus", "receiver": "ops", "content": "disk full\n2 % left"}],
        [{"sender": "ci", "receiver": "", "content": "build 7"}],
    ]


def test_a_message_larger_than_a_pipe_arrives_whole(taken):
    with opened("take") as plugin:
        plugin.consume(Message(source="a", text="x" * 3_000_000))
    assert len(taken()[0]["text"]) == 3_000_000


@pytest.mark.parametrize("prints", ["seq 200000", "head -c 3000000 /dev/zero"])
def test_a_script_need_not_read_and_may_print(script, message, prints):
    script(f"#!/bin/bash\n{prints}")
    with opened() as plugin:
        plugin.consume(message.replace(text="x" * 3_000_000))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("echo 'busy now' >&2; exit 75", TemporaryError, "script ended with exit code 75: busy now"),
        ("exit 1", PermanentError, "script ended with exit code 1"),
        ("kill -9 $$", TemporaryError, "script was ended by signal 9"),
        ("sleep 600", TemporaryError, "script took longer than 500ms"),
    ],
)
def test_how_it_ends_is_the_outcome(script, message, text, error, words):
    script(f"#!/bin/bash\n{text}")
    with opened(timeout="500ms") as plugin, pytest.raises(error, match=words):
        plugin.consume(message)


def test_a_call_may_take_no_longer_than_the_engine_waits():
    with pytest.raises(ValidationError, match="at most 55s is expected"):
        ScriptConfig(command="take", timeout="2m")


class TestKeptRunning:
    """One process, a line in and a line out."""

    @pytest.fixture
    def started(self, tmp_path):
        return lambda: (tmp_path / "started").read_text().split()

    def test_it_is_started_once_and_gets_every_message(self, message, taken, started):
        with opened("kept", keep=True) as plugin:
            for number in range(20):
                plugin.consume(message.replace(title=str(number)))
            assert not gone(started()[0])
        assert [one["title"] for one in taken()] == [str(number) for number in range(20)]
        assert len(started()) == 1
        assert gone(started()[0])

    @pytest.mark.parametrize(
        ("title", "error", "words"),
        [
            ("busy", TemporaryError, "^the queue is full$"),
            ("bad", PermanentError, "^no such project$"),
            ("odd", TemporaryError, "without ok, retry or refused"),
            ("torn", TemporaryError, "cannot be read"),
            ("twice", TemporaryError, "printed 2 lines for an answer"),
            ("die", TemporaryError, "exit code 3: no more"),
            ("hang", TemporaryError, "did not answer in time"),
        ],
    )
    def test_its_answer_is_the_outcome_and_it_serves_the_next_message(self, message, title, error, words):
        with opened("kept", keep=True, timeout="5s") as plugin:
            with pytest.raises(error, match=words) as caught:
                plugin.consume(message.replace(title=title))
            plugin.consume(message)
        assert getattr(caught.value, "retry_after", None) == (30 if title == "busy" else None)

    def test_a_refusal_does_not_end_it(self, message, started):
        with opened("kept", keep=True) as plugin:
            with pytest.raises(PermanentError):
                plugin.consume(message.replace(title="bad"))
            plugin.consume(message)
        assert len(started()) == 1

    def test_one_that_ended_between_two_messages_is_started_again(self, script, message, started):
        script("#!/bin/bash\necho $$ >> {tmp}/started; read -r line; echo '{\"ok\": true}'")
        with opened(keep=True) as plugin:
            for count in range(1, 4):
                plugin.consume(message)
                until(lambda: gone(started()[-1]), "it has ended")
                assert len(started()) == count

    def test_several_are_asked_at_once_and_no_more_than_may_be_kept(self, script, message, started):
        script("#!/bin/bash\necho $$ >> {tmp}/started; while read -r line; do sleep 0.2; echo '{\"ok\": true}'; done")
        with opened(keep=2) as plugin:
            threads = [threading.Thread(target=plugin.consume, args=(message,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(started()) == 2


def gone(pid):
    return not Path(f"/proc/{pid}").exists()
