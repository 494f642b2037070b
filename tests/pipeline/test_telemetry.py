"""What a process logs: for people on a terminal, for programs elsewhere."""

import json
import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
import structlog
from pipeline.telemetry import configure_logging

configure_logging(sys.argv[1], sys.argv[2], part="web")
structlog.get_logger("message").info("a\\x1b[31m title", id="1\\x07", zeta="two words", alpha=2)
logging.getLogger("celery").error("cannot connect\\ntrying again\\n")
"""


def logged(level: str, style: str) -> list[str]:
    """What it writes where there is no terminal."""
    command = [sys.executable, "-c", PROGRAM, level, style]
    return subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, timeout=60).stderr.splitlines()


def test_programs_get_one_object_a_line() -> None:
    first, second = map(json.loads, logged("info", "auto"))
    assert first["event"] == "a\x1b[31m title"
    assert (first["logger"], first["level"], first["part"], first["id"]) == ("message", "info", "web", "1\x07")
    assert first["timestamp"].endswith("Z")
    assert second["event"] == "cannot connect\ntrying again\n"


def test_people_get_the_time_of_day_and_no_control_characters() -> None:
    first, second = logged("info", "console")
    assert first[8:].split() == ["[info", "]", "a", "[31m", "title", "id=1", "zeta='two", "words'", "alpha=2", "part=web"]
    assert first[:8].replace(":", "").isdecimal()
    assert "cannot connect trying again" in second
    assert "[celery]" not in second


def test_at_debug_people_get_the_logger_and_the_date_too() -> None:
    first, second = logged("debug", "console")
    assert first.split()[0].endswith("Z")
    assert "[message]" in first
    assert "[celery]" in second


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colours_save_with_no_color(no_color: str) -> None:
    reading, writing = pty.openpty()
    try:
        command = [sys.executable, "-c", PROGRAM, "info", "auto"]
        subprocess.run(command, check=True, stderr=writing, timeout=60, env={**os.environ, "NO_COLOR": no_color})
        shown = os.read(reading, 65536).decode()
    finally:
        os.close(writing)
        os.close(reading)
    assert "title" in shown
    assert ("\x1b[" in shown) is (not no_color)
