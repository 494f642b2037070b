"""Telegram: through python-telegram-bot to a stand-in of the Bot API that enforces its limits."""

from __future__ import annotations

import json
import logging
import re
from html.parser import HTMLParser
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from werkzeug import Request, Response

from consumers.telegram import Telegram, TelegramConfig, split_html
from pipeline import Message, PermanentError, TemporaryError
from pipeline.engine.loop import run_on_loop
from pipeline.testing import ConsumerContract

pytestmark = pytest.mark.against("consumer telegram", "a server of our own that enforces the limits of the Bot API")

TOKEN = "123456:AAH-very-secret-token"  # a made-up one


class TestTelegram(ConsumerContract):
    plugin = Telegram
    options = {"token": TOKEN, "chat_id": "-100"}
    away_options = {"token": TOKEN, "chat_id": "-100", "base_url": "{url}"}


class BotApi:
    """What Telegram does with `sendMessage`, as far as a sender can tell."""

    def __init__(self):
        self.sent, self.answers = [], []

    def __call__(self, request: Request) -> Response:
        if request.path != f"/bot{TOKEN}/sendMessage":
            return self._error(404, "Not Found")
        form = dict(parse_qsl(request.get_data().decode()))
        if self.answers and (answer := self.answers.pop(0)) is not None:
            return self._error(*answer)
        if len(re.sub("<[^>]*>", "", form["text"]).encode("utf-16-le")) // 2 > 4096:
            return self._error(400, "Bad Request: message is too long")
        if not well_formed(form["text"]):
            return self._error(400, "Bad Request: can't parse entities")
        self.sent.append(form)
        chat = {"id": int(form["chat_id"]), "type": "group", "title": "x"}
        return self._json(200, {"ok": True, "result": {"message_id": 1, "date": 0, "chat": chat, "text": "x"}})

    def _error(self, status, text, **parameters):
        body = {"ok": False, "error_code": status, "description": text}
        return self._json(status, body | ({"parameters": parameters["parameters"]} if parameters else {}))

    @staticmethod
    def _json(status, body):
        return Response(json.dumps(body), status, content_type="application/json")


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.good = [], True

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        self.good = self.good and bool(self.open) and self.open.pop() == tag


def well_formed(text):
    balance = Balance()
    balance.feed(text)
    balance.close()
    return balance.good and not balance.open


@pytest.fixture
def api(httpserver):
    made = BotApi()
    httpserver.expect_request(re.compile("/.*")).respond_with_handler(made)
    return made


@pytest.fixture
def telegram(httpserver, api):
    made = []

    def make(**options):
        config = TelegramConfig(**{"token": TOKEN, "chat_id": -100, "base_url": httpserver.url_for("")} | options)
        plugin = Telegram(config)
        plugin.open()
        made.append(plugin)
        return lambda message: run_on_loop(plugin.consume(message), timeout=30)

    yield make
    for plugin in made:
        run_on_loop(plugin.aclose(), timeout=5)
        plugin.close()


def message(**fields):
    return Message(**{"source": "test", "title": "disk full"} | fields)


def test_title_text_and_link_are_sent_with_values_escaped(telegram, api):
    telegram()(message(title="a < b & c", text="it's <b>not</b> bold", url="https://x.example/?a=1&b=2"))
    (form,) = api.sent
    assert form["text"] == ("<b>a &lt; b &amp; c</b>\nit&#39;s &lt;b&gt;not&lt;/b&gt; bold\nhttps://x.example/?a=1&amp;b=2")
    assert (form["chat_id"], form["parse_mode"]) == ("-100", "HTML")
    assert json.loads(form["link_preview_options"]) == {"is_disabled": True}


def test_topic_silence_previews_and_an_own_text(telegram, api):
    telegram(topic=42, silent=True, previews=True, text="<i>{{ severity }}</i>")(message(severity="critical"))
    (form,) = api.sent
    assert (form["message_thread_id"], form["disable_notification"].lower(), form["text"]) == ("42", "true", "<i>critical</i>")


def test_a_long_text_goes_in_parts_that_are_well_formed(telegram, api):
    text = "\n".join(f"line {number}: <&> 😀 {'x' * 40}" for number in range(300))
    telegram(text="<b>{{ title }}</b>\n<pre>{{ text }}</pre>")(message(text=text))
    assert len(api.sent) > 3
    joined = "".join(form["text"] for form in api.sent)
    assert all(f"line {number}:" in joined for number in range(300))


def test_a_flood_wait_gives_the_message_back_with_the_wait(telegram, api):
    api.answers = [(429, "Too Many Requests")]
    api._error = lambda status, text: BotApi._json(
        status, {"ok": False, "error_code": 429, "description": text, "parameters": {"retry_after": 37}}
    )
    with pytest.raises(TemporaryError) as caught:
        telegram()(message())
    assert caught.value.retry_after == 37


def test_a_short_flood_wait_between_parts_is_waited_out(telegram, api):
    api.answers = [None, (429, "Too Many Requests")]
    api._error = lambda status, text: BotApi._json(
        status, {"ok": False, "error_code": 429, "description": text, "parameters": {"retry_after": 1}}
    )
    telegram()(message(text="word " * 1500))
    assert len(api.sent) == 2


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Bad Request: chat not found", PermanentError),
        (403, "Forbidden: bot was kicked from the group chat", PermanentError),
        (401, "Unauthorized", PermanentError),
        (500, "Internal Server Error", TemporaryError),
        (502, "Bad Gateway", TemporaryError),
        (409, "Conflict", TemporaryError),
    ],
)
def test_what_telegram_refuses(telegram, api, status, text, kind):
    api.answers = [(status, text)]
    with pytest.raises(kind) as caught:
        telegram()(message())
    assert TOKEN not in str(caught.value)


def test_a_group_that_moved_is_followed_once(telegram, api):
    def moved(status, text):
        body = {"ok": False, "error_code": 400, "description": text, "parameters": {"migrate_to_chat_id": -200}}
        return BotApi._json(status, body)

    api._error = moved
    api.answers = [(400, "Bad Request: group chat was upgraded")]
    telegram()(message())
    assert [form["chat_id"] for form in api.sent] == ["-200"]
    api.answers = [(400, "Bad Request: group chat was upgraded")] * 2
    with pytest.raises(PermanentError, match="moved more than once"):
        telegram()(message())


def test_a_dead_server_is_temporary_and_the_token_is_nowhere(telegram, httpserver, caplog):
    caplog.set_level(logging.DEBUG)
    send = telegram(base_url="http://127.0.0.1:9")
    with pytest.raises(TemporaryError) as caught:
        send(message())
    telegram()(message())
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(TelegramConfig(token=TOKEN, chat_id=1))
    assert TOKEN not in "".join(record.getMessage() for record in caplog.records if record.name != "werkzeug")


def test_an_empty_text_is_not_sent(telegram, api):
    with pytest.raises(PermanentError, match="empty"):
        telegram(text="{{ text }}")(message())


def test_options_are_checked():
    for wrong in ({"base_url": "ftp://x"}, {"topic": 0}, {"token": ""}, {"text": "{{ titel }}"}, {"chat": 1}):
        with pytest.raises(ValidationError):
            TelegramConfig(**{"token": TOKEN, "chat_id": 1} | wrong)


def test_a_preview_shows_what_would_be_sent():
    plugin = Telegram(TelegramConfig(token=TOKEN, chat_id=1))
    assert plugin.preview(message()) == {"chat_id": 1, "topic": None, "texts": ["<b>disk full</b>"]}


PIECES = st.lists(
    st.sampled_from(["<b>", "<i>", '<a href="x">', "</>", "&amp;", "&#39;", "word ", "😀", "line\n", "unbroken" * 9]), max_size=60
)


@given(PIECES, st.integers(80, 200))
def test_parts_are_well_formed_short_and_hold_the_whole_text(pieces, most):
    text, stack = "", []
    for piece in pieces:
        if piece == "</>":
            text += f"</{stack.pop()}>" if stack else ""
        elif piece.startswith("<"):
            name = piece[1]
            if len(stack) < 3:
                stack.append(name)
                text += piece
        else:
            text += piece
    text += "".join(f"</{name}>" for name in reversed(stack))
    parts = list(split_html(text, most))
    assert all(well_formed(part) for part in parts)
    assert all(len(part.encode("utf-16-le")) // 2 <= most for part in parts)
    plain = re.compile(r"<[^>]*>|\s")
    assert "".join(plain.sub("", part) for part in parts) == plain.sub("", text)
