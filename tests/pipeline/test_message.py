"""The message: its ids sort and derive, it is frozen, and survives the wire."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import FIELDS, SEVERITIES, Message, colour, headline, normal_severity, normal_status, shown_labels
from pipeline.engine.explain import accepted_at
from pipeline.message import derived_id, foreign_id, new_id


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"title": "disk  full\non db-1", "text": "2 % left"}, "disk full on db-1"),
        ({"text": "\n \n 2 % left\nof 100 GiB"}, "2 % left"),
        ({"type": "alert"}, "alert from t"),
        ({"title": "disk full", "status": "resolved"}, "Resolved: disk full"),
        ({"title": "Resolved: disk full", "status": "resolved"}, "Resolved: disk full"),
    ],
)
def test_a_message_has_a_headline(fields, line):
    assert headline(Message(source="t", **fields)) == line


def test_labels_are_shown_where_they_have_a_value():
    message = Message(source="t", labels={"a": "1", "b ": " 2\n", "c": " ", "": "4"})
    assert shown_labels(message) == {"a": "1", "b": "2"}
    reached = Message(source="t", labels={"receiver": "ann", "receiver_email": "ann@example.com"})
    assert shown_labels(reached) == {"receiver": "ann"}
    assert shown_labels(reached, ["receiver_email"]) == {"receiver_email": "ann@example.com"}
    assert [*shown_labels(message, ("d", "b ", "a")).items()] == [("b", "2"), ("a", "1")]
    assert shown_labels(message, ()) == {}


def test_each_severity_has_a_colour_and_what_is_resolved_is_green():
    colours = [colour(Message(source="t", severity=severity)) for severity in (*SEVERITIES, "", "blocker")]
    assert len({*colours}) == len(SEVERITIES) + 1
    green = {colour(Message(source="t", severity=severity, status="resolved")) for severity in (*SEVERITIES, "blocker")}
    assert len(green) == 1
    assert green.isdisjoint(colours)
    assert all(re.fullmatch("#[0-9a-f]{6}", one) for one in (*colours, *green))


def test_ids_sort_by_time():
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len({*ids}) == 1000
    assert {UUID(one).version for one in ids} == {7}


@given(st.lists(st.text() | st.integers(), min_size=1))
def test_derived_ids_are_always_the_same(parts):
    parent = "0192f0c4-6b1a-7c3e-8f00-0123456789ab"
    derived = derived_id(parent, *parts)
    assert derived == derived_id(parent, *parts)
    assert derived != parent
    assert (derived[:13], UUID(derived).version, UUID(derived).variant) == (parent[:13], 7, UUID(parent).variant)


def test_derived_ids_differ():
    parent = new_id()
    assert len({derived_id(parent, number) for number in range(1000)}) == 1000
    assert derived_id(parent, 1) != derived_id(new_id(), 1)


def test_a_message_is_frozen_and_copied():
    message = Message(source="t", labels={"a": "b"})
    with pytest.raises(AttributeError):
        message.title = "x"
    copy = message.replace(title="x")
    assert (copy.title, copy.id, copy.labels, message.title) == ("x", message.id, message.labels, "")


def test_a_message_survives_the_wire():
    message = Message(source="t", title="ü🔔", labels={"a": ""}, data={"x": [1, None, 2.5]}, status="resolved")
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
    assert b"severity" not in msgspec.json.encode(message)


def test_fields_are_in_order():
    assert FIELDS[:4] == ("id", "source", "type", "time")
    assert len(FIELDS) == 12


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("WARN", "warning"),
        (" Critical ", "critical"),
        ("P1", "critical"),
        ("err", "error"),
        ("notice", "info"),
        ("", ""),
        ("Odd", "odd"),
    ],
)
def test_severities(word, severity):
    assert normal_severity(word) == severity
    assert all(normal_severity(one) == one for one in SEVERITIES)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("firing", "ALARM", "down"), "firing"),
        (("resolved", " OK ", "Closed", "up"), "resolved"),
        (("", "pending", "odd"), None),
    ],
)
def test_statuses(words, status):
    assert [normal_status(word) for word in words] == [status] * len(words)


def test_a_foreign_name_gives_the_same_id_each_time_and_sorts_by_its_time():
    early, late = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    assert foreign_id(early, "7", b"body") == foreign_id(early, "7", b"body")
    assert len({foreign_id(early, *parts) for parts in (("7", b"body"), ("7b", b"ody"), ("7", b"BODY"), ("7body",))}) == 4
    assert foreign_id(early, "zzz") < foreign_id(late, "7")
    assert UUID(foreign_id(early, "7")).version == 7
    assert accepted_at(foreign_id(early, "7")) == early
    assert accepted_at(foreign_id(None, "7")) is None
    assert foreign_id(datetime(1900, 1, 1, tzinfo=UTC), "\ud800")


def test_a_payload_that_is_json_stays_as_it_came_and_says_the_same():
    text = b'{"a":  [1, {"b": null}]}'
    message = Message(source="x", data=msgspec.Raw(text))
    assert message.data == {"a": [1, {"b": None}]}
    assert text in msgspec.json.encode(message)
    again = msgspec.json.decode(msgspec.json.encode(message), type=Message)
    assert again == message == message.replace(data=message.data)
    assert msgspec.json.encode(again) == msgspec.json.encode(message)
    assert again != message.replace(data={"a": []})
    assert again.plain()["data"] == message.data
    assert "'b': None" in repr(again)


@pytest.mark.parametrize("data", [0, "", [], {}, False, 1.5])
def test_a_payload_that_says_little_is_kept(data):
    message = msgspec.json.decode(msgspec.json.encode(Message(source="x", data=data)), type=Message)
    assert message.data == data
    assert message.plain()["data"] == data
