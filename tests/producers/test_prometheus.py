"""Alertmanager's webhook payload, as Alertmanager 0.25 wrote it on the wire and as newer ones extend it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Request, RequestError
from pipeline.testing import WebhookProducerContract
from producers.prometheus import Prometheus
from producers.prometheus.alerts import fingerprint
from producers.prometheus.options import PrometheusConfig

FIRING = {
    "status": "firing",
    "labels": {"alertname": "DiskFull", "instance": "db-1", "severity": "page", "team": "db"},
    "annotations": {"summary": "disk full on db-1", "description": "2 % left"},
    "startsAt": "2026-11-21T08:30:00.123456789Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
    "fingerprint": "c8ce2ad3ba2f9a9d",
}
RESOLVED = FIRING | {"status": "resolved", "endsAt": "2026-11-21T09:00:00Z"}


def payload(*alerts, **more):
    return {
        "receiver": "siftbell",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {"alertname": "DiskFull"},
        "commonLabels": {"team": "db"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": '{}:{alertname="DiskFull"}',
        "truncatedAlerts": 0,
    } | more


class TestPrometheus(WebhookProducerContract):
    plugin = Prometheus
    accepted = [json.dumps(payload(FIRING, RESOLVED)).encode()]


def receive(body, content_type="application/json; charset=utf-8"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(Prometheus(PrometheusConfig()).receive(Request(raw, {"content-type": content_type})))


def test_a_message_for_each_alert():
    firing, resolved = receive(payload(FIRING, RESOLVED, routeLabels={"a": "b"}, notification_reason="repeat"))
    assert (firing.title, firing.text) == ("disk full on db-1", "2 % left")
    assert (firing.severity, firing.status, firing.type) == ("critical", "firing", "alert")
    assert firing.time == datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC)
    assert firing.labels == FIRING["labels"]
    assert (firing.key, firing.url, firing.source) == (FIRING["fingerprint"], FIRING["generatorURL"], "http://alertmanager:9093")
    assert firing.data["groupKey"] == '{}:{alertname="DiskFull"}'
    assert firing.data["startsAt"] == FIRING["startsAt"]
    assert (resolved.status, resolved.key) == ("resolved", firing.key)
    assert resolved.time == datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    assert firing.id != resolved.id


def test_the_least_that_an_alert_has():
    (message,) = receive(payload({"status": "firing", "labels": {"foo": "bar"}}))
    assert (message.title, message.text, message.severity) == ("alert", "", "")
    assert message.key == fingerprint({"foo": "bar"})
    (named,) = receive(payload({"status": "firing", "labels": {"alertname": "X"}, "annotations": {"message": "m"}}))
    assert (named.title, named.text) == ("X", "m")
    assert receive(payload()) == []


def test_the_fingerprint_is_alertmanagers():
    assert fingerprint({"node": "bar", "alertname": "foo"}) == "980a6a0e0facf311"


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        ({"alerts": []}, 400, "version"),
        (None, 400, "version"),
        (payload(version="5"), 400, "version"),
        (payload({"status": "firing"}), 422, "alerts[0].labels"),
        (payload(FIRING, {"status": "odd", "labels": {"a": "b"}}), 422, "alerts[1].status"),
        (payload(FIRING | {"labels": {"a": 1}}), 422, "alerts[0].labels.a"),
        (payload(FIRING | {"labels": {}}), 422, "alerts[0].labels"),
        (payload(FIRING | {"startsAt": "yesterday"}), 422, "alerts[0].startsAt"),
        (payload(FIRING | {"startsAt": 5}), 422, "alerts[0].startsAt"),
        (payload(alerts="none"), 422, "alerts"),
        (payload(alerts=[None]), 422, "alerts[0]"),
    ],
)
def test_what_is_not_such_a_payload_is_refused_with_the_place(body, status, where):
    with pytest.raises(RequestError) as caught:
        receive(body)
    assert caught.value.status == status
    assert [problem.where for problem in caught.value.problems] == [where]


def test_the_alerts_beside_those_that_cannot_be_read_are_accepted():
    with pytest.raises(RequestError) as caught:
        receive(payload(FIRING, None, RESOLVED, {"labels": {"a": 1}}))
    assert [message.status for message in caught.value.accepted] == ["firing", "resolved"]
    assert [problem.where for problem in caught.value.problems] == ["alerts[1]", "alerts[3].labels.a"]


def test_a_label_with_a_nul_costs_no_alert():
    messages = receive(payload(FIRING, FIRING | {"labels": {"a": "\0"}}, groupLabels={"a": "\0"}, huge=2**70, **{"b\0": 1}))
    assert [message.labels.get("a") for message in messages] == [None, "\N{REPLACEMENT CHARACTER}"]
    assert messages[0].data["groupLabels"] == {"a": "\N{REPLACEMENT CHARACTER}"}
    assert messages[0].data["b\N{REPLACEMENT CHARACTER}"] == 1
    assert "huge" not in messages[0].data


VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.just({})
BAD = VALUES | st.builds(
    lambda field, value: FIRING | {field: value}, st.sampled_from([*FIRING, "other"]), VALUES | st.dictionaries(st.text(), VALUES)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(BAD | st.just(FIRING | {"labels": {"good": "yes"}}), max_size=5))
def test_no_good_alert_is_ever_lost_among_bad_ones(alerts):
    try:
        messages = receive(payload(*alerts))
    except RequestError as error:
        messages = error.accepted
    good = [alert for alert in alerts if isinstance(alert, dict) and alert.get("labels") == {"good": "yes"}]
    assert len([message for message in messages if message.labels == {"good": "yes"}]) == len(good)


def test_other_content_types_are_refused():
    with pytest.raises(RequestError) as caught:
        receive(payload(), content_type="text/plain")
    assert caught.value.status == 415
