"""Webhook: the contract of HTTP consumers, bodies, headers and signatures."""

from __future__ import annotations

import hashlib
import hmac
import json

import msgspec
import pytest
from pydantic import ValidationError

from consumers.webhook import Webhook, WebhookConfig
from pipeline import HttpBatchConsumer, HttpRequest, Message, PermanentError, Request, TemporaryError
from pipeline.engine.delivery import deliver as engine_deliver
from pipeline.engine.loop import run_on_loop
from pipeline.testing import Answer, BatchConsumerContract, HttpConsumerContract, LoopbackServer
from pipeline.testing.delivering import deliver_many, failure
from producers.http import Http, HttpConfig

pytestmark = pytest.mark.against("consumer webhook", "a server on the loopback interface")

MESSAGE = Message(source="t", title='a "b" <c>', text="x\ny", labels={"team": "db"})


def request(message=MESSAGE, **options):
    return Webhook(WebhookConfig.model_validate({"url": "https://chat.example.com/hooks/abc?token=def"} | options)).request(
        message
    )


class TestWebhook(HttpConsumerContract):
    plugin = Webhook
    options = {"url": "{url}/hooks/very-secret-path?key=another", "headers": {"authorization": "Bearer sesame-open"}}


class TestWebhookWithATemplateAndASignature(HttpConsumerContract):
    plugin = Webhook
    options = {
        "url": "{url}/x/y",
        "method": "PUT",
        "body": '{"text": {{ title | tojson }}}',
        "hmac": {"secret": "the-shared-secret"},
    }


def test_the_whole_message_by_default():
    sent = request()
    assert msgspec.json.decode(sent.body, type=Message) == MESSAGE
    assert sent.headers == {"content-type": "application/json", "idempotency-key": MESSAGE.id}


def test_a_body_of_ones_own():
    sent = request(body='{"text": {{ (title ~ "\\n" ~ labels.team) | tojson }}}')
    assert json.loads(sent.body) == {"text": 'a "b" <c>\ndb'}


def test_a_body_that_is_not_json_is_not_sent_as_json():
    with pytest.raises(PermanentError, match="tojson"):
        request(body='{"text": "{{ title }}"}')
    assert request(body='"{{ title }}"', content_type="text/plain; charset=utf-8").body == b'"a "b" <c>"'


def test_a_failing_template_buries_the_message():
    with pytest.raises(PermanentError, match=r"labels\.env"):
        request(body="{{ labels.env }}")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_signature_that_our_own_producer_takes(algorithm):
    options = {"secret": "shared", "header": "X-Sig", "algorithm": algorithm}
    sent = request(hmac=options)
    digest = hmac.new(b"shared", sent.body, getattr(hashlib, algorithm)).hexdigest()
    assert sent.headers["x-sig"] == f"{algorithm}={digest}"
    (message,) = Http(HttpConfig.model_validate({"hmac": options})).receive(Request(sent.body, sent.headers))
    assert (message.title, message.labels) == (MESSAGE.title, MESSAGE.labels)


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://x"},
        {"url": "chat.example.com"},
        {"method": "GET"},
        {"headers": {"a b": "c"}},
        {"headers": {"a\n": "c"}},
        {"hmac": {"header": "X"}},
        {"body": "{{ titel }}"},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValidationError):
        request(**options)


def test_the_url_does_not_show():
    config = WebhookConfig.model_validate({"url": "https://chat.example.com/hooks/abc"})
    assert "hooks" not in repr(config)
    assert "hooks" not in json.dumps(Webhook(config).preview(MESSAGE))


class TestWebhookWithBatches(HttpConsumerContract):
    plugin = Webhook
    options = {"url": "{url}/x", "batch": {"size": 3}, "hmac": {"secret": "the-shared-secret"}}


class TestWebhookGivenBatches(BatchConsumerContract):
    plugin = Webhook
    options = {"url": "{url}/x", "batch": {}}

    @pytest.fixture
    def url(self, server):
        return server.url


@pytest.fixture
def server():
    with LoopbackServer() as server:
        yield server


def several(count, **fields):
    return [Message(**{"source": "t", "title": f"number {number}"} | fields) for number in range(count)]


def send(server, messages, *, batch=None, **options):
    plugin = Webhook(WebhookConfig.model_validate({"url": server.url, "batch": batch or {}} | options))
    return deliver_many(plugin, messages)


def titles(received):
    return [[one["title"] for one in json.loads(request.body)] for request in received]


def test_a_batch_is_an_array_in_one_request(server):
    messages = several(5)
    assert send(server, messages, batch={"size": 3}) == {}
    assert titles(server.received) == [["number 0", "number 1", "number 2"], ["number 3", "number 4"]]
    assert msgspec.json.decode(server.received[0].body, type=list[Message]) == messages[:3]
    assert len(server.connections) == 1


def test_a_batch_of_bodies_of_ones_own(server):
    send(server, several(2), body='{"text": {{ title | tojson }}}')
    assert json.loads(server.received[0].body) == [{"text": "number 0"}, {"text": "number 1"}]


def test_a_batch_by_a_template(server):
    lines = '{% for message in messages %}{{ {"t": message.time, "x": message.labels.team} | tojson }}\n{% endfor %}'
    messages = several(2, labels={"team": "db"})
    send(server, messages, content_type="application/x-ndjson", batch={"body": lines})
    (request,) = server.received
    assert [json.loads(line)["x"] for line in request.body.splitlines()] == ["db", "db"]
    assert request.headers["content-type"] == "application/x-ndjson"


def test_a_batch_template_knows_messages_only():
    with pytest.raises(ValidationError, match="there is no 'title' for several messages together; there are messages"):
        request(batch={"body": "{{ title }}"})


def test_a_template_that_fails_for_one_message_costs_no_other(server):
    messages = [*several(3, labels={"team": "db"}), *several(1)]
    failures = send(server, messages, batch={"body": '[{% for m in messages %}"{{ m.labels.team }}",{% endfor %}1]'})
    assert [*failures] == [messages[3].id]
    assert isinstance(failures[messages[3].id], PermanentError)
    assert [json.loads(request.body) for request in server.received] == [["db", "db", 1], ["db", 1]]


def test_a_batch_that_is_too_large_is_cut_before_it_is_sent(server):
    messages = several(4, text="x" * 1000)
    assert send(server, messages, batch={"bytes": "3kB"}) == {}
    assert [len(json.loads(request.body)) for request in server.received] == [2, 2]
    server.received.clear()
    assert send(server, messages, batch={"bytes": "10B"}) == {}, "one alone is sent whatever its size"
    assert [len(json.loads(request.body)) for request in server.received] == [1, 1, 1, 1]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_refused_is_sent_in_halves_until_the_bad_one_stands_alone(server, status):
    def judged(request):
        server.received.append(request)
        bad = b"number 2" in request.body
        taken.extend([] if bad else json.loads(request.body))
        return Answer(status if bad else 200)

    taken, messages = [], several(6)
    server.next_answer = judged
    failures = send(server, messages)
    assert [*failures] == [messages[2].id]
    assert f"answered {status}" in str(failures[messages[2].id])
    assert [one["title"] for one in taken] == ["number 0", "number 1", "number 3", "number 4", "number 5"]


def test_a_refusal_of_another_kind_holds_for_the_request(server):
    server.answers.extend([Answer(404), Answer(200)])
    messages = several(4)
    failures = send(server, messages, batch={"size": 2})
    assert [*failures] == [messages[0].id, messages[1].id]
    assert len(server.received) == 2


def test_after_an_error_that_may_pass_nothing_more_is_sent(server):
    server.answers.extend([Answer(200), Answer(503, {"Retry-After": "7"})])
    messages = several(6)
    failures = send(server, messages, batch={"size": 2})
    assert [*failures] == [message.id for message in messages[2:]]
    assert {error.retry_after for error in failures.values() if isinstance(error, TemporaryError)} == {7}
    assert len(server.received) == 2


def test_the_path_of_the_url_is_masked_where_a_server_repeats_it(server):
    server.answer = Answer(404, body=b"Cannot POST /services/T0/one-of-many?sig=abc, nor /services/T0/one-of-many")
    plugin = Webhook(WebhookConfig.model_validate({"url": f"{server.url}/services/T0/one-of-many?sig=abc"}))
    error = failure(plugin, MESSAGE)
    assert str(error) == f"POST {server.url}: answered 404: Cannot POST ***, nor ***"


class Careless(HttpBatchConsumer[WebhookConfig]):
    """A plugin with a bug."""

    at_once = 2

    def request_for(self, messages):
        return HttpRequest(self.config.url.get_secret_value(), ",".join(one.labels["team"] for one in messages).encode())


def test_a_bug_that_a_message_brings_out_costs_no_other(server):
    team = {"team": "db"}
    messages = [*several(4, labels=team), *several(1), *several(1, labels=team)]
    plugin = Careless(WebhookConfig.model_validate({"url": server.url}))
    outcomes = engine_deliver(plugin, messages, concurrency=1)
    run_on_loop(plugin.aclose())
    assert {message_id: type(error) for message_id, error in outcomes.items() if error} == {messages[4].id: KeyError}
    assert [one.body for one in server.received] == [b"db,db", b"db,db", b"db"]


def test_a_batch_has_a_signature_and_a_key_of_its_own(server):
    messages = several(2)
    for _ in range(2):
        send(server, messages, hmac={"secret": "shared"})
    send(server, messages[:1])
    first, again, alone = server.received
    digest = hmac.new(b"shared", first.body, hashlib.sha256).hexdigest()
    assert first.headers["x-signature-256"] == f"sha256={digest}"
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] != messages[0].id
    assert alone.headers["idempotency-key"] == messages[0].id
    received = Http(HttpConfig.model_validate({"hmac": {"secret": "shared", "header": "X-Signature-256"}}))
    assert len(list(received.receive(Request(first.body, first.headers)))) == 2


def test_the_engine_gives_batches_where_the_options_say_so(server):
    messages = several(4)
    for options, requests in ({"batch": {}}, 1), ({}, 4):
        server.received.clear()
        plugin = Webhook(WebhookConfig.model_validate({"url": server.url} | options))
        try:
            outcomes = engine_deliver(plugin, messages, concurrency=2)
        finally:
            run_on_loop(plugin.aclose())
        assert outcomes == dict.fromkeys(message.id for message in messages)
        assert len(server.received) == requests
