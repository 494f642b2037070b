"""The intake over real sockets: what is accepted, what is refused and how, and that nothing is ever a 500."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from pipeline import TemporaryError
from pipeline.keys import create_key
from pipeline.web import body as body_module
from pipeline.web import intake as intake_module
from pipeline.web.answers import Refusal

ZIPPED = gzip.compress(b"{}")

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "unprocessable",
    500: "internal",
    503: "unavailable",
}


def refused(pipeline: str, status: int) -> float:
    return REGISTRY.get_sample_value("siftbell_requests_refused_total", {"pipeline": pipeline, "status": str(status)}) or 0


def test_accepted_messages_are_on_the_queue_when_their_ids_are_answered(web):
    answer = web.post([{"title": "one"}, {"title": "two"}])

    assert answer.status == 202
    assert answer.json == {"ids": [message.id for message in web.queue.messages], "count": 2}
    assert [message.title for message in web.queue.messages] == ["one", "two"]
    assert [batch.pipeline for batch in web.queue.batches] == ["toy"]


def test_a_producer_may_take_what_is_posted_below_its_path_and_say_how_it_is_answered(web):
    assert web.post(["one"], path="/in/toy/below").status == 202
    answer = web.post(["two"], path="/in/toy/below/api/v2/texts")

    assert (answer.status, answer.json) == (200, {"ids": [web.queue.messages[1].id], "count": 1})
    assert [message.source for message in web.queue.messages] == ["/in/toy/below", "/in/toy/below/api/v2/texts"]


@pytest.mark.parametrize(
    "path", ["below/", "below/api/v2", "below/api/v2/texts/", "below//api/v2/texts", "echo/", "echo/api", "echo/echo"]
)
def test_there_is_nothing_at_other_paths_below_a_producer(web, path):
    answer = web.post(["one"], path=f"/in/toy/{path}")

    assert (answer.status, answer.error["message"]) == (404, f"there is nothing at /in/toy/{path}")
    assert web.queue.batches == []


def test_what_a_refused_request_hands_over_is_accepted(web):
    answer = web.post(["one", 2, "three"], path="/in/toy/below")

    assert (answer.status, answer.error["message"], answer.places) == (400, "some are no texts", ["[?]"])
    assert [message.title for message in web.queue.messages] == ["one", "three"]


def test_a_refusal_may_have_the_body_that_the_senders_protocol_expects(web):
    before = refused("toy", 422)
    answer = web.post({}, path="/in/toy/below")

    assert (answer.status, answer.json, answer.headers["Cache-Control"]) == (422, {"code": 602}, "no-store")
    assert refused("toy", 422) == before + 1


def test_where_nothing_can_be_accepted_a_refusal_gives_way_to_coming_again(web):
    def bug():
        raise ZeroDivisionError

    web.queue.trouble = bug

    assert web.post(["one", 2], path="/in/toy/below").status == 503


def test_an_empty_array_is_accepted_and_publishes_nothing(web):
    answer = web.post([])

    assert (answer.status, answer.json) == (202, {"ids": [], "count": 0})
    assert web.queue.batches == []


def test_every_answer_forbids_sniffing_and_storing_and_names_no_server(web):
    for answer in (web.post({"title": "x"}), web.post(b"{"), web.get("/nothing"), web.get("/livez"), web.get("/in/toy/echo")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Server"] is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "the body is empty"),
        (b"{", "not JSON"),
        (b'{"title": "\xff"}', "not JSON"),
        (b'{"title": NaN}', "not JSON"),
        (b'{"title": Infinity}', "not JSON"),
        (b'{"title": 1e999}', ""),
        (b'{"title": "a\\u0000b"}', "NUL"),
        (b'{"t\\u0000": 1}', "NUL"),
        (b'{"title": ' + b"9" * 50 + b"}", ""),
        (b'{"title": ' + b"9" * 5000 + b"}", ""),
        (b"[" * 100 + b"]" * 100, "deeper"),
        (b"[" * 200_000, ""),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper"),
        (b'{"title": "\\ud800"}', ""),
        (b"\xef\xbb\xbf{}", ""),
        ('{"title": "x"}'.encode("utf-16"), ""),
    ],
)
def test_rubbish_is_400_or_422_and_nothing_is_published(web, body, word):
    answer = web.post(body)

    assert answer.status in {400, 422}
    assert answer.error["code"] == CODES[answer.status]
    assert word in answer.error["message"]
    assert web.queue.batches == []


@pytest.mark.parametrize("value", [None, True, 5, "text", {"title": None}, {"title": 5}])
def test_json_that_is_not_what_the_producer_expects_is_422_naming_the_field(web, value):
    answer = web.post(value)

    assert (answer.status, answer.error["code"], answer.places) == (422, "unprocessable", ["[0].title"])


def test_an_array_with_bad_entries_is_refused_whole_naming_each_bad_index(web):
    answer = web.post([{"title": "good"}, {}, {"title": "good"}, 7, {"title": []}])

    assert answer.status == 422
    assert answer.places == ["[1].title", "[3].title", "[4].title"]
    assert web.queue.batches == []


def test_more_problems_than_an_answer_should_hold_are_counted(web):
    answer = web.post([{}] * 250)

    assert len(answer.places) == 100
    assert "100 of 250" in answer.error["message"]


@given(body=st.one_of(st.binary(max_size=300), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.fixed_dictionaries({"title": inner}),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))))  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_ever_a_500(web, body):
    answer = web.post(body)

    assert answer.status in {202, 400, 413, 415, 422}
    assert answer.status == 202 or answer.error["code"] == CODES[answer.status]


@given(
    path=st.text(min_size=1, max_size=30).map(lambda text: quote(text, safe="/")),
    value=st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40),
    header=st.sampled_from(
        ["Authorization", "X-API-Key", "Content-Type", "Content-Encoding", "Accept", "Host", "Expect", "Cookie", "Forwarded"]
    ),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_or_header_is_ever_a_500(web, path, value, header):
    sent = {"X-API-Key": web.key, header: value.encode("latin-1", "replace")}

    for target in (f"/in/{path}", f"/{path}", f"/api/v1/{path}", "/in/toy/echo"):
        assert web.ask("POST", target, b"{}", sent).status < 500
        assert web.ask("GET", target, None, sent).status < 500


@pytest.mark.parametrize("path", ["/in/", "/in/toy", "/in/toy/", "/in//echo", "/in/toy/echo/", "/in/toy/echo/more"])
def test_a_path_that_names_no_producer_is_404_in_the_shape(web, path):
    answer = web.post({"title": "x"}, path)

    assert (answer.status, answer.error["message"]) == (404, f"there is nothing at {path}")


# What the producer makes of it


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("permanent", 422, "unprocessable"),
        ("temporary", 503, "unavailable"),
        ("odd", 422, "unprocessable"),
        ("teapot", 418, "refused"),
        ("bug", 500, "internal"),
    ],
)
def test_what_a_producer_raises_becomes_an_answer(web, what, status, code, caplog):
    before = refused("toy", status)

    answer = web.post({}, f"/in/toy/fails?with={what}")

    assert (answer.status, answer.error["code"]) == (status, code)
    assert refused("toy", status) == before + 1
    assert answer.headers["Retry-After"] == ("8" if status == 503 else None)


def test_a_bug_in_a_producer_is_logged_and_its_details_stay_here(web, capsys):
    answer = web.post({}, "/in/toy/fails?with=bug")

    assert b"secret detail" not in answer.body
    assert "secret detail" in capsys.readouterr().out
    assert web.post({"title": "goes on"}).status == 202


def test_a_producer_never_sees_the_api_key(web, monkeypatch):
    seen = []
    monkeypatch.setattr(
        type(web.services.pipelines["toy"].producer("echo").build()), "receive", lambda _, r: seen.append(r) or []
    )
    basic = base64.b64encode(f"x:{web.key}".encode()).decode()

    for headers in ({"X-API-Key": web.key}, {"Authorization": f"Bearer {web.key}"}, {"Authorization": f"Basic {basic}"}):
        assert web.post({}, headers=headers | {"X-Other": "kept"}).status == 202
    assert all(web.key not in repr(request) and basic not in repr(request) for request in seen)
    assert [request.headers["x-other"] for request in seen] == ["kept"] * 3


@pytest.mark.parametrize("style", ["console", "json"])
def test_the_log_of_a_bug_has_its_traceback_and_no_local_variables(style):
    program = (
        "import sys, structlog; from pipeline.telemetry import configure_logging; configure_logging('info', sys.argv[1])\n"
        "def receive(body, key):\n  raise ZeroDivisionError('told')\n"
        "try:\n  receive('bo' + 'dy', 'sb_' + 'secret')\nexcept ZeroDivisionError:\n  structlog.get_logger().exception('failed')"
    )

    log = subprocess.run([sys.executable, "-c", program, style], check=True, capture_output=True, text=True).stderr

    assert "ZeroDivisionError: told" in log
    assert "sb_secret" not in log


def test_a_producer_that_cannot_be_opened_is_a_500_in_the_shape(web):
    assert web.post({}, "/in/toy/unopened").error["code"] == "internal"


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("nul", "[1].title"),
        ("label", "[1].labels.a"),
        ("surrogate", "[1]"),
        ("number", "[1]"),
        ("set", "[1]"),
        ("naive", "[1].time"),
        ("text", "[1].time"),
        ("stranger", "[1]"),
    ],
)
def test_messages_that_could_not_be_read_behind_the_queue_are_refused_by_index(web, what, where):
    answer = web.post({}, f"/in/toy/odd?with={what}")

    assert (answer.status, answer.places) == (422, [where])
    assert web.queue.batches == []


def test_an_escaped_nul_that_is_text_is_taken(web):
    assert web.post({}, "/in/toy/odd?with=escaped").status == 202
    assert web.queue.messages[1].title == "\\u0000"


# Size and encoding


def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_is_413(web_with):
    web = web_with(max_body=1000)
    body = b'{"title": "' + b"x" * (1000 - 13) + b'"}'

    assert (len(body), web.post(body).status) == (1000, 202)
    answer = web.post(body + b" ")
    assert (answer.status, answer.error["code"]) == (413, "too_large")
    assert "1000 bytes" in answer.error["message"]


def test_a_body_without_a_length_is_cut_off_while_it_streams(web_with):
    web = web_with(max_body=1000)

    def chunks(count):
        return (b"x" * 100 for _ in range(count))

    assert web.ask("POST", "/in/toy/echo", chunks(11)).status == 413
    assert web.ask("POST", "/in/toy/echo", chunks(10)).status == 400


def test_a_gzip_body_is_understood_and_bounded_by_what_it_unpacks_to(web_with):
    web = web_with(max_body=1000)
    zipped = {"X-API-Key": web.key, "Content-Encoding": "gzip"}

    assert web.post(gzip.compress(b'{"title": "x"}'), headers=zipped).status == 202
    bomb = web.post(gzip.compress(b" " * 100_000), headers=zipped)
    assert (bomb.status, bomb.error["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "body",
    [b"", b"not gzip", ZIPPED[:-5], ZIPPED + b"rest", ZIPPED * 2],
    ids=["empty", "not gzip", "cut off", "more behind it", "two members"],
)
def test_what_is_not_one_whole_gzip_member_is_400(web, body):
    answer = web.post(body, headers={"X-API-Key": web.key, "Content-Encoding": "gzip"})

    assert (answer.status, answer.error["code"]) == (400, "bad_request")


def test_another_encoding_is_415_and_says_which_one_is_understood(web):
    answer = web.post(b"{}", headers={"X-API-Key": web.key, "Content-Encoding": "br"})

    assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    assert answer.headers["Accept-Encoding"] == "gzip"


def test_more_messages_than_the_publisher_can_hold_are_413(web):
    most = intake_module.MOST_MESSAGES

    assert web.post({}, f"/in/toy/many?count={most + 1}").status == 413
    assert web.post({}, f"/in/toy/many?count={most}").json["count"] == most


def test_messages_that_grow_far_beyond_what_was_posted_are_413(web, monkeypatch):
    monkeypatch.setattr(intake_module, "MOST_BYTES", 2_000_000)

    assert web.post({}, "/in/toy/many?count=9&size=200000").status == 202
    answer = web.post({}, "/in/toy/many?count=10&size=200000")
    assert (answer.status, answer.error["message"]) == (413, "the request makes messages of more than 2000000 bytes together")
    assert len(web.queue.messages) == 9


def test_a_message_that_is_larger_than_the_queue_takes_is_413_naming_its_index_and_the_limit(web):
    body = [{"title": "small"}, {"title": "x" * 5000}]
    assert web.post(body).status == 202
    web.queue.largest = 5000
    answer = web.post(body)

    assert (answer.status, answer.places) == (413, ["[1]"])
    assert "the queue takes 5000" in answer.error["message"]
    assert len(web.queue.messages) == 2


def test_a_length_that_is_no_number_is_400_behind_a_server_that_lets_it_pass():
    async def receive():
        raise AssertionError("it is not read")

    with pytest.raises(Refusal) as refusal:
        asyncio.run(body_module.read_body(receive, {"content-length": "two"}, 1000))
    assert refusal.value.status == 400


# Whom it is for


def test_other_methods_are_405_and_say_which_one_is_meant(web):
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = web.ask(method, "/in/toy/echo")
        assert (answer.status, answer.error["code"], answer.headers["Allow"]) == (405, "method_not_allowed", "POST")
    assert web.ask("HEAD", "/in/toy/echo").status == 405


def test_a_producer_may_take_other_methods(web):
    for method in ("GET", "POST", "HEAD"):
        answer = web.ask(method, "/in/toy/noting")
        assert (answer.status, answer.headers["Content-Length"]) == (202, "20")
        assert web.store.notes("toy", "noting") == {"last": method, "path": "/in/toy/noting"}
    assert answer.body == b""
    refused = web.ask("DELETE", "/in/toy/noting")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert web.ask("GET", "/in/toy/noting", headers={}).status == 401


def test_notes_are_in_the_store_before_the_answer_and_messages_on_the_queue(web):
    answer = web.post(b"hello", path="/in/toy/noting")
    assert answer.json == {"ids": [web.queue.messages[0].id], "count": 1}
    assert web.store.notes("toy", "noting")["last"] == "POST"


def test_without_the_store_a_note_is_answered_503_and_nothing_is_accepted(web, monkeypatch):
    def away(*_):
        raise TemporaryError("the store is away")

    assert web.post(b"hello", path="/in/toy/noting").status == 202
    monkeypatch.setattr(web.store, "write_notes", away)
    answer = web.post(b"again", path="/in/toy/noting")
    assert (answer.status, answer.headers["Retry-After"], answer.error["message"]) == (503, "5", "the store is away")
    assert [message.title for message in web.queue.messages] == ["hello"]


def test_a_store_that_hangs_holds_up_a_note_for_a_bounded_time(web_with, monkeypatch):
    monkeypatch.setattr(intake_module, "SPOOL_MARGIN", 0.1)
    web = web_with(publish_timeout="100ms")
    go_on = threading.Event()
    monkeypatch.setattr(web.store, "write_notes", lambda *_: go_on.wait(60))
    answer = web.ask("GET", "/in/toy/noting")
    go_on.set()
    assert (answer.status, answer.error["message"]) == (503, "the store does not answer")


def test_unknown_names_are_404_only_with_a_key_and_are_not_counted_by_name(web):
    for path, word in (("/in/no/echo", "pipeline 'no'"), ("/in/toy/no", "producer 'no'"), ("/in/toy/polled", "fetches")):
        answer = web.post({}, path)
        assert (answer.status, answer.error["code"]) == (404, "not_found")
        assert word in answer.error["message"]
        assert web.post({}, path, headers={}).status == 401
    before = refused("", 404)
    web.post({}, "/in/no/echo")
    assert refused("", 404) == before + 1
    assert refused("no", 404) == 0


def test_paths_that_nobody_knows_are_404_in_the_shape(web):
    for path in ("/in", "/in/toy", "/in/toy/echo/more", "/in//", "/nothing", "/docs", "/in/toy/echo/"):
        assert web.post({}, path).error["code"] == "not_found"


def test_a_producer_that_verifies_its_sender_needs_no_key_but_the_signature(web):
    signature = hmac.new(b"k1", b"{}", hashlib.sha256).hexdigest()

    assert web.post(b"{}", "/in/toy/signed", headers={"X-Signature": f"sha256={signature}"}).status == 202
    assert web.post(b"{}", "/in/toy/signed", headers={"X-Signature": "wrong"}).error["code"] == "unauthorized"


def test_a_header_sent_twice_reaches_the_producer_joined(web):
    signature = hmac.new(b"k1", b"{}", hashlib.sha256).hexdigest()
    request = b"POST /in/toy/signed HTTP/1.0\r\nContent-Length: 2\r\nX-Signature: %s\r\nX-Signature: more\r\n\r\n{}"

    assert web.raw(request % signature.encode()).startswith(b"HTTP/1.1 401")


# The broker and the store


def test_while_the_broker_is_away_messages_are_spooled_and_accepted(web):
    def away():
        raise TemporaryError("away")

    web.queue.trouble = away

    assert web.post({"title": "kept"}).status == 202
    (claim,) = web.store.claim_due(datetime.now(UTC), owner="test", lease=timedelta(seconds=9), limit=10)
    assert claim.held.message.title == "kept"


def test_while_the_store_is_away_too_it_is_503_with_retry_after(web, tmp_path):
    def away():
        raise TemporaryError("away")

    assert web.post({"title": "the key is known now"}).status == 202
    web.queue.trouble = away
    web.store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    answer = web.post({"title": "x"})

    assert (answer.status, answer.error["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_while_only_the_store_is_away_a_known_key_goes_on_working_and_another_is_503(web, tmp_path):
    assert web.post({"title": "the key is known now"}).status == 202
    other = create_key(web.store, "other", ["intake"])
    web.store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()

    assert web.post({"title": "x"}).status == 202
    answer = web.post({"title": "x"}, headers={"X-API-Key": other})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


def test_a_bug_while_publishing_is_503_so_that_the_sender_comes_again(web):
    def bug():
        raise ZeroDivisionError

    web.queue.trouble = bug

    assert web.post({"title": "x"}).error["code"] == "unavailable"


def test_a_broker_that_hangs_is_503_in_time_and_the_publisher_survives_it(web_with, monkeypatch):
    monkeypatch.setattr(intake_module, "SPOOL_MARGIN", 0.1)
    web = web_with(publish_timeout="100ms")
    goes_on = threading.Event()
    web.queue.trouble = lambda: goes_on.wait(30)

    answer = web.post({"title": "late"})
    goes_on.set()

    assert (answer.status, answer.error["code"]) == (503, "unavailable")
    assert web.post({"title": "next"}).status == 202
    assert [message.title for message in web.queue.messages] == ["late", "next"]


def test_many_at_once_are_all_accepted_and_share_publishes(web):
    statuses = []

    def send():
        statuses.extend(web.post({"title": "x"}).status for _ in range(10))

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [202] * 200
    assert len(web.queue.messages) == 200
