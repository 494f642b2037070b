"""Script: what executables in bash, Python and Node.js print becomes messages, within the limits that they have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError
from trees import until

from pipeline import PermanentError, TemporaryError, Unreadable
from pipeline.settings import Settings
from pipeline.testing import ListeningProducerContract, PollingProducerContract
from pipeline.testing.producers import Publication
from producers import script as module
from producers.script import Script, ScriptConfig

THREE = """#!/bin/bash
for number in 1 2 3 4; do
  if [ "$number" -gt "${SIFTBELL_CURSOR:-0}" ]; then
    echo '{"title": "number '$number'", "severity": "warn", "key": "'$number'"}'
    echo '{"cursor": '$number'}'
  fi
done
"""
SPOOL = """#!{python}
import json, os, sys
spool = {spool!r}
for name in sorted(os.listdir(spool)):
    print(json.dumps({{"title": name}}), flush=True)
    print(json.dumps({{"cursor": name}}), flush=True)
for line in sys.stdin:
    for name in os.listdir(spool):
        if name <= json.loads(line)["cursor"]:
            os.unlink(os.path.join(spool, name))
"""


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    """Writes an executable where the settings allow it."""
    monkeypatch.setenv("SIFTBELL_SCRIPTS", str(tmp_path))

    def write(text, name="script"):
        (tmp_path / name).write_text(text.replace("#!python", f"#!{sys.executable}"))
        (tmp_path / name).chmod(0o755)
        return name

    write(THREE, "three")
    return write


@pytest.mark.against("producer script", "bash, Python and Node.js")
class TestOnSchedule(PollingProducerContract):
    plugin = Script
    options = {"command": "{tmp}/three"}
    away_options = {"command": "{tmp}/gone"}


class TestOnScheduleWithAList(TestOnSchedule):
    """Without cursors each poll tells everything: what holds for cursors does not hold."""

    options = {"command": ["{tmp}/list"], "format": "list"}
    test_it_goes_on_from_every_cursor = None
    test_cursors_differ = None

    @pytest.fixture(autouse=True)
    def printed(self, script):
        script('#!/bin/bash\necho "["; echo \'{"title": "a"},\'; echo \'{"title": "b"}]\'', "list")


@pytest.mark.against("producer script", "bash, Python and Node.js")
class TestKeptRunning(ListeningProducerContract):
    plugin = Script
    options = {"command": "{tmp}/spool"}

    @pytest.fixture(autouse=True)
    def spooled(self, script, tmp_path):
        spool = tmp_path / "waiting"
        spool.mkdir()
        for name in ("a", "b", "c"):
            (spool / name).touch()
        script(SPOOL.format(python=sys.executable, spool=str(spool)), "spool")


def poll(command, cursor=None, **options):
    with closing(Script(ScriptConfig(command=command, **options))) as plugin:
        plugin.open()
        yield from plugin.poll(cursor)


def titles_until(error, words, command, **options):
    """Give the titles of what comes before the error."""
    told = []
    asking = poll(command, **options)
    with pytest.raises(error, match=words):
        told.extend(message.title for message, _ in asking)
    return told


def messages(*args, **options):
    return [told for told, _ in poll(*args, **options) if told is not None]


def gone(pid):
    """Say whether no process of that id is left, but for one that nobody has buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


LANGUAGES = {
    "bash": """#!/bin/bash
read -r nothing || echo '{"title": "from '$1' for '$USERS_NAME'", "labels": {"cursor": "'$SIFTBELL_CURSOR'"}}'
""",
    "Python": """#!python
import json, os, sys
assert not sys.stdin.read()
name, cursor = os.environ["USERS_NAME"], os.environ["SIFTBELL_CURSOR"]
print(json.dumps({"title": f"from {sys.argv[1]} for {name}", "labels": {"cursor": cursor}}))
""",
    "Node.js": """#!/usr/bin/env node
const { USERS_NAME, SIFTBELL_CURSOR } = process.env
console.log(JSON.stringify({ title: `from ${process.argv[2]} for ${USERS_NAME}`, labels: { cursor: SIFTBELL_CURSOR } }))
""",
}


@pytest.mark.against("producer script", "bash, Python and Node.js")
@pytest.mark.parametrize("language", LANGUAGES)
def test_scripts_of_any_language_get_arguments_variables_and_the_cursor(script, language, monkeypatch, require_binary):
    if language == "Node.js":
        require_binary("node", "nodejs")
    monkeypatch.setenv("USERS_NAME", "Ada")
    command = [script(LANGUAGES[language]), "$(id) ; *"]
    (message,) = messages(command, "17", environment=["USERS_NAME"])
    assert (message.title, message.labels["cursor"], message.source) == ("from $(id) ; * for Ada", "17", "script")


def test_no_other_variable_is_passed(script, monkeypatch):
    monkeypatch.setenv("SIFTBELL_BROKER", "redis://:hidden@db")
    monkeypatch.setenv("LC_ALL", "C")
    script("#!python\nimport json, os\nprint(json.dumps({'title': ' '.join(sorted(os.environ))}))")
    (message,) = messages("script")
    assert set(message.title.split()) - {"LC_CTYPE"} <= {"HOME", "LANG", "PATH", "SIFTBELL_CURSOR"}


def test_a_cursor_stands_for_the_lines_above_it(script):
    lines = ['{"title": "a"}', '{"title": "b"}', '{"cursor": "2"}', '[{"title": "c"}, {"title": "d"}]', "", '{"cursor": 4}', "{}"]
    script("#!/bin/bash\n" + "\n".join(f"echo '{line}'" for line in lines))
    told = [(told and told.title, cursor) for told, cursor in poll("script", "1")]
    assert told == [("a", "1"), ("b", "2"), ("c", "2"), ("d", "4"), ("", "4")]
    script('#!/bin/bash\necho \'{"cursor": "9"}\'')
    assert [*poll("script")] == [(None, "9")]


def test_the_older_contract_is_understood(script):
    text = json.dumps(
        [{"sender": "ci", "receiver": "ops", "content": "build 7 failed"}, {"sender": "cron", "content": "x"}], indent=2
    )
    script(f"#!/bin/bash\ncat <<'END'\n{text}\nEND")
    first, second = messages("script", format="list")
    assert (first.source, first.labels, first.text) == ("ci", {"receiver": "ops"}, "build 7 failed")
    assert first.data == {"sender": "ci", "receiver": "ops", "content": "build 7 failed"}
    assert (second.source, second.labels) == ("cron", {})


def test_a_list_may_be_long(script):
    script("#!python\nprint([{}] * 20_000)")
    assert len(messages("script", format="list")) == 20_000


def test_fields_stand_where_the_options_say(script):
    script("""#!/bin/bash\necho '{"check": {"name": "disk"}, "tags": {"host": "db-1"}, "content": 5}'""")
    (message,) = messages("script", fields={"title": "check.name", "labels": "tags"}, source="checks")
    assert (message.title, message.labels, message.source) == ("disk", {"host": "db-1"}, "checks")


def test_what_is_no_message_is_given_as_unreadable(script):
    script(
        """#!/bin/bash\necho '{"title": "a"}'; echo 'Segmentation fault'; printf '{"title": "\\xff"}\\n"b"\\n{"title": "c"}'"""
    )
    told = messages("script")
    assert [one.raw if isinstance(one, Unreadable) else one.title for one in told] == [
        "a",
        b"Segmentation fault",
        b'{"title": "\xff"}',
        b'"b"',
        "c",
    ]
    assert all(one.reason for one in told if isinstance(one, Unreadable))


def test_what_was_printed_before_a_failure_is_told(script):
    script("""#!/bin/bash\necho '{"title": "a"}'; echo '{"cursor": 1}'; echo '{"title": "b"}'; echo 'disk is gone' >&2; exit 3""")
    assert titles_until(PermanentError, r"^script ended with exit code 3: disk is gone$", "script") == ["a", "b"]
    asking = poll("script")
    assert [(message.title, cursor) for message, cursor in (next(asking), next(asking))] == [("a", "1"), ("b", "1")]
    asking.close()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("exit 75", TemporaryError, "exit code 75"),
        ("exit 1", PermanentError, "exit code 1"),
        ("kill -SEGV $$", TemporaryError, "signal 11"),
    ],
)
def test_how_it_ended_says_what_happens_next(script, text, error, words):
    script(f"#!/bin/bash\n{text}")
    with pytest.raises(error, match=words):
        messages("script")


def test_what_cannot_be_started_is_temporary(script, tmp_path):
    script("#!/no/such/interpreter\n")
    with pytest.raises(TemporaryError, match="cannot be started: No such file"):
        messages("script")
    (tmp_path / "script").chmod(0o644)
    with pytest.raises(TemporaryError, match="cannot be started: Permission denied"):
        messages("script")
    with pytest.raises(TemporaryError, match="cannot be started: No such file"):
        messages("script", directory="/no/such/place")
    with pytest.raises(TemporaryError, match="not executable"):
        Script(ScriptConfig(command="script")).probe()


def test_a_value_of_its_environment_does_not_show(script, monkeypatch):
    monkeypatch.setenv("TICKET_TOKEN", "very-secret-value")
    script('#!/bin/bash\necho "denied: $TICKET_TOKEN $1\x1b[31m" >&2; exit 1')
    with pytest.raises(PermanentError, match=r"denied: \*\*\* x \[31m$"):
        messages(["script", "x"], environment=["TICKET_TOKEN"])


class TestLimits:
    """What a script may not do, and what becomes of one that does."""

    pytestmark = pytest.mark.against("producer script", "bash, Python and Node.js")

    def test_of_memory(self, script):
        script("#!python\nx = bytearray(300 << 20)\nprint('{}')")
        with pytest.raises(PermanentError, match="MemoryError"):
            messages("script", memory="64MiB")
        assert len(messages("script", memory="1GiB")) == 1

    def test_of_memory_for_what_it_starts(self, script):
        script("#!/bin/bash\n" + sys.executable + " -c 'x = bytearray(300 << 20)' || exit 9")
        with pytest.raises(PermanentError, match="exit code 9"):
            messages("script", memory="64MiB")

    def test_of_memory_in_node(self, script, require_binary):
        require_binary("node", "nodejs")
        script("#!/usr/bin/env node\nconst all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1))")
        with pytest.raises((PermanentError, TemporaryError), match=r"signal|exit code"):
            messages("script", memory="256MiB", timeout="60s")

    def test_of_output(self, script):
        script("#!/bin/bash\nyes '{}'")
        told = titles_until(PermanentError, "printed more than its `output` allows", "script", output="100kB")
        assert 1000 < len(told) < 35_000

    def test_of_a_line(self, script):
        script("#!/bin/bash\necho '{\"title\": \"a\"}'; yes | tr -d '\\n'")
        with pytest.raises(PermanentError, match="printed a line of more than 64KiB"):
            messages("script", line="64KiB", output="1GiB")

    def test_of_what_is_kept_of_stderr(self, script):
        script("#!/bin/bash\nyes no | head -c 10000000 >&2; echo the end >&2; exit 1")
        with pytest.raises(PermanentError, match=r"the end$") as caught:
            messages("script")
        assert len(str(caught.value)) < 600

    def test_of_time(self, script, tmp_path):
        script(
            "#!/bin/bash\necho $$ > "
            + str(tmp_path / "pid")
            + "\necho '{\"title\": \"a\"}'; trap '' TERM; while :; do sleep 1; done"
        )
        assert titles_until(TemporaryError, "script took longer than 500ms", "script", timeout="500ms") == ["a"]
        assert gone((tmp_path / "pid").read_text().strip()), "SIGTERM does not end it: SIGKILL must"

    @pytest.mark.parametrize("way", ["", "setsid ", "nohup "])
    def test_of_what_it_leaves_behind(self, script, tmp_path, way):
        pids = tmp_path / "pids"
        script(f'#!/bin/bash\n{way}sleep 600 &\necho $! >> {pids}\necho \'{{"title": "a"}}\'')
        assert len(messages("script")) == 1
        assert all(gone(pid) for pid in pids.read_text().split())

    def test_of_one_that_is_left_half_read(self, script, tmp_path):
        script(f"#!/bin/bash\necho $$ > {tmp_path}/pid\nyes '{{}}'")
        asking = poll("script", output="1GiB")
        next(asking)
        asking.close()
        assert gone((tmp_path / "pid").read_text().strip())

    def test_of_one_whose_siftbell_was_killed(self, script, tmp_path):
        script(f"#!/bin/bash\nsetsid sleep 600 &\necho $! $$ > {tmp_path}/pids; trap '' TERM; echo '{{}}'; sleep 601; sleep 602")
        code = "from producers.script import *; p = Script(ScriptConfig(command='script')); p.open(); list(p.poll(None))"
        with subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) as siftbell:
            until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().strip(), "the script runs")
            siftbell.kill()
        until(lambda: all(gone(pid) for pid in (tmp_path / "pids").read_text().split()), "all that it started has ended")


class TestWhatIsAllowed:
    """The setting, and how a configuration is judged by it."""

    @pytest.mark.parametrize("setting", [None, ""])
    def test_nothing_without_the_setting(self, monkeypatch, setting):
        monkeypatch.delenv("SIFTBELL_SCRIPTS")
        if setting is not None:
            monkeypatch.setenv("SIFTBELL_SCRIPTS", setting)
        with pytest.raises(
            ValidationError, match="scripts are not allowed here: name the directories that hold them in SIFTBELL_SCRIPTS"
        ):
            ScriptConfig(command="three")

    @pytest.mark.parametrize(
        "command", ["/bin/sh", "{tmp}/../{name}x/three", "{tmp}-2/x", "{tmp}/link/sh", "{tmp}/..", "", "a\0b"]
    )
    def test_nothing_elsewhere(self, tmp_path, command):
        (tmp_path / "link").symlink_to("/bin")
        (tmp_path.parent / f"{tmp_path.name}x").mkdir()
        with pytest.raises(ValidationError):
            ScriptConfig(command=command.replace("{tmp}", str(tmp_path)).replace("{name}", tmp_path.name))

    def test_what_lies_there(self, tmp_path, monkeypatch):
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "other").touch()
        monkeypatch.setenv("SIFTBELL_SCRIPTS", f"{tmp_path}:{tmp_path}/more")
        assert ScriptConfig(command="other").command == (f"{tmp_path}/more/other",)
        assert ScriptConfig(command=[f"{tmp_path}/three", "-v"]).command == (f"{tmp_path}/three", "-v")
        monkeypatch.chdir(tmp_path)
        assert ScriptConfig(command="./three").command == (f"{tmp_path}/three",)

    def test_a_part_of_the_tree_sees_the_same_setting(self, monkeypatch):
        monkeypatch.setenv("SIFTBELL_SCRIPTS", "/opt/a:b")
        assert Settings().environment()["SIFTBELL_SCRIPTS"] == f"/opt/a:{Path.cwd()}/b"

    def test_variables_are_names(self):
        with pytest.raises(ValidationError, match="environment"):
            ScriptConfig(command="three", environment=["TOKEN=abc"])


class Listening:
    """A script that is kept running in a thread."""

    def __init__(self, publish, **options):
        self.over = threading.Event()
        self.plugin = Script(ScriptConfig(**{"command": "script"} | options))
        self.plugin.open()
        self.thread = threading.Thread(target=self.plugin.listen, args=(publish, self.over.is_set))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


class Published(Publication):
    """Keeps what is buried as well, and in which batches messages came."""

    def __init__(self, **options):
        super().__init__(**options)
        self.buried, self.batches = [], []

    def __call__(self, some, /):
        self.batches.append(len(some))
        super().__call__(some)

    def bury(self, raw, reason, /, *, message_id=""):
        self.buried.append((raw, reason))


def test_what_a_kept_script_prints_is_published_as_it_comes(script, tmp_path):
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    script(f'#!/bin/bash\necho \'{{"title": "a"}}\'; echo rubbish\n{wait}\necho \'{{"title": "b"}}\'; sleep 600')
    published = Published()
    with Listening(published):
        until(lambda: published.messages and published.buried, "the first line is published")
        (tmp_path / "go").touch()
        until(lambda: len(published.messages) == 2, "the next line is published")
    assert published.buried[0][0] == b"rubbish"


def test_what_comes_while_a_batch_is_published_goes_out_together(script, tmp_path):
    printed = tmp_path / "printed"
    script(f"#!/bin/bash\nfor number in $(seq 1000); do echo '{{\"title\": \"'$number'\"}}'; done; touch {printed}; sleep 600")

    class Slow(Published):
        def __call__(self, some, /):
            until(printed.exists, "the script has printed all")
            super().__call__(some)

    published = Slow()
    with Listening(published):
        until(lambda: len(published.messages) == 1000, "all are published")
    assert [message.title for message in published.messages] == [str(number) for number in range(1, 1001)]
    assert len(published.batches) < 20


def test_a_script_that_ends_is_started_again_with_growing_pauses(script, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    script(f"#!/bin/bash\necho x >> {tmp_path}/runs; echo no such host >&2; exit 3")
    with structlog.testing.capture_logs() as logs, Listening(Published()):
        until(
            lambda: (tmp_path / "runs").exists() and len((tmp_path / "runs").read_text().split()) >= 4,
            "it was started four times",
        )
    told = [line for line in logs if line["event"] == "the script is started again"]
    assert [line["after"] for line in told[:3]] == ["0.01 s", "0.02 s", "0.04 s"]
    assert told[0]["error"] == "script ended with exit code 3: no such host"


def test_what_could_not_be_published_waits_and_nothing_is_lost(script, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    script("#!/bin/bash\nfor number in 1 2 3; do echo '{\"title\": \"'$number'\"}'; done; sleep 600")
    refusals = iter([True, True, True])

    class Away(Published):
        def __call__(self, some, /):
            if next(refusals, False):
                raise TemporaryError("the queue is away")
            super().__call__(some)

    published = Away()
    with Listening(published):
        until(lambda: len(published.messages) == 3, "the queue is back")
    assert [message.title for message in published.messages] == ["1", "2", "3"]


def test_what_it_prints_when_it_is_to_end_is_published(script):
    script("""#!/bin/bash
        last() { echo '{"title": "the last"}'; exit; }
        trap last TERM
        echo '{"title": "a"}'
        while :; do sleep 0.05; done
    """)
    published = Published()
    with Listening(published):
        until(lambda: published.messages, "it runs")
    assert [message.title for message in published.messages] == ["a", "the last"]


def test_what_it_says_on_stderr_is_logged(script):
    script("#!/bin/bash\necho connected >&2; sleep 600")
    with structlog.testing.capture_logs() as logs, Listening(Published()):
        until(lambda: any(line.get("stderr") == "connected" for line in logs), "the log has it")
