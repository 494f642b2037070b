"""A Prometheus server that is asked: what fires, what a query gives, and what is gone. The real one is asked in tests/e2e."""

from __future__ import annotations

import json
import ssl
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError
from pytest_httpserver import HTTPServer

from pipeline import ConfigError, PermanentError, TemporaryError
from pipeline.testing import Answer, LoopbackServer, PollingProducerContract, WebhookProducerContract
from producers.prometheus import Prometheus
from producers.prometheus.alerts import fingerprint
from producers.prometheus.options import PrometheusConfig

TOKEN = "a-token-of-the-test"


class Server(LoopbackServer):
    """Answers as Prometheus does: alerts, queries, and refusals of who does not know the token."""

    def __init__(self):
        super().__init__()
        self.alerts = []
        self.result = ("vector", [])

    def next_answer(self, request):
        self.received.append(request)
        if self.answers:
            return self.answers.popleft()
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, body=b"Unauthorized")
        parts = urlsplit(request.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        data = {
            "/prom/api/v1/alerts": {"alerts": self.alerts},
            "/prom/api/v1/query": dict(zip(("resultType", "result"), self.result, strict=True)),
            "/prom/api/v1/status/buildinfo": {"version": "2.42.0", "revision": "x"},
        }.get(parts.path)
        if data is None:
            return Answer(404, body=b"404 page not found")
        if parts.path.endswith("/query") and asked.get("query", "(").endswith("("):
            error = {"status": "error", "errorType": "bad_data", "error": 'invalid parameter "query": parse error'}
            return Answer(400, body=json.dumps(error).encode())
        return Answer(body=json.dumps({"status": "success", "data": data}).encode())

    def fires(self, *alerts):
        self.alerts = [*alerts]

    def gives(self, *series):
        self.result = ("vector", [*series])


@pytest.fixture
def server():
    with Server() as server:
        yield server


def alert(name, state="firing", since="2026-11-21T08:30:00.123456789Z", **labels):
    return {
        "labels": {"alertname": name, "severity": "page", **labels},
        "annotations": {"summary": f"{name} is wrong", "description": "d"},
        "state": state,
        "activeAt": since,
        "value": "9.5e+01",
    }


def series(value="0", **metric):
    return {"metric": {"__name__": "up", "job": "node", **metric}, "value": [1795249800.123, value]}


class TestAlerts(PollingProducerContract, WebhookProducerContract):
    plugin = Prometheus
    options = {"url": "{url}/prom", "token": TOKEN}
    away_options = {"url": "http://127.0.0.1:9/prom", "token": TOKEN}
    accepted = [b'{"version": "4", "alerts": [{"labels": {"a": "b"}}]}']

    @pytest.fixture
    def url(self, server):
        server.fires(alert("A"), alert("B"), alert("C", since="2026-11-21T08:29:00Z"), alert("D", state="pending"))
        return server.url


class TestSeries(TestAlerts):
    options = {
        **TestAlerts.options,
        "query": "up == 0",
        "labels": {"alertname": "Down"},
        "title": "{{ labels.instance }} is down",
    }
    away_options = {**options, "url": "http://127.0.0.1:9"}

    @pytest.fixture
    def url(self, server):
        server.gives(*(series(instance=name) for name in ("a", "b", "c")))
        return server.url


@pytest.fixture
def asker(server):
    """Give a function that polls with options, from the last cursor on, and gives what was told."""
    made = []

    def new(**options):
        producer = Prometheus(PrometheusConfig.model_validate({"url": f"{server.url}/prom", "token": TOKEN, **options}))
        producer.open()
        made.append(producer)
        cursors = [None]

        def ask():
            told = list(producer.poll(cursors[-1]))
            cursors.extend(cursor for _, cursor in told)
            return [message for message, _ in told if message is not None]

        return ask

    yield new
    for producer in made:
        producer.close()


def test_what_fires_and_what_is_over(server, asker):
    ask = asker()
    assert ask() == []
    server.fires(alert("A", disk="/var"))
    (firing,) = ask()
    assert ask() == []
    server.fires()
    before = datetime.now(UTC)
    (resolved,) = ask()
    assert ask() == []
    assert (firing.title, firing.text, firing.severity, firing.status) == ("A is wrong", "d", "critical", "firing")
    assert (resolved.title, resolved.text, resolved.severity, resolved.status) == ("A is wrong", "d", "critical", "resolved")
    assert firing.labels == resolved.labels == {"alertname": "A", "severity": "page", "disk": "/var"}
    assert firing.key == resolved.key == fingerprint(firing.labels)
    assert firing.time == datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=UTC)
    assert before <= resolved.time <= datetime.now(UTC)
    assert (firing.source, firing.url) == (f"{server.url}/prom", f"{server.url}/prom/alerts")
    assert firing.data["annotations"] == {"summary": "A is wrong", "description": "d"}
    assert firing.id != resolved.id


def test_an_alert_that_fires_anew_is_told_anew(server, asker):
    ask = asker()
    server.fires(alert("A"))
    (first,) = ask()
    server.fires(alert("A", since="2026-11-21T09:30:00Z"))
    (second,) = ask()
    assert (first.key, first.status, second.status) == (second.key, "firing", "firing")
    assert first.id != second.id


@pytest.mark.parametrize("options", [{}, {"query": "up"}])
def test_a_poll_that_is_repeated_gives_the_same_ids(server, options):
    with closing(Prometheus(PrometheusConfig(url=f"{server.url}/prom", token=TOKEN, **options))) as producer:
        producer.open()
        *_, (_, cursor) = producer.poll(None)
        server.fires(alert("A"), alert("B"))
        server.gives(series(instance="a"), series(instance="b"))
        first, again = ([message.id for message, _ in producer.poll(cursor) if message] for _ in range(2))
        assert len({*first}) == 2
        assert first == again


@pytest.mark.parametrize("options", [{}, {"query": "up"}])
def test_what_was_told_to_be_over_and_is_back_is_no_repeat(server, asker, options):
    ask = asker(**options)
    ids = set()
    for _ in range(3):
        server.fires(alert("A"))  # since the same time: Prometheus was away for a moment
        server.gives(series(instance="a"))
        ids |= {message.id for message in ask()}
        server.fires()
        server.gives()
        ids |= {message.id for message in ask()}
    assert len(ids) == 6


def test_what_is_told_after_a_cursor_was_lost_is_no_repeat(server):
    server.gives(series(instance="a"))
    with closing(Prometheus(PrometheusConfig(url=f"{server.url}/prom", token=TOKEN, query="up"))) as producer:
        producer.open()
        first, anew = (next(iter(producer.poll(cursor)))[0] for cursor in ("[0,{}]", None))
    assert first.key == anew.key
    assert first.id != anew.id


def test_alerts_and_a_query_take_over_from_one_another(server):
    server.fires(alert("A"))
    alerts, series_of = (
        Prometheus(PrometheusConfig(url=f"{server.url}/prom", token=TOKEN, **options)) for options in ({}, {"query": "up"})
    )
    alerts.open()
    series_of.open()
    *_, (_, cursor) = alerts.poll(None)
    server.gives(series(instance="a"))
    *told, (_, cursor) = series_of.poll(cursor)
    assert [(message.title, message.status) for message, _ in told] == [
        ('up{instance="a",job="node"}', "firing"),
        ("A is wrong", "resolved"),
    ]
    *told, _ = alerts.poll(cursor)
    assert [(message.title, message.status) for message, _ in told] == [
        ("A is wrong", "firing"),
        ('up{instance="a",job="node"}', "resolved"),
    ]
    alerts.close()
    series_of.close()


def test_from_each_cursor_it_goes_on_with_what_is_over(server):
    with closing(Prometheus(PrometheusConfig(url=f"{server.url}/prom", token=TOKEN))) as producer:
        producer.open()
        server.fires(alert("A"), alert("B"), alert("C"))
        *_, (_, cursor) = producer.poll(None)
        server.fires(alert("D"))
        told = list(producer.poll(cursor))
        assert [message and message.status for message, _ in told] == ["firing", "resolved", "resolved", "resolved", None]
        for index, (_, reached) in enumerate(told):
            rest = [message.id for message, _ in producer.poll(reached) if message]
            assert rest == [message.id for message, _ in told[index + 1 :] if message]
        assert "null" not in told[-1][1]


def test_pending_alerts_are_not_told_and_one_that_is_pending_again_is_over(server, asker):
    ask = asker()
    server.fires(alert("A", state="pending"))
    assert ask() == []
    server.fires(alert("A"))
    assert len(ask()) == 1
    server.fires(alert("A", state="pending"))
    (resolved,) = ask()
    assert resolved.status == "resolved"


def test_what_is_gone_for_a_moment_is_not_over(server, asker):
    ask = asker(resolve_after="1h")
    server.fires(alert("A"))
    assert len(ask()) == 1
    server.fires()
    assert ask() == []
    server.fires(alert("A"))
    assert ask() == []
    server.fires()
    assert ask() == []


def test_what_was_gone_for_long_enough_is_over(server):
    producer = Prometheus(PrometheusConfig(url=f"{server.url}/prom", token=TOKEN, resolve_after="1h"))
    producer.open()
    server.fires(alert("A"))
    *_, (_, cursor) = producer.poll(None)
    server.fires()
    ((nothing, cursor),) = producer.poll(cursor)
    assert nothing is None
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    count, there = json.loads(cursor)
    for seen in there.values():
        seen["gone"] = long_ago
    (told, _), _ = producer.poll(json.dumps([count, there]))
    assert told.status == "resolved"
    producer.close()


def test_a_message_for_each_series_when_it_comes_and_when_it_is_gone(server, asker):
    ask = asker(query="up == 0")
    server.gives(series(instance="a"), series(instance="b", severity="warn"))
    first, second = sorted(ask(), key=lambda message: message.title)
    server.gives(series("0.5", instance="b", severity="warn"))
    (gone,) = ask()
    assert first.title == gone.title == 'up{instance="a",job="node"}'
    assert first.text == "up == 0\nvalue: 0"
    assert first.labels == {"job": "node", "instance": "a"}
    assert first.data == {"query": "up == 0", "metric": {"__name__": "up", "job": "node", "instance": "a"}, "value": 0}
    assert (first.severity, second.severity) == ("", "warning")
    assert (gone.status, gone.key) == ("resolved", first.key)
    assert first.time == datetime(2026, 11, 21, 8, 30, 0, 123000, tzinfo=UTC)
    assert first.url == f"{server.url}/prom/graph?g0.expr=up%20%3D%3D%200"
    asked = parse_qs(urlsplit(server.received[0].path).query)
    assert asked == {"query": ["up == 0"], "timeout": ["30s"]}


def test_words_and_labels_by_templates(server, asker):
    server.gives(series("95.5", instance="a"))
    (message,) = asker(
        query="disk > 90",
        labels={"alertname": "DiskFull", "severity": "page", "host": "{{ labels.instance | upper }}"},
        title="{{ data.value }} % on {{ labels.host }}",
        text="look at {{ url }}",
    )()
    assert message.title == "95.5 % on A"
    assert message.text.startswith(f"look at {server.url}/prom/graph")
    assert message.labels == {"alertname": "DiskFull", "severity": "page", "host": "A", "job": "node", "instance": "a"}
    assert message.severity == "critical"
    (named,) = asker(
        query="disk > 90", labels={"alertname": "DiskFull"}, severity="{{ 'warn' if data.value < 99 else 'page' }}"
    )()
    assert (named.title, named.severity) == ("DiskFull", "warning")


def test_a_template_that_fails_leaves_what_was_there(server, asker):
    server.gives(series(instance="a"))
    (message,) = asker(query="up", title="{{ 1 / data.value }}")()
    assert message.title == 'up{instance="a",job="node"}'


def test_each_series_at_each_poll(server, asker):
    ask = asker(query="up", repeat=True)
    server.gives(series(instance="a"), series(instance="b"))
    first, second = ask(), ask()
    assert [message.key for message in first] == [message.key for message in second]
    assert len({message.id for message in (*first, *second)}) == 4
    server.gives(series(instance="b"))
    assert [message.status for message in ask()] == ["firing"]


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("0.5", 0.5), ("NaN", "NaN"), ("+Inf", "+Inf"), ("1e+300", 1e300)])
def test_values_are_numbers_where_json_has_them(server, asker, text, value):
    server.gives(series(text))
    (message,) = asker(query="up")()
    assert message.data["value"] == value


def test_a_scalar_and_a_histogram(server, asker):
    server.result = ("scalar", [1795249800, "7"])
    (message,) = asker(query="scalar(x)")()
    assert (message.title, message.text, message.labels) == ("scalar(x)", "scalar(x)\nvalue: 7", {})
    server.gives({"metric": {"job": "a"}, "histogram": [1795249800, {"count": "1", "sum": "2", "buckets": []}]})
    (message,) = asker(query="x")()
    assert (message.title, message.data["value"]["sum"]) == ('{job="a"}', "2")


def test_a_matrix_is_no_result_to_tell(server, asker):
    server.result = ("matrix", [])
    with pytest.raises(PermanentError, match="its result is a matrix"):
        asker(query="up[5m]")()


def test_a_query_that_is_none_is_told_in_prometheus_words(asker):
    with pytest.raises(PermanentError, match=r"answered 400.*parse error"):
        asker(query="up(")()


def test_a_nul_does_no_harm(server, asker):
    server.fires(alert("a\0b"))
    (message,) = asker()()
    assert message.labels["alertname"] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, body=b"Service Unavailable"), TemporaryError),
        (Answer(429, {"Retry-After": "5"}), TemporaryError),
        (Answer(fault="cut"), TemporaryError),
        (Answer(404, body=b"404 page not found"), PermanentError),
        (Answer(302, {"Location": "http://127.0.0.1:9/"}), PermanentError),
        (Answer(body=b"<html>"), PermanentError),
        (Answer(body=b"[]"), PermanentError),
        (Answer(body=b'{"status": "error"}'), PermanentError),
        (Answer(body=b'{"status": "success", "data": {}}'), PermanentError),
        (Answer(body=b'{"status": "success", "data": {"alerts": [{}]}}'), PermanentError),
        (
            Answer(body=b'{"status": "success", "data": {"alerts": [{"labels": {}, "state": "firing", "activeAt": "x"}]}}'),
            PermanentError,
        ),
    ],
)
def test_other_answers(server, asker, answer, kind):
    ask = asker()
    server.fires(alert("A"))
    assert len(ask()) == 1
    server.answers.append(answer)
    with pytest.raises(kind, match=server.url):
        ask()
    assert ask() == []


def test_who_is_not_let_in(server, asker):
    with pytest.raises(PermanentError, match="answered 401"):
        asker(token="another-token")()
    with pytest.raises(PermanentError, match="answered 401"):
        asker(token=None, user="me", password="secret-password")()
    assert server.received[-1].headers["authorization"] == "Basic bWU6c2VjcmV0LXBhc3N3b3Jk"


def test_a_probe_tells_the_version(server, asker):
    producer = Prometheus(PrometheusConfig(url=f"{server.url}/prom/", token=TOKEN))
    producer.open()
    assert producer.probe() == "Prometheus 2.42.0"
    producer.close()
    assert Prometheus(PrometheusConfig()).probe() is None


def test_without_a_server_there_is_nothing_to_ask():
    with pytest.raises(PermanentError, match="nobody to ask"):
        Prometheus(PrometheusConfig()).poll(None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"query": "up"}, "url: it is missing"),
        ({"token": TOKEN}, "url: it is missing"),
        ({"url": "http://p", "title": "x"}, "query: it is missing; 'title'"),
        ({"url": "http://p", "repeat": True}, "query: it is missing; 'repeat'"),
        ({"url": "http://p", "user": "x"}, "belong together"),
        ({"url": "http://p", "token": "x", "user": "x", "password": "y"}, "token: give it, or"),
        ({"url": "http://p", "key_file": "x"}, "its certificate is missing"),
        ({"url": "http://p", "timeout": "0s"}, "above zero"),
        ({"url": "http://p", "query": ""}, "at least 1 character"),
        ({"url": "p:9090"}, "begins with http"),
        ({"url": "http://[p"}, "no URL"),
        ({"url": "http://me:secret-password@p"}, "a user and a password stand in options"),
        ({"url": "http://p?x=secret-password"}, "only the server's address"),
    ],
)
def test_options_that_do_not_fit(options, text):
    with pytest.raises(ValidationError) as caught:
        PrometheusConfig.model_validate(options)
    assert text in str(caught.value.errors(include_input=False))


@pytest.mark.parametrize("url", ["http://p/prom", "http://p/prom/", "http://p/prom/api/v1", "http://p/prom/api/v1/"])
def test_the_address_is_the_servers(url):
    assert PrometheusConfig(url=url).url == "http://p/prom"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key, file = (tmp_path_factory.mktemp("certificate") / name for name in ("key.pem", "certificate.pem"))
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(file)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    return file, key


def test_a_server_with_an_authority_of_its_own_that_asks_for_a_certificate(certificate):
    file, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    context.load_verify_locations(file)
    context.verify_mode = ssl.CERT_REQUIRED

    def asked(**options):
        producer = Prometheus(PrometheusConfig.model_validate({"url": server.url_for(""), "ca_file": file, **options}))
        producer.open()
        with closing(producer):
            return [message.title for message, _ in producer.poll(None) if message is not None]

    with HTTPServer("127.0.0.1", 0, ssl_context=context) as server:
        server.expect_request("/api/v1/alerts").respond_with_json({"status": "success", "data": {"alerts": [alert("A")]}})
        assert asked(cert_file=file, key_file=key) == ["A is wrong"]
        with pytest.raises(TemporaryError):
            asked()


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
def test_a_file_that_is_no_certificate_does_not_start(tmp_path, option):
    (tmp_path / "file").write_text("no certificate")
    with pytest.raises(ConfigError, match="cannot be used"):
        Prometheus(PrometheusConfig.model_validate({"url": "https://p", option: tmp_path / "file"})).open()
    with pytest.raises(ConfigError, match="cannot be used"):
        Prometheus(PrometheusConfig.model_validate({"url": "https://p", option: tmp_path / "none"})).open()
