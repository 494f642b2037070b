"""Messages written where they are accepted: they are read again as what they were, in batches within bounds."""

from __future__ import annotations

import sys
from datetime import datetime

import msgspec
import pytest

from pipeline.engine.batch import MAX_BYTES, MAX_PROCESS, Batch, decode, encode
from pipeline.engine.written import TOGETHER, Written, divide, read, write


def read_again(messages):
    return decode(encode(Batch(job="process", queue="in", pipeline="p", messages=messages))).messages


def test_what_was_written_is_read_again_in_order(message):
    messages = [message(title=f"ä\u2028{number}", labels={"a": "b"}, data={"deep": [1, 2.5, None]}) for number in range(120)]
    pieces = write(messages, sys.maxsize)
    assert [piece.number for piece in pieces] == [TOGETHER, TOGETHER, 120 - 2 * TOGETHER]
    (part,) = divide(pieces, MAX_PROCESS)
    assert read_again(part) == messages
    assert [one for piece in pieces for one in read(piece)] == messages
    assert write([], sys.maxsize) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "7"},
        {"title": 7},
        {"status": "open"},
        {"labels": {"a": 1}},
        {"labels": None},
        {"time": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is what is wrong
        {"time": None},
        {"data": object()},
        {"data": "\ud800"},
        {"text": "\0"},
        {"data": msgspec.Raw(b"{")},
        {"data": {"a": msgspec.Raw(b"nothing")}},
        {"data": msgspec.Raw(b'1},{"id":"0198b3a0-0000-7000-8000-000000000001","time":"2026-01-01T00:00:00Z","source":"x"')},
    ],
)
def test_where_one_may_not_be_readable_nothing_is_said_of_all(message, wrong):
    assert write([message(), message(**wrong)], sys.maxsize) is None


def test_what_only_looks_like_a_message_is_not_written(message):
    class Own(type(message())):
        pass

    assert write([message(), msgspec.to_builtins(message())], sys.maxsize) is None
    assert write([Own(source="x")], sys.maxsize) is None


def test_what_is_larger_than_the_queue_takes_or_a_batch_may_be_is_left_to_be_looked_at(message):
    large = message(text="x" * 5000)
    assert write([large], 5000) is None
    assert write([large], 6000) is not None
    assert write([message(text="x" * MAX_BYTES)], sys.maxsize) is None


def test_batches_are_cut_by_count_and_by_size_in_order():
    many = [Written(b"%d" % number, MAX_PROCESS * 2 // 5) for number in range(5)]
    assert [[bytes(raw) for raw in part] for part in divide(many, MAX_PROCESS)] == [[b"0", b"1"], [b"2", b"3"], [b"4"]]
    small, large = Written(b"x", 1), Written(b"x" * (MAX_BYTES + 1), 1)
    assert [len(part) for part in divide([small, large, small, small], MAX_PROCESS)] == [1, 1, 2]
    assert list(divide([], MAX_PROCESS)) == []
