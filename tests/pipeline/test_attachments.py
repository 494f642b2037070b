"""Attachments: what is put into a message comes out of it as it was, and what others call so is left alone."""

from __future__ import annotations

import gzip
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline import Attachment, Message, PermanentError, attach, attachments_of
from pipeline.attachments import MOST_BYTES

ROWS = Attachment("rows.csv", "text/csv", b"a;b\r\n" * 100)


def bearing(*entries, **data):
    return Message(source="t", data=data | {"attachments": [*entries]})


def entry(name="a.txt", content=b"x", **changes):
    return {"name": name, "type": "text/plain", "base64": b64encode(content).decode()} | changes


@given(some.lists(some.binary(max_size=500), max_size=5))
@settings(max_examples=50, deadline=None)
def test_files_come_out_as_they_were(contents):
    files = [Attachment(f"{number}.bin", "application/x-test", content) for number, content in enumerate(contents)]
    message = attach(Message(source="t", data={"n": 1}), files)
    travelled = msgspec.json.decode(msgspec.json.encode(message), type=Message)
    assert [*attachments_of(travelled)] == files
    assert travelled.data["n"] == 1


def test_what_gets_smaller_travels_packed():
    first, second = attach(Message(source="t"), [ROWS, Attachment("b", "text/plain", b"x")]).data["attachments"]
    assert {*first} == {"name", "type", "gzip"}
    assert second == {"name": "b", "type": "text/plain", "base64": "eA=="}


def test_further_files_come_behind_those_that_are_there_and_the_message_stays_as_it_is():
    message = bearing(entry(), more=1)
    both = attach(message, [ROWS])
    assert [one.name for one in attachments_of(both)] == ["a.txt", "rows.csv"]
    assert (len(message.data["attachments"]), both.data["more"]) == (1, 1)


def test_data_that_is_no_object_bears_none():
    assert attachments_of(Message(source="t", data=[1])) == attachments_of(Message(source="t")) == ()
    with pytest.raises(PermanentError, match="no object"):
        attach(Message(source="t", data=[1]), [ROWS])


@pytest.mark.parametrize("other", [None, 1, "x", [], {}, {"name": "x"}, {"base64": "eA=="}, {"name": 1, "base64": "eA=="},
                                   {"name": "x", "base64": 1}, {"title": "a Slack attachment", "color": "#fff"}])  # fmt: skip
def test_what_others_call_attachments_is_left_alone(other):
    assert [one.name for one in attachments_of(bearing(other, entry()))] == ["a.txt"]
    assert attachments_of(Message(source="t", data={"attachments": other if other != [] else {}})) == ()


@pytest.mark.parametrize(
    ("name", "given_back"),
    [("../../etc/passwd", "_.._etc_passwd"),
     ("a\\b\n.txt", "a_b_.txt"), (" .. ", "file"), ("", "file"), ("x" * 200, "x" * 99 + "…"),
     ("\u202etxt.exe", "_txt.exe"), ('"a":b', "_a__b")],
)  # fmt: skip
def test_a_name_is_one_that_a_file_may_have(name, given_back):
    (file,) = attachments_of(bearing(entry(name)))
    assert file.name == given_back


@pytest.mark.parametrize(
    "kind", ["", "text", "text/plain; charset=x", "text/plain\nX: y", "message/rfc822", "Multipart/mixed", 7, None]
)
def test_a_type_that_is_none_is_not_taken_over(kind):
    assert [one.type for one in attachments_of(bearing(entry(type=kind)))] == ["application/octet-stream"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (entry(base64="%%"), "a.txt is not base64"),
        ({"name": "a", "gzip": "eA=="}, "a is not gzip"),
        ({"name": "a", "gzip": b64encode(gzip.compress(b"x" * 100)[:-9]).decode()}, "a is not gzip"),
        ({"name": "a", "gzip": b64encode(gzip.compress(bytes(MOST_BYTES + 1))).decode()}, "more than 25 MiB"),
    ],
)
def test_what_cannot_be_read_is_told(wrong, told):
    with pytest.raises(PermanentError, match=told):
        attachments_of(bearing(wrong))


def test_all_files_together_have_a_limit():
    half = {"name": "a", "gzip": b64encode(gzip.compress(bytes(MOST_BYTES // 2 + 1))).decode()}
    with pytest.raises(PermanentError, match="more than 25 MiB"):
        attachments_of(bearing(half, half))
