"""The API's dead letters, over real sockets and on a real store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from pipeline import Consumer, Message, NoOptions
from pipeline.engine.pipeline import Pipelines
from pipeline.spec.model import Configuration, ConsumerStep, PipelineSpec, Position
from pipeline.store.rows import DeadLetter, Outcome, Why

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PATHS = {"/api/v1/dead-letters": "get", "/api/v1/dead-letters/groups": "get", "/api/v1/dead-letters/{message_id}": "put",
         "/api/v1/dead-letters/redrive": "post", "/api/v1/dead-letters/drop": "post"}  # fmt: skip


class Mail(Consumer[NoOptions]):
    def consume(self, message):
        raise AssertionError("not in these tests")


@pytest.fixture
def web(web_with):
    position = Position(Path("toy.yaml"), 1, 1)
    mail = ConsumerStep(
        kind="consumer", plugin="mail", type=Mail, label="mail", config=NoOptions(), position=position, queue="mail"
    )
    spec = PipelineSpec(name="toy", consumers=(mail,), revision="r2", position=position)
    return web_with(pipelines=Pipelines(Configuration({"toy": spec})))


@pytest.fixture
def bury(web):
    """Buries a message for each error, a second apart; gives the ids."""

    def them(*errors, start=START, **fields):
        given = {"pipeline": "toy", "step": "mail"} | fields
        letters = [
            DeadLetter(message=Message(source="t", title=error), error=error, at=start + timedelta(seconds=number), **given)
            for number, error in enumerate(errors)
        ]
        web.store.settle(dead=letters, records=[letter.record() for letter in letters])
        return [letter.message.id for letter in letters]

    return them


def titles(answer):
    return [letter["title"] for letter in answer.json["dead_letters"]]


def ask(web, method, path, body):
    return web.ask(method, path, json.dumps(body), {"X-API-Key": web.key, "Content-Type": "application/json"})


def put(web, path, body):
    return ask(web, "PUT", path, body)


def post(web, verb, body):
    return ask(web, "POST", f"/api/v1/dead-letters/{verb}", body)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("error=TIME", ["timeout 2", "timeout 1"]),
        ("since=2026-03-01T12:00:01", ["gone", "timeout 2"]),
        ("until=2026-03-01T12:00:01Z", ["timeout 1"]),
        ("since=1h", []),
        ("step=mail&pipeline=toy&error=gone", ["gone"]),
        ("group=unknown", []),
    ],
)
def test_letters_are_filtered_as_on_the_command_line(web, bury, query, found):
    bury("timeout 1", "timeout 2", "gone")
    assert titles(web.get(f"/api/v1/dead-letters?{query}")) == found


def test_pages_go_on_with_the_same_filters(web, bury):
    bury("timeout 1", "gone", "timeout 2")
    first = web.get("/api/v1/dead-letters?error=timeout&limit=1")
    second = web.get(first.json["next"])
    assert (titles(first), titles(second)) == (["timeout 2"], ["timeout 1"])
    assert titles(web.get(second.json["next"])) == []


def test_groups_are_counted_and_found_by_their_id(web, bury):
    _, newest = bury("after 3 s", "after 4 s")
    bury("gone", start=START + timedelta(hours=1))
    answer = web.get("/api/v1/dead-letters/groups?limit=1").json
    (group,) = answer["groups"]
    assert (answer["total"], group["count"], group["example"], group["error"]) == (2, 2, newest, "after 4 s")
    assert titles(web.get(f"/api/v1/dead-letters?group={group['group']}")) == ["after 4 s", "after 3 s"]


def test_a_redrive_goes_request_by_request_until_nothing_remains(web, bury):
    bury(*[f"no {number}" for number in range(5)])
    bury("elsewhere", pipeline="gone", start=START + timedelta(minutes=1))
    body, steps = {"all": True, "limit": 2}, []
    while body:
        answer = post(web, "redrive", body).json
        steps.append((answer["moved"], answer["refused"], answer["remaining"]))
        body = answer["next"]
    assert steps == [(2, 0, 4), (2, 0, 2), (1, 1, 0)]
    assert [one["reason"] for one in answer["reasons"]] == ["there is no pipeline 'gone' any more"]
    assert titles(web.get("/api/v1/dead-letters")) == ["elsewhere"]
    assert web.store.held_counts() == {("toy", "mail", Why.RETRY): 5}


def test_what_is_given_up_meanwhile_waits_for_the_next_redrive(web, bury):
    bury("first", "second")
    answer = post(web, "redrive", {"pipeline": "toy", "limit": 1}).json
    bury("again", start=datetime.now(UTC) + timedelta(seconds=5))
    answer = post(web, "redrive", answer["next"]).json
    assert (answer["moved"], answer["remaining"], answer["next"]) == (1, 0, None)
    assert titles(web.get("/api/v1/dead-letters")) == ["again"]


def test_a_rate_spreads_a_redrive_over_requests(web, bury):
    bury(*"abcd")
    body = {"pipeline": "toy", "limit": 2, "rate": "2/s", "start": "2100-01-01T00:00:00Z"}
    answer = post(web, "redrive", body).json
    assert datetime.fromisoformat(answer["next"]["start"]) == datetime(2100, 1, 1, 0, 0, 1, tzinfo=UTC)
    post(web, "redrive", answer["next"])
    late = datetime(2100, 1, 2, tzinfo=UTC)
    claims = web.store.claim_due(late, owner="me", lease=timedelta(seconds=1), limit=9)
    assert [claim.held.due.timestamp() % 60 for claim in claims] == [0, 0.5, 1, 1.5]


def test_a_dry_run_moves_nothing(web, bury):
    bury("no")
    answer = post(web, "redrive", {"all": True, "dry_run": True}).json
    assert (answer["moved"], web.store.count_letters()) == (1, 1)


def test_letters_are_dropped_for_good_and_on_record(web, bury):
    gone, stays = bury("no", "other")
    answer = post(web, "drop", {"ids": [gone]}).json
    assert (answer["moved"], answer["next"]) == (1, None)
    assert web.get(f"/api/v1/dead-letters/{gone}").status == 404
    assert web.get(f"/api/v1/dead-letters/{stays}").status == 200
    (record,) = web.store.history(gone)
    assert record.outcome is Outcome.BURIED
    assert "dropped from the dead letters" in record.reason


@pytest.mark.parametrize("verb", ["redrive", "drop"])
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "all"),
        ({"pipelin": "toy"}, "pipelin"),
        ({"all": True, "after": "x"}, "after"),
        ({"since": "soon"}, "since"),
        ({"all": True, "limit": 0}, "limit"),
    ],
)
def test_what_would_move_too_much_or_nothing_is_refused(web, bury, verb, body, place):
    bury("no")
    answer = post(web, verb, body)
    assert (answer.status, answer.places) == (422, [place])
    assert web.store.count_letters() == 1


def test_a_message_is_changed_by_its_version(web, bury):
    (message_id,) = bury("no")
    path = f"/api/v1/dead-letters/{message_id}"
    (letter,) = web.get(path).json
    message = letter["message"] | {"title": "better"}
    done = put(web, path, {"version": letter["version"], "message": message})
    assert (done.status, done.json["message"]["title"]) == (200, "better")
    assert done.json["edited"]
    assert done.json["version"] != letter["version"]
    again = put(web, path, {"version": letter["version"], "message": message | {"title": "lost?"}})
    assert (again.status, again.error["code"]) == (409, "conflict")
    same = put(web, path, {"version": done.json["version"], "message": message})
    assert same.json["version"] == done.json["version"]
    assert web.get(path).json[0]["message"]["title"] == "better"


def test_an_edit_that_comes_too_late_is_a_conflict(web, bury, monkeypatch):
    (message_id,) = bury("no")
    path = f"/api/v1/dead-letters/{message_id}"
    (letter,) = web.get(path).json
    monkeypatch.setattr(web.store, "edit_letter", lambda *_: False)
    assert put(web, path, {"version": letter["version"], "message": {"source": "t"}}).status == 409


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"titel": "x"}, "message.titel"),
        ({"id": "another"}, "message.id"),
        ({"labels": {"a": 1}}, "message.labels[...]"),
        ({"time": "2026-01-01T00:00:00"}, "message"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(web, bury, changes, place):
    (message_id,) = bury("no")
    path = f"/api/v1/dead-letters/{message_id}"
    (letter,) = web.get(path).json
    answer = put(web, path, {"version": letter["version"], "message": letter["message"] | changes})
    assert (answer.status, answer.places) == (422, [place])


def test_a_message_that_several_steps_gave_up_is_named_by_its_step(web, bury):
    (message_id,) = bury("no")
    (letter,) = web.store.dead_letter(message_id)
    web.store.settle(dead=[DeadLetter(message=letter.message, pipeline="toy", step="chat", error="no", at=START)])
    path = f"/api/v1/dead-letters/{message_id}"
    body = {"version": letter.version, "message": {"source": "x"}}
    assert put(web, path, body).status == 409
    assert put(web, f"{path}?step=chat", body | {"version": "other"}).status == 409
    assert put(web, f"{path}?step=none", body).status == 404
    assert put(web, f"{path}?step=mail", body).status == 200


def test_the_document_has_every_route_and_each_needs_a_key(web):
    document = web.get("/openapi.json", {}).json
    validate(document)
    for path, method in PATHS.items():
        operation = document["paths"][path][method]
        assert {"200", "401", "403", "422", "503"} <= set(operation["responses"])
        assert operation["security"]
        assert web.ask(method.upper(), path, "{}", {}).status == 401
