"""Places in a message: how they are written, what is at them, and that a draft changes nothing but what it is told to."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from pipeline import Config, Draft, FileBeside, Message, MessagePath, PathsConfig, PermanentError
from pipeline.files import DIRECTORY
from pipeline.payload import read_fields

MESSAGE = Message(
    source="t",
    time=datetime(2026, 11, 21, 8, 30, tzinfo=UTC),
    title="disk full",
    labels={"team": "db", "app.kubernetes.io/name": "shop"},
    data={"a": [{"b": 1}, [2.5, None]], "c": {"d": True}, "": 0},
)


@pytest.mark.parametrize(
    ("text", "value", "as_text"),
    [
        ("title", "disk full", "disk full"),
        ("severity", "", ""),
        ("time", MESSAGE.time, "2026-11-21T08:30:00+00:00"),
        ("labels.team", "db", "db"),
        ("labels.app.kubernetes.io/name", "shop", "shop"),
        ("labels.no", None, ""),
        ("labels", MESSAGE.labels, '{"team":"db","app.kubernetes.io/name":"shop"}'),
        ("data.a[0].b", 1, "1"),
        ("data.a[1]", [2.5, None], "[2.5,null]"),
        ("data.a[1][1]", None, ""),
        ("data.a[2]", None, ""),
        ("data.c.d", True, "true"),
        ("data.c[0]", None, ""),
        ("data.a.b", None, ""),
        ("data.c.d.e", None, ""),
    ],
)
def test_a_path_leads_to_a_value(text, value, as_text):
    path = MessagePath(text)
    assert path.value(MESSAGE) == value
    assert path.text_of(MESSAGE) == as_text
    assert str(path) == text
    raw = MESSAGE.replace(data=msgspec.Raw(msgspec.json.encode(MESSAGE.data)))
    assert path.value(raw) == Draft(raw).value(path) == value


def test_a_list_as_payload_can_be_walked():
    assert MessagePath("data[1].x").value(MESSAGE.replace(data=[0, {"x": 1}])) == 1
    assert MessagePath("data[1].x").value(MESSAGE) is None


@pytest.mark.parametrize(
    "text", ["", ".a", "titel", "title.x", "labels.", "labels[0]", "data.", "data[x]", "data.a]", "data.a[1", "data[1]b"]
)  # fmt: skip
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match=r"^(no field|a label such|a path such)"):
        MessagePath(text)


JSON = st.recursive(
    st.none() | st.integers(0, 9) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=10,
)
STEPS = st.lists(st.sampled_from(["a", "b", 0, 1, 2]), min_size=1, max_size=3)


def written(steps):
    return MessagePath("data" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps))


def all_places(value, steps=()):
    """Give each place in a payload with what is there, by Python's own means."""
    yield steps, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in inside:
        yield from all_places(inner, (*steps, step))


@settings(max_examples=300, deadline=None)
@given(JSON, STEPS, JSON)
def test_a_draft_writes_one_place(data, steps, value):
    """What is written is there; every place beside it is as it was; the message itself is untouched."""
    path, message = written(steps), Message(source="t", data=data)
    before, draft = deepcopy(data), Draft(message)
    there = dict(all_places(data))
    try:
        draft.write(path, value)
    except PermanentError:
        assert draft.done() is message
        return
    assert path.value(draft.done()) == draft.value(path) == value
    found = dict(all_places(draft.done().data))
    aside = [place for place in there if place[: len(steps)] != tuple(steps) and tuple(steps)[: len(place)] != place]
    assert {place: found[place] for place in aside} == {place: there[place] for place in aside}
    assert message.data == before


@settings(max_examples=300, deadline=None)
@given(JSON, st.lists(STEPS, min_size=1, max_size=3))
def test_a_draft_removes_all_places_at_once(data, several):
    """What is left is the payload without these places as it was before: none of them moves another."""
    message, draft = Message(source="t", data=data), Draft(Message(source="t", data=data))

    def left(value, steps=()):
        if isinstance(value, dict):
            return {name: left(inner, (*steps, name)) for name, inner in value.items() if [*steps, name] not in several}
        if isinstance(value, list):
            return [left(inner, (*steps, index)) for index, inner in enumerate(value) if [*steps, index] not in several]
        return value

    draft.remove(*map(written, several))
    assert draft.done().data == left(message.data)


class Places(PathsConfig):
    """Options with places among them."""

    fields: dict[MessagePath, str] = Field(default_factory=dict, description="Places.")
    mode: str = Field(default="", description="Another option.")


def test_places_may_stand_among_the_options():
    expected = Places(fields={MessagePath("title"): "x", MessagePath("labels.a"): "y"}, mode="z")
    assert Places.model_validate({"fields": {"title": "x"}, "labels.a": "y", "mode": "z"}) == expected
    assert Places.model_validate({"title": "x", "labels.a": "y", "mode": "z"}) == expected
    for wrong in ({"fields": {"title": "x"}, "title": "y"}, {"fields": ["title"], "title": "y"}):
        with pytest.raises(ValidationError, match="may not stand in it as well"):
            Places.model_validate(wrong)
    with pytest.raises(ValidationError):
        Places.model_validate({"moode": "x"})


def test_places_among_the_options_are_in_the_schema():
    schema = Places.model_json_schema()
    (pattern,) = schema["patternProperties"]
    assert schema["additionalProperties"] is False
    assert schema["patternProperties"][pattern]["type"] == "string"


class WithFile(Config):
    """Options that name a file."""

    file: FileBeside


def test_a_file_lies_beside_the_one_that_names_it():
    context = {DIRECTORY: Path("configs")}
    assert WithFile.model_validate({"file": "a/b.csv"}, context=context).file == Path("configs/a/b.csv")
    assert WithFile.model_validate({"file": "/a/b.csv"}, context=context).file == Path("/a/b.csv")
    assert TypeAdapter(FileBeside).validate_python("b.csv") == Path("b.csv")


def test_fields_are_read_out_of_a_payload_by_their_paths_alone():
    payload = {"name": "x", "level": "WARN", "title": "not this", "tags": {"a": 1}, "odd": []}
    assert read_fields(payload, {"severity": "level", "labels": "tags", "text": "no.where"}) == {
        "severity": "warning",
        "labels": {"a": "1"},
    }
    with pytest.raises(ValueError, match=r"^odd: a text is expected$"):
        read_fields(payload, {"title": "odd"})
    with pytest.raises(ValueError, match=r"^an object is expected$"):
        read_fields([payload], {"title": "odd"})
