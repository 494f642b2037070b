"""Opsgenie: against a stand-in of the Alert API that enforces its fields and its limits, and keeps the alerts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pydantic import ValidationError

from consumers.opsgenie import Opsgenie, OpsgenieConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer
from pipeline.testing.consumers import deliver

pytestmark = pytest.mark.against("consumer opsgenie", "a server of our own that keeps alerts as the Alert API says")

KEY = "eb243592-faa2-4ba2-a551"  # a made-up one
TEXTS = {"message": 130, "alias": 512, "description": 15_000, "source": 100, "entity": 512, "note": 25_000}
FIELDS = {*TEXTS, "priority", "details", "tags", "responders"}


class TestOpsgenie(HttpConsumerContract):
    plugin = Opsgenie
    options = {"api_key": KEY, "base_url": "{url}/jsm/ops/integration"}


class AlertApi(LoopbackServer):
    """What Opsgenie does with requests, as far as a sender can tell; `alerts` are their states by alias, with their count."""

    def __init__(self):
        super().__init__()
        self.alerts, self.bodies = {}, []

    def next_answer(self, request):
        answer = super().next_answer(request)
        if answer.status != 200:
            return answer
        if request.headers.get("authorization") != f"GenieKey {KEY}":
            return self._answer(401, message="Could not authenticate")
        parts, body = urlsplit(request.path), json.loads(request.body)
        errors = self._errors(body)
        if errors:
            return self._answer(422, message="Request body is not processable. Please check the errors.", errors=errors)
        if parts.path == "/v2/alerts":
            if not body.get("message"):
                return self._answer(
                    422, message="Request body is not processable.", errors={"message": "Message can not be empty."}
                )
            state, count = self.alerts.get(body["alias"], ("closed", 0))
            self.alerts[body["alias"]] = ("open", 1) if state == "closed" else (state, count + 1)
        elif (action := re.fullmatch(r"/v2/alerts/([^/]+)/(close|acknowledge)", parts.path)) and parse_qs(parts.query) == {
            "identifierType": ["alias"]
        }:
            alias = unquote(action[1])
            if (
                self.alerts.get(alias, ("closed", 0))[0] != "closed"
            ):  # else it fails later, unseen: the answer is 202 all the same
                self.alerts[alias] = {"close": "closed", "acknowledge": "acknowledged"}[action[2]], self.alerts[alias][1]
        else:
            return self._answer(404, message="Not Found")
        self.bodies.append(body)
        return self._answer(202, result="Request will be processed")

    @staticmethod
    def _errors(body):
        wrong = {name: "too long" for name, most in TEXTS.items() if len(body.get(name, "")) > most}
        wrong |= dict.fromkeys({*body} - FIELDS, "unknown")
        if body.get("priority", "P3") not in ("P1", "P2", "P3", "P4", "P5"):
            wrong["priority"] = "should be one of [ P1, P2, P3, P4, P5 ]"
        details = body.get("details", {})
        if sum(map(len, [*details, *details.values()])) > 8000:
            wrong["details"] = "too long"
        if len(body.get("tags", [])) > 20 or any(not 0 < len(tag) <= 50 for tag in body.get("tags", [])):
            wrong["tags"] = "too many, or too long"
        for who in body.get("responders", []):
            if who["type"] not in ("team", "user", "escalation", "schedule") or len({*who} & {"id", "name", "username"}) != 1:
                wrong["responders"] = "not one of them"
        return wrong

    @staticmethod
    def _answer(status, **body):
        return Answer(status, body=json.dumps(body | {"took": 0.1, "requestId": "43a29c5c"}).encode())


@pytest.fixture
def api():
    with AlertApi() as api:
        yield api


def send(api, *messages, **options):
    plugin = Opsgenie(OpsgenieConfig.model_validate({"api_key": KEY, "base_url": api.url} | options))
    for message in messages:
        deliver(plugin, message)


def message(**fields):
    time = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    return Message(**{"source": "http://prometheus:9090", "time": time, "title": "disk full", "key": "c8ce2ad3ba2f9a9d"} | fields)


def test_an_alert_holds_what_people_look_at(api):
    send(
        api,
        message(
            text="2 % left", severity="critical", labels={"instance": "db-1", "team": "db"}, url="http://prometheus:9090/graph"
        ),
        responders=[{"name": "{{ labels.team }}"}, {"type": "user", "username": "{{ labels.owner | default('') }}"}],
        tags=["{{ severity }}", "siftbell", "siftbell", "{{ labels.none | default('') }}"],
        details={"runbook": "https://wiki.example.com/{{ labels.team }}"},
    )
    assert api.bodies == [
        {
            "message": "disk full",
            "alias": "c8ce2ad3ba2f9a9d",
            "description": "http://prometheus:9090/graph\n\n2 % left",
            "priority": "P1",
            "source": "http://prometheus:9090",
            "entity": "db-1",
            "details": {"instance": "db-1", "team": "db", "runbook": "https://wiki.example.com/db"},
            "tags": ["critical", "siftbell"],
            "responders": [{"type": "team", "name": "db"}],
        }
    ]


def test_an_alert_lives_from_create_over_acknowledge_to_close(api):
    acknowledge = {"acknowledge": 'type == "seen"'}
    send(api, message(), message(), **acknowledge)
    assert api.alerts == {"c8ce2ad3ba2f9a9d": ("open", 2)}
    send(api, message(type="seen", text="mine"), **acknowledge)
    assert api.alerts == {"c8ce2ad3ba2f9a9d": ("acknowledged", 2)}
    assert api.bodies[-1] == {"source": "http://prometheus:9090", "note": "disk full\nmine"}
    send(api, message(type="seen", status="resolved"), **acknowledge)
    assert api.alerts == {"c8ce2ad3ba2f9a9d": ("closed", 2)}
    send(api, message(), **acknowledge)
    assert api.alerts == {"c8ce2ad3ba2f9a9d": ("open", 1)}


def test_a_message_without_a_key_is_an_alert_of_its_own(api):
    alone = message(key="")
    send(api, alone)
    assert [*api.alerts] == [alone.id]


@pytest.mark.parametrize(("fields", "verb"), [({"status": "resolved"}, "close"), ({"type": "seen"}, "acknowledge")])
def test_what_ends_nothing_that_can_be_named_is_given_up(api, fields, verb):
    with pytest.raises(PermanentError, match=f"without a key cannot {verb}"):
        send(api, message(key="", **fields), acknowledge='type == "seen"')
    assert api.received == []


@pytest.mark.parametrize("key", ["org/repo#12", "a b?c=d&e", "..", "größe", "%2F", "🔔", "k" * 513, "/", "x" * 300 + "/" * 300])
def test_whatever_the_key_a_close_finds_its_alert(api, key):
    send(api, message(key=key), message(key=f"{key}!"), message(key=key, status="resolved"))
    assert [state for state, _ in api.alerts.values()] == ["closed", "open"]


@pytest.mark.parametrize(
    ("severity", "priority"),
    [
        ("critical", "P1"),
        ("error", "P2"),
        ("warning", "P3"),
        ("info", "P4"),
        ("debug", "P5"),
        ("", "P3"),
        ("unheard-of", "P3"),
        ("blocker", "P1"),
    ],
)
def test_priorities(api, severity, priority):
    send(api, message(severity=severity), priorities={"Blocker": "P1"})
    assert api.bodies[0]["priority"] == priority


def test_what_is_too_long_is_cut_with_a_mark(api):
    labels = {"small": "x", "huge": "y" * 9_000, "lost": "z"}
    long = message(title="t" * 200, text="d" * 20_000, source="s" * 200, labels=labels)
    send(api, long, long.replace(status="resolved", text="n" * 30_000), entity="{{ 'e' * 600 }}", tags=["{{ 't' * 60 }}"])
    alert, close = api.bodies
    assert alert["message"] == "t" * 129 + "…"
    assert alert["description"] == "d" * 14_999 + "…"
    assert (alert["details"]["small"], alert["details"]["huge"][-2:], "lost" in alert["details"]) == ("x", "y…", False)
    assert close["note"].endswith("n…")


def test_an_alert_always_has_a_message(api):
    send(api, message(title="", text="first\nsecond"), message(title="", type="push", source="git"))
    assert [body["message"] for body in api.bodies] == ["first", "push from git"]


def test_a_wrong_key_and_a_refusal_say_what_opsgenie_says(api):
    with pytest.raises(PermanentError, match=r"401: .*Could not authenticate"):
        send(api, message(), api_key="another-key")
    api.answers.append(Answer(422, body=b'{"message":"Request body is not processable.","errors":{"message":"so"}}'))
    with pytest.raises(PermanentError, match=r"422: .*not processable.*so"):
        send(api, message())


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"X-RateLimit-State": "THROTTLED", "X-RateLimit-Period-In-Sec": "60"}, 60),
        ({"X-RateLimit-Period-In-Sec": "60", "Retry-After": "7"}, 7),
        ({"X-RateLimit-Period-In-Sec": "soon"}, None),
        ({"X-RateLimit-Period-In-Sec": "9" * 30}, 3600),
    ],
)
def test_the_rate_limit_is_kept(api, headers, wait):
    api.answers.append(Answer(429, headers, b'{"message":"TooManyRequests"}'))
    with pytest.raises(TemporaryError) as caught:
        send(api, message())
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://api.opsgenie.com/v2/alerts"),
        ({"region": "eu"}, "https://api.eu.opsgenie.com/v2/alerts"),
        (
            {"base_url": "https://api.atlassian.com/jsm/ops/integration/"},
            "https://api.atlassian.com/jsm/ops/integration/v2/alerts",
        ),
    ],
)
def test_where_it_goes(options, url):
    opsgenie = Opsgenie(OpsgenieConfig.model_validate({"api_key": KEY} | options))
    assert opsgenie.request(message()).url == url
    assert opsgenie.request(message(status="resolved")).url == f"{url}/c8ce2ad3ba2f9a9d/close?identifierType=alias"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"api_key": ""}, "at least 1"),
        ({"region": "asia"}, "'us' or 'eu'"),
        ({"priorities": {"page": "P0"}}, "'P1'"),
        ({"responders": [{"type": "team"}]}, "one of name, username and id"),
        ({"responders": [{"name": "a", "id": "b"}]}, "one of name, username and id"),
        ({"tags": ["x"] * 21}, "at most 20"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        OpsgenieConfig.model_validate({"api_key": KEY} | options)
