"""Conditions: what holds, what does not, what is refused with which words, and that nothing takes for ever."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import FIELDS, Condition, Message
from pipeline.condition import MAX_LENGTH

MESSAGE = Message(
    source="t",
    title="disk full",
    severity="critical",
    labels={"team": "db", "a-b": "x", "count": "7"},
    data={"list": [1, 2, 3], "nested": {"x": None}, "big": 2**64 - 1, "half": 0.5},
)


@pytest.mark.parametrize(
    "text",
    [
        'severity == "critical"',
        'severity in ["critical", "error"] && labels.team == "db"',
        'title.contains("full") && title.startsWith("disk") && title.endsWith("full")',
        'labels["a-b"] == "x"',
        '"team" in labels && !("region" in labels)',
        "has(labels.team) && !has(labels.region)",
        "data.list.exists(x, x > 2) && data.list.all(y, y > 0) && !data.list.exists_one(z, z > 0)",
        "size(data.list.filter(x, x > 1).map(x, x * 2)) == 2",
        "data.list.exists(title, title == 3)",
        "data.nested.x == null",
        "data.half < 1.0 && data.big > 3",
        "int(labels.count) > 6",
        'labels.region == "x" || true',
        'title.matches("^d.*k ") && size(title) == 9',
        'time > timestamp("2026-01-01T00:00:00Z") && time.getFullYear() >= 2026',
        'time - timestamp("2026-01-01T00:00:00Z") > duration("1h")',
        'status == "firing" && type == "event" && type(data) == map',
        "data.list.exists(x, data.list.exists(y, x + y == 6))",
        "'a' + \"b\" == r'ab' // severity",
        "true",
    ],
)
def test_it_holds(text):
    assert Condition(text).matches(MESSAGE)


@pytest.mark.parametrize(
    "text",
    [
        'severity == "info"',
        'labels.region == "x"',
        'labels.region != "x"',
        '!(labels.region == "x")',
        "int(labels.team) > 3",
        "data.list > 3",
        "data",
        "data.none.deeper == 1",
        "1 / int(labels.count) - 0 > 0 && 7 / (int(labels.count) - 7) > 0",
        "data.big + 1u > 0u",
        "title.matches(labels.team + data.nested.x)",
        "title.matches(labels.count == '7' ? '(' : 'a')",
    ],
)
def test_it_does_not_hold_and_does_not_raise(text):
    assert not Condition(text).matches(MESSAGE)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('severity in ["critical" ', "severity in [\"critical\": at column 25: expected ']'"),
        ("severity ==", "severity ==: at column 12: the condition ends too early"),
        ("", ": at column 1: the condition ends too early"),
        ('title = "a"', "title = \"a\": at column 7: write '==' to compare"),
        ('title == "a', 'title == "a: at column 10: the text that begins here has no closing quote'),
        ('title == "a" and true', "title == \"a\" and true: at column 14: write '&&' for 'and'"),
        ("true or false", "true or false: at column 6: write '||' for 'or'"),
        ("not has(labels.x)", "not has(labels.x): at column 5: write '!' for 'not'"),
        ("has(title)", "has(title): at column 5: has() asks for a part of a field, as in has(labels.team)"),
        ("1 +* 2 > 0", "1 +* 2 > 0: at column 4: '*' is not expected here"),
        ('title ==\n"a" "b"', 'title == "a" "b": at line 2, column 5: \'"\' is not expected here'),
        ('titel == "a"', "at column 1: no field of a message is called 'titel'; did you mean 'title'?"),
        ('true &&\ntitel == "a"', "at line 2, column 1: no field of a message is called 'titel'; did you mean 'title'?"),
        ('zzz == "a"', "at column 1: no field of a message is called 'zzz'; there are " + ", ".join(FIELDS)),
        ('title.startWith("a")', "at column 7: no function is called 'startWith'; did you mean 'startsWith'?"),
        ("title", "title: gives a text, but a condition gives true or false"),
        ("labels.team", "labels.team: gives a text, but a condition gives true or false"),
        ("size(title)", "size(title): gives a number, but a condition gives true or false"),
        ("time", "time: gives a value, but a condition gives true or false"),
        ("severity > 3", "severity > 3: compares or combines values of different types"),
        ("!title", "!title: compares or combines values of different types"),
        ('title.matches("[")', 'title.matches("["): matches() is given something that is not a regular expression'),
        ("labels[", "labels[: at column 8: the condition ends too early"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, error):
    with pytest.raises(ValueError) as caught:
        Condition(text)
    assert str(caught.value) == error


def test_functions_are_listed_where_none_is_close():
    with pytest.raises(ValueError, match=r"no function is called 'foo'; there are all, .*startsWith"):
        Condition("foo(1)")


def test_a_comprehensions_own_name_is_no_field_elsewhere():
    with pytest.raises(ValueError, match="'x'"):
        Condition("[1].all(x, x == 1) && x == 1")


def test_three_comprehensions_inside_each_other_are_refused():
    with pytest.raises(ValueError, match="at most two"):
        Condition("data.all(a, a.all(b, b.all(c, c)))")
    assert Condition("data.all(a, a > 0) && data.all(b, b > 0) && data.all(c, c.all(d, d))")


def test_brackets_in_texts_do_not_count():
    assert Condition("""data.all(a, a != "(((" && data.all(b, b != ')')) && data.all(c, c != 'x.all(y,')""")


def test_work_is_bounded():
    nested = Condition("data.all(a, data.all(b, a + b >= 0))")
    assert nested.matches(MESSAGE.replace(data=[1, 2, 3]))
    assert not nested.matches(MESSAGE.replace(data=[0] * 100_000))
    assert Condition("data.all(a, a >= 0)").matches(MESSAGE.replace(data=[0] * 100_000))
    assert not Condition("labels.all(a, labels.all(b, a + b != ''))").matches(
        MESSAGE.replace(labels={str(n): "" for n in range(3000)})
    )
    with pytest.raises(ValueError, match=f"at most {MAX_LENGTH} characters"):
        Condition("true" + " " * MAX_LENGTH)


def test_regular_expressions_are_linear():
    assert not Condition('title.matches("^(a+)+$")').matches(MESSAGE.replace(title="a" * 100_000 + "b"))


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="at column"):
        Condition("(" * 500 + "true" + ")" * 500)


def test_names_and_equality():
    condition = Condition('labels.team == "db" && data.exists(x, x == 1) && title != ""')
    assert condition.names == ("data", "labels", "title")
    assert condition == Condition(condition.text)
    assert len({condition, Condition(condition.text), Condition("true")}) == 2
    assert repr(Condition("true")) == "Condition('true')"


def test_as_the_type_of_an_option():
    adapter = TypeAdapter(Condition)
    condition = adapter.validate_python("true")
    assert adapter.validate_python(condition) is condition
    assert adapter.dump_python(condition) == "true"
    assert json.loads(adapter.dump_json(condition)) == "true"
    assert adapter.json_schema()["type"] == "string"
    with pytest.raises(ValidationError, match="did you mean 'title'"):
        adapter.validate_python("titel == ''")


PIECES = [
    "title",
    "labels",
    ".team",
    "[",
    "]",
    "(",
    ")",
    '"a"',
    "'",
    "&&",
    "||",
    "!",
    "==",
    ".all(x,",
    "x",
    "1",
    " ",
    "\n",
    "??",
    "has(",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_condition_or_a_value_error_of_one_line(text):
    said = ""
    try:
        assert Condition(text).matches(MESSAGE) in (True, False)
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_no_message_makes_it_raise(data):
    message = MESSAGE.replace(data=data)
    for text in ("data.a == 1", "data > 1", "data.all(x, x == data)", "data[0].b.c", "size(data) > 0", "string(data) == ''"):
        assert Condition(text).matches(message) in (True, False)
