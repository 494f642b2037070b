"""By: messages have one key where they agree in all that is named, and in nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import By, Message

TEXTS = st.text('ab",[]', max_size=3)
MESSAGES = st.builds(
    Message,
    source=st.just("t"),
    title=TEXTS,
    severity=TEXTS,
    labels=st.dictionaries(st.sampled_from(["a", "b", "title"]), TEXTS, max_size=3),
)


@settings(max_examples=500, deadline=None)
@given(MESSAGES, MESSAGES, st.lists(st.sampled_from(["title", "severity", "labels.a", "labels.title", "..."]), max_size=4))
def test_keys_are_the_same_for_what_agrees_and_for_nothing_else(one, other, names):
    by = By(*names)
    assert (by.key(one) == by.key(other)) == (by.values(one) == by.values(other))


def test_a_label_that_is_missing_is_an_empty_one():
    assert By("labels.a").key(Message(source="t")) == By("labels.a").key(Message(source="t", labels={"a": ""}))


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("severty", "a label such as labels.team, or '...' for all labels is expected"),
        (["labels."], "a label such as labels.team"),
        (["labels"], "a label such as labels.team"),
        (["time"], "one of source, type"),
        (["key", "data.order.id"], "`set` makes a label of it"),
        ("data[0]", "`set` makes a label of it"),
    ],
)
def test_what_is_no_field_and_no_label_is_told(names, problem):
    with pytest.raises(ValidationError, match=problem):
        TypeAdapter(By).validate_python(names)
