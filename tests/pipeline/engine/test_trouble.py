"""Failures that go on are told once a minute, each kind for itself, and so is their end."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from pipeline import TemporaryError
from pipeline.engine import trouble as module
from pipeline.engine.trouble import Trouble


@pytest.fixture
def time(monkeypatch):
    """The seconds that have passed."""
    passed = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: passed[0])
    return passed


@pytest.fixture
def told():
    with capture_logs() as lines:
        yield lines


def test_it_is_told_at_once_then_once_a_minute_and_when_it_is_over(time, told):
    clock = Trouble()
    for second in range(130):
        time[0] = float(second)
        clock.failed(TemporaryError("no broker"))
    clock.over()
    clock.over()
    assert [(line["event"], line["failures"]) for line in told] == [
        ("the clock cannot work, and tries again", 1),
        ("the clock cannot work, and tries again", 61),
        ("the clock cannot work, and tries again", 121),
        ("the clock works again", 130),
    ]
    assert told[-1]["after"] == "129 s"
    clock.failed(TemporaryError("no broker"))
    assert told[-1]["failures"] == 1


def test_another_failure_is_told_at_once_and_a_bug_with_its_traceback(time, told):
    clock = Trouble()
    bug = ZeroDivisionError("none")
    for error in (TemporaryError("no broker"), bug, TemporaryError("no broker"), bug):
        clock.failed(error)
    assert [(line["log_level"], line.get("exc_info")) for line in told] == [("warning", None), ("error", bug)]


def test_words_that_change_each_time_do_not_fill_the_memory(time, told, monkeypatch):
    monkeypatch.setattr(module, "MOST_TOLD", 3)
    clock = Trouble()
    for number in range(10):
        clock.failed(TemporaryError(f"no broker {number}"))
    assert len(clock._told) <= 3
    assert len(told) == 10
