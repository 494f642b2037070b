"""Label matchers: Alertmanager's grammar in its default mode, and whole-value regular expressions that end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import Matchers


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", "{}"),
        ("{}", "{}"),
        (" { } ", "{}"),
        ("foo=bar", '{foo="bar"}'),
        ("foo = bar", '{foo="bar"}'),
        ("foo=", '{foo=""}'),
        ("foo=,", '{foo=""}'),
        ("a==b", '{a="=b"}'),
        ("foo=~bar|baz", '{foo=~"bar|baz"}'),
        ('{a="b", c!="d", e!~"f",}', '{a="b", c!="d", e!~"f"}'),
        ('"a b"="c"', '{"a b"="c"}'),
        (r'foo="\\d+"', r'{foo="\\d+"}'),
        (r'foo="a\nb"', r'{foo="a\nb"}'),
        (r'foo="\d"', r'{foo="\\d"}'),
        ('a="b,c"', '{a="b,c"}'),
        ("🎉=party", '{🎉="party"}'),
        (r'"ü\u00e4\x41\101\U0001F389"=a', '{üäAA🎉="a"}'),
        (r'"\xc3\xa4"=a', '{ä="a"}'),
        ("a='b'", "{a=\"'b'\"}"),
        ("foo:bar=1", '{foo:bar="1"}'),
    ],
)
def test_what_is_read(text, read):
    assert str(Matchers(text)) == read
    assert Matchers(read) == Matchers(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{a="b"', '{a="b": a brace is missing'),
        ('a="b"}', 'a="b"}: a brace is missing'),
        ("a", "a: at column 1: a name, one of = != =~ !~, and a value are expected"),
        (",", ",: at column 1: a name, "),
        ("a=b,,c=d", "a=b,,c=d: at column 5: a name, "),
        ('a="b" c="d"', 'a="b" c="d": at column 1: '),
        ('a="b', 'a="b: at column 1: '),
        (r'"\xff"=a', r'"\xff"=a: at column 1: '),
        (r'"\q"=a', r'"\q"=a: at column 1: '),
        (r'"\U00110000"=a', r'"\U00110000"=a: at column 1: '),
        ('""=a', '""=a: at column 1: '),
        ('"a b"=c "d"=e', '"a b"=c "d"=e: at column 1: '),
        ('a=~"["', "a=~\"[\": '[' is not a regular expression (RE2)"),
        ('a=~"x)|(y"', "a=~\"x)|(y\": 'x)|(y' is not a regular expression (RE2)"),
        ("a=~'\0'", "a=~"),
    ],
)
def test_what_is_not(text, error):
    with pytest.raises(ValueError) as caught:
        Matchers(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("team=db", {"team": "db"}, True),
        ("team=db", {}, False),
        ("team!=db", {}, True),
        ('team=""', {}, True),
        ('team=~"|x"', {}, True),
        ('team=~".+"', {}, False),
        ('team!~".+"', {}, True),
        ('team=~"d"', {"team": "db"}, False),
        ('team=~"db|web"', {"team": "web"}, True),
        ('team=~"d.*"', {"team": "db\n"}, False),
        ('team=~"db$"', {"team": "db\n"}, False),
        ('team!~"db"', {"team": "dbx"}, True),
        (r'n=~"\\d+"', {"n": "12"}, True),
        ("a=b,c=d", {"a": "b", "c": "x"}, False),
    ],
)
def test_what_matches(text, labels, matches):
    assert Matchers(text).match(labels) is matches


def test_regular_expressions_are_linear():
    assert not Matchers('a=~"(a+)+b"').match({"a": "a" * 200_000})


def test_as_the_type_of_an_option():
    adapter = TypeAdapter(Matchers)
    matchers = adapter.validate_python("a=b")
    assert adapter.validate_python(matchers) is matchers
    assert (adapter.dump_python(matchers), json.loads(adapter.dump_json(matchers))) == ("a=b", "a=b")
    assert adapter.json_schema()["type"] == "string"
    assert (repr(matchers), len({matchers, Matchers("a = b")})) == ("Matchers('a=b')", 1)
    with pytest.raises(ValidationError):
        adapter.validate_python("a")


@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["=", "!="]), st.text()), max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_printed_is_read_again(given_matchers):
    quoted = [f"{_quoted(name)}{operator}{_quoted(value)}" for name, operator, value in given_matchers]
    matchers = Matchers("{" + ",".join(quoted) + "}")
    assert [(one.name, one.operator, one.value) for one in matchers.matchers] == given_matchers
    assert Matchers(str(matchers)) == matchers


def _quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@given(
    st.text(max_size=20)
    | st.lists(st.sampled_from(["a", "=", "!~", "=~", ",", '"', "\\", "{", "}", " "]), max_size=9).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_matchers_or_a_value_error(text):
    try:
        matchers = Matchers(text)
    except ValueError:
        return
    assert matchers.match({"a": "b"}) in (True, False)
