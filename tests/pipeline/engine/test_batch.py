"""Batches: cut by count and size, and the same after the way through the queue."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from pipeline.engine.batch import MAX_BYTES, Batch, decode, encode, refuse_unreadable, split
from pipeline.engine.retry import next_attempt
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.spec.model import Retry


def test_split_cuts_by_count_in_order(message):
    messages = [message() for _ in range(7)]
    parts = list(split(messages, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert [m for part in parts for m in part] == messages
    assert list(split([], 3)) == []


def test_split_cuts_by_size_and_lets_a_large_one_stand_alone(message):
    small, large = message(text="x"), message(text="x" * MAX_BYTES)
    assert [len(part) for part in split([small, large, small, small], 100)] == [1, 1, 2]
    half = message(text="x" * (MAX_BYTES * 2 // 5))
    assert [len(part) for part in split([half] * 5, 100)] == [2, 2, 1]


@pytest.mark.parametrize("known", ["", "7", "\0", "not-a-uuid"])
def test_a_message_whose_id_is_no_uuid_is_refused_before_it_spoils_a_batch(message, known):
    with pytest.raises(PermanentError, match="its id is no UUID"):
        refuse_unreadable(message(id=known))


def test_a_kind_of_message_that_is_written_in_another_way_is_refused():
    class Foreign(Message, frozen=True, kw_only=True):
        source: str = msgspec.field(name="from")

    with pytest.raises(PermanentError, match="missing required field `source`"):
        refuse_unreadable(Foreign(source="x"))


def test_a_batch_survives_the_queue(message):
    one = message(title="ä\u2028", labels={"a": "b"}, data={"deep": [1, 2.5, None, True, "x"]}, severity="critical")
    batch = Batch(job="deliver", queue="out.x", pipeline="p", step="x", messages=[one], attempt=3, revision="r", deaths=1)
    assert decode(encode(batch)) == batch
    with pytest.raises(msgspec.MsgspecError):
        decode("{}")


def test_backoff_grows_to_its_cap_with_full_jitter(message):
    start = message().time
    retry = Retry(timedelta(days=30), first=timedelta(seconds=2), longest=timedelta(minutes=5))
    for attempt in range(1, 40):
        longest = min(300, 2 * 2 ** (attempt - 1))
        waits = [
            (next_attempt(TemporaryError("x"), attempt=attempt, since=start, now=start, retry=retry) - start).total_seconds()
            for _ in range(30)
        ]
        assert 0 <= min(waits) <= max(waits) <= longest
        assert max(waits) > longest / 2
        assert min(waits) < longest / 2


def test_the_wait_that_was_asked_for_is_kept_and_the_end_is_the_end(message):
    start = message().time
    retry = Retry(timedelta(minutes=5))
    asked = TemporaryError("x", retry_after=60)
    due = next_attempt(asked, attempt=1, since=start, now=start, retry=retry)
    assert timedelta(seconds=60) <= due - start <= timedelta(seconds=66)
    long = TemporaryError("x", retry_after=3600)
    assert next_attempt(long, attempt=1, since=start, now=start, retry=retry) == start + retry.lasting
    assert next_attempt(long, attempt=2, since=start, now=start + retry.lasting, retry=retry) is None
