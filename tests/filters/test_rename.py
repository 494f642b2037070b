"""Rename: what was there is elsewhere afterwards, and nothing is lost that was not meant to be."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.rename import Rename, RenameConfig
from pipeline import Dropped, Message, PermanentError
from pipeline.testing import FilterContract


class TestRename(FilterContract):
    plugin = Rename
    options = {"labels.instance": "labels.host", "labels.team": "key", "data.nested.deep": "data.labels.deep"}


MESSAGE = Message(
    source="t",
    title="a title",
    labels={"a": "1", "b": "2"},
    data={"alert": {"name": "disk", "level": "WARN", "at": 86400, "tags": ["x", "y"], "void": None}, "list": [1, 2, 3]},
)
SECOND = datetime(1970, 1, 2, tzinfo=UTC)
ALERT = MESSAGE.data["alert"]


def without(*names):
    return MESSAGE.data | {"alert": {name: value for name, value in ALERT.items() if name not in names}}


def renamed(message=MESSAGE, **options):
    (out,) = Rename(RenameConfig.model_validate(options)).filter(message)
    return out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"labels.a": "labels.c"}, {"labels": {"b": "2", "c": "1"}}),
        ({"labels.a": "labels.b"}, {"labels": {"b": "1"}}),
        ({"labels.a": "labels.b", "labels.b": "labels.a"}, {"labels": {"a": "2", "b": "1"}}),
        ({"labels.a": "labels.b", "labels.b": "labels.c"}, {"labels": {"b": "1", "c": "2"}}),
        ({"labels.a": "labels.c", "labels.x": "labels.y"}, {"labels": {"b": "2", "c": "1"}}),
        ({"labels.x": "labels.a"}, {}),
        ({"title": "labels.was"}, {"title": "", "labels": MESSAGE.labels | {"was": "a title"}}),
        ({"labels.a": "data.new.a"}, {"labels": {"b": "2"}, "data": MESSAGE.data | {"new": {"a": "1"}}}),
        ({"data.alert.name": "title", "data.alert.level": "severity", "data.alert.at": "time"},
         {"title": "disk", "severity": "warning", "time": SECOND, "data": without("name", "level", "at")}),
        ({"data.alert.at": "labels.at"}, {"labels": MESSAGE.labels | {"at": "86400"}, "data": without("at")}),
        ({"data.alert.tags": "data.tags"}, {"data": without("tags") | {"tags": ["x", "y"]}}),
        ({"data.alert": "data.alert.inner"}, {"data": MESSAGE.data | {"alert": {"inner": ALERT}}}),
        ({"data.list[0]": "labels.one", "data.list[1]": "labels.two"},
         {"labels": MESSAGE.labels | {"one": "1", "two": "2"}, "data": MESSAGE.data | {"list": [3]}}),
        ({"data.alert.void": "title"}, {}),
        ({"labels.a": "labels.b", "existing": "keep"}, {}),
        ({"labels.a": "labels.c", "labels.b": "labels.a", "existing": "keep"}, {"labels": {"a": "2", "c": "1"}}),
        ({"labels.a": "title", "labels.b": "labels.a", "existing": "keep"}, {}),
        ({"fields": {"labels.a": "labels.c"}}, {"labels": {"b": "2", "c": "1"}}),
    ],
)  # fmt: skip
def test_what_was_there_goes_to_its_new_place(options, expected):
    assert renamed(**options) == MESSAGE.replace(**expected)


def test_nothing_to_move_is_what_the_option_says():
    options = {"labels.a": "labels.c", "labels.x": "labels.y"}
    assert renamed(**options, missing="drop") == Dropped("there is nothing at labels.x")
    with pytest.raises(PermanentError, match=r"^there is nothing at labels\.x$"):
        renamed(**options, missing="bury")
    assert renamed(**options, missing="pass").labels == {"b": "2", "c": "1"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels.a": "labels.b", "existing": "bury"}, "there is something at labels.b already"),
        ({"data.alert.tags": "labels.tags"}, "labels.tags: a text is expected"),
        ({"data.alert": "title"}, "title: a text is expected"),
        ({"labels.a": "time"}, "time: a time such as"),
        ({"labels.a": "data.alert.name.x"}, "data.alert.name.x: what should have a member 'x' is no object"),
    ],
)
def test_what_cannot_be_moved_is_buried(options, reason):
    with pytest.raises(PermanentError, match=f"^{re.escape(reason)}"):
        renamed(**options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "names nothing to move"),
        ({"missing": "drop"}, "names nothing to move"),
        ({"labels.a": "labels.a"}, "labels.a: it is there already"),
        ({"labels.a": "labels.c", "labels.b": "labels.c"}, "labels.c: only one can go there"),
        ({"labels.a": "titel"}, "did you mean 'title'?"),
        ({"lables.a": "title"}, "did you mean 'labels'?"),
        ({"labels.a": "id"}, "a message keeps its id"),
        ({"status": "labels.a"}, "a message always has one"),
        ({"labels": "labels.a"}, "a part of it is expected"),
        ({"labels.a": "data"}, "a part of it is expected"),
        ({"labels.a": "labels.b", "missing": "keep"}, "'pass', 'drop' or 'bury'"),
        ({"labels.a": 1}, "string"),
    ],
)
def test_mistakes_are_told(options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        RenameConfig.model_validate(options)


NAMES = st.sampled_from("abcdef")
MAPS = st.dictionaries(NAMES, NAMES, min_size=1).filter(
    lambda found: len({*found.values()}) == len(found) and all(old != new for old, new in found.items())
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, st.sampled_from(["1", "2", "3"])), MAPS, st.sampled_from(["replace", "keep"]))
def test_values_move_as_a_whole(labels, names, existing):
    """Whatever the map, no value is invented; with `keep` none is lost; with `replace` each is where the map says."""
    options = {f"labels.{old}": f"labels.{new}" for old, new in names.items()}
    out = renamed(Message(source="t", labels=labels), **options, existing=existing).labels
    if existing == "keep":
        assert sorted(out.values()) == sorted(labels.values())
    else:
        moved = {new: labels[old] for old, new in names.items() if old in labels}
        assert out == {name: text for name, text in labels.items() if name not in names} | moved
