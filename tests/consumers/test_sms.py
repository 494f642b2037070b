"""SMS: against stand-ins of Twilio, Vonage and Clickatell that enforce their rules, and count parts on their own."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64encode
from contextlib import suppress
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from consumers.sms import Sms, SmsConfig
from pipeline import Message, PermanentError, Request, RequestError, TemporaryError, Told, fit_sms, sms_parts
from pipeline.networks import Networks
from pipeline.spec import check
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer, Recollection
from pipeline.testing.consumers import deliver
from producers.http import Http, HttpConfig

pytestmark = pytest.mark.against("consumer sms", "servers of our own that enforce the rules of Twilio, Vonage and Clickatell")

ACCOUNT, TOKEN = "AC00000000000000000000000000000000", "a-made-up-token"
ANNA, BERT, CLEO = "+4915112345678", "+14155550100", "+27999000001"
TWILIO = {"via": "twilio", "account": ACCOUNT, "token": TOKEN, "from": "+1 500 555-0006"}
VONAGE = {"via": "vonage", "account": "abcd1234", "token": TOKEN, "from": "Acme Ops"}
CLICKATELL = {"via": "clickatell", "token": TOKEN}
SERVICES = {"twilio": TWILIO, "vonage": VONAGE, "clickatell": CLICKATELL}

ALPHABET = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
ESCAPED = "\f^{}\\[~]|€"


class TestTwilio(HttpConsumerContract):
    plugin = Sms
    options = TWILIO | {"to": [ANNA], "base_url": "{url}", "callback": "https://bell.example.com/in/sms/http?key=sesame-open"}
    good_body = b'{"sid": "SM0", "status": "queued", "price": null}'


class TestVonage(HttpConsumerContract):
    plugin = Sms
    options = VONAGE | {"to": [ANNA], "base_url": "{url}/", "callback": "https://bell.example.com/in/sms/http?key=sesame-open"}
    good_body = b'{"message-count": "1", "messages": [{"status": "0", "message-id": "0A"}]}'


class TestClickatell(HttpConsumerContract):
    plugin = Sms
    options = CLICKATELL | {"to": [ANNA], "base_url": "{url}"}
    good_body = b'{"messages": [{"apiMessageId": "fd49", "accepted": true, "to": "4915112345678", "error": null}], "error": null}'


def parts_of(text):
    """Pack a text into SMS as a phone network does; gives their number, and whether it is in the GSM alphabet."""
    gsm = all(character in ALPHABET + ESCAPED for character in text)
    units = [("\x1b" + character if character in ESCAPED else character) for character in text] if gsm else [*text]
    widths = [len(unit) if gsm else len(unit.encode("utf-16-be")) // 2 for unit in units]
    if sum(widths) <= (160 if gsm else 70):
        return 1, gsm
    parts = [0]
    for width in widths:
        if parts[-1] + width > (153 if gsm else 67):
            parts.append(0)
        parts[-1] += width
    return len(parts), gsm


class Network(LoopbackServer):
    """What all three do: `went_out` has what each number got; `refusals` are error codes by number, one for each attempt."""

    def __init__(self):
        super().__init__()
        self.went_out, self.refusals, self.forms = {}, {}, []

    def next_answer(self, request):
        answer = super().next_answer(request)
        return self.service(request) if answer.status == 200 and not answer.body else answer

    def service(self, request):
        if request.path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
            return self.twilio(request)
        return {"/sms/json": self.vonage, "/v1/message": self.clickatell}[request.path](request)

    def accept(self, number, text):
        self.went_out.setdefault(number, []).append(text)

    def refusal(self, number):
        waiting = self.refusals.get(number, [])
        return waiting.pop(0) if waiting else None

    def form(self, request):
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
        self.forms.append(form)
        return form

    def twilio(self, request):
        form = self.form(request)
        code, status = None, 400
        if request.headers["authorization"] not in (basic(ACCOUNT, TOKEN), basic("SK1", "another-secret")):
            code, status = 20003, 401
        elif not form.get("From") and not re.fullmatch("MG[0-9a-f]{32}", form.get("MessagingServiceSid", "")):
            code = 21603
        elif not re.fullmatch(r"\+[1-9]\d{6,14}", form["To"]):
            code = 21211
        elif not form["Body"]:
            code = 21602
        elif len(form["Body"]) > 1600:
            code = 21617
        code = code or self.refusal(form["To"])
        if code:
            status = 429 if code in (20429, 63038) else status
            body = {
                "code": code,
                "message": f"no {form['To']}",
                "more_info": f"https://www.twilio.com/docs/errors/{code}",
                "status": status,
            }
            return Answer(status, body=json.dumps(body).encode())
        self.accept(form["To"], form["Body"])
        body = {"sid": f"SM{len(self.forms):032}", "status": "queued", "num_segments": str(parts_of(form["Body"])[0])}
        body |= {"price": None, "price_unit": "USD", "error_code": None, "error_message": None}
        return Answer(201, body=json.dumps(body).encode())

    def vonage(self, request):
        form = self.form(request)
        parts, gsm = parts_of(form.get("text", ""))
        if request.headers["authorization"] != basic("abcd1234", TOKEN):
            code = "4"
        elif not {"to", "from", "text"} <= {*form}:
            code = "2"
        elif not re.fullmatch(r"[1-9]\d{6,14}", form["to"]) or (form["type"] == "text") != gsm:
            code = "3"
        else:
            code = str(self.refusal(f"+{form['to']}") or "0")
        if code != "0":
            return self.json(200, {"message-count": "1", "messages": [{"status": code, "error-text": f"error {code}"}]})
        self.accept(f"+{form['to']}", form["text"])
        part = {"to": form["to"], "status": "0", "remaining-balance": "3.14", "message-price": "0.03330000", "network": "12345"}
        messages = [part | {"message-id": f"0C{number}"} for number in range(parts)]
        return self.json(200, {"message-count": str(parts), "messages": messages})

    def clickatell(self, request):
        if request.headers["authorization"] != TOKEN:
            error = {"code": 1, "description": "Invalid or missing integration API Key"}
            return self.json(401, {"messages": [], "error": error})
        (sms,) = json.loads(request.body)["messages"]
        self.forms.append(sms)
        code = self.refusal(f"+{sms['to']}") if re.fullmatch(r"[1-9]\d{6,14}", sms["to"]) else 25
        if code:
            error = {"code": code, "description": f"error {code}"}
            message = {"apiMessageId": None, "accepted": False, "to": sms["to"], "error": error}
            return self.json({18: 500, 19: 503, 20: 402}.get(code, 400), {"messages": [message], "error": None})
        self.accept(f"+{sms['to']}", sms["content"])
        message = {"apiMessageId": "fd496adebb6e422587368077937cfb5d", "accepted": True, "to": sms["to"], "error": None}
        return self.json(202, {"messages": [message], "error": None})

    @staticmethod
    def json(status, body):
        return Answer(status, body=json.dumps(body).encode())


def basic(user, token):
    return f"Basic {b64encode(f'{user}:{token}'.encode()).decode()}"


@pytest.fixture
def network():
    with Network() as network:
        yield network


@pytest.fixture(params=SERVICES)
def service(request):
    return request.param


def sms(network, service="twilio", *, memory=None, **options):
    plugin = Sms(SmsConfig.model_validate(SERVICES[service] | {"to": [ANNA], "base_url": network.url} | options))
    plugin.memory = memory
    return plugin


def message(**fields):
    return Message(**{"source": "test", "title": "disk full"} | fields)


def test_each_receiver_gets_the_text(network, service):
    deliver(
        sms(network, service, to=[ANNA, f"{BERT}, {CLEO}", "{{ labels.phone }}", BERT]),
        message(text="2 % left", labels={"phone": ""}),
    )
    assert network.went_out == {number: ["disk full\n2 % left"] for number in (ANNA, BERT, CLEO)}


def test_what_twilio_is_told(network):
    deliver(sms(network), message())
    deliver(sms(network, **{"from": "MG" + "0f" * 16, "callback": "https://bell.example.com/x?y=z"}), message())
    deliver(sms(network, key_sid="SK1", token="another-secret", **{"from": "Acme Ops"}), message())
    assert network.forms == [
        {"To": ANNA, "From": "+15005550006", "Body": "disk full"},
        {
            "To": ANNA,
            "MessagingServiceSid": "MG" + "0f" * 16,
            "Body": "disk full",
            "StatusCallback": "https://bell.example.com/x?y=z",
        },
        {"To": ANNA, "From": "Acme Ops", "Body": "disk full"},
    ]


def test_what_vonage_is_told(network):
    deliver(sms(network, "vonage"), message())
    deliver(sms(network, "vonage", callback="https://bell.example.com/x", **{"from": "+15005550006"}), message(title="voll 🔔"))
    told = {"to": ANNA[1:], "from": "Acme Ops", "text": "disk full", "type": "text"}
    later = {
        "from": "15005550006",
        "text": "voll 🔔",
        "type": "unicode",
        "callback": "https://bell.example.com/x",
        "status-report-req": "true",
    }
    assert network.forms == [told, told | later]


def test_what_clickatell_is_told(network):
    deliver(sms(network, "clickatell"), message())
    deliver(sms(network, "clickatell", **{"from": "+1 202 753 0410"}), message())
    told = {"channel": "sms", "to": ANNA[1:], "content": "disk full"}
    assert network.forms == [told, told | {"from": "12027530410"}]


@pytest.mark.parametrize(
    ("fields", "options", "text"),
    [
        ({"status": "resolved", "text": "all well"}, {}, "Resolved: disk full\nall well"),
        ({"title": "", "text": "first\nsecond"}, {}, "first\nsecond"),
        ({"title": "", "type": "push"}, {}, "push from test"),
        ({}, {"text": "{{ title | upper }}"}, "DISK FULL"),
        ({}, {"text": " \u200b"}, "disk full"),
        ({"title": "\u201cit\u2019s\u201d \u2013 full…\t\u00a0`x`\x1b\x00"}, {}, "\"it's\" - full... 'x'"),
        ({"title": "größer als 5 € [db-1]"}, {}, "größer als 5 € [db-1]"),
    ],
)
def test_the_text(network, fields, options, text):
    deliver(sms(network, **options), message(**fields))
    assert network.went_out[ANNA] == [text]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 151, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("€" * 153, 3),
        ("ä" * 160, 1),
        ("á" + "a" * 69, 1),
        ("á" + "a" * 70, 2),
        ("ж" * 134, 2),
        ("ж" * 135, 3),
        ("🔔" * 35, 1),
        ("🔔" * 36, 2),
        ("a" * 66 + "🔔" + "a" * 65, 2),
        ("a" * 66 + "🔔" + "a" * 66, 3),
    ],
)
def test_parts(text, parts):
    assert sms_parts(text) == parts == parts_of(text)[0]


TEXTS = st.text(st.sampled_from("a b\nä€[^жá🔔…"), max_size=900) | st.text(max_size=400)


@given(TEXTS, st.integers(1, 10))
def test_a_text_is_cut_where_it_has_to_be_and_no_earlier(text, most):
    short = fit_sms(text, most)
    assert sms_parts(text) == parts_of(text)[0]
    assert sms_parts(short) <= most
    if short != text:
        assert sms_parts(text) > most
        assert short.endswith("..." if parts_of(short)[1] else "…")
        kept = len(short.removesuffix("...").removesuffix("…"))
        longer = text[: kept + 1].rstrip()
        assert longer == text[:kept].rstrip() or parts_of(longer + ("..." if parts_of(longer)[1] else "…"))[0] > most


def test_a_long_text_goes_in_so_many_parts_as_are_allowed(network):
    long = message(title="t" * 500)
    deliver(sms(network), long)
    deliver(sms(network, max_parts=1), long)
    deliver(sms(network, max_parts=10), message(text="🔔" * 40_000))
    assert [len(text) for text in network.went_out[ANNA][:2]] == [459, 160]
    assert all(text.endswith("t...") for text in network.went_out[ANNA][:2])
    assert parts_of(network.went_out[ANNA][2]) == (10, False)


REFUSED = {"twilio": 21211, "vonage": 7, "clickatell": 25}
BUSY = {"twilio": 21611, "vonage": 1, "clickatell": 43}


def test_who_has_it_gets_no_second_one(network, service):
    network.refusals = {BERT: [BUSY[service]] * 2}
    memory, alert = Recollection(), message()
    plugins = [sms(network, service, to=[ANNA, BERT, CLEO], memory=memory) for _ in range(3)]  # as three workers have them
    for plugin in plugins[:2]:
        with pytest.raises(TemporaryError, match=rf"2 of 3 receivers have it; \{BERT}: POST .*"):
            deliver(plugin, alert)
    deliver(plugins[2], alert)
    assert {number: len(texts) for number, texts in network.went_out.items()} == {ANNA: 1, BERT: 1, CLEO: 1}
    deliver(plugins[2], message())
    assert {number: len(texts) for number, texts in network.went_out.items()} == {ANNA: 2, BERT: 2, CLEO: 2}


def test_refusals_are_told_when_all_others_have_it(network, service):
    network.refusals = {ANNA: [REFUSED[service]] * 2, BERT: [BUSY[service]]}
    plugin, alert = sms(network, service, to=[ANNA, BERT, CLEO], memory=Recollection()), message()
    with pytest.raises(TemporaryError, match="1 of 3"):
        deliver(plugin, alert)
    with pytest.raises(PermanentError, match=rf"2 of 3 receivers have it; \{ANNA}: POST .*{REFUSED[service]}"):
        deliver(plugin, alert)
    deliver(plugin, alert)
    assert {number: len(texts) for number, texts in network.went_out.items()} == {ANNA: 1, BERT: 1, CLEO: 1}


def test_the_longest_wait_of_several_counts(network):
    network.answers.extend(Answer(503, {"Retry-After": wait}) for wait in ("3", "20", "x"))
    with pytest.raises(TemporaryError) as caught:
        deliver(sms(network, to=[ANNA, BERT, CLEO]), message())
    assert caught.value.retry_after == 20


def test_a_memory_that_is_away(network):
    with pytest.raises(TemporaryError, match=r"^the memory is away$"):
        deliver(sms(network, to=[ANNA, BERT], memory=Recollection(away=["recall", "remember"])), message())
    assert network.received == []
    with capture_logs() as lines:
        deliver(sms(network, to=[ANNA, BERT], memory=Recollection(away=["remember"])), message())
    assert network.went_out == {ANNA: ["disk full"], BERT: ["disk full"]}
    assert [line["log_level"] for line in lines].count("warning") == 2


@pytest.mark.parametrize(
    ("service", "code", "kind"),
    [
        *(("twilio", code, TemporaryError) for code in (14107, 20429, 21611, 30001, 63017, 63038)),
        *(("twilio", code, PermanentError) for code in (21211, 21408, 21606, 21610, 21612, 21614, 30034)),
        *(("vonage", code, TemporaryError) for code in (1, 5, 9, 10)),
        *(("vonage", code, PermanentError) for code in (2, 3, 6, 7, 8, 11, 12, 15, 22, 23, 29, 33)),
        *(("clickatell", code, TemporaryError) for code in (18, 19, 20, 43)),
        *(("clickatell", code, PermanentError) for code in (2, 3, 23, 24, 25, 26, 27, 38, 44, 45, 100)),
    ],
)
def test_what_a_service_answers(network, service, code, kind):
    network.refusals = {ANNA: [code]}
    with pytest.raises(kind, match=str(code)):
        deliver(sms(network, service), message())
    assert network.went_out == {}


def test_wrong_credentials_are_told(network, service):
    with pytest.raises(PermanentError) as caught:
        deliver(sms(network, service, token="another-token"), message())
    assert re.search({"twilio": "401.*20003", "vonage": "error 4", "clickatell": "401.*API Key"}[service], str(caught.value))


@pytest.mark.parametrize(
    "body", [b"<html>proxy</html>", b"[]", b"{}", b'{"messages": []}', b'{"messages": [{}]}', b'{"messages": [[]]}', b"[" * 9000]
)
def test_an_answer_that_says_nothing_of_the_sms_is_no_success(network, service, body):
    network.answers.append(Answer(200, body=body))
    with pytest.raises(TemporaryError, match="says nothing of the SMS"):
        deliver(sms(network, service), message())


@pytest.mark.parametrize("status", [202, 207, 400])
def test_clickatell_may_tell_an_error_in_words_alone(network, status):
    message_of = {"apiMessageId": None, "accepted": False, "to": ANNA[1:], "error": "Invalid destination address."}
    network.answers.append(network.json(status, {"messages": [message_of], "error": None}))
    with pytest.raises(PermanentError, match="Invalid destination address"):
        deliver(sms(network, "clickatell"), message())


def test_one_refused_part_of_several_is_a_refusal(network):
    body = {"messages": [{"status": "0", "message-id": "0A"}, {"status": "1", "error-text": "Throttled"}]}
    network.answers.append(network.json(200, body))
    with pytest.raises(TemporaryError, match="error 1: Throttled"):
        deliver(sms(network, "vonage"), message())


@pytest.mark.parametrize(
    ("service", "told"),
    [
        ("twilio", {"id": "SM" + "1".zfill(32), "price": ""}),
        ("vonage", {"id": "0C0", "price": "0.03330000 EUR, 0.03330000 EUR"}),
        ("clickatell", {"id": "fd496adebb6e422587368077937cfb5d", "price": ""}),
    ],
)
def test_the_log_has_id_and_price(network, service, told):
    with capture_logs() as lines:
        deliver(sms(network, service), message(title="t" * 200))
    assert lines == [{"event": "an SMS is on its way", "log_level": "info", "to": ANNA, "parts": 2} | told]


class Noted:
    """Keeps what a consumer notes."""

    def __init__(self):
        self.notes = []

    def note(self, message, reference, text):
        self.notes.append((message.title, reference, text))


@pytest.mark.parametrize(
    ("service", "notes"),
    [
        ("twilio", [("SM" + "1".zfill(32), f"to {ANNA}, 2 parts")]),
        ("vonage", [(f"0C{part}", f"to {ANNA}, 2 parts, 0.03330000 EUR, 0.03330000 EUR") for part in range(2)]),
        ("clickatell", [("fd496adebb6e422587368077937cfb5d", f"to {ANNA}, 2 parts")]),
    ],
)
def test_what_each_part_is_called_is_noted(network, service, notes):
    plugin = sms(network, service)
    plugin.results = Noted()
    deliver(plugin, message(title="t" * 200))
    assert plugin.results.notes == [("t" * 200, *note) for note in notes]


CALLBACK = "https://bell.example.com/callback/night/sms"
ELSEWHERE = "https://bell.example.com/through/a/gateway"
KEYED = f"{CALLBACK}?key=sixteen-or-more-of-them"


def signed(form, url=CALLBACK, token=TOKEN):
    """A call as Twilio signs it."""
    text = url + "".join(name + value for name, value in sorted(form.items()))
    signature = b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": signature}
    return Request(urlencode(form).encode(), headers)


def test_the_signature_of_twilios_documentation():
    form = {
        "Digits": "1234",
        "To": "+18005551212",
        "From": "+14158675310",
        "Caller": "+14158675310",
        "CallSid": "CA1234567890ABCDE",
    }
    url = "https://example.com/myapp.php?foo=1&bar=2"
    assert signed(form, url, "12345").headers["x-twilio-signature"] == "L/OH5YylLD5NRKLltdqwSvS0BnU="


@pytest.mark.parametrize(
    ("fields", "text", "arrived"),
    [
        ({"MessageStatus": "delivered"}, "delivered", True),
        ({"MessageStatus": "sent"}, "sent", None),
        ({"MessageStatus": "undelivered", "ErrorCode": "30003"}, "undelivered, error 30003", False),
        ({"MessageStatus": "failed", "ErrorCode": "30007", "Ü": "ö &="}, "failed, error 30007", False),
    ],
)
def test_twilio_calls_back(network, fields, text, arrived):
    plugin = sms(network, callback=CALLBACK)
    assert list(plugin.called_back(signed({"MessageSid": "SM1"} | fields))) == [Told("SM1", text, arrived)]


@pytest.mark.parametrize(
    ("options", "url", "token", "proved"),
    [
        ({"callback": CALLBACK}, CALLBACK, TOKEN, True),
        ({"callback": CALLBACK}, CALLBACK, "another", False),
        ({"callback": CALLBACK}, CALLBACK + "?x=y", TOKEN, False),
        ({"callback": CALLBACK.replace("//", "//a:b@")}, CALLBACK, TOKEN, True),
        ({"callback": CALLBACK.replace("//", "//a:b@")}, CALLBACK.replace("//", "//a:b@"), TOKEN, True),
        ({"callback": ELSEWHERE, "key_sid": "SK1"}, ELSEWHERE, TOKEN, False),
        ({"callback": CALLBACK, "key_sid": "SK1", "auth_token": "the-account's"}, CALLBACK, "the-account's", True),
    ],
)
def test_who_is_not_twilio_is_refused(network, options, url, token, proved):
    request = signed({"MessageSid": "SM1", "MessageStatus": "sent"}, url, token)
    plugin = sms(network, **options)
    if proved:
        assert len(plugin.called_back(request)) == 1
        return
    with pytest.raises(RequestError, match="not sent by the service") as caught:
        plugin.called_back(request)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("callback", "key", "status"),
    [
        (KEYED, "sixteen-or-more-of-them", None),
        (KEYED, "another", 403),
        (KEYED, "", 403),
        (ELSEWHERE, "", 403),
        (f"{ELSEWHERE}?k=short", "", 403),
    ],
)
@pytest.mark.parametrize("form", [True, False], ids=["a form", "JSON"])
def test_vonage_calls_back(network, callback, key, status, form):
    told = {"msisdn": ANNA[1:], "messageId": "0C1", "status": "failed", "err-code": "6", "price": "0.0333"}
    plugin = sms(network, "vonage", callback=callback)
    body = urlencode(told).encode() if form else json.dumps(told).encode()
    headers = {"content-type": "application/x-www-form-urlencoded" if form else "application/json"}
    request = Request(body, headers, {"key": key, "k": "short"})
    if status is None:
        assert list(plugin.called_back(request)) == [Told("0C1", "failed, error 6, 0.0333 EUR", False)]
        return
    with pytest.raises(RequestError) as caught:
        plugin.called_back(request)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (4, "SENT_TO_SUPPLIER", Told("fd49", "sent_to_supplier")),
        (5, "DEVICE_ACK", Told("fd49", "device_ack", True)),
        (6, "READ", Told("fd49", "read", True)),
        (23, "DELIVERY_FAILURE", Told("fd49", "delivery_failure, error 23", False)),
        (24, "EMULATED", Told("fd49", "emulated")),
        (100, "ROUTING_ERROR", Told("fd49", "routing_error, error 100", False)),
    ],
)
def test_clickatell_calls_back(network, code, status, told):
    other = {"channel": "sms", "messageId": "0815", "statusCode": 2, "status": "QUEUED", "timestamp": 1764000000000}
    update = {"channel": "sms", "messageId": "fd49", "statusCode": code, "status": status, "timestamp": 1764000000000}
    body = json.dumps({"integrationName": "bell", "event": {"messageStatusUpdate": [update, other]}}).encode()
    request = Request(body, {"content-type": "application/json"}, {"key": "sixteen-or-more-of-them"})
    assert list(sms(network, "clickatell", callback=KEYED).called_back(request)) == [told, Told("0815", "queued")]


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        (b'{"event": {"messageStatusUpdate": []}}', "another", 403),
        (b'{"event": {"messageStatusUpdate": {}}}', "sixteen-or-more-of-them", 422),
        (b'{"event": []}', "sixteen-or-more-of-them", 422),
        (b'{"event": {"messageStatusUpdate": [{"messageId": "fd49"}]}}', "sixteen-or-more-of-them", 422),
        (b'{"event": {"messageStatusUpdate": [3]}}', "sixteen-or-more-of-them", 422),
    ],
)
def test_what_clickatell_would_not_post(network, body, key, status):
    request = Request(body, {"content-type": "application/json"}, {"key": key})
    with pytest.raises(RequestError) as caught:
        list(sms(network, "clickatell", callback=KEYED).called_back(request))
    assert caught.value.status == status


def test_calls_that_nobody_asked_for_and_that_say_nothing(network):
    with pytest.raises(RequestError, match="no `callback`"):
        sms(network).called_back(signed({"MessageSid": "SM1", "MessageStatus": "sent"}))
    with pytest.raises(RequestError, match="MessageSid and MessageStatus are expected"):
        sms(network, callback=CALLBACK).called_back(signed({"MessageSid": "SM1"}))
    for body in (b"[]", b"null"):
        with pytest.raises(RequestError, match="object"):
            sms(network, "vonage", callback=KEYED).called_back(
                Request(body, {"content-type": "application/json"}, {"key": "sixteen-or-more-of-them"})
            )


def test_the_callback_of_twilio_is_understood_as_the_manual_says():
    body = b"MessageSid=SM1&MessageStatus=undelivered&To=%2B4915112345678&ErrorCode=30003"
    told = Http(HttpConfig.model_validate({"fields": {"title": "MessageStatus", "key": "MessageSid"}})).receive(
        Request(body, {"content-type": "application/x-www-form-urlencoded"})
    )
    ((title, key, data),) = [(one.title, one.key, one.data) for one in told]
    assert (title, key, data["To"], data["ErrorCode"]) == ("undelivered", "SM1", ANNA, "30003")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"phone": "0151-123"}, "1 of 2 receivers have it; 0151-123: a number is written with"),
        ({}, r"1 of 2 receivers have it; \{\{ labels\.phone \}\}: .*no labels\.phone"),
    ],
)
def test_a_number_that_is_none_keeps_nobody_else_from_it(network, labels, told):
    plugin, alert = sms(network, to=[ANNA, "{{ labels.phone }}"], memory=Recollection()), message(labels=labels)
    for _ in range(2):  # the second time as a redrive does it
        with pytest.raises(PermanentError, match=told):
            deliver(plugin, alert)
    assert network.went_out == {ANNA: ["disk full"]}
    assert len(plugin.preview(alert)["to"]) == 2


def test_a_number_that_is_none_and_nobody_else(network):
    plugin = sms(network, to=["{{ labels.phone }}"])
    for tried in (
        lambda: deliver(plugin, message(labels={"phone": "x"})),
        lambda: plugin.request(message(labels={"phone": "x"})),
    ):
        with pytest.raises(PermanentError, match="a number is written with"):
            tried()
    assert network.received == []


def test_nobody_is_named(network):
    with pytest.raises(PermanentError, match="names nobody"):
        deliver(sms(network, to=["{{ labels.phone | default('') }}"]), message())


def test_a_preview():
    shown = Sms(SmsConfig.model_validate(VONAGE | {"to": [ANNA, BERT]})).preview(message(title="t" * 200))
    assert shown == {"to": [ANNA, BERT], "text": "t" * 200, "parts": 2}


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (TWILIO, f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json"),
        (
            TWILIO | {"base_url": "https://api.dublin.ie1.twilio.com"},
            f"https://api.dublin.ie1.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json",
        ),
        (VONAGE, "https://rest.nexmo.com/sms/json"),
        (CLICKATELL, "https://platform.clickatell.com/v1/message"),
    ],
)
def test_where_it_goes(options, url):
    assert Sms(SmsConfig.model_validate(options | {"to": [ANNA]})).request(message()).url == url


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (TWILIO | {"to": []}, "names nobody"),
        (TWILIO | {"to": [4915112345678]}, "in quotes"),
        (TWILIO | {"to": ["0151 12345678"]}, "with . and its country"),
        (TWILIO | {"to": ["+49151123456789012"]}, "with . and its country"),
        (TWILIO | {"to": [ANNA], "max_parts": 11}, "less than or equal to 10"),
        ({"via": "twilio", "token": TOKEN, "to": [ANNA]}, "twilio needs account and from"),
        ({"via": "vonage", "token": TOKEN, "to": [ANNA], "account": "abcd1234"}, "vonage needs from"),
        (VONAGE | {"to": [ANNA], "key_sid": "SK1"}, "key_sid is for twilio"),
        (TWILIO | {"to": [ANNA], "callback": "bell.example.com/in"}, "begins with http:// or https:// is expected"),
        (TWILIO | {"to": [ANNA], "callback": CALLBACK, "key_sid": "SK1"}, "with key_sid it needs auth_token"),
        (VONAGE | {"to": [ANNA], "callback": f"{CALLBACK}?key=short"}, "its query needs 16 random characters"),
        (CLICKATELL | {"to": [ANNA], "callback": CALLBACK}, "its query needs 16 random characters"),
        (TWILIO | {"to": [ANNA], "via": "carrier-pigeon"}, "'twilio', 'vonage' or 'clickatell'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        SmsConfig.model_validate(options)


def test_a_callback_may_lead_into_a_private_network_as_the_service_posts_there(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("""producers: [http]
consumers:
  - sms: {via: vonage, account: a, token: made-up, from: Bell, to: ["+4915112345678"], callback: "http://10.0.0.7/in/sms/http"}
""")
    assert not check([path], networks=Networks()).problems


def test_whatever_is_answered_nothing_else_is_raised(network, service):
    plugin = sms(network, service)

    @given(
        st.sampled_from([200, 202, 400, 402, 429, 500]),
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.integers() | st.text(max_size=5) | st.booleans(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["messages", "error", "code", "status", "sid", "accepted"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
    def judge(status, body):
        with suppress(TemporaryError, PermanentError):
            plugin.check(status, {}, body)

    judge()
