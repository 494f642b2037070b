"""Http: JSON, forms and CloudEvents; fields by path; signatures; every problem named."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import Request, RequestError
from pipeline.engine.batch import MAX_PROCESS, Batch, decode, encode
from pipeline.engine.written import divide, write
from pipeline.message import Proven
from pipeline.payload import _NAMES, _all_plain, _plainly, read_messages
from pipeline.testing import WebhookProducerContract
from producers.http import Http, HttpConfig

START = datetime(2026, 3, 1, tzinfo=UTC)

FULL = {
    "title": "disk full",
    "text": "2 % left",
    "severity": "WARN",
    "status": "OK",
    "labels": {"team": "db", "count": 3, "paged": True, "none": None},
    "key": "disk-1",
    "url": "https://x",
    "time": "2026-11-21T08:30:00.123456789+01:00",
    "source": "nagios",
    "type": "check",
    "more": {"a": [1]},
}
EVENT = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "build.failed"}


class TestHttp(WebhookProducerContract):
    plugin = Http
    accepted = [json.dumps(FULL).encode(), b'[{"title": "a"}, {}]']


class TestHttpWithPathsAndASignature(WebhookProducerContract):
    plugin = Http
    options = {"fields": {"title": "a[0].b", "labels": "tags"}, "hmac": {"secret": "the-shared-secret"}}
    accepted = [b'{"a": [{"b": "x"}], "tags": {"c": 1}}']

    def request(self, body, content_type="application/json"):
        signature = hmac.new(b"the-shared-secret", body, hashlib.sha256).hexdigest()
        return Request(body, {"content-type": content_type, "x-signature-256": f"sha256={signature}"})


def receive(body, content_type="application/json", headers=None, **options):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": content_type} | (headers or {})
    return [*Http(HttpConfig.model_validate(options)).receive(Request(raw, headers))]


def refused(*arguments, **options):
    with pytest.raises(RequestError) as caught:
        receive(*arguments, **options)
    return caught.value


def test_a_payload_with_our_names():
    (message,) = receive(FULL)
    assert (message.title, message.text, message.severity, message.status) == ("disk full", "2 % left", "warning", "resolved")
    assert message.labels == {"team": "db", "count": "3", "paged": "true"}
    assert (message.key, message.url, message.source, message.type) == ("disk-1", "https://x", "nagios", "check")
    assert message.time == datetime(2026, 11, 21, 7, 30, 0, 123456, tzinfo=UTC)
    assert message.data == FULL


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=2), max_size=2)
WORDS = st.sampled_from(["", "resolved", "OK", "firing", "closed?", "WARN", "2026-11-21T08:30:00Z", "1764000000"])
LABELS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3) | st.dictionaries(st.text(max_size=3), st.text(max_size=3))
PAYLOADS = st.fixed_dictionaries({}, optional=dict.fromkeys(_NAMES, VALUES | WORDS | LABELS) | {"id": VALUES, "data": VALUES})


@given(PAYLOADS)
@settings(max_examples=400, deadline=None)
def test_a_plain_payload_makes_the_same_message_the_quick_way(payload):
    def made(**options):
        try:
            (message,) = receive(payload, **options)
        except RequestError as error:
            return [(problem.where, problem.text) for problem in error.problems]
        given = {"id": "", "time": message.time if payload.get("time") is not None else START}
        return message.replace(**given)

    assert made() == made(fields={"title": "title"})  # a field's path, whichever, has every payload read name by name


@pytest.mark.parametrize(
    ("payload", "quick"),
    [
        ({}, True),
        ({"title": "x", "labels": {"a": "b"}, "time": 1764000000, "status": "resolved", "more": {"a": [None]}}, True),
        ({"title": 5}, False),
        ({"labels": {"a": 1}}, False),
        ({"status": "OK"}, False),
        ({"time": "soon"}, False),
        (["x"], False),
    ],
)
def test_which_payloads_go_the_quick_way(payload, quick):
    assert (_plainly(payload, "http", datetime.now(UTC)) is not None) is quick


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (b'{"title": "x", "labels": {"a": "b"}, "time": 1764000000}', True),
        (b'[{"title": "x"},  {"time": "2026-11-21T07:30:00Z"}, {}]', True),
        (b"[]", True),
        (b'[{"title": "x"}, {"more": 1}]', False),
        (b'{"title": "x", "labels": {"a": 1}}', False),
        (b'{"title": "x"}\n', False),
        (b'{"title": "\\u0000"}', False),
        (b'{"title": "\xff"}', False),
        (b'{"title": "x"} {}', False),
        (b'{"time": 1e400}', False),
        (b"[{}", False),
        (b"[1]", False),
        (b"", False),
    ],
)
def test_which_bodies_are_read_at_once_and_keep_their_payloads_as_they_came(body, at_once):
    messages = _all_plain(Request(body=body), "http", START, 3)
    assert (messages is not None) is at_once
    if messages:
        values = json.loads(body)
        assert [message.data for message in messages] == (values if isinstance(values, list) else [values])


TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)
TIMES = (
    st.datetimes().map(datetime.isoformat) | st.datetimes().map("{}+23:59".format) | st.floats() | st.integers(0, 10**16) | WORDS
)
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(_NAMES, TEXTS),
        "status": st.sampled_from(["firing", "resolved"]),
        "labels": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "time": TIMES,
    },
)


@given(st.lists(PLAIN, max_size=3), st.booleans(), st.sampled_from(["http", "\ud800", "a\0"]))
@settings(max_examples=400, deadline=None)
def test_what_is_read_at_once_needs_no_proof_that_it_can_be_read_again(payloads, escaped, source):
    body = json.dumps(payloads, ensure_ascii=escaped).encode(errors="surrogatepass")
    messages = _all_plain(Request(body=body), source, START, 3)
    pieces = write(messages, sys.maxsize) if messages else None
    event(f"at once: {messages is not None}, written: {bool(pieces)}")
    if pieces:
        (part,) = divide(pieces, MAX_PROCESS)
        sent = Batch(job="process", queue="in", pipeline="p", messages=part)
        assert decode(encode(sent)).messages == [*messages]
        assert write([*messages], sys.maxsize) == pieces, "the proof agrees"


ZONELESS = START.replace(tzinfo=None)


@pytest.mark.parametrize("given", [{"source": None}, {"source": 7}, {"time": "yesterday"}, {"time": ZONELESS}])
def test_what_a_caller_gives_wrongly_is_found_by_the_proof(given):
    messages = read_messages(Request(b'{"title": "x"}'), **{"source": "http", **given})
    assert not isinstance(messages, Proven)
    assert write(messages, sys.maxsize) is None


def test_a_label_that_a_plugin_changed_is_found():
    messages = read_messages(Request(b'[{"labels": {"a": "b"}}, {}]'), source="http")
    assert isinstance(messages, Proven)
    assert write(messages, sys.maxsize)
    messages[0].labels["count"] = 5
    assert write(messages, sys.maxsize) is None


def test_a_body_of_more_messages_than_are_allowed_is_refused_the_long_way():
    assert _all_plain(Request(body=b"[{}, {}]"), "http", START, 1) is None


def test_a_payload_with_none_of_our_names():
    (message,) = receive({"foo": 1})
    assert (message.title, message.source, message.type, message.status) == ("", "http", "event", "firing")


def test_an_array_and_an_empty_one():
    assert [message.title for message in receive([{"title": "a"}, {"title": 5}])] == ["a", "5"]
    assert receive([]) == []


def test_fields_by_path():
    payload = {"alert": {"names": [{"x": "disk"}], "level": "crit"}, "at": 1764000000123, "title": "not this"}
    fields = {"title": "alert.names[0].x", "severity": "alert.level", "time": "at", "text": "alert.none[7].x", "key": "alert[0]"}
    (message,) = receive(payload, fields=fields, source="probe")
    assert (message.title, message.severity, message.text, message.key, message.source) == ("disk", "critical", "", "", "probe")
    assert message.time == datetime.fromtimestamp(1764000000.123, UTC)


@pytest.mark.parametrize("path", ["", ".", "a.", "a[b]", "[0]", "a[0", "$.a", "a..b"])
def test_odd_paths_are_refused(path):
    if path == "$.a":
        assert receive({"$": {"a": "x"}}, fields={"title": path})[0].title == "x"
        return
    with pytest.raises(ValidationError):
        HttpConfig.model_validate({"fields": {"title": path}})


def test_every_problem_is_named_and_nothing_accepted():
    error = refused(
        [{"title": "fine"}, 3, {"title": [1], "labels": {"a": {}, "b": []}}, {"status": "huh", "time": "noon", "labels": 4}]
    )
    assert error.status == 422
    assert [problem.where for problem in error.problems] == [
        "[1]",
        "[2].title",
        "[2].labels.a",
        "[2].labels.b",
        "[3].status",
        "[3].labels",
        "[3].time",
    ]
    assert str(error).startswith("[1]: an object is expected; ")
    assert [problem.where for problem in refused({"time": "2026-11-21T08:30:00"}).problems] == ["time"]
    assert "time zone" in str(refused({"time": "2026-11-21T08:30:00"}))


def test_too_many_messages():
    assert len(receive([{}] * 3, limit=3)) == 3
    assert refused([{}] * 4, limit=3).status == 413


def test_a_form():
    (message,) = receive(b"title=disk+full&labels.team=db&time=1764000000&foo=%C3%A4", "application/x-www-form-urlencoded")
    assert (message.title, message.labels, message.time.year) == ("disk full", {"team": "db"}, 2025)
    assert message.data == {"title": "disk full", "labels": {"team": "db"}, "time": "1764000000", "foo": "ä"}
    body = b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\nhello\r\n--x--\r\n'
    (message,) = receive(body, "multipart/form-data; boundary=x")
    assert message.title == "hello"


def test_other_content_types():
    assert refused(b"hello", "text/plain").status == 415
    assert receive({"title": "a"}, "application/vnd.acme+json")[0].title == "a"


def test_a_cloud_event():
    event = EVENT | {"subject": "build 7", "time": "2026-11-21T08:30:00Z", "data": {"severity": "error", "x": 1}}
    (message,) = receive(event, "application/cloudevents+json; charset=utf-8")
    assert (message.title, message.severity, message.source, message.type) == ("build 7", "error", "/ci", "build.failed")
    assert message.time == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    assert message.data == event
    (message,) = receive(event, "application/cloudevents+json", fields={"text": "data.x", "key": "id"})
    assert (message.text, message.key) == ("1", "1")


def test_a_batch_of_cloud_events():
    content_type = "application/cloudevents-batch+json"
    assert len(receive([EVENT, EVENT], content_type)) == 2
    assert receive([], content_type) == []
    error = refused([EVENT, {"specversion": "0.3"}, 1], content_type)
    assert [problem.where for problem in error.problems] == ["[1].specversion", "[1].id", "[1].source", "[1].type", "[2]"]
    assert refused(EVENT, content_type).status == 422


def test_a_binary_cloud_event():
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/ci", "ce-type": "t", "ce-subject": "%C3%A4%20b"}
    (message,) = receive({"text": "x"}, headers=headers)
    assert (message.title, message.text, message.source, message.data["data"]) == ("ä b", "x", "/ci", {"text": "x"})
    assert receive(b"", headers=headers)[0].title == "ä b"
    assert receive(b"hello", "text/plain", headers)[0].data["data"] == "hello"
    assert receive(b"\xff", "image/png", headers)[0].data["data_base64"] == "/w=="
    assert refused(b"{}", headers=headers | {"ce-x": "%00"}).status == 400
    assert [problem.where for problem in refused(b"{}", headers={"ce-specversion": "1.0"}).problems] == ["id", "source", "type"]


def test_signatures():
    body, options = b'{"title": "a"}', {"hmac": {"secret": "s", "header": "X-Sig", "algorithm": "sha512"}}
    good = hmac.new(b"s", body, hashlib.sha512).hexdigest()
    assert receive(body, headers={"x-sig": good}, **options)[0].title == "a"
    assert receive(body, headers={"x-sig": f"sha512={good.upper()}"}, **options)[0].title == "a"
    assert refused(body, **options).status == 401
    assert refused(body, headers={"x-sig": "sha512=" + "0" * 128}, **options).status == 403
    assert refused(body, headers={"x-sig": "ü"}, **options).status == 403
    assert Http(HttpConfig.model_validate(options)).verifies_sender
    assert not Http(HttpConfig()).verifies_sender
