"""Log: one line a message, whatever it holds, at the level of its severity."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from consumers.log import Log
from pipeline import Message, NoOptions
from pipeline.testing import ConsumerContract, sample_messages


class TestLog(ConsumerContract):
    plugin = Log


def logged(message):
    with capture_logs() as lines:
        Log(NoOptions()).consume(message)
    (line,) = lines
    return line


@pytest.mark.parametrize(
    ("severity", "status", "level"),
    [
        ("debug", "firing", "debug"),
        ("info", "firing", "info"),
        ("", "firing", "info"),
        ("warning", "firing", "warning"),
        ("error", "firing", "error"),
        ("critical", "firing", "error"),
        ("odd", "firing", "error"),
        ("critical", "resolved", "info"),
    ],
)
def test_the_level_follows_the_severity(severity, status, level):
    assert logged(Message(source="t", severity=severity, status=status))["log_level"] == level


def test_the_fields_stand_in_the_line():
    message = sample_messages()[0]
    line = logged(message)
    assert line["event"] == "disk full on db-1"
    assert (line["id"], line["severity"], line["labels"]) == (message.id, "critical", message.labels)


@pytest.mark.parametrize("message", sample_messages())
def test_nobody_forges_a_line(message):
    line = logged(message)
    texts = [line["event"], line.get("text", ""), *line.get("labels", {}), *line.get("labels", {}).values()]
    assert not any(ord(character) < 32 or character in "\x7f\x9b\u2028" for text in texts for character in text)


def test_a_message_without_a_title_has_one_in_the_log():
    assert logged(Message(source="t"))["event"] == "a message without a title"
