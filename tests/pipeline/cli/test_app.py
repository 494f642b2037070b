"""The root of the command line: help, versions, exit codes and what is said when something fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.cli import app, main
from pipeline.cli import help as help_module
from pipeline.cli.failures import Exit, Failure, explain, report
from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.settings import Settings


def test_help_names_the_verbs_and_imports_nothing_heavy() -> None:
    code = """if True:
        import sys
        from pipeline.cli import main
        try:
            main(["--help"])
        except SystemExit:
            pass
        heavy = {"typer", "rich", "pydantic", "re", "typing", "pathlib", "pipeline.cli.app"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    verbs = "check try test replay send run-now explain consumers dead-letters keys db doctor plugins schema"
    for verb in verbs.split():
        assert f" {verb} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_verbs_are_there_without_what_they_need() -> None:
    code = """if True:
        import sys
        import pipeline.cli.app
        heavy = {"celery", "kombu", "fastapi", "sqlalchemy", "cel", "ruamel.yaml", "alembic", "pydantic", "rich", "structlog"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_help_has_colours_on_a_terminal_only(capsys, monkeypatch) -> None:
    ready_made = Path(help_module.__file__).with_name("help.txt").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["-h"])
    plain = capsys.readouterr().out
    assert (ended.value.code, "\x1b" in plain, "\x1b[" in ready_made) == (0, False, True)
    assert plain.splitlines()[1].strip() == "Usage: siftbell [OPTIONS] COMMAND [ARGS]..."
    assert {len(line) for line in plain.splitlines()} <= {0, help_module.WIDTH}
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out == ready_made


def test_help_for_a_narrower_terminal_or_another_encoding_is_rendered_when_it_is_asked_for(process, capsys, monkeypatch) -> None:
    done = process("--help", PYTHONIOENCODING="ascii")
    assert (done.code, done.out.isascii(), "dead-letters" in done.out) == (0, True, True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1)
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((60, 24)))
    help_module.tell()
    assert capsys.readouterr().out == ""


def test_the_version_is_printed(process) -> None:
    done = process("--version")
    assert (done.code, done.out.split()[0], done.err) == (0, "siftbell", "")


@pytest.mark.parametrize("arguments", [("chek",), ("check", "--format", "xml"), ("keys", "create")])
def test_wrong_usage_is_2(siftbell, arguments) -> None:
    done = siftbell(*arguments)
    assert (done.code, done.out) == (2, "")


def test_a_misspelt_verb_is_guessed(siftbell) -> None:
    assert "Did you mean 'check'" in siftbell("chek").err


def test_every_kind_of_failure_has_its_code() -> None:
    assert explain(Failure("no", Exit.NOT_FOUND)) == ("no", 4)
    assert explain(ConfigError("bad")) == ("bad", 78)
    assert explain(ConfigError("a.yaml:1:1: x\n1 error"))[0] == "the configuration does not let it start\na.yaml:1:1: x\n1 error"
    assert explain(TemporaryError("away")) == ("away", 3)
    assert explain(PermanentError("never")) == ("never", 1)
    assert explain(FileNotFoundError(2, "No such file or directory", "x.json")) == ("x.json: No such file or directory", 1)
    assert explain(OSError("odd")) == ("odd", 1)
    assert explain(KeyError("x")) == ("this is a bug: KeyError: 'x' (SIFTBELL_LOG_LEVEL=debug shows where)", 1)


def test_a_setting_that_cannot_be_is_named_without_its_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(port="s3cret")
    text, code = explain(caught.value)
    assert code == 78
    assert text.startswith("SIFTBELL_PORT: ")
    assert "s3cret" not in text


def test_a_setting_of_our_own_kind_is_told_in_our_words() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(max_body="1MB1")
    assert explain(caught.value)[0] == "SIFTBELL_MAX_BODY: a size such as 512kB or 10MiB is expected"


def test_a_traceback_is_shown_on_demand_only(capsys, monkeypatch) -> None:
    with pytest.raises(KeyError) as caught:
        {}["x"]
    assert report(caught.value) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("SIFTBELL_LOG_LEVEL", "debug")
    assert report(caught.value) == 1
    assert "Traceback" in capsys.readouterr().err
    assert report(Failure("")) == 1
    assert capsys.readouterr().err == ""


def test_a_setting_that_cannot_be_ends_with_78(process) -> None:
    done = process("doctor", SIFTBELL_PORT="many")
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith("siftbell: SIFTBELL_PORT: ")
    assert done.err.count("\n") == 1


def test_output_that_the_encoding_lacks_is_escaped(project: Path, process) -> None:
    (project / "payload.json").write_text('{"title": "größer"}')
    done = process("try", "alerts", "-f", "payload.json", PYTHONIOENCODING="ascii")
    assert done.code == 0
    assert "gr\\xf6\\xdfer" in done.out


def test_main_is_what_the_package_gives() -> None:
    assert app.PROGRAM == "siftbell"
