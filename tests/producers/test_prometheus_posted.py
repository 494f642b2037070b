"""What Prometheus posts to an Alertmanager: each alert judged alone, by Alertmanager's rules (shared/contracts: its API v2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import Request, RequestError
from pipeline.testing import WebhookProducerContract
from producers.prometheus import Prometheus
from producers.prometheus.alerts import fingerprint
from producers.prometheus.options import PrometheusConfig

PATH = "/in/alerts/prometheus/api/v2/alerts"
ZERO = "0001-01-01T00:00:00.000Z"
FIRING = {
    "annotations": {"summary": "disk full on db-1", "description": "2 % left"},
    "endsAt": "2999-11-21T08:34:00.000Z",
    "startsAt": "2026-11-20T08:30:00.123Z",
    "generatorURL": "http://prometheus:9090/graph?g0.expr=x&g0.tab=1",
    "labels": {"alertname": "DiskFull", "instance": "db-1", "severity": "page"},
}
RESOLVED = FIRING | {"endsAt": "2026-11-20T09:00:00.000Z"}


class TestPosted(WebhookProducerContract):
    plugin = Prometheus
    accepted = [json.dumps([FIRING, RESOLVED]).encode()]

    def request(self, body, content_type="application/json"):
        return Request(body, {"content-type": content_type}, path=PATH)


def receive(body, content_type="application/json"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(Prometheus(PrometheusConfig()).receive(Request(raw, {"content-type": content_type}, path=PATH)))


def refused(body, **more):
    with pytest.raises(RequestError) as caught:
        receive(body, **more)
    return caught.value


def alert(**labels):
    return {"labels": {"alertname": "X", **labels}}


def test_it_takes_its_own_path_and_alertmanagers():
    producer = Prometheus(PrometheusConfig())
    assert (producer.status_for(""), producer.status_for("/api/v2/alerts")) == (202, 200)
    assert [producer.status_for(path) for path in ("/", "/api/v1/alerts", "/api/v2/silences", "/api/v2/alerts/")] == [None] * 4


def test_a_message_for_each_alert():
    firing, resolved = receive([FIRING, RESOLVED])
    assert (firing.title, firing.text, firing.severity) == ("disk full on db-1", "2 % left", "critical")
    assert (firing.type, firing.status, resolved.status) == ("alert", "firing", "resolved")
    assert firing.time == datetime(2026, 11, 20, 8, 30, 0, 123000, tzinfo=UTC)
    assert resolved.time == datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    assert firing.labels == FIRING["labels"]
    assert firing.key == resolved.key == fingerprint(FIRING["labels"])
    assert (firing.source, firing.url) == ("http://prometheus:9090", FIRING["generatorURL"])
    assert firing.data == FIRING


def test_a_list_is_understood_at_the_producers_own_path_too():
    request = Request(json.dumps([FIRING]).encode(), {"content-type": "application/json"}, path="/in/alerts/prometheus")
    (message,) = Prometheus(PrometheusConfig()).receive(request)
    assert message.title == "disk full on db-1"


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("http://me:secret@prometheus:9090/graph", "http://prometheus:9090"),
        ("https://p/prom/graph?g0.expr=x", "https://p"),
        ("/graph", "prometheus"),
        ("urn:x", "prometheus"),
        ("http://[::1/graph", "prometheus"),
    ],
)
def test_the_source_is_the_address_in_the_link(url, source):
    (message,) = receive([alert() | {"generatorURL": url}])
    assert message.source == source


def test_what_is_sent_again_is_the_same_message_and_a_new_time_is_another():
    (first,) = receive([FIRING])
    (again,) = receive([FIRING | {"endsAt": "2999-11-21T08:40:00.000Z", "annotations": {"summary": "97 % full"}}])
    (anew,) = receive([FIRING | {"startsAt": "2026-11-20T10:30:00.123Z"}])
    (over,) = receive([RESOLVED])
    (over_again,) = receive([RESOLVED | {"endsAt": "2026-11-20T09:00:01.000Z"}])
    assert first.id == again.id
    assert over.id == over_again.id
    assert len({first.id, anew.id, over.id}) == 3
    assert first.key == anew.key == over.key


def test_of_the_same_alert_twice_in_a_request_the_later_one_counts():
    (message,) = receive([FIRING, FIRING | {"annotations": {"summary": "97 % full"}}])
    assert message.title == "97 % full"
    assert len(receive([alert(), alert()])) == 1


def test_the_least_that_an_alert_has():
    before = datetime.now(UTC)
    (message,) = receive([{"labels": {"foo": "bar"}}])
    assert (message.title, message.text, message.severity, message.status, message.url) == ("alert", "", "", "firing", "")
    assert message.source == "prometheus"
    assert before <= message.time <= datetime.now(UTC)
    assert message.data == {"labels": {"foo": "bar"}, "annotations": {}}
    (another,) = receive([{"labels": {"foo": "bar"}}])
    assert message.id != another.id


@pytest.mark.parametrize("unset", [ZERO, "0001-01-01T00:00:00Z", "", None])
def test_a_zero_time_is_none(unset):
    before = datetime.now(UTC)
    (message,) = receive([alert() | {"startsAt": unset, "endsAt": unset}])
    assert (message.status, before <= message.time <= datetime.now(UTC)) == ("firing", True)
    (ended,) = receive([alert() | {"startsAt": unset, "endsAt": RESOLVED["endsAt"]}])
    assert (ended.status, ended.time) == ("resolved", datetime(2026, 11, 20, 9, 0, tzinfo=UTC))
    (begun,) = receive([alert() | {"startsAt": FIRING["startsAt"], "endsAt": unset}])
    assert (begun.status, begun.time) == ("firing", datetime(2026, 11, 20, 8, 30, 0, 123000, tzinfo=UTC))


def test_an_alert_is_resolved_when_its_end_has_passed():
    def ends(seconds):
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        (message,) = receive([alert() | {"startsAt": FIRING["startsAt"], "endsAt": moment.isoformat()}])
        return message.status

    assert [ends(-1), ends(60)] == ["resolved", "firing"]


def test_labels_without_a_value_are_left_out():
    (message,) = receive([alert(empty="", kept="x")])
    assert message.labels == {"alertname": "X", "kept": "x"}
    assert message.key == fingerprint({"alertname": "X", "kept": "x"})


def test_labels_of_any_name_and_many_alerts():
    alerts = [alert(**{"größe": "ä", "a.b/c": "x\ny", "number": str(number), "nul": "a\0b"}) for number in range(300)]
    messages = receive(alerts)
    assert len(messages) == len({message.key for message in messages}) == 300
    assert messages[7].labels["größe"] == "ä"
    assert messages[7].labels["nul"] == "a\N{REPLACEMENT CHARACTER}b"


def test_an_empty_list_is_fine():
    assert receive([]) == []


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b"", 422, {"code": 602, "message": "the body is empty: a list of alerts is expected"}),
        (b"null", 400, {"code": 400, "message": "a list of alerts is expected"}),
        ({"alerts": []}, 400, {"code": 400, "message": "a list of alerts is expected"}),
        (b"[{", 400, {"code": 400, "message": "the body is not JSON: Input data was truncated"}),
        ([{}], 422, {"code": 602, "message": "[0].labels: is required"}),
        ([alert() | {"generatorURL": "no uri"}], 422, {"code": 602, "message": "[0].generatorURL: a URI is expected"}),
        ([{"labels": {}}], 400, "[0].labels: at least one label pair is required"),
        ([{"labels": {"a": ""}}], 400, "[0].labels: at least one label pair is required"),
        ([{"labels": {"": "a"}}], 400, "[0].labels: a label has no name"),
        ([{"labels": {"a": 1}}], 400, "[0].labels: expected: str, got int"),
        ([{"labels": None}], 400, "[0].labels: expected: object, got null"),
        ([None], 400, "[0]: expected: object, got null"),
        ([alert() | {"startsAt": "yesterday"}], 400, None),
        ([alert() | {"startsAt": 5}], 400, "[0].startsAt: expected: str | null, got int"),
        ([FIRING | {"endsAt": "2020-01-01T00:00:00Z"}], 400, "[0].startsAt: start time must be before end time"),
        ([{"labels": {}}] * 5, 400, None),
    ],
)
def test_what_is_not_valid_is_refused_as_alertmanager_does(body, status, answer):
    error = refused(body)
    assert error.status == status
    assert error.accepted == ()
    if answer is not None:
        assert error.answer == answer


def test_another_content_type_is_refused_as_alertmanager_does():
    error = refused([], content_type="text/plain")
    assert (error.status, error.answer["code"]) == (415, 415)


def test_of_a_mixed_batch_the_valid_alerts_are_accepted():
    error = refused([alert(n="0"), {}, alert(n="2"), {"labels": {"a": 1}}, alert(n="4")])
    assert [message.labels["n"] for message in error.accepted] == ["0", "2", "4"]
    assert [problem.where for problem in error.problems] == ["[1].labels", "[3].labels"]


def test_an_alert_that_is_too_large_takes_no_other_with_it():
    error = refused([alert(n="0"), alert() | {"annotations": {"description": "x" * 70_000}}])
    assert [message.labels["n"] for message in error.accepted] == ["0"]
    assert error.answer == "[1]: an alert has at most 65536 bytes"


@pytest.mark.parametrize("name", ["startsAt", "endsAt", "generatorURL"])
def test_a_nul_in_what_is_no_text_takes_no_other_alert_with_it(name):
    error = refused([alert(n="0"), alert(n="1") | {name: "0001-01-01T00:00:00Z\0"}])
    assert [message.labels["n"] for message in error.accepted] == ["0"]
    assert [problem.where for problem in error.problems] == [f"[1].{name}"]


def test_an_alert_that_is_not_utf_8_takes_no_other_with_it():
    body = b'[{"labels":{"a":"\xff"}},{"labels":{"a":"b"}},{"labels":{"a":"c"},"x":[' + b"9" * 5000 + b"]}]"
    error = refused(body)
    assert [message.labels["a"] for message in error.accepted] == ["b", "c"]
    assert [problem.where for problem in error.problems] == ["[0]"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["labels", "annotations", "startsAt", "endsAt", "generatorURL", "other"])
BAD = (
    VALUES | st.dictionaries(FIELDS, VALUES, max_size=4) | st.builds(lambda field, value: FIRING | {field: value}, FIELDS, VALUES)
)
GOOD = st.builds(
    lambda labels, start, more: {"labels": {"good": "1", **labels}, "startsAt": start, **more},
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    st.sampled_from([ZERO, FIRING["startsAt"], "2026-11-20T08:30:00.123456789+02:00"]),
    st.dictionaries(st.sampled_from(["unknown", "fingerprint", "status"]), VALUES, max_size=2),
)


def taken(body):
    try:
        return receive(body), None
    except RequestError as error:
        return list(error.accepted), error


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.booleans(), BAD, GOOD), max_size=6))
def test_no_good_alert_is_ever_lost_among_bad_ones(entries):
    body = json.dumps([good if is_good else bad for is_good, bad, good in entries]).encode("utf-8", "surrogatepass")
    messages, refusal = taken(body)
    assert refusal is None or (400 <= refusal.status < 500 and json.dumps(refusal.answer))
    wanted = {
        fingerprint({name.replace("\0", "\N{REPLACEMENT CHARACTER}"): text.replace("\0", "\N{REPLACEMENT CHARACTER}")
                     for name, text in good["labels"].items() if text})
        for is_good, _, good in entries
        if is_good
    }  # fmt: skip
    assert wanted <= {message.key for message in messages}
