"""`siftbell test`: what a person sees, what a program reads, what is written, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.usefixtures("project")

TESTS = """# what alerts.yaml promises
tests:
  - name: what is critical is told twice    # to both
    send:
      - take: {json: {title: disk full, severity: critical}}
    expect:
      oncall: ["DISK FULL"]
      tell:
        - title: DISK FULL      # in capitals
          sent: {token: "***", text: {contains: of DISK}}

  - name: noise is not told
    send:
      - take: {json: {title: noise, severity: debug}}
      - take: {json: [{title: one, severity: error}]}
        after: 5m
      - ask: {message: {title: asked}}
    fail: {oncall: {for: 10m}}
    expect: {oncall: [{title: NOISE, at: +5m}, {title: ASKED, at: {from: +10m, to: +21m}}], tell: 1}
    dropped:
      quiet: [{reason: {matches: ^nothing}}]
"""
FOR_PEOPLE = """configs/alerts.test.yaml
  ✓ what is critical is told twice
  ✗ noise is not told  configs/alerts.test.yaml:12:11
      oncall
        - +5m   title: "NOISE"
          +16m  title: "ASKED"
        'noise' (+0s) was dropped by change at configs/alerts.yaml:7:5
        'one' (+5m) was buried at fragile: ValueError: broken
      tell
        - 1
        + 0
        'noise' (+0s) was dropped by change at configs/alerts.yaml:7:5
        'one' (+5m) was buried at fragile: ValueError: broken
        'asked' (+5m) was dropped by when: severity == "critical" at configs/alerts.yaml:16:5
      dropped by quiet
        -      title: "noise", reason: {"matches": "^nothing"}
        + +0s  title: "noise", reason: "by change at configs/alerts.yaml:7:5"
      dead letters at fragile
        + +5m  title: "ONE"
"""
UPDATED = """    expect: {oncall: [{at: {from: +10m, to: +21m}, title: ASKED}], tell: 0}
    dropped:
      quiet:
        - {reason: {contains: by change}}
    dead_letters:
      fragile:
        - {at: +5m, title: ONE}
"""


@pytest.fixture
def tests(project: Path) -> Path:
    file = project / "configs" / "alerts.test.yaml"
    file.write_text(TESTS)
    return file


def same_minutes(text: str) -> str:
    """What is tried again comes by jitter that is the same each time, at a moment that nobody wants to read here."""
    return re.sub(r"\+1\dm\d+s", "+16m", text)


def test_what_a_person_sees(tests: Path, siftbell) -> None:
    done = siftbell("test")
    assert done.code == 1
    assert [line.split() for line in same_minutes(done.out).splitlines()] == [line.split() for line in FOR_PEOPLE.splitlines()]
    assert re.fullmatch(r"2 tests, 1 failed, in \d+\.\d s\n", done.err)


def test_only_what_fails_is_shown_where_that_is_asked(tests: Path, siftbell) -> None:
    done = siftbell("test", "-q", "configs/alerts.yaml")
    assert "told twice" not in done.out
    assert "noise is not told" in done.out
    passed = siftbell("test", "-q", "-k", "TWICE", tests)
    assert (passed.code, passed.out) == (0, "")
    assert passed.err.startswith("1 test, all passed, in ")


def test_what_was_seen_is_written_and_all_else_stays(tests: Path, siftbell) -> None:
    done = siftbell("test", "--update")
    assert done.code == 0
    assert "configs/alerts.test.yaml: 1 test changed; read the difference before you keep it" in done.err
    written = same_minutes(tests.read_text())
    assert written == TESTS[: TESTS.index("    expect: {oncall: [{title: NOISE")] + UPDATED
    again = siftbell("test")
    assert again.code == 0, again.out
    assert siftbell("test", "--update").code == 0
    assert same_minutes(tests.read_text()) == written


def test_a_reason_is_written_without_the_line_that_moves(tmp_path: Path, siftbell) -> None:
    (tmp_path / "quiet.yaml").write_text("producers: [http]\nfilters:\n  - match: severity == 'critical'\nconsumers: [log]\n")
    file = tmp_path / "quiet.test.yaml"
    file.write_text("tests:\n  - name: a\n    send: [{http: {json: {title: a}}}]\n    dropped: {match: [{reason: x}]}\n")
    assert siftbell("test", "--update", file).code == 0
    assert file.read_text().endswith("dropped: {match: [{reason: {contains: \"severity == 'critical' does not hold\"}}]}\n")
    (tmp_path / "quiet.yaml").write_text("# moved\n" + (tmp_path / "quiet.yaml").read_text())
    assert siftbell("test", file).code == 0


def test_a_test_without_expectations_is_filled_in(tests: Path, siftbell) -> None:
    tests.write_text("tests:\n  - name: new\n    send:\n      - take: {json: {title: disk full}}\n")
    assert siftbell("test").code == 1
    assert siftbell("test", "--update").code == 0
    assert tests.read_text().endswith("    expect:\n      oncall:\n        - {at: +0s, title: DISK FULL}\n")
    assert siftbell("test").code == 0


def test_what_cannot_be_written_stays_wrong(tests: Path, siftbell) -> None:
    tests.write_text("tests:\n  - name: refused\n    send:\n      - take: {json: {}}\n    expect: {oncall: 0}\n")
    done = siftbell("test", "--update")
    assert done.code == 1
    assert [line.split() for line in done.out.splitlines()[2:]] == [
        ["step", "1:", "take,", "answer"],
        ["-", "+0s", "2xx"],
        ["+", "+0s", "422", "not", "all", "entries", "have", "a", "title"],
        ["+", "+0s", "[0].title:", "required"],
    ]


def test_what_a_program_reads(tests: Path, siftbell) -> None:
    done = siftbell("test", "-o", "json", "-k", "noise")
    assert done.code == 1
    (found,) = done.json
    assert (found["file"], found["line"], found["pipeline"], found["passed"]) == ("configs/alerts.test.yaml", 12, "alerts", False)
    assert found["differences"][0]["subject"] == "oncall"
    assert found["differences"][0]["rows"][0] == {"sign": "-", "when": "+5m", "text": 'title: "NOISE"'}
    assert "was dropped by change" in found["differences"][0]["reasons"][0]


def test_what_a_ci_server_reads(tests: Path, siftbell, tmp_path: Path) -> None:
    assert siftbell("test", "--junit", tmp_path / "junit.xml").code == 1
    (suite,) = ET.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("configs/alerts.test.yaml", "2", "1")
    first, second = suite
    assert (first.get("classname"), first.get("name"), first.get("line")) == ("alerts", "what is critical is told twice", "3")
    assert first.find("failure") is None
    failure = second.find("failure")
    assert failure.get("message") == "oncall, tell, dropped by quiet, dead letters at fragile"
    assert '  - +5m title: "NOISE"' in failure.text.splitlines()


def test_several_processes_say_the_same(tests: Path, siftbell) -> None:
    alone, together = siftbell("test", "-j", "1"), siftbell("test", "-j", "2")
    assert (together.code, together.out) == (alone.code, alone.out)


@pytest.mark.parametrize("given", [[], ["configs/alerts.yaml"]])
def test_no_tests_are_told(project: Path, siftbell, given) -> None:
    done = siftbell("test", *given)
    assert done.code == 4
    assert done.err.startswith(f"siftbell: no tests in {given[0] if given else 'configs'}: those of NAME.yaml stand beside it")


def test_no_test_of_that_name_and_no_such_file(tests: Path, siftbell) -> None:
    assert siftbell("test", "-k", "elsewhere").err == "siftbell: no test's name has 'elsewhere'\n"
    assert siftbell("test", "nowhere").err == "siftbell: nowhere: there is no such file\n"


def test_without_a_configuration_it_says_what_to_name(siftbell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = siftbell("test")
    told = "siftbell: configs: there is no such file; name the files and directories to test, such as `siftbell test .`\n"
    assert (done.code, done.err) == (4, told)


def test_an_error_in_the_tests_is_78_and_check_tells_it_too(tests: Path, siftbell) -> None:
    tests.write_text("tests:\n  - name: one\n    expect: {oncal: 1}\n")
    done = siftbell("test")
    assert done.code == 78
    assert "configs/alerts.test.yaml:3:14: error: the pipeline has no consumer 'oncal'" in done.err
    assert "did you mean 'oncall'?" in done.err
    checked = siftbell("check")
    assert checked.code == 1
    assert "configs/alerts.test.yaml:3:14: error: the pipeline has no consumer 'oncal'" in checked.out
    assert checked.out.endswith("1 error in 1 of 2 files\n")


def test_a_test_needs_no_variable_and_sees_none(tests: Path, siftbell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN")
    assert siftbell("test", "-k", "twice").code == 0
    tests.write_text("environment: {TOKEN: of-the-test}\n" + TESTS.replace('"***"', '"of-the-test"'))
    monkeypatch.setenv("TOKEN", "of-the-machine")
    done = siftbell("test", "-k", "twice")
    assert done.code == 1, "what is a secret is masked, whatever it is"
    assert "of-the-machine" not in done.out
    assert '"***"' in done.out


def test_a_pipeline_that_does_not_load_is_told_with_what_helps(project: Path, tests: Path, siftbell) -> None:
    text = (project / "configs" / "alerts.yaml").read_text()
    (project / "configs" / "alerts.yaml").write_text(text.replace("ask: {}", 'ask: {}\n    schedule: "${EVERY}"'))
    done = siftbell("test")
    assert done.code == 78
    assert "a variable that a test does not set has a stand-in: 'environment:' sets it" in done.err
    tests.write_text("environment: {EVERY: 30s}\n" + TESTS)
    assert siftbell("test", "-k", "twice").code == 0


def test_a_terminal_gets_colours_and_its_width(tests: Path) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "test"],
        stdout=slave,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
        timeout=60,
    )
    os.close(slave)
    text = b""
    try:
        while read := os.read(master, 65536):
            text += read
    except OSError:  # that is how Linux says that nobody writes any more
        pass
    os.close(master)
    shown = text.decode()
    assert "\x1b[32m✓\x1b[0m" in shown
    assert "\x1b[1;31m✗\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 60
    assert json.dumps("ASKED") in plain
