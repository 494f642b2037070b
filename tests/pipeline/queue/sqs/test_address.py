"""URLs of SQS, names of queues, and what a message looks like there."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import ConfigError, Message
from pipeline.engine.batch import Batch, encode, kept_form
from pipeline.queue.app import make_app
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.sqs import LARGEST, read_settings, sqs_name
from pipeline.queue.sqs.wire import MOST_BYTES, pack, unpack

names = st.from_regex(r"(out\.)?[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


def test_a_url_says_where_and_how():
    assert read_settings("sqs://").endpoint is None
    told = read_settings("sqs://AKIA:se%2Fcret@127.0.0.1:4566?region=eu-west-1&wait=20&visibility=60")
    assert (told.key, told.secret, told.endpoint) == ("AKIA", "se/cret", "http://127.0.0.1:4566")
    assert (told.region, told.wait, told.visibility) == ("eu-west-1", 20, 60)
    assert read_settings("sqs://[::1]:1?tls=true").endpoint == "https://[::1]:1"


@pytest.mark.parametrize("option", ["wait=21", "wait=x", "visibility=1", "queue=x", "region"])
def test_a_wrong_option_does_not_start(option):
    with pytest.raises(ConfigError, match="the broker's URL") as caught:
        broker(f"sqs://AKIA:hunter2@host?{option}")
    assert "hunter2" not in str(caught.value)


def test_the_credentials_are_in_nothing_that_celery_shows():
    found = broker("sqs://AKIA:hunter2@host:1?region=eu-central-1")
    app = make_app(found)
    with app.connection_for_write() as connection:
        shown = [repr(found), repr(connection), connection.as_uri(), str(connection.info()), found.url, str(app.conf)]
    assert "hunter2" not in "".join(shown)
    app.close()


@given(names, names)
def test_trap_two_queues_never_have_the_same_name(one, other):
    """kombu makes '-' of '.', so a filter's queue 'out-x' and the consumer's 'out.x' were one."""
    first, second = sqs_name("siftbell-", one), sqs_name("siftbell-", other)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", first)
    assert (first == second) == (one == other)


def test_names_that_look_alike_stay_apart():
    alike = ["out.x", "out-x", "out_x", "out__x", "out_-x", "out._x", "out_h", "a_" * 60, "a_" * 61, "a" * 80, "a" * 81]
    assert len({sqs_name("siftbell-", one) for one in alike}) == len(alike)
    assert sqs_name("siftbell-", "out.telegram") == "siftbell-out_-telegram"
    with pytest.raises(ValueError, match="cannot be a queue on SQS"):
        sqs_name("siftbell-", "a/b")


WORST = {
    "letters": lambda rng: chr(rng.randrange(32, 127)),
    "quotes": lambda rng: rng.choice('"\\\n\t\x01'),
    "han": lambda rng: chr(rng.randrange(0x4E00, 0x9FFF)),
    "emoji": lambda rng: chr(rng.randrange(0x1F300, 0x1FAFF)),
    "any": lambda rng: chr(rng.choice([rng.randrange(32, 0xD7FF), rng.randrange(0xE000, 0x110000)])),
}


@pytest.mark.parametrize("kind", list(WORST))
def test_the_largest_message_fits_whatever_it_holds(kind, monkeypatch):
    """It is measured as it is sent: with its headers, its JSON in JSON, compressed, in base64."""
    rng = random.Random(7)
    letter = WORST[kind]
    some = [letter(rng) for _ in range(LARGEST)]
    fits, size = len(some), len(kept_form(Message(source="t", text="".join(some))))
    while size > LARGEST:
        fits = int(fits * LARGEST / size) - 1
        size = len(kept_form(Message(source="t", text="".join(some[:fits]))))
    assert size > LARGEST * 0.9
    sent = []
    monkeypatch.setattr("pipeline.queue.sqs.service.Service._batch", lambda self, op, queue, entries: sent.extend(entries) or {})
    monkeypatch.setattr("pipeline.queue.sqs.service.Service._call", lambda self, *_, **__: {"QueueUrl": "http://x/y"})
    queue = CeleryQueue(make_app(broker("sqs://key:secret@127.0.0.1:1")))
    batch = Batch(job="process", queue="in", pipeline="p", messages=[Message(source="t", text="".join(some[:fits]))])
    queue.publish([batch])
    queue.close()
    (entry,) = sent
    assert len(entry["MessageBody"]) < MOST_BYTES - 1024
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", entry["MessageBody"])
    assert unpack(entry["MessageBody"])["body"] == encode(batch)


@pytest.mark.parametrize("body", ["", "x", "eJwDAAAAAAE=", "not json", '{"a": 1}'])
def test_what_is_not_ours_becomes_a_message_without_headers(body):
    assert unpack(body) | {"body": None} == {
        "body": None,
        "headers": {},
        "properties": {},
        "content-type": "text/plain",
        "content-encoding": "utf-8",
    }


def test_a_repetitive_batch_is_a_tenth_as_large():
    text = json.dumps([{"title": f"disk full on host-{n}", "severity": "critical", "labels": {"a": "b"}} for n in range(500)])
    assert len(pack({"body": text, "properties": {}})) < len(text) / 4
