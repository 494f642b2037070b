"""Requests: bodies are read strictly, and whatever comes is a value or a `RequestError`."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Request, RequestError
from pipeline.request import MAX_DEPTH, MAX_FORM_FIELDS, refuse_unstorable

URLENCODED = "application/x-www-form-urlencoded"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def refused(body, content_type=""):
    request = Request(body, {"content-type": content_type})
    with pytest.raises(RequestError) as caught:
        request.form() if "form" in content_type else request.json()
    assert caught.value.status == 400
    return str(caught.value)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_json_that_can_be_stored_is_read(value):
    assert Request(json.dumps(value).encode()).json() == value


@given(
    st.binary() | st.recursive(st.integers() | st.floats() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=300, deadline=None)
def test_any_body_is_json_or_refused(body):
    try:
        value = Request(body).json()
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - either outcome is right
        return
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b" ", "the body is empty: JSON is expected"),
        (b'{"a": "\xff"}', "the body is not JSON: it is not UTF-8"),
        (b'{"a": NaN}', "the body is not JSON: "),
        (b'{"a": 1e400}', "the body is not JSON: "),
        (b'"\\ud800"', "the body is not JSON: "),
        (b"9" * 5000, "the body is not JSON: "),
        (b'{"a": [0, {"b": 99999999999999999999}]}', "a[1].b: is an integer of more than 64 bits"),
        (b"-9223372036854775809", "the body: is an integer of more than 64 bits"),
        (b'{"a": "x\\u0000"}', "a: holds a NUL character"),
        (b'{"a": {"x\\u0000": 1}}', "a: has a field whose name holds a NUL character"),
        (b"[" * 100_000, f"the body nests deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(body, text):
    assert refused(body).startswith(text)


def test_the_depth_that_is_allowed():
    def nested(depth):
        return b"[" * depth + b"]" * depth

    assert Request(nested(MAX_DEPTH)).json() is not None
    assert f"nested deeper than {MAX_DEPTH} levels" in refused(nested(MAX_DEPTH + 2))
    assert len(refused(b'{"' + b"x" * 500 + b'":' + nested(100) + b"}")) < 300


def test_infinity_is_refused_wherever_it_comes_from():
    with pytest.raises(RequestError, match="a: is a number that is too large"):
        refuse_unstorable({"a": math.inf})


def test_of_names_that_stand_twice_the_last_counts():
    assert Request(b'{"a": 1, "a": 2}').json() == {"a": 2}


@given(st.dictionaries(TEXT, TEXT))
@settings(max_examples=200, deadline=None)
def test_a_form_is_read(form):
    assert Request(urlencode(form).encode(), {"content-type": f"{URLENCODED}; charset=utf-8"}).form() == form


@given(st.binary(), st.sampled_from([URLENCODED, "multipart/form-data; boundary=x", "multipart/form-data"]))
@settings(max_examples=300, deadline=None)
def test_any_body_is_a_form_or_refused(body, content_type):
    try:
        form = Request(body, {"content-type": content_type}).form()
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - either outcome is right
        return
    assert all(isinstance(text, str) for pair in form.items() for text in pair)


def part(name, value, more=b""):
    return b'--x\r\nContent-Disposition: form-data; name="' + name + b'"' + more + b"\r\nX-More: 1\r\n\r\n" + value + b"\r\n"


def test_a_multipart_form_is_read():
    body = part(b"a", b"1") + part("ü".encode(), "ä\r\n--".encode()) + b"--x--\r\n"
    assert Request(body, {"content-type": 'multipart/form-data; boundary="x"'}).form() == {"a": "1", "ü": "ä\r\n--"}


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"a=1&a=2", URLENCODED, "a: stands there twice"),
        (b"a=%00", URLENCODED, "a: holds a NUL"),
        (b"a=%ff", URLENCODED, "the body is not a form"),
        (b"a=\xff", URLENCODED, "the body is not a form"),
        (b"&".join(b"a%d=" % n for n in range(MAX_FORM_FIELDS + 1)), URLENCODED, "the body is not a form"),
        (part(b"a", b"1"), "multipart/form-data; boundary=x", "the body is not a form: it breaks off"),
        (part(b"a", b"1") + b"--x--", "multipart/form-data", "the body is not a form: its content-type names no boundary"),
        (part(b"a", b"1", b'; filename="f"') + b"--x--", "multipart/form-data; boundary=x", "the body is not a form: files"),
        (b"--x\r\nContent-Type: a\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "the body is not a form: a part"),
        (part(b"a", b"\xff") + b"--x--", "multipart/form-data; boundary=x", "the body is not a form"),
        (part(b"a", b"1") + part(b"a", b"1") + b"--x--", "multipart/form-data; boundary=x", "a: stands there twice"),
        (part(b"a", b"1") * (MAX_FORM_FIELDS + 1), "multipart/form-data; boundary=x", "the body is not a form: more than"),
    ],
)
def test_what_is_no_form(body, content_type, text):
    assert refused(body, content_type).startswith(text)


def test_signatures():
    request = Request(b"body")
    digest = hmac.new(b"s", b"body", hashlib.sha256).hexdigest()
    assert request.signed_by("s", digest)
    assert request.signed_by("s", f"sha256={digest.upper()}")
    assert request.signed_by("s", "sha512=" + hmac.new(b"s", b"body", hashlib.sha512).hexdigest(), algorithm="sha512")
    for wrong in ("", "sha256=", digest[:-1], digest + "0", "ü", f"sha512={digest}"):
        assert not request.signed_by("s", wrong)
    assert not request.signed_by("t", digest)


def test_the_content_type_is_bare():
    assert Request(b"", {"content-type": "Application/JSON; charset=utf-8"}).content_type == "application/json"
    assert Request(b"").content_type == ""
