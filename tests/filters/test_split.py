"""Split: as many parts as elements, each with a key of its own, or none at all and the reason."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.split import Split, SplitConfig
from pipeline import Dropped, Message, PermanentError
from pipeline.testing import FilterContract, sample_messages


class TestSplit(FilterContract):
    plugin = Split
    options = {"list": "data.nested.deep", "title": "{{ item.x }} of {{ title }}", "labels.n": "{{ index }}", "missing": "pass"}

    def messages(self):
        empty, long = ({"nested": {"deep": items}} for items in ([], [{"x": 1}] * 1001))
        return [*sample_messages(), Message(source="t", data=empty), Message(source="t", data=long)]


ITEMS = [
    {"name": "cpu", "level": "WARN", "tags": {"host": "a", "shard": 3}, "at": "2026-11-21T08:30:00Z", "state": "ok"},
    {"name": "disk", "level": "p1", "tags": {"team": "web"}, "at": 0},
    {"name": "net"},
]
MESSAGE = Message(
    source="t",
    title="three alerts",
    text="x",
    severity="info",
    labels={"team": "db"},
    key="k",
    data={"alerts": ITEMS, "batch": 7},
)


def split(message=MESSAGE, **options):
    return [*Split(SplitConfig.model_validate({"list": "data.alerts"} | options)).filter(message)]


def test_each_part_is_the_message_with_its_element():
    assert split() == [MESSAGE.replace(data=item, key=f"k/{index}") for index, item in enumerate(ITEMS)]


def test_templates_see_the_element_its_number_and_the_message():
    title = "{{ index + 1 }}: {{ item.name }} of {{ data.alerts | length }}, {{ labels.team }}"
    parts = split(title=title, **{"labels.batch": "{{ data.batch }}", "labels.team": "all\nof us", "data.seen": True})
    assert [part.title for part in parts] == ["1: cpu of 3, db", "2: disk of 3, db", "3: net of 3, db"]
    assert {tuple(part.labels.items()) for part in parts} == {(("team", "all of us"), ("batch", "7"))}
    assert [part.data for part in parts] == [item | {"seen": True} for item in ITEMS]
    assert MESSAGE.data["alerts"][0].keys() == ITEMS[0].keys() - {"seen"}


def test_fields_are_read_at_their_paths_and_no_others():
    parts = split(fields={"title": "name", "severity": "level", "labels": "tags", "time": "at", "status": "state", "url": "no"})
    assert [part.title for part in parts] == ["cpu", "disk", "net"]
    assert [part.severity for part in parts] == ["warning", "critical", "info"]
    assert [part.status for part in parts] == ["resolved", "firing", "firing"]
    assert [part.labels for part in parts] == [{"team": "db", "host": "a", "shard": "3"}, {"team": "web"}, {"team": "db"}]
    assert [part.time for part in parts[:2]] == [datetime(2026, 11, 21, 8, 30, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)]
    assert [(part.text, part.url, part.time) for part in parts[2:]] == [("x", "", MESSAGE.time)]


@pytest.mark.parametrize(
    ("message", "options", "keys"),
    [
        (MESSAGE, {"key": "{{ item.name }}"}, ["cpu", "disk", "net"]),
        (MESSAGE, {"fields": {"key": "name"}}, ["cpu", "disk", "net"]),
        (MESSAGE, {"key": "{{ item.tags.host | default('') if item.tags is defined else '' }}"}, ["a", "k/1", "k/2"]),
        (MESSAGE.replace(key=""), {}, [f"{MESSAGE.id}/{index}" for index in range(3)]),
    ],
)
def test_each_part_has_its_own_key(message, options, keys):
    assert [part.key for part in split(message, **options)] == keys


def test_what_is_no_object_can_be_an_element():
    parts = split(MESSAGE.replace(data=["a", 2, None, ["x"]]), list="data", title="{{ item }}")
    assert [(part.title, part.data) for part in parts] == [("a", "a"), ("2", 2), ("", None), ('["x"]', ["x"])]


def test_a_payload_that_is_still_json_is_split_as_well():
    raw = MESSAGE.replace(data=msgspec.Raw(msgspec.json.encode(MESSAGE.data)))
    assert split(raw, title="{{ item.name }}") == split(title="{{ item.name }}")


@pytest.mark.parametrize(
    ("data", "options", "outcome"),
    [
        ({"alerts": []}, {}, Dropped("data.alerts is an empty list")),
        ({"alerts": []}, {"empty": "pass"}, "passes"),
        ({"alerts": []}, {"empty": "bury"}, "data.alerts is an empty list"),
        (None, {}, "data.alerts is not there"),
        ({"alert": [1]}, {}, "data.alerts is not there"),
        ({"alerts": {"a": 1}}, {}, "data.alerts is no list"),
        ({"alerts": {"a": 1}}, {"missing": "pass"}, "passes"),
        ({"alerts": "abc"}, {"missing": "drop"}, Dropped("data.alerts is no list")),
        ({"alerts": [1] * 1001}, {}, "data.alerts has 1001 elements, more than 1000 (most)"),
        ({"alerts": [1] * 3}, {"most": 2}, "data.alerts has 3 elements, more than 2 (most)"),
        ({"alerts": [{}, 1]}, {"fields": {"title": "name"}}, "data.alerts[1]: an object is expected"),
        ({"alerts": [{}, {"s": "odd"}]}, {"fields": {"status": "s"}}, "data.alerts[1]: s: firing or resolved is expected"),
        ({"alerts": [{"n": 1}, {}]}, {"key": "{{ item.n }}"}, "data.alerts[1]: key: the template, line 1: the message"),
        ({"alerts": [7]}, {"data.x": 1}, "data.alerts[0]: data.x: what should have a member 'x' is no object"),
    ],
)  # fmt: skip
def test_all_parts_or_none(data, options, outcome):
    message = MESSAGE.replace(data=data)
    if isinstance(outcome, str) and outcome != "passes":
        with pytest.raises(PermanentError, match=f"^{re.escape(outcome)}"):
            split(message, **options)
    else:
        assert split(message, **options) == [message if outcome == "passes" else outcome]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"list": "labels.x"}, "such as data.alerts"),
        ({"list": "data["}, "a path such as"),
        ({"list": None}, "string"),
        ({"most": 0}, "greater than or equal to 1"),
        ({"most": 10_001}, "less than or equal to 10000"),
        ({"fields": {"tilte": "x"}}, "'title'"),
        ({"fields": {"title": "x["}}, "a path such as"),
        ({"title": "{{ items.name }}"}, "neither an item nor a message has 'items'; did you mean 'item'?"),
        ({"id": "x"}, "a message keeps its id"),
        ({"lables.x": "x"}, "did you mean 'labels'?"),
        ({"title": ["x"]}, "title\n  Value error, a text is expected"),
        ({"time": "now"}, "a time such as 2026-11-21T08:30:00Z"),
    ],
)
def test_mistakes_are_told(options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        SplitConfig.model_validate({"list": "data.alerts"} | options)


ELEMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("xyz", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ELEMENTS, min_size=1, max_size=30), st.booleans())
def test_nothing_of_a_list_is_lost(elements, keyed):
    """Each element is one part's payload, in their order; keys differ; twice gives the same."""
    message = MESSAGE.replace(data={"alerts": elements}, key="k" if keyed else "")
    parts = split(message, title="{{ item }}")
    assert [part.data for part in parts] == elements
    assert len({part.key for part in parts}) == len(elements)
    assert parts == split(message, title="{{ item }}")
    assert all(part.replace(title="", key="", data=None) == MESSAGE.replace(title="", key="", data=None) for part in parts)


def test_parts_that_are_too_much_together_are_none():
    """A text of 70 kB a thousandfold is more than anybody meant, or a queue takes at once."""
    with pytest.raises(PermanentError, match=r"^data\.alerts: its first \d+ parts are more than 64 MiB together$"):
        split(MESSAGE.replace(text="x" * 70_000, data={"alerts": [0] * 1000}))


def test_parts_that_take_too_long_together_are_none(monkeypatch):
    """A template that looks at the whole list is as slow as the list is long, for each of its elements."""
    monkeypatch.setattr("filters.split.thread_time", itertools.count(step=4).__next__)
    with pytest.raises(PermanentError, match=r"^data\.alerts: its first 3 parts are more than 10 seconds of work$"):
        split()


def test_a_long_list_reads_the_payload_once(monkeypatch):
    """A thousand elements of a large payload take as many looks at the JSON as one."""
    looks = []
    decode = msgspec.json.decode
    monkeypatch.setattr("pipeline.message.msgspec.json.decode", lambda raw: looks.append(1) or decode(raw))
    for count in (1, 1000):
        looks.clear()
        data = msgspec.Raw(msgspec.json.encode({"alerts": [{"n": number} for number in range(count)]}))
        split(MESSAGE.replace(data=data), title="{{ item.n }} {{ data.alerts | length }}", **{"data.x": 1})
        assert len(looks) == 1
