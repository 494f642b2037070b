"""The API and its OpenAPI document, over real sockets and on a real store."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
import pytest
from openapi_spec_validator import validate

from pipeline import Message, WebhookProducer
from pipeline import keys as keys_module
from pipeline.engine.explain import explain
from pipeline.keys import create_key
from pipeline.message import new_id
from pipeline.store.rows import DeadLetter, Held, Outcome, Record, Why
from pipeline.web import access as access_module

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PATHS = ["/api/v1/pipelines", "/api/v1/stats", "/api/v1/messages/x", "/api/v1/dead-letters", "/api/v1/dead-letters/x"]


def dead(web, title, *, step="mail", at=START, **fields):
    letter = DeadLetter(message=Message(source="t", title=title), pipeline="toy", step=step, error="no", at=at, **fields)
    web.store.settle(dead=[letter])
    return letter


def test_the_root_says_where_things_are(web):
    assert web.get("/").json["name"] == "siftbell"
    assert web.get("/").json["openapi"] == "/openapi.json"


def test_pipelines_have_their_steps_and_where_to_post(web):
    (pipeline,) = web.get("/api/v1/pipelines").json

    assert (pipeline["name"], pipeline["description"], pipeline["revision"]) == ("toy", "For tests", "r1")
    steps = {step["label"]: step for step in pipeline["steps"]}
    assert steps["echo"] == {"kind": "producer", "label": "echo", "plugin": "echo", "active": True, "url": "/in/toy/echo"}
    assert steps["polled"]["url"] is None


def test_what_a_sender_has_to_add_to_the_path_is_shown(web, monkeypatch):
    monkeypatch.setattr(WebhookProducer, "below", "/NAME")
    (pipeline,) = web.get("/api/v1/pipelines").json
    assert {step["url"] for step in pipeline["steps"] if step["label"] in ("echo", "polled")} == {"/in/toy/echo/NAME", None}


def test_stats_count_where_messages_are(web):
    message = Message(source="t")
    web.store.settle(
        records=[Record(message_id=message.id, pipeline="toy", step="mail", outcome=Outcome.DELIVERED, at=START)],
        held=[Held(message=message, pipeline="toy", step="chat", why=Why.RETRY, due=START)],
    )
    dead(web, "x")

    stats = web.get("/api/v1/stats").json

    assert {"pipeline": "toy", "step": "mail", "outcome": "delivered", "count": 1} in stats["decided"]
    assert stats["held"] == [{"pipeline": "toy", "step": "chat", "why": "retry", "count": 1}]
    assert stats["dead"] == [{"pipeline": "toy", "step": "mail", "count": 1}]


def test_a_messages_records_come_in_the_order_of_time(web):
    steps = {"late": START + timedelta(seconds=5), "early": START}
    web.store.settle(
        records=[
            Record(message_id="m", pipeline="toy", step=step, outcome=Outcome.DROPPED, at=at, reason="by when")
            for step, at in steps.items()
        ]
    )

    found = web.get("/api/v1/messages/m").json

    assert [record["step"] for record in found["records"]] == ["early", "late"]
    assert found["records"][0] == {
        "pipeline": "toy", "step": "early", "outcome": "dropped", "at": "2026-03-01T12:00:00Z", "attempt": 1, "since": None,
        "reason": "by when", "message_id": "m", "became": [],
    }  # fmt: skip


def test_what_became_of_a_message_has_the_shape_of_siftbell_explain(web):
    letter = dead(web, "disk full", attempts=3)
    parent, part = new_id(), new_id()
    web.store.settle(
        records=[
            Record(message_id=parent, pipeline="toy", step="cut", outcome=Outcome.REPLACED, at=START, became=(part,)),
            Record(message_id=part, pipeline="toy", step="mail", outcome=Outcome.DELIVERED, at=START, attempt=2, since=START),
        ]
    )
    specs = [pipeline.spec for pipeline in web.services.pipelines]
    for message_id in (letter.message.id, parent, part):
        expected = msgspec.json.encode(explain(web.store, specs, message_id, datetime.now(UTC)))
        assert web.get(f"/api/v1/messages/{message_id}").json == json.loads(expected)


def test_dead_letters_are_listed_page_by_page_the_newest_first_and_filtered(web):
    for number in range(5):
        dead(web, str(number), at=START + timedelta(seconds=number), step="mail" if number < 4 else "chat")

    def titles(answer):
        return [letter["title"] for letter in answer.json["dead_letters"]]

    assert titles(web.get("/api/v1/dead-letters")) == ["4", "3", "2", "1", "0"]
    assert titles(web.get("/api/v1/dead-letters?step=chat")) == ["4"]
    assert titles(web.get("/api/v1/dead-letters?pipeline=other")) == []
    first = web.get("/api/v1/dead-letters?limit=3&pipeline=toy")
    second = web.get(first.json["next"])
    assert (titles(first), titles(second), second.json["next"]) == (["4", "3", "2"], ["1", "0"], None)


def test_a_dead_letter_is_shown_whole(web):
    letter = dead(web, "disk full", attempts=3, traceback="Traceback: …")

    (found,) = web.get(f"/api/v1/dead-letters/{letter.message.id}").json

    assert (found["error"], found["attempts"], found["traceback"]) == ("no", 3, "Traceback: …")
    assert found["message"]["title"] == "disk full"


def test_what_is_not_there_is_404(web):
    for path in ("/api/v1/messages/x", "/api/v1/dead-letters/x", "/api/v1/nothing"):
        answer = web.get(path)
        assert (answer.status, answer.error["code"]) == (404, "not_found")


def test_another_method_is_405_in_the_shape(web):
    assert web.post({}, "/api/v1/stats").error["code"] == "method_not_allowed"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "before=yesterday"])
def test_wrong_parameters_are_422_naming_them(web, query):
    answer = web.get(f"/api/v1/dead-letters?{query}")

    assert (answer.status, answer.error["code"], answer.places) == (422, "unprocessable", [query.partition("=")[0]])


# Keys


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_key_may_be_sent_in_three_ways(web):
    for headers in (
        {"X-API-Key": web.key},
        {"Authorization": f"Bearer {web.key}"},
        {"authorization": f"bearer  {web.key}"},
        {"Authorization": basic(f"anybody:{web.key}")},
    ):
        assert web.get("/api/v1/pipelines", headers).status == 200
        assert web.post({"title": "x"}, headers=headers).status == 202


@pytest.mark.parametrize("path", PATHS)
def test_without_a_known_key_everything_is_401(web, path):
    changed = web.key[:-1] + ("0" if web.key[-1] != "0" else "1")
    elsewhere = "sb_" + "A" * 43 + sha256(b"sb_" + b"A" * 43).hexdigest()[:6]
    for headers in (
        {},
        {"X-API-Key": ""},
        {"X-API-Key": changed},
        {"X-API-Key": elsewhere},
        {"Authorization": web.key},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!!"},
        {"Authorization": basic("no colon")},
        {"Authorization": "Basic /w=="},
        {"Authorization": f"Digest {web.key}"},
        {"Cookie": f"key={web.key}"},
    ):
        answer = web.get(path, headers)
        assert (answer.status, answer.error["code"]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"]
        assert web.post({}, headers=headers).status == 401
    assert web.get(f"{path}?key={web.key}&api_key={web.key}", {}).status == 401


def test_a_key_works_for_its_scopes_only_and_until_it_expires(web):
    intake = create_key(web.store, "sender", ["intake"])
    api = create_key(web.store, "reader", ["api"])
    old = create_key(web.store, "old", ["api", "intake"], datetime.now(UTC) - timedelta(seconds=1))

    assert web.get("/api/v1/pipelines", {"X-API-Key": api}).status == 200
    assert web.post({"title": "x"}, headers={"X-API-Key": intake}).status == 202
    for answer, word in (
        (web.get("/api/v1/pipelines", {"X-API-Key": intake}), "scope 'api'"),
        (web.post({"title": "x"}, headers={"X-API-Key": api}), "scope 'intake'"),
        (web.get("/api/v1/pipelines", {"X-API-Key": old}), "expired"),
        (web.post({"title": "x"}, headers={"X-API-Key": old}), "expired"),
    ):
        assert (answer.status, answer.error["code"]) == (403, "forbidden")
        assert word in answer.error["message"]


def test_while_the_store_is_away_the_api_is_503_in_the_shape(web, tmp_path):
    assert web.get("/api/v1/stats").status == 200
    web.store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()

    answer = web.get("/api/v1/stats")

    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "unavailable", "5")


def test_a_store_without_tables_is_503_and_says_what_to_do(web):
    assert web.get("/api/v1/stats").status == 200
    with contextlib.closing(sqlite3.connect(web.store._database.file)) as connection:
        connection.execute("DROP TABLE dead_letters")

    assert "siftbell db upgrade" in web.get("/api/v1/dead-letters").error["message"]


def test_a_store_that_hangs_holds_up_neither_known_keys_nor_the_rest(web, monkeypatch):
    monkeypatch.setattr(access_module, "PATIENCE", 0.1)
    goes_on = threading.Event()
    monkeypatch.setattr(web.store, "key_by_digest", lambda _digest: goes_on.wait(30) and None)
    try:
        assert web.get("/api/v1/pipelines").error["code"] == "unavailable"
        assert web.get("/livez").status == 200
    finally:
        goes_on.set()


def test_a_key_that_was_good_works_on_while_the_store_hangs(web, monkeypatch):
    assert web.get("/api/v1/pipelines").status == 200
    monkeypatch.setattr(access_module, "PATIENCE", 0.1)
    monkeypatch.setattr(keys_module, "FRESH", 0)
    goes_on = threading.Event()
    monkeypatch.setattr(web.store, "key_by_digest", lambda _digest: goes_on.wait(30) and None)
    try:
        assert web.get("/api/v1/pipelines").status == 200
        assert web.post({"title": "x"}).status == 202
    finally:
        goes_on.set()


def test_a_bug_in_the_api_is_500_without_its_details(web, monkeypatch, capsys):
    def bug():
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(web.store, "counts", bug)

    answer = web.get("/api/v1/stats")

    assert (answer.status, answer.error["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "secret detail" in capsys.readouterr().out


# OpenAPI


def test_the_openapi_document_is_valid_and_describes_the_intake(web):
    document = web.get("/openapi.json", {}).json

    validate(document)
    intake = document["paths"]["/in/{pipeline}/{producer}"]["post"]
    assert set(intake["responses"]) == {"202", "400", "401", "403", "404", "408", "413", "415", "422", "503"}
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header", "basic"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path in PATHS:
        operation = document["paths"][path.replace("/x", "/{message_id}")]["get"]
        assert {"200", "401", "403", "422", "503"} <= set(operation["responses"])
        assert operation["security"]
