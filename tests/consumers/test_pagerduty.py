"""PagerDuty: against a stand-in of the Events API v2 that enforces its schema and its limits, and keeps the incidents."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from consumers.pagerduty import Pagerduty, PagerdutyConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer
from pipeline.testing.consumers import deliver

pytestmark = pytest.mark.against("consumer pagerduty", "a server of our own that keeps incidents as Events v2 says")

KEY = "0123456789abcdef0123456789abcdef"  # a made-up one


class TestPagerduty(HttpConsumerContract):
    plugin = Pagerduty
    options = {"routing_key": KEY, "base_url": "{url}/behind/a-proxy"}


class EventsApi(LoopbackServer):
    """What PagerDuty does with events, as far as a sender can tell; `incidents` are their states by dedup_key."""

    def __init__(self):
        super().__init__()
        self.incidents, self.events = {}, []

    def next_answer(self, request):
        answer = super().next_answer(request)
        if answer.status != 200:
            return answer
        errors = self._errors(request)
        if errors:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return Answer(400, body=json.dumps(body).encode())
        event = json.loads(request.body)
        key, action = event["dedup_key"], event["event_action"]
        self.events.append(event)
        if action == "trigger":
            self.incidents.setdefault(key, "triggered")
            if self.incidents[key] == "resolved":
                self.incidents[key] = "triggered"
        elif self.incidents.get(key, "resolved") != "resolved":
            self.incidents[key] = {"acknowledge": "acknowledged", "resolve": "resolved"}[action]
        body = {"status": "success", "message": "Event processed", "dedup_key": key}
        return Answer(202, body=json.dumps(body).encode())

    def _errors(self, request):
        if (request.method, request.path) != ("POST", "/v2/enqueue"):
            return ["no such path"]
        if len(request.body) > 512_000:
            return ["the event is larger than 512 kB"]
        event = json.loads(request.body)
        action, payload = event.get("event_action"), event.get("payload", {})
        wanted = {
            "Length of 'routing_key' is incorrect (should be 32 characters)": len(event.get("routing_key", "")) == 32,
            "'event_action' is invalid": action in ("trigger", "acknowledge", "resolve"),
            "'dedup_key' is too long": len(event.get("dedup_key", "")) <= 255,
            "'dedup_key' is missing or blank": bool(event.get("dedup_key")) or action == "trigger",
        }
        if action == "trigger":
            wanted |= {
                "'payload.summary' is missing or blank": bool(payload.get("summary", "").strip()),
                "'payload.summary' is too long": len(payload.get("summary", "")) <= 1024,
                "'payload.source' is missing or blank": bool(payload.get("source", "").strip()),
                "'payload.severity' is invalid": payload.get("severity") in ("critical", "error", "warning", "info"),
                "'payload.timestamp' is invalid": datetime.fromisoformat(payload["timestamp"]).tzinfo is not None,
                "'payload.custom_details' is no object": isinstance(payload.get("custom_details", {}), dict),
                "'links' is invalid": all(link["href"].startswith("http") for link in event.get("links", [])),
                "'images' is invalid": all(image["src"].startswith("https://") for image in event.get("images", [])),
            }
        return [error for error, holds in wanted.items() if not holds]


@pytest.fixture
def api():
    with EventsApi() as api:
        yield api


def send(api, *messages, **options):
    plugin = Pagerduty(PagerdutyConfig.model_validate({"routing_key": KEY, "base_url": api.url} | options))
    for message in messages:
        deliver(plugin, message)


def message(**fields):
    time = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    return Message(**{"source": "http://prometheus:9090", "time": time, "title": "disk full", "key": "db-1/disk"} | fields)


def test_a_trigger_holds_what_people_look_at(api):
    labels = {"alertname": "DiskFull", "instance": "db-1", "team": "db"}
    send(
        api,
        message(type="alert", text="2 % left", severity="critical", labels=labels, url="http://prometheus:9090/graph"),
        component="disk",
        group="{{ labels.team }}",
        details={"runbook": "https://wiki.example.com/{{ labels.alertname }}"},
        links=[
            {"href": "https://wiki.example.com/{{ labels.team }}", "text": "Wiki"},
            {"href": "{{ labels.none | default('') }}"},
        ],
        images=[
            {"src": "https://grafana.example.com/{{ labels.instance }}.png", "alt": "the disk"},
            {"src": "http://plain/x.png"},
        ],
    )
    assert api.events == [
        {
            "routing_key": KEY,
            "event_action": "trigger",
            "dedup_key": "db-1/disk",
            "payload": {
                "summary": "disk full",
                "source": "db-1",
                "severity": "critical",
                "timestamp": "2026-11-21T08:30:00+00:00",
                "class": "DiskFull",
                "custom_details": {"text": "2 % left", "labels": labels, "runbook": "https://wiki.example.com/DiskFull"},
                "component": "disk",
                "group": "db",
            },
            "links": [
                {"href": "http://prometheus:9090/graph", "text": "Source"},
                {"href": "https://wiki.example.com/db", "text": "Wiki"},
            ],
            "images": [{"src": "https://grafana.example.com/db-1.png", "alt": "the disk"}],
        }
    ]


def test_an_incident_lives_from_trigger_over_acknowledge_to_resolve(api):
    acknowledge = {"acknowledge": 'type == "seen"'}
    send(api, message(), message(key="another"), **acknowledge)
    assert api.incidents == {"db-1/disk": "triggered", "another": "triggered"}
    send(api, message(type="seen"), **acknowledge)
    assert api.incidents == {"db-1/disk": "acknowledged", "another": "triggered"}
    send(api, message(type="seen", status="resolved"), **acknowledge)
    assert api.incidents == {"db-1/disk": "resolved", "another": "triggered"}
    assert api.events[-1] == {"routing_key": KEY, "event_action": "resolve", "dedup_key": "db-1/disk"}


def test_a_message_without_a_key_is_an_incident_of_its_own_that_a_repeat_does_not_double(api):
    alone = message(key="")
    send(api, alone, alone)
    assert api.incidents == {alone.id: "triggered"}


@pytest.mark.parametrize(("fields", "verb"), [({"status": "resolved"}, "resolve"), ({"type": "seen"}, "acknowledge")])
def test_what_ends_nothing_that_can_be_named_is_given_up(api, fields, verb):
    with pytest.raises(PermanentError, match=f"without a key cannot {verb}"):
        send(api, message(key="", **fields), acknowledge='type == "seen"')
    assert api.received == []


@pytest.mark.parametrize(
    ("severity", "theirs"),
    [
        ("critical", "critical"),
        ("error", "error"),
        ("warning", "warning"),
        ("info", "info"),
        ("debug", "info"),
        ("", "error"),
        ("unheard-of", "error"),
        ("blocker", "critical"),
    ],
)
def test_severities(api, severity, theirs):
    send(api, message(severity=severity), severities={"Blocker": "critical"})
    assert api.events[0]["payload"]["severity"] == theirs


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"labels": {"instance": "db-1", "host": "x"}}, "db-1"),
        ({"labels": {"host": "web-2"}}, "web-2"),
        ({}, "http://prometheus:9090"),
        ({"source": ""}, "unknown"),
    ],
)
def test_the_source_is_the_host_where_there_is_one(api, fields, source):
    send(api, message(**fields))
    assert api.events[0]["payload"]["source"] == source


def test_a_summary_is_there_short_and_one_line(api):
    send(api, message(title="t" * 2000), message(title="", text="first\nsecond"), message(title="", type="push", source="git"))
    summaries = [event["payload"]["summary"] for event in api.events]
    assert summaries == ["t" * 1023 + "…", "first", "push from git"]


def test_a_long_key_resolves_what_it_triggered(api):
    key = "a very long key " * 40
    send(api, message(key=key), message(key=key + "!"), message(key=key, status="resolved"))
    assert sorted(api.incidents.values()) == ["resolved", "triggered"]


@pytest.mark.parametrize("letter", ["x", "ü", "\0", "🔔"])
def test_an_event_that_is_too_large_keeps_the_beginning_of_its_text(api, letter):
    send(api, message(text=f"begin {letter * 600_000}", labels={"team": "db"}))
    details = api.events[0]["payload"]["custom_details"]
    assert details["text"].startswith(f"begin {letter * 100}")
    assert "cut by Siftbell" in details["text"]
    assert details["labels"] == {"team": "db"}


def test_an_event_with_too_large_labels_keeps_its_text(api):
    send(api, message(text="short", labels={"huge": "x" * 600_000}))
    assert api.events[0]["payload"]["custom_details"] == {"text": "short"}


def test_a_refusal_says_what_pagerduty_says(api):
    api.answers.append(Answer(400, body=b'{"status":"invalid event","message":"Event object is invalid","errors":["so"]}'))
    with pytest.raises(PermanentError, match=r"400.*Event object is invalid.*so"):
        send(api, message())


def test_the_throttle_is_kept(api):
    api.answers.append(Answer(429, {"Retry-After": "12"}, b'{"status":"throttle exceeded"}'))
    with pytest.raises(TemporaryError) as caught:
        send(api, message())
    assert caught.value.retry_after == 12


@pytest.mark.parametrize(
    ("options", "url"),
    [({}, "https://events.pagerduty.com/v2/enqueue"), ({"region": "eu"}, "https://events.eu.pagerduty.com/v2/enqueue")],
)
def test_regions(options, url):
    assert Pagerduty(PagerdutyConfig.model_validate({"routing_key": KEY} | options)).request(message()).url == url


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"routing_key": "u+a-rest-api-key"}, "not a REST API key"),
        ({"region": "asia"}, "'us' or 'eu'"),
        ({"severities": {"page": "fatal"}}, "'critical', 'error'"),
        ({"summary": "{{ titel }}"}, "did you mean 'title'"),
        ({"links": [{"url": "x"}]}, "href"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        PagerdutyConfig.model_validate({"routing_key": KEY} | options)


def test_the_key_shows_in_no_preview():
    shown = json.dumps(Pagerduty(PagerdutyConfig(routing_key=KEY)).preview(message()))
    assert "trigger" in shown
    assert KEY not in shown
