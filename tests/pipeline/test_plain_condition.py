"""Plain conditions: CEL's answers without CEL, for whatever message; and what is left to CEL."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import Condition, Message
from pipeline.cel import compile_expression
from pipeline.pattern import compile_pattern
from pipeline.plain_condition import NotPlainError, compile_plain

TEXTS = ["", "x", "db", "production", "Häß", 'a"b', "a'b", "a\\b", "a\nb\tc\r", "{}", "\u2028", "\x00", "😀", "None", "in"]
LABELS = ["team", "env", "a_b", "_", "namespace", "package", "items", "a-b", "ä", "x y", "severity"]
PATTERNS = ["^x$", "d.", "(?i)HÄ", r"\w+", r"[^a-z]", "a|b", "", r"\\b", "(x", "[", r"\d{2,}", "(?s)a.b", "x*?", r"\z"]


def quoted(text: str) -> st.SearchStrategy[str]:
    """Write a text as CEL reads it, in the plain ways there are."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    double, single = escaped.replace('"', '\\"'), escaped.replace("'", "\\'")
    ways = [f'"{double}"', f"'{single}'"]
    if not set(text) & set("\"'\n\r"):
        ways += [f'r"{text}"', f"R'{text}'"]
    return st.sampled_from(ways)


texts = st.sampled_from(TEXTS).flatmap(quoted) | st.text(max_size=5).flatmap(quoted)
fields = st.sampled_from(["severity", "title", "text", "status", "type", "key", "url", "id", "source"])
names = st.sampled_from([name for name in LABELS if name.isascii() and name.isidentifier()])
labels = names.map("labels.{}".format) | st.sampled_from(LABELS).flatmap(quoted).map("labels[{}]".format)
operands = texts | fields | labels | labels
tests = (
    st.tuples(operands, st.sampled_from([" == ", "!=", " !=\n"]), operands).map("".join)
    | st.tuples(operands, st.lists(texts, min_size=1, max_size=4).map(", ".join)).map("{0[0]} in [{0[1]}]".format)
    | texts.map("{} in labels".format)
    | names.map("has(labels.{})".format)
    | st.tuples(operands, st.sampled_from(["contains", "startsWith", "endsWith"]), texts).map("{0[0]}.{0[1]}({0[2]})".format)
    | st.tuples(operands, st.sampled_from(PATTERNS).flatmap(quoted)).map("{0[0]}.matches({0[1]})".format)
    | st.sampled_from(["true", "false"])
)
conditions = st.recursive(
    tests,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" && ", "||", " || ", "&&"]), inner).map("".join)
        | inner.map("({})".format)
        | inner.map("!({})".format)
        | inner.map("!{}".format)
    ),
    max_leaves=8,
)
messages = st.builds(
    Message,
    id=st.sampled_from(TEXTS),
    source=st.sampled_from(TEXTS),
    type=st.sampled_from(TEXTS),
    title=st.sampled_from(TEXTS) | st.text(max_size=5),
    severity=st.sampled_from(TEXTS),
    labels=st.dictionaries(st.sampled_from(LABELS) | st.sampled_from(TEXTS), st.sampled_from(TEXTS) | st.text(max_size=5)),
)
wrong = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([1.5, [], ["x"], {}, {"x": "x"}, b"x"])
spoilt = st.builds(
    lambda message, title, severity, others: message.replace(title=title, severity=severity, labels=message.labels | others),
    messages,
    wrong | st.sampled_from(TEXTS),
    wrong,
    st.dictionaries(st.sampled_from(LABELS), wrong),
)


def by_cel(text: str, message: Message) -> bool:
    """Ask CEL whether a condition holds; raises ValueError for what is none."""
    program = compile_expression(text)
    try:
        return program.execute({name: getattr(message, name) for name in program.variables()}) is True
    except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError):
        return False


@given(conditions, st.lists(messages | spoilt, min_size=1, max_size=5))
@example('!(labels.team == "x" && labels.env != "x") || title.matches("(")', [Message(source="")])
@settings(max_examples=200, deadline=None)
def test_it_gives_the_answers_of_cel(text, several):
    try:
        plain = compile_plain(text)
    except NotPlainError:
        return
    condition = Condition(text)
    assert set(plain.names) == set(compile_expression(text).variables()) == set(condition.names)
    for message in several:
        assert condition.matches(message) is by_cel(text, message)


PIECES = [*"()[].,!\\\"' \n", "&&", "||", "==", "!=", " in ", "labels", "severity", "has", "true", "x", "r", "contains", '"a"']


@given(
    st.lists(st.sampled_from([*PIECES, *PIECES, "labels.team", "has(labels.x)", 'title == "a"', "ä", "\x0c", "//", "?"])).map(
        "".join
    )
)
@settings(max_examples=300, deadline=None)
def test_what_is_plain_is_cel(text):
    try:
        plain = compile_plain(text)
    except NotPlainError:
        return
    message = Message(source="x", severity="a", labels={"x": "a", "team": ""})
    assert plain.holds(message) is by_cel(text, message)


@pytest.mark.parametrize(
    "text",
    [
        'severity in ["warning", "error"] && labels.env == "production" && labels.team != "test"',
        r'labels.instance.matches("^(db|web)-[0-9]+\\.example:[0-9]+$")',
        "has(labels.team) && !('region' in labels)",
        '!(title.startsWith(r"\\d") || labels["a-b"] in [\'x\'])',
        '"db" == labels.team && labels.team == labels.owner',
        "true",
    ],
)
def test_what_is_common_is_plain(text):
    assert compile_plain(text).names == Condition(text).names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "severity",
        "severity == 3",
        "size(title) > 3",
        "data.x == 'x'",
        'time > timestamp("2026-01-01T00:00:00Z")',
        'labels.exists(name, name == "x")',
        'labels.contains("x")',
        'severity == "a" == true',
        '!severity == "a"',
        '"\\x41" == "A"',
        "'''a''' == 'a'",
        'severity in ["a",]',
        'severity == "a" // a remark',
        "labels.in == 'x'",
        "severity in labels",
        'title.matches("[")',
        "title.upper() == 'X'",
        "zeverity == 'a'",
        "(" * 40 + "true" + ")" * 40,
        "!" * 40 + "true",
    ],
)
def test_what_is_left_to_cel(text):
    with pytest.raises(NotPlainError):
        compile_plain(text)


def test_what_is_written_never_becomes_code():
    text = "labels[\"'] or __import__('os').abort() or m['\"] != \"'] or 1 or m['\""
    condition = compile_plain(text)
    assert not condition.holds(Message(source=""))
    assert condition.holds(Message(source="", labels={"'] or __import__('os').abort() or m['": "x"}))


@given(st.sampled_from(PATTERNS) | st.text("ab(|)*+?[]^$.\\dw{1,}", max_size=8), st.text("abcdw1ä\n", max_size=10))
@settings(max_examples=300, deadline=None)
def test_patterns_find_what_cel_finds(pattern, text):
    program = compile_expression("text.matches(pattern)")
    try:
        found = program.execute({"text": text, "pattern": pattern})
    except RuntimeError:
        with pytest.raises(ValueError, match="not a regular expression"):
            compile_pattern(pattern)
    else:
        assert compile_pattern(pattern)(text) is found


def test_patterns_are_linear():
    assert not compile_pattern("^(a+)+$")("a" * 100_000 + "b")
