"""Remove: what is named is gone, what is redacted is not to be found, and the rest is as it was."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from ipaddress import IPv4Address

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.remove import Remove, RemoveConfig
from pipeline import Message
from pipeline.testing import FilterContract


class TestRemove(FilterContract):
    plugin = Remove
    options = {
        "fields": ["labels.a*", "data.nested.deep", "url"],
        "redact": ["email", "ipv4", r"disk (?P<secret>\w+)", "(?i)LABELS"],
    }


MESSAGE = Message(
    source="t",
    title="disk full",
    text="x",
    severity="info",
    key="k",
    url="https://x",
    labels={"team": "db", "tmp_1": "a", "tmp_2": "b", "tmp": "c"},
    data={"request": {"headers": {"a": 1}, "path": "/"}, "list": [1, {"a": 2, "b": 3}, 3]},
)


def left(message=MESSAGE, **options):
    (out,) = Remove(RemoveConfig.model_validate(options)).filter(message)
    return out


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["labels.team"], {"labels": {"tmp_1": "a", "tmp_2": "b", "tmp": "c"}}),
        (["labels.tmp_*"], {"labels": {"team": "db", "tmp": "c"}}),
        (["labels.tmp_?", "labels.team"], {"labels": {"tmp": "c"}}),
        (["labels.*"], {"labels": {}}),
        (["labels"], {"labels": {}}),
        (["labels.TEAM", "labels.t.*", "data.no.where", "data.list[7]", "data.list.a", "data.request[0]"], {}),
        (["title", "text", "severity", "key", "url"], dict.fromkeys(["title", "text", "severity", "key", "url"], "")),
        ("url", {"url": ""}),
        (["data"], {"data": None}),
        (["data.request.headers"], {"data": MESSAGE.data | {"request": {"path": "/"}}}),
        (["data.request", "data.request.path"], {"data": {"list": MESSAGE.data["list"]}}),
        (["data.list[0]", "data.list[1].a"], {"data": MESSAGE.data | {"list": [{"b": 3}, 3]}}),
        (["data.list[0]", "data.list[2]"], {"data": MESSAGE.data | {"list": [{"a": 2, "b": 3}]}}),
    ],
)
def test_what_is_named_goes(fields, expected):
    assert left(fields=fields) == MESSAGE.replace(**expected)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("headers", {"list": MESSAGE.data["list"], "request": {"path": "/"}}),
        (["a"], {"list": [1, {"b": 3}, 3], "request": {"headers": {}, "path": "/"}}),
        (["?", "pa*"], {"list": [1, {}, 3], "request": {"headers": {}}}),
        (["*"], {}),
        (["A", "b.*", "header"], MESSAGE.data),
    ],
)
def test_members_go_wherever_they_are(members, expected):
    out = left(members=members)
    assert out == MESSAGE.replace(data=expected)
    assert (out is MESSAGE) == (expected is MESSAGE.data)


def test_where_nothing_is_to_be_done_the_message_is_given_itself():
    assert left(fields=["labels.x", "labels.y*", "data.x"], members=["x"], redact=["email"]) is MESSAGE


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({"redact": ["email"]}, b'{"note":"ada@example.com","note":"x"}'),
        ({"members": ["password"]}, b'{"a":{"password":"ada@example.com"},"a":1}'),
        ({"fields": ["data.a.b"]}, b'{"a":{"b":"ada@example.com"},"a":1}'),
    ],
)
def test_what_stands_twice_in_the_json_that_came_goes_as_well(options, payload):
    """JSON may name a member twice: whoever reads it sees the last one, and a consumer that writes it as it came writes both."""
    assert b"ada" not in msgspec.json.encode(left(Message(source="t", data=msgspec.Raw(payload)), **options))


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("email", "mail ada@example.com, <Ünal.Özil+x@mail.example.co.uk>!", "mail ***, <***>!"),
        ("email", "user@host and @ada and a@.b", "user@host and @ada and a@.b"),
        ("ipv4", "192.0.2.7:8080, 255.255.255.255 256.1.1.1 1.2.3", "***:8080, *** 256.1.1.1 1.2.3"),
        ("card", "4111 1111 1111 1111, 4111-1111-1111-1111 and 378282246310005.", "***, *** and ***."),
        ("card", "4111 1111 1111 1112 and 17000000000002", "4111 1111 1111 1112 and 17000000000002"),
        ("card", "2026 4111 1111 1111 1111 12 30", "2026 *** 12 30"),
        ("card", "4111 1111 1111 1111 5500 0000 0000 0004", "*** ***"),
        ("card", "41111111111111114111111111111111", "41111111111111114111111111111111"),
        ("card", "2026-11-21 4111 1111 1111 1111", "***"),  # the date and half of the number have a right check digit, too
        ("card", "4111\u00a01111\u00a01111\u00a01111, 4111\u20131111\u20131111\u20131111", "***, ***"),
        ("ipv4", "010.000.001.007 and 192.168.001.001", "*** and ***"),
        ("email", "jo\u0308rg@bu\u0308ro.example", "***"),
        ("password-in-url", "postgresql://ops:pa/s?s#w@db/x and http://h:8080/a?b=c@d", "postgresql://ops:***@db/x and http://h:8080/a?b=c@d"),
        ("bearer", "Authorization: bearer abc.DEF-123_/+=, x", "Authorization: bearer ***, x"),
        ("bearer", "a bearer of news", "a bearer of news"),
        ("password-in-url", "postgresql://ops:p@ss:w0rd@db/x?a=b", "postgresql://ops:***@db/x?a=b"),
        ("password-in-url", "redis://:secret@h https://h:8080/?q=a@b https://u@h", "redis://:***@h https://h:8080/?q=a@b https://u@h"),
        (r"ticket-\d+", "ticket-17, Ticket-18", "***, Ticket-18"),
        (r"(?i)ticket-\d+", "ticket-17, Ticket-18", "***, ***"),
        (r"key=(?P<secret>\w+)", "key=a key=b", "key=*** key=***"),
        (r"(key|pin)=\w+", "key=a pin=b", "*** ***"),
        (r"x(?P<secret>y)?z", "xyz xz", "x***z xz"),
        ("(word)", "word", "***"),
        (r"(?s)BEGIN.*END", "a BEGIN\nx\nEND b", "a *** b"),
        ("ü+", "süüß", "s***ß"),
    ],
)  # fmt: skip
def test_what_a_pattern_matches_is_replaced(pattern, text, expected):
    labels, data = {"a": text, text: "b"}, {text: [text, 1, {"b": text}]}
    message = Message(source="t", title=text, text=f"\n{text}\n", url=text, key=text, labels=labels, data=data)
    out = left(message, redact=[pattern])
    assert (out.title, out.text, out.url) == (expected, f"\n{expected}\n", expected)
    assert (out.key, out.labels, out.data) == (text, {"a": expected, text: "b"}, {text: [expected, 1, {"b": expected}]})


def test_patterns_are_applied_one_after_another():
    assert left(Message(source="t", title="a b"), redact=["(a)", r"\*+ b"]).title == "***"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "fields, members or redact is required"),
        ({"fields": ["lables.x"]}, "did you mean 'labels'?"),
        ({"fields": ["status"]}, "a message always has one"),
        ({"fields": ["id"]}, "a message always has one"),
        ({"fields": ["data.*[x]"]}, "a path such as"),
        ({"fields": ["data.tmp_*"]}, "members: ['tmp_*'] goes wherever it stands in the payload"),
        ({"fields": "data.a[0].x?"}, "members: ['x?']"),
        ({"redact": "IPv4"}, "no pattern has this name; did you mean 'ipv4'?"),
        ({"redact": ["password_in_url"]}, "did you mean 'password-in-url'?"),
        ({"redact": ["emial"]}, "no pattern has this name; did you mean 'email'?"),
        ({"redact": ["everything"]}, "there are email, ipv4, card, bearer, password-in-url"),
        ({"redact": ["("]}, "neither the name of a pattern nor a regular expression (RE2)"),
        ({"redact": [r"(?=x)"]}, "neither the name of a pattern nor a regular expression (RE2)"),
        ({"redact": ["(?:x{1000}){1000}"]}, "neither the name of a pattern nor a regular expression (RE2)"),
        ({"redact": ["x*"]}, "matches the empty text"),
        ({"redact": ["x" * 1001]}, "at most 1000 characters"),
    ],
)
def test_mistakes_are_told(options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        RemoveConfig.model_validate(options)


NAMES = st.text("ab_.*?[", min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, st.just("x")), st.lists(st.text("ab_.*?", min_size=1, max_size=4), min_size=1, max_size=3))
def test_globs_are_those_of_files(labels, globs):
    """`*` is any characters, `?` is one, and nothing else has a meaning."""
    out = left(Message(source="t", labels=labels), fields=[f"labels.{glob}" for glob in globs])
    assert out.labels == {name: "x" for name in labels if not any(fnmatchcase(name, glob) for glob in globs)}


SECRETS = st.one_of(
    st.from_regex(r"[a-z0-9.]{1,8}@[a-z]{1,8}\.(com|org)", fullmatch=True),
    st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number))),
    st.integers(10**14, 10**15 - 1).map(lambda number: f"{number}{(-_luhn(f'{number}0')) % 10}"),
    st.from_regex(r"Bearer [A-Za-z][A-Za-z0-9]{8,20}", fullmatch=True).map(lambda text: text[7:]),
)


def _luhn(digits):
    return sum(sum(divmod(int(digit) * (2 if place % 2 else 1), 10)) for place, digit in enumerate(reversed(digits)))


def said(secret):
    return f"Bearer {secret}" if secret.isalnum() and not secret.isdigit() else secret


@settings(max_examples=300, deadline=None)
@given(st.lists(SECRETS, min_size=1, max_size=4), st.lists(st.text("ab ,;:ü\n", max_size=6), min_size=5, max_size=5))
def test_no_secret_is_left_anywhere(secrets, words):
    """Wherever among other words a secret of a shipped pattern stands, in whatever text of the message, it is gone."""
    text = " ; ".join(part for pair in zip(words, map(said, secrets), strict=False) for part in pair)
    message = Message(source="t", title=text, text=text, url=text, labels={"a": text}, data=[{"b": [text]}])
    out = left(message, redact=["email", "ipv4", "card", "bearer", "password-in-url"])
    assert out.text.count("***") >= 1
    for secret in secrets:
        assert not re.search(rf"(?<![\w.]){re.escape(secret)}(?![\w.])", msgspec.json.encode(out).decode())


@pytest.mark.parametrize("pattern", ["(a|aa)+b", "(?:a?){40}c", "email", "card", "password-in-url", "bearer", "ipv4"])
def test_a_long_text_is_looked_at_once(pattern):
    """Texts that make other engines try for ever: it comes to an end, which the suite's time limit watches."""
    text = "a" * 100_000 + "1 " * 20_000 + "://a:" * 20_000 + "1234." * 20_000 + "bearer " * 10_000
    assert left(Message(source="t", text=text), redact=[pattern]).text == text


JSON = st.recursive(
    st.none() | st.integers(0, 9) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)


def members(value):
    """Give the ways to all members of objects in a payload, with the numbers of elements left out."""
    inside = value.items() if isinstance(value, dict) else ((None, inner) for inner in value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield from ([(name,)] if name else [])
        yield from ((*filter(None, (name,)), *way) for way in members(inner))


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_member_of_a_name_is_left_and_all_others_are(data):
    out = left(Message(source="t", data=data), members=["a"])
    assert sorted(members(out.data)) == sorted(way for way in members(data) if "a" not in way)
