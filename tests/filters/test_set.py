"""Set: what is named is set, and nothing else; what cannot be set is buried with its place."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.set import Set, SetConfig
from pipeline import Message, MessagePath, PermanentError
from pipeline.testing import FilterContract


class TestSet(FilterContract):
    plugin = Set
    options = {
        "severity": "{{ severity | default('info') }}",
        "labels.team": "{{ labels.team | default('nobody') }}",
        "data.seen.by": ["siftbell"],
        "if_empty": {"url": "https://x.example.com/{{ key }}", "labels.env": "prod"},
    }


MESSAGE = Message(
    source="t",
    title="disk full",
    text="x\ny",
    labels={"team": "db", "none": ""},
    data={"order": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}]}, "void": None, "list": []},
)


def changed(message=MESSAGE, **options):
    (out,) = Set(SetConfig.model_validate(options)).filter(message)
    return out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"severity": "CRIT"}, {"severity": "critical"}),
        ({"severity": "Purple"}, {"severity": "purple"}),
        ({"status": "OK"}, {"status": "resolved"}),
        ({"type": "alert", "source": "lab", "key": "k"}, {"type": "alert", "source": "lab", "key": "k"}),
        ({"time": "2026-11-21T09:30:00+01:00"}, {"time": datetime(2026, 11, 21, 8, 30, tzinfo=UTC)}),
        ({"time": 0}, {"time": datetime(1970, 1, 1, tzinfo=UTC)}),
        ({"title": "{{ text }}\n"}, {"title": "x y"}),
        ({"text": "{{ text }}\n"}, {"text": "x\ny\n"}),
        ({"title": "{{ text }}", "text": "{{ title }}"}, {"title": "x y", "text": "disk full"}),
        ({"labels.port": 5432}, {"labels": MESSAGE.labels | {"port": "5432"}}),
        ({"labels.on": True}, {"labels": MESSAGE.labels | {"on": "true"}}),
        ({"labels.a.b/c": " {{ labels.team\n}} "}, {"labels": MESSAGE.labels | {"a.b/c": "db"}}),
        ({"fields": {"labels.team": "web"}}, {"labels": {"team": "web", "none": ""}}),
        ({"data.order.id": 8}, {"data": MESSAGE.data | {"order": MESSAGE.data["order"] | {"id": 8}}}),
        ({"data.order.lines[1].sku": "{{ data.order.lines[0].sku }}"},
         {"data": MESSAGE.data | {"order": {"id": 7, "lines": [{"sku": "a"}, {"sku": "a"}]}}}),
        ({"data.new.deep": {"a": [1, None]}}, {"data": MESSAGE.data | {"new": {"deep": {"a": [1, None]}}}}),
        ({"data.void.there": 1}, {"data": MESSAGE.data | {"void": {"there": 1}}}),
        ({"if_empty": {"severity": "info", "title": "no", "labels.team": "no", "labels.none": "n", "labels.x": "y"}},
         {"severity": "info", "labels": {"team": "db", "none": "n", "x": "y"}}),
        ({"if_empty": {"data.void": 1, "data.list": [2], "data.order": 3, "data.order.id": 4, "data.order.name": 5}},
         {"data": {"order": MESSAGE.data["order"] | {"name": 5}, "void": 1, "list": [2]}}),
    ],
)  # fmt: skip
def test_what_is_named_is_set(options, expected):
    assert changed(**options) == MESSAGE.replace(**expected)


def test_a_message_without_a_payload_gets_one():
    assert changed(Message(source="t"), **{"data.a.b": 1}).data == {"a": {"b": 1}}


def test_nothing_to_change_gives_the_message_itself():
    assert changed(if_empty={"title": "x"}) is MESSAGE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels.x": "{{ labels.rack }}"}, "labels.x: the template, line 1: the message has no labels.rack"),
        ({"status": "{{ title }}"}, "status: firing or resolved is expected"),
        ({"time": "{{ 'noon' }}"}, "time: a time such as"),
        ({"data.order.id.x": 1}, "data.order.id.x: what should have a member 'x' is no object"),
        ({"data.order.lines[2]": 1}, "data.order.lines[2]: there is no list with an element [2]"),
        ({"data.order[0]": 1}, "data.order[0]: there is no list with an element [0]"),
        ({"if_empty": {"key": "{{ data.no }}"}}, "key: the template, line 1: the message has no data.no"),
    ],
)
def test_what_cannot_be_set_is_buried_with_its_place(options, reason):
    with pytest.raises(PermanentError, match=f"^{re.escape(reason)}"):
        changed(**options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "names nothing to set"),
        ({"fields": {}}, "names nothing to set"),
        ({"severty": "x"}, "did you mean 'severity'?"),
        ({"label.team": "x"}, "did you mean 'labels'?"),
        ({"team.x": "x"}, "a label is written as labels.NAME, a part of the payload as data.PATH"),
        ({"labels": "x"}, "such as labels.team"),
        ({"labels.": "x"}, "such as labels.team"),
        ({"labels[0]": "x"}, "such as labels.team"),
        ({"data": {}}, "such as data.order.id"),
        ({"data..x": 1}, "a path such as"),
        ({"data.x[": 1}, "a path such as"),
        ({"data.x[1]y": 1}, "a path such as"),
        ({"title.x": 1}, "no field of a message is called so"),
        ({"id": "x"}, "a message keeps its id"),
        ({"title": ["x"]}, "title\n  Value error, a text is expected"),
        ({"status": "broken"}, "status\n  Value error, firing or resolved is expected"),
        ({"if_empty": {"url": {}}}, "url\n  Value error, a text is expected"),
        ({"time": "yesterday", "status": True}, "2 validation errors"),
        ({"title": None}, "a text, a number"),
        ({"title": "{{ titel }}"}, "did you mean 'title'?"),
        ({"if_empty": {"status": "x"}}, "always has one"),
        ({"title": "x", "if_empty": {"title": "y"}}, "title: it is set, so it is not empty"),
        ({"title": "x", "fields": {"title": "y"}}, "may not stand in it as well"),
        ({"title": "x", "if_emty": {}}, "Extra inputs are not permitted"),
        ({"when": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_told(options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        SetConfig.model_validate(options)


NAMES = st.text("ab./ü -", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("xyz", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.builds(
    Message,
    source=st.just("t"),
    title=st.text(max_size=5),
    severity=st.sampled_from(["", "info"]),
    labels=st.dictionaries(NAMES, st.text(max_size=3), max_size=3),
    data=VALUES,
)
PATHS = st.one_of(
    st.sampled_from(["title", "text", "severity", "key", "url"]),
    NAMES.map("labels.{}".format),
    st.lists(st.sampled_from(["a", "b", "c", 0, 1]), min_size=1, max_size=4).map(
        lambda steps: "data" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    ),
)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, PATHS, VALUES.filter(lambda value: value is not None and not isinstance(value, str)) | st.text("xyz"))
def test_the_place_alone_changes(message, path, value):
    """What is set is there afterwards, as producers would have read it; all else is as it was, in the message given too."""
    place, before = MessagePath(path), deepcopy(message)
    if place.field != "data" and isinstance(value, (list, dict)):
        return
    try:
        out = changed(message, **{path: value})
    except PermanentError:
        assert place.steps
        return
    as_text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    assert place.value(out) == (value if place.steps else as_text)
    assert message == before
    assert out.replace(**{place.field: getattr(message, place.field)}) == message
    if place.label is not None:
        assert {name: text for name, text in out.labels.items() if name != place.label} == {
            name: text for name, text in message.labels.items() if name != place.label
        }


@settings(max_examples=200, deadline=None)
@given(MESSAGES, PATHS)
def test_what_is_there_is_not_replaced_under_if_empty(message, path):
    """`if_empty` sets where there is nothing, and twice is as good as once."""
    place = MessagePath(path)
    options = {"if_empty": {path: "new"}}
    try:
        once = changed(message, **options)
    except PermanentError:
        assert place.steps
        return
    there = place.value(message)
    assert place.value(once) == ("new" if there in (None, "", [], {}) else there)
    assert changed(once, **options) is once
