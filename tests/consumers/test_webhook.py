"""Webhook: the contract of HTTP consumers, bodies, headers and signatures."""

from __future__ import annotations

import hashlib
import hmac
import json

import msgspec
import pytest
from pydantic import ValidationError

from consumers.webhook import Webhook, WebhookConfig
from pipeline import Message, PermanentError, Request
from pipeline.testing import HttpConsumerContract
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
