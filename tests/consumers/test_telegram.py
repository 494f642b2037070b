"""Telegram: through python-telegram-bot to a stand-in of the Bot API that enforces its limits."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from werkzeug import Request, Response

from consumers.telegram import Telegram, TelegramConfig
from consumers.telegram.hours import SilentConfig
from consumers.telegram.html import plain, split_html
from pipeline import Message, PermanentError, TemporaryError
from pipeline.engine.loop import run_on_loop
from pipeline.networks import Networks
from pipeline.testing import ConsumerContract, Recollection

pytestmark = pytest.mark.against("consumer telegram", "a server of our own that enforces the limits of the Bot API")

TOKEN = "123456:AAH-very-secret-token"  # a made-up one


class TestTelegram(ConsumerContract):
    plugin = Telegram
    options = {"token": TOKEN, "chat_id": "-100"}
    away_options = {"token": TOKEN, "chat_id": "-100", "base_url": "{url}"}


class BotApi:
    """What Telegram does with what a bot sends, as far as a sender can tell. `now` moves only where a test moves it."""

    EACH_SECOND, EACH_MINUTE = 30, 20

    def __init__(self):
        self.now = 0.0
        self.sent, self.changed, self.posted, self.answers = [], [], {}, []
        self._times = []

    def __call__(self, request: Request) -> Response:
        method = request.path.removeprefix(f"/bot{TOKEN}/")
        if method == request.path:
            return self._error(404, "Not Found")
        form = dict(request.form) | {name: file.read() for name, file in request.files.items()}
        if self.answers and (answer := self.answers.pop(0)) is not None:
            return self._error(*answer)
        if (answer := self._limited(form)) is not None:
            return answer
        return getattr(self, f"_{method}")(form)

    def _limited(self, form):
        if "chat_id" not in form:
            return None
        self._times = [(when, chat) for when, chat in self._times if when > self.now - 60]
        minute = [when for when, chat in self._times if chat == form["chat_id"]]
        second = [when for when, _ in self._times if when > self.now - 1]
        wait = 1 if len(second) >= self.EACH_SECOND else 60 - (self.now - minute[0]) if len(minute) >= self.EACH_MINUTE else 0
        if wait:
            return self._flood(int(wait))
        self._times.append((self.now, form["chat_id"]))
        return None

    def _getMe(self, _form):  # noqa: N802 - the API's name
        bot = {"id": 1, "is_bot": True, "first_name": "Siftbell", "username": "siftbell_bot"}
        return self._json(200, {"ok": True, "result": bot})

    def _getChat(self, form):  # noqa: N802 - the API's name
        if form["chat_id"] == "-404":
            return self._error(400, "Bad Request: chat not found")
        more = {"accent_color_id": 1, "max_reaction_count": 1, "accepted_gift_types": dict.fromkeys(GIFTS, False)}
        return self._json(200, {"ok": True, "result": self._chat(form) | more})

    def _sendMessage(self, form):  # noqa: N802 - the API's name
        return self._refused(form.get("text", ""), 4096) or self._post(form, {"text": "x"})

    def _sendDocument(self, form):  # noqa: N802 - the API's name
        document = {"file_id": "f", "file_unique_id": "u"}
        return self._refused(form.get("caption", "-"), 1024) or self._post(form, {"document": document})

    def _editMessageText(self, form):  # noqa: N802 - the API's name
        posted = self.posted.get((form["chat_id"], form["message_id"]))
        if posted is None:
            return self._error(400, "Bad Request: message to edit not found")
        if "text" not in posted:
            return self._error(400, "Bad Request: there is no text in the message to edit")
        if posted["text"] == form["text"]:
            return self._error(400, "Bad Request: message is not modified: specified new message content …")
        if refused := self._refused(form["text"], 4096):
            return refused
        posted["text"] = form["text"]
        self.changed.append(form)
        return self._message(form, int(form["message_id"]), {"text": "x"})

    def _refused(self, html, most):
        plain = unescape(re.sub("<[^>]*>", "", html))
        if not plain.strip():
            return self._error(400, "Bad Request: message text is empty")
        if len(plain.encode("utf-16-le")) // 2 > most:
            return self._error(400, "Bad Request: message is too long")
        return None if well_formed(html) else self._error(400, "Bad Request: can't parse entities")

    def _post(self, form, shown):
        replied = json.loads(form.get("reply_parameters", "{}")).get("message_id")
        if replied is not None and (form["chat_id"], str(replied)) not in self.posted:
            return self._error(400, "Bad Request: message to be replied not found")
        number = len(self.sent) + 1
        self.sent.append(form)
        self.posted[form["chat_id"], str(number)] = form
        return self._message(form, number, shown)

    def _message(self, form, number, shown):
        return self._json(200, {"ok": True, "result": {"message_id": number, "date": 0, "chat": self._chat(form)} | shown})

    def _flood(self, wait):
        return self._error(429, f"Too Many Requests: retry after {wait}", retry_after=wait)

    def _error(self, status, text, **parameters):
        body = {"ok": False, "error_code": status, "description": text}
        return self._json(status, body | ({"parameters": parameters} if parameters else {}))

    @staticmethod
    def _chat(form):
        return {"id": int(form["chat_id"]), "type": "supergroup", "title": "on call"}

    @staticmethod
    def _json(status, body):
        return Response(json.dumps(body), status, content_type="application/json")


GIFTS = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")


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

    def make(memory=None, **options):
        config = TelegramConfig(**{"token": TOKEN, "chat_id": -100, "base_url": httpserver.url_for("")} | options)
        plugin = Telegram(config)
        plugin.memory = memory
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


def test_what_is_too_much_for_a_group_waits_as_telegram_asks(telegram, api):
    messages = [message(title=f"number {number}") for number in range(25)]
    send, waits = telegram(), []
    for each in messages:
        try:
            send(each)
        except TemporaryError as error:
            waits.append((each, error.retry_after))
    assert len(api.sent) == 20
    assert [wait for _, wait in waits] == [60] * 5
    api.now += 60
    for each, _ in waits:
        send(each)
    assert len(api.sent) == 25


def test_what_is_too_much_for_a_bot_waits_as_telegram_asks(telegram, api):
    waits = []
    for number in range(32):
        try:
            telegram(chat_id=-100 - number)(message())
        except TemporaryError as error:
            waits.append(error.retry_after)
    assert (len(api.sent), waits) == (30, [1, 1])


def test_a_short_flood_wait_between_parts_is_waited_out(telegram, api):
    api.EACH_SECOND = 1
    telegram = telegram()
    asked, answer = [], api._flood

    def flood(wait):
        asked.append(wait)
        api.now += wait
        return answer(wait)

    api._flood = flood
    telegram(message(text="word " * 1500))
    assert (len(api.sent), asked) == (2, [1])


def test_after_a_long_flood_wait_the_missing_part_is_sent_and_no_other_again(telegram, api):
    long = message(text=" ".join(f"word {number:04d}" for number in range(1250)))
    api.EACH_MINUTE = 2
    send = telegram(memory=Recollection())
    with pytest.raises(TemporaryError) as caught:
        send(long)
    assert (caught.value.retry_after, len(api.sent)) == (60, 2)
    api.now += 60
    send(long)
    assert len(api.sent) == 4
    assert len({form["text"] for form in api.sent}) == 4


def test_parts_that_cannot_be_remembered_are_sent_all_the_same(telegram, api):
    telegram(memory=Recollection(away={"remember"}))(message(text="word " * 1500))
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


def test_what_is_no_bot_api_is_tried_again(telegram, api):
    api._sendMessage = lambda _form: api._json(200, {})
    with pytest.raises(TemporaryError, match="no Bot API"):
        telegram()(message())


def test_a_group_that_moved_is_followed_once(telegram, api):
    error = api._error
    api._error = lambda status, text: error(status, text, migrate_to_chat_id=-200)
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
    hours = [{"outside": "8-20"}, {"outside": "08:00-25:00"}, {"outside": "08:00-20:00", "timezone": "Berlin"}, {"days": ["mon"]}]
    others = [{"base_url": "ftp://x"}, {"topic": 0}, {"token": ""}, {"text": "{{ titel }}"}, {"chat": 1}]
    for wrong in [*others, *({"silent": one} for one in hours)]:
        with pytest.raises(ValidationError):
            TelegramConfig(**{"token": TOKEN, "chat_id": 1} | wrong)


def test_a_preview_shows_what_would_be_sent():
    plugin = Telegram(TelegramConfig(token=TOKEN, chat_id=1))
    assert plugin.preview(message()) == {"chat_id": 1, "topic": None, "texts": ["<b>disk full</b>"]}


def reply(form):
    return json.loads(form.get("reply_parameters", "{}")).get("message_id")


def test_later_messages_of_a_key_answer_the_first(telegram, api):
    send = telegram(memory=Recollection())
    for status in ("firing", "firing", "resolved", "firing"):
        send(message(key="disk", status=status))
    send(message(key="other"))
    send(message())
    assert [reply(form) for form in api.sent] == [None, 1, 1, None, None, None]
    assert api.changed == []


def test_a_message_goes_to_the_chat_that_it_names_and_each_chat_has_its_thread(telegram, api):
    send = telegram(memory=Recollection(), chat_id="{{ labels.chat }} ", text="x" * 5000)
    for chat in ("7", "8", "7", "8"):
        send(message(key="disk", labels={"chat": chat}))
    assert [form["chat_id"] for form in api.sent] == [chat for chat in "7878" for _ in range(2)]
    assert [reply(form) for form in api.sent if reply(form)] == [1, 3]
    with pytest.raises(PermanentError, match="names no chat"):
        send(message(labels={"chat": " "}))
    with pytest.raises(PermanentError, match=r"the message has no labels\.chat"):
        send(message())


def test_later_messages_of_a_key_change_the_first(telegram, api):
    send = telegram(memory=Recollection(), follow_up="update")
    for title in ("90 %", "95 %", "95 %"):
        send(message(key="disk", title=title))
    assert len(api.sent) == 1
    assert [(form["message_id"], form["text"]) for form in api.changed] == [("1", "<b>95 %</b>")]
    assert api.changed[0]["parse_mode"] == "HTML"


def test_both_change_the_first_and_answer_it(telegram, api):
    send = telegram(memory=Recollection(), follow_up="both")
    send(message(key="disk", title="90 %"))
    send(message(key="disk", title="95 %"))
    assert [form["text"] for form in api.changed] == ["<b>95 %</b>"]
    assert [(form["text"], reply(form)) for form in api.sent[1:]] == [("<b>95 %</b>", 1)]


def test_nothing_is_followed_up_without_a_memory_or_where_it_is_not_wanted(telegram, api):
    for options in ({}, {"memory": Recollection(), "follow_up": "post"}):
        send = telegram(**options)
        send(message(key="disk"))
        send(message(key="disk"))
    assert [reply(form) for form in api.sent] == [None] * 4


@pytest.mark.parametrize("way", ["reply", "update", "both"])
def test_where_the_first_was_deleted_the_next_is_posted_anew(telegram, api, way):
    send = telegram(memory=Recollection(), follow_up=way)
    send(message(key="disk"))
    api.posted.clear()
    send(message(key="disk", title="95 %"))
    send(message(key="disk", title="97 %"))
    assert [reply(form) for form in api.sent[:2]] == [None, None]
    assert [reply(form) for form in api.sent[2:]] == ([] if way == "update" else [2])
    assert [form["message_id"] for form in api.changed] == ([] if way == "reply" else ["2"])


def test_what_does_not_fit_into_the_changed_message_is_an_answer(telegram, api):
    send = telegram(memory=Recollection(), follow_up="update")
    send(message(key="disk"))
    send(message(key="disk", text="word " * 1500))
    assert len(api.changed) == 1
    assert [reply(form) for form in api.sent] == [None, 1]


def test_where_the_first_is_deleted_between_two_attempts_the_message_is_posted_whole(telegram, api):
    send = telegram(memory=Recollection(), follow_up="update")
    send(message(key="disk"))
    long = message(key="disk", text=" ".join(f"word {number:04d}" for number in range(1250)))
    api.EACH_MINUTE = 3
    with pytest.raises(TemporaryError):
        send(long)
    assert (len(api.changed), len(api.sent)) == (1, 2)
    del api.posted["-100", "1"]
    api.EACH_MINUTE = 20
    send(long)
    assert [form["text"][:3] for form in api.sent].count("<b>") == 2, "its beginning was in the message that is gone"


@pytest.mark.timeout(20)
def test_a_link_that_does_not_end_loses_its_tag_and_not_its_text(telegram, api):
    telegram(text='<b><a href="{{ url }}">{{ title }}</a></b>\n{{ text }}')(
        message(text="90 %", url="https://x.example/?" + "a" * 4090)
    )
    assert [form["text"] for form in api.sent] == ["<b>disk full</b>\n90 %"]


def test_no_part_is_empty(telegram, api):
    telegram()(message(text="begin" + " " * 9000 + "end"))
    assert "".join(form["text"].strip()[-3:] for form in api.sent) == "ginend"


def test_a_long_text_as_a_file(telegram, api):
    text = "\n".join(f"line {number}: <&> 😀" for number in range(500))
    telegram(long="file", silent=True, topic=7)(message(title="a <b> title", text=text))
    (form,) = api.sent
    assert form["document"].decode() == f"a <b> title\n{text}"
    assert form["caption"].startswith("<b>a &lt;b&gt; title</b>\nline 0: &lt;&amp;&gt; 😀")
    assert (form["parse_mode"], form["disable_notification"].lower(), form["message_thread_id"]) == ("HTML", "true", "7")


def test_a_file_is_answered_and_not_changed(telegram, api):
    send = telegram(memory=Recollection(), long="file", follow_up="update")
    send(message(key="disk", text="word " * 1500))
    send(message(key="disk"))
    assert api.changed == []
    assert [reply(form) for form in api.sent] == [None, 1]


def test_a_messages_data_goes_along(telegram, api):
    telegram(data=True)(message(data={"labels": {"a": "b"}}))
    telegram(data=True)(message())
    text, data, alone = api.sent
    assert (text["text"], alone["text"]) == ("<b>disk full</b>", "<b>disk full</b>")
    assert json.loads(data["document"]) == {"labels": {"a": "b"}}
    assert reply(data) == 1


@pytest.mark.parametrize(
    ("options", "time", "silent"),
    [
        ({"outside": "08:00-20:00"}, "2026-11-21T07:59:00Z", True),
        ({"outside": "08:00-20:00"}, "2026-11-21T08:00:00Z", False),
        ({"outside": "08:00-20:00"}, "2026-11-21T19:59:00Z", False),
        ({"outside": "08:00-20:00"}, "2026-11-21T20:00:00Z", True),
        ({"outside": "08:00-24:00"}, "2026-11-21T23:59:00Z", False),
        ({"outside": "08:00-20:00", "timezone": "Asia/Tokyo"}, "2026-11-21T10:00:00Z", False),
        ({"outside": "08:00-20:00", "timezone": "Asia/Tokyo"}, "2026-11-21T12:00:00Z", True),
        ({"outside": "08:00-20:00", "timezone": "Europe/Berlin"}, "2026-07-21T06:30:00Z", False),
        ({"outside": "08:00-20:00", "timezone": "Europe/Berlin"}, "2026-11-21T06:30:00Z", True),
        ({"outside": "08:00-20:00", "days": ["mon", "fri"]}, "2026-11-20T12:00:00Z", False),
        ({"outside": "08:00-20:00", "days": ["mon", "fri"]}, "2026-11-21T12:00:00Z", True),
        ({"outside": "22:00-06:00"}, "2026-11-21T23:00:00Z", False),
        ({"outside": "22:00-06:00"}, "2026-11-21T05:00:00Z", False),
        ({"outside": "22:00-06:00"}, "2026-11-21T12:00:00Z", True),
        ({"outside": "22:00-06:00", "days": ["fri"]}, "2026-11-21T05:00:00Z", False),
        ({"outside": "22:00-06:00", "days": ["fri"]}, "2026-11-20T05:00:00Z", True),
        ({"outside": "08:00-20:00", "unless": 'severity == "critical"'}, "2026-11-21T03:00:00Z", False),
        ({"outside": "08:00-20:00", "unless": 'severity == "error"'}, "2026-11-21T03:00:00Z", True),
    ],
)
def test_hours(options, time, silent):
    hours = SilentConfig.model_validate(options)
    assert hours.holds(message(severity="critical"), datetime.fromisoformat(time)) is silent


def test_silence_by_the_hour_reaches_telegram(telegram, api):
    now = datetime.now(UTC)
    for days in ([("mon", "tue", "wed", "thu", "fri", "sat", "sun")[now.weekday() - 3]], None):
        options = {"outside": "00:00-24:00"} | ({"days": days} if days else {})
        telegram(silent=options)(message())
    assert [form["disable_notification"].lower() for form in api.sent] == ["true", "false"]


def test_a_probe_names_the_bot_and_the_chat(telegram, api, httpserver):
    def probed(**options):
        plugin = Telegram(TelegramConfig(**{"token": TOKEN, "chat_id": -100, "base_url": httpserver.url_for("")} | options))
        plugin.open()
        try:
            return run_on_loop(plugin.probe(), timeout=30)
        finally:
            run_on_loop(plugin.aclose(), timeout=5)

    assert probed() == "@siftbell_bot in on call"
    assert probed(chat_id="{{ labels.chat }}") == "@siftbell_bot"
    with pytest.raises(PermanentError, match="Chat not found"):
        probed(chat_id=-404)
    with pytest.raises(PermanentError, match="does not know the bot's token"):
        probed(token="1:another-token")
    assert api.sent == []


def test_it_keeps_to_the_networks_that_are_allowed(httpserver, api):
    plugin = Telegram(TelegramConfig(token=TOKEN, chat_id=-100, base_url=httpserver.url_for("")))
    plugin.networks = Networks()
    plugin.open()
    try:
        with pytest.raises(TemporaryError, match="is a loopback address; to allow it, add "):
            run_on_loop(plugin.consume(message()), timeout=30)
    finally:
        run_on_loop(plugin.aclose(), timeout=5)
    assert httpserver.log == []


def test_html_without_its_markup():
    assert plain("<b>a &lt; b</b> &amp; <a href='x'>&#39;c&#x1F600;</a>") == "a < b & 'c😀"


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
