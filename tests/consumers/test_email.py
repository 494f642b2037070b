"""Mail: against aiosmtpd, which refuses whom a test tells it to, moto's SES, and a stand-in of SendGrid with its schema."""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import json
import re
import ssl
import sys
import threading
import time
import warnings
from base64 import b64decode, b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import openpyxl
import pytest
from aiosmtpd.smtp import SMTP as SMTP_SERVER
from aiosmtpd.smtp import AuthResult
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from pydantic import ValidationError
from structlog.testing import capture_logs

from consumers.email import Email, EmailConfig
from filters.digest import Digest, DigestConfig
from pipeline import Attachment, ConfigError, Message, Opened, PermanentError, TemporaryError, attach, derived_id
from pipeline.aws.session import new_session
from pipeline.registry import MissingExtraError, Registry
from pipeline.testing import Answer, ConsumerContract, HttpConsumerContract, LoopbackServer, Recollection, sample_messages
from pipeline.testing.consumers import deliver, run

PASSWORD = "correct hörse"
ANNA, BERT, CLEO = "anna@example.com", "bert@example.com", "cleo@example.net"
SMTP = {"host": "127.0.0.1", "from": "Siftbell <bell@example.com>", "to": [ANNA]}
SENDGRID = {"via": "sendgrid", "token": "SG.a-made-up-key", "from": "Siftbell <bell@example.com>", "to": [ANNA]}
SES = {"via": "ses", "region": "eu-west-1", "from": "bell@example.com", "to": [ANNA]}


class Session(SMTP_SERVER):
    """aiosmtpd's side of one connection, which offers what the office does and counts what is said."""

    async def _handle_client(self):
        self.office.connections.append(self.office.greeting)
        if self.office.greeting:
            await self.push(self.office.greeting)
            self.transport.close()
            return
        await super()._handle_client()

    @property
    def office(self):
        return self.event_handler.office


class Office:
    """What a test's servers share: `went_in` has (receiver, mail) of each; `refusals` are answers by receiver, one an attempt."""

    def __init__(self):
        self.went_in, self.refusals, self.connections, self.said, self.greeting = [], {}, [], [], ""
        self.at_mail, self.at_data, self.pause = [], [], 0.0
        self.hide = set()

    # aiosmtpd's hooks

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802 - aiosmtpd's name
        session.host_name = hostname
        self.said.append(("EHLO", hostname, session.ssl is not None))
        return [line for line in responses if line[4:].split(" ")[0] not in self.hide]

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        self.said.append(("MAIL", address, options))
        if self.at_mail:
            return self.at_mail.pop(0)
        envelope.mail_from = address
        return "250 2.1.0 fine"

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's name
        waiting = self.refusals.get(address, [])
        refusal = waiting.pop(0) if waiting else None
        if refusal:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        await asyncio.sleep(self.pause)
        if self.at_data:
            answer = self.at_data.pop(0)
            if answer == "hang up":
                server.transport.abort()
                return "421 bye"
            return answer
        self.went_in += [(receiver, envelope.content) for receiver in envelope.rcpt_tos]
        return "250 2.0.0 Ok: queued as 4C2F"

    @property
    def office(self):
        return self

    # what tests ask

    @property
    def receivers(self):
        return [receiver for receiver, _ in self.went_in]

    def mail(self, number=-1):
        raw = self.went_in[number][1]
        assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
        assert b"\n" not in raw.replace(b"\r\n", b"")
        assert b"\r" not in raw.replace(b"\r\n", b"")
        return email.message_from_bytes(raw, policy=email.policy.default)


class Place:
    """A server that runs on a loop and a thread of its own."""

    def __init__(self, office, *, context=None, implicit=False, users=None, **options):
        self._office, self._users, self._loop = office, users, asyncio.new_event_loop()
        self._options = {"enable_SMTPUTF8": True} | options
        if context is not None and not implicit:
            self._options |= {"tls_context": context, "require_starttls": True}
        if users is not None:
            encrypted = context is not None
            self._options |= {"authenticator": self._known, "auth_required": True, "auth_require_tls": encrypted}
        listening = self._loop.create_server(self._session, "127.0.0.1", 0, ssl=context if implicit else None)
        self._server = self._loop.run_until_complete(listening)
        self.where = {"port": self._server.sockets[0].getsockname()[1]}
        self._thread = threading.Thread(target=self._loop.run_forever, name="smtp")
        self._thread.start()

    def _session(self):
        with warnings.catch_warnings():  # aiosmtpd warns of logins that are not encrypted
            warnings.simplefilter("ignore")
            return Session(self._office, loop=self._loop, **self._options)

    def _known(self, server, session, envelope, mechanism, credentials):
        good = (credentials.login.decode(), credentials.password.decode()) == self._users
        return AuthResult(success=good, handled=False)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def office():
    return Office()


@pytest.fixture
def place(office):
    """Make a server; all are stopped after the test."""
    made = []

    def make(**options):
        made.append(Place(office, **options))
        return made[-1].where

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def context(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "server.pem")
    return context


@pytest.fixture
def plugins():
    """Make opened plugins; all are closed after the test."""
    made = []

    def make(options, *, memory=None):
        plugin = Email(EmailConfig.model_validate(options))
        plugin.memory = memory
        plugin.open()
        made.append(plugin)
        return plugin

    yield make
    for plugin in made:
        plugin.close()


@pytest.fixture
def smtp(place, plugins):
    """Make a plugin that sends to a relay at hand."""
    where = place()

    def make(*, memory=None, **options):
        return plugins(SMTP | where | {"security": "none"} | options, memory=memory)

    return make


def message(**fields):
    return Message(**{"source": "test", "title": "disk full", "key": ""} | fields)


class TestSmtp(ConsumerContract):
    plugin = Email
    options = SMTP | {"user": "bell", "password": "a-made-up-password", "port": 9}
    away_options = options


class TestSendGrid(HttpConsumerContract):
    plugin = Email
    options = SENDGRID | {"base_url": "{url}"}


class TestSes(ConsumerContract):
    plugin = Email
    options = SES | {"base_url": "{url}"}
    away_options = options

    @pytest.fixture(autouse=True)
    def credentials(self, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUP")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-made-up-secret")


@pytest.mark.against("consumer email", "aiosmtpd with faults per receiver")
def test_a_mail_has_text_and_html(smtp, office):
    alert = sample_messages()[0]
    deliver(smtp(), alert)
    assert office.receivers == [ANNA]
    mail = office.mail()
    assert mail["From"] == "Siftbell <bell@example.com>"
    assert (mail["To"], mail["Subject"]) == (ANNA, "disk full on db-1")
    assert (mail["Auto-Submitted"], mail["X-Auto-Response-Suppress"]) == ("auto-generated", "All")
    assert (mail["Importance"], mail["X-Priority"]) == ("high", "1")
    assert abs(parsedate_to_datetime(mail["Date"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert mail.get_content_type() == "multipart/alternative"
    assert mail.get_body(("plain",)).get_content().replace("\r\n", "\n") == (
        "disk full on db-1\n\n2 % left\nof 100 GiB\n\nalertname: DiskFull\ninstance: db-1\nteam: db\n\n"
        "critical · http://prometheus:9090 · 2026-11-21 08:30:00 UTC\n\nhttp://prometheus:9090/graph\n"
    )
    html = mail.get_body(("html",)).get_content()
    assert '<a href="http://prometheus:9090/graph" rel="noopener noreferrer">disk full on db-1</a>' in html
    assert re.search(r"<h1 style=\"[^\"]*font-size: ?18px", html)
    assert "border-left-color:#d50f25" in html.replace(": ", ":")
    assert "2 % left<br>" in html
    assert "<style" not in html


def test_headers_of_your_own(smtp, office):
    headers = {"List-Id": "<{{ labels.team }}.example.com>", "x-priority": "5", "X-Empty": "{{ labels.none | default('') }}"}
    deliver(smtp(headers=headers), message(severity="critical", labels={"team": "db"}))
    mail = office.mail()
    assert (mail["List-Id"], mail.get_all("X-Priority"), mail["X-Empty"]) == ("<db.example.com>", ["5"], None)
    assert mail["Importance"] == "high"


def test_a_mail_of_nothing_much(smtp, office):
    deliver(smtp(), message(title="", status="resolved"))
    assert office.mail()["Subject"] == "Resolved: event from test"
    assert office.mail()["Importance"] is None


@pytest.mark.parametrize("number", range(5))
def test_every_message_arrives(smtp, office, number):
    deliver(smtp(), sample_messages()[number])
    mail = office.mail()
    text = mail.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert mail["Subject"]
    assert len(mail["Subject"]) <= 200
    assert "\x1b" not in text
    assert len(text) < 56_000


HOSTILE = "x\r\nBcc: eve@example.org\n\n<script>\u2028Bcc: eve@example.org\x85Bcc: eve@example.org\x0bBcc: e\x00\r.\r\nMAIL"


def test_no_header_can_be_slipped_in(smtp, office):
    plugin = smtp(
        to=["{{ labels.to }}"],
        subject="{{ title }}",
        headers={"X-Team": "{{ title }}", "List-Id": "<{{ labels.team }}>"},
        attachments=[{"name": "{{ title }}.txt", "content": "{{ title }}"}],
    )
    labels = {"to": f'"A\r\nBcc: eve@example.org" <{ANNA}>', "team": HOSTILE}
    deliver(plugin, message(title=HOSTILE, text=HOSTILE, labels=labels, url=HOSTILE, source=HOSTILE, key=HOSTILE))
    mail = office.mail()
    assert office.receivers == [ANNA]
    assert mail["Bcc"] is None
    assert mail["Cc"] is None
    assert len(office.said) == 2
    (file,) = mail.iter_attachments()
    assert "\n" not in file.get_filename()


@pytest.mark.parametrize(
    "injected",
    [
        "anna@example.com\r\nRCPT TO:<eve@example.org>",
        "a@b.de>\r\nDATA",
        "<a@b.de> <c@d.de>",
        "@",
        "a@",
        "a b@c.de",
        "a@b..de",
        "A: eve@example.org <a@b.de>",
    ],
)
def test_what_is_no_address_goes_nowhere(smtp, office, injected):
    with suppress(PermanentError):
        deliver(smtp(to=["{{ labels.to }}"]), message(labels={"to": injected}))
    assert office.receivers == []
    assert not any("RCPT" in str(said) or "DATA" in str(said) for said in office.said)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=st.text(max_size=300),
    text=st.text(max_size=2000),
    labels=st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=3),
)
def test_whatever_a_message_holds_it_is_one_mail(smtp, office, title, text, labels):
    plugin = smtp()
    deliver(plugin, message(title=title, text=text, labels=labels))
    mail = office.mail()
    assert sorted(mail.keys()) == sorted(
        [
            "Message-ID",
            "From",
            "To",
            "Subject",
            "Date",
            "Auto-Submitted",
            "X-Auto-Response-Suppress",
            "MIME-Version",
            "Content-Type",
        ]
    )
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    plugin.close()


def test_people_are_named_as_they_should_be(smtp, office):
    people = ['"Lovelace, Anna" <anna@example.com>; Bert Müller <bert@example.com>', "{{ labels.who }}", "ANNA@example.com"]
    deliver(
        smtp(to=people, cc=[CLEO], bcc=["dora@localhost", "Émil <emil@bücher.example>"], reply_to="Ops <ops@example.com>"),
        message(labels={"who": ""}),
    )
    assert office.receivers == [ANNA, BERT, CLEO, "dora@localhost", "emil@xn--bcher-kva.example"]
    mail = office.mail()
    assert [(one.display_name, one.addr_spec) for one in mail["To"].addresses] == [
        ("Lovelace, Anna", ANNA),
        ("Bert Müller", BERT),
    ]
    assert (mail["Cc"], mail["Bcc"], mail["Reply-To"]) == (CLEO, None, "Ops <ops@example.com>")
    assert len({raw for _, raw in office.went_in}) == 1
    assert b"dora" not in office.went_in[0][1]


def test_one_receiver_needs_no_list(smtp, office):
    deliver(smtp(to=f"{ANNA}, {BERT}"), message())
    assert office.receivers == [ANNA, BERT]


def test_who_is_not_shown_sees_nobody(smtp, office):
    deliver(smtp(to=["{{ labels.who }}"], bcc=[BERT]), message(labels={"who": ""}))
    assert office.mail()["To"] == "undisclosed-recipients:;"
    with pytest.raises(PermanentError, match="names nobody"):
        deliver(smtp(to=["{{ labels.who }}"]), message(labels={"who": " "}))


def test_html_of_your_own(smtp, office):
    html = (
        '<style>h1 { color: red }</style><link rel="stylesheet" href="http://127.0.0.1:9/x.css">'
        '<h1 class="warn" style="color: red; position: fixed; background: url(https://example.com/a)">{{ title }}</h1>'
        '{{ data.html | safe }}<img src="https://example.com/a.png" onerror="x()">'
    )
    evil = '<script>x()</script><a href="javascript:x()" onclick="x()">click</a><form action="/x"><input></form><iframe></iframe>'
    data = {"html": evil}
    deliver(smtp(html=html, text="only {{ title }}", css=".warn { margin: 3px }"), message(title="<b>&", data=data))
    assert office.mail().get_body(("plain",)).get_content().replace("\r\n", "\n") == "only <b>&\n"
    shown = office.mail().get_body(("html",)).get_content()
    assert "&lt;b&gt;&amp;" in shown
    assert re.search(r'<h1 class="warn" style="[^"]*color: ?red', shown)
    assert re.search(r"margin: ?3px", shown)
    assert not re.search("script|javascript|onclick|onerror|<form|<input|iframe|<link|<style|position|url", shown)


@pytest.mark.parametrize(
    "html", ["<b>" * 20_000, "<table><tr><td>" * 4000, "<div></b><b></i>" * 4000, "<div title='</div>'>" * 3000]
)
def test_html_that_is_nested_too_deeply_goes_as_text(smtp, office, html):
    deliver(smtp(html="{{ data.html | safe }}"), message(data={"html": html[:60_000]}))
    assert office.mail().get_content_type() == "text/plain"


BORNE = [
    Attachment("rows.csv", "text/csv", "größe;1\r\n".encode()),
    Attachment("rows.xlsx", "application/x-test", bytes(range(256))),
]


def test_files_that_a_message_bears_go_along(smtp, office):
    report = attach(message(title="a digest"), BORNE)
    deliver(smtp(), report)
    files = {part.get_filename(): part for part in office.mail().iter_attachments()}
    assert {name: part.get_content_type() for name, part in files.items()} == {one.name: one.type for one in BORNE}
    assert [part.get_payload(decode=True) for part in files.values()] == [one.content for one in BORNE]
    deliver(smtp(carried=False), report.replace(id=derived_id(report.id, "other")))
    assert [*office.mail().iter_attachments()] == []


def test_files_that_cannot_be_read_keep_nobody_from_being_told(smtp, office):
    broken = {"name": "<rows>.csv", "type": "text/csv", "base64": "%%"}
    plugin = smtp(attachments=[{"name": "a.txt", "content": "a"}])
    deliver(plugin, message(title="disk full", text="97 %", data={"attachments": [broken]}))
    mail = office.mail()
    why = "The files that came with it were left out: attachments: _rows_.csv is not base64."
    assert mail["Subject"] == "disk full"
    assert [part.get_filename() for part in mail.iter_attachments()] == ["a.txt"]
    assert all(mail.get_body((kind,)).get_content().count(why) == 1 for kind in ("plain", "html"))


def test_a_digest_s_spreadsheet_arrives(smtp, office):
    came = [message(title=f"job {number % 2}", data={"seconds": number}) for number in range(5)]
    digest = Digest(DigestConfig(within="1h", attach=["xlsx"], columns=["title", "data.seconds"]))
    at = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    (report,) = digest.release(Opened(key="", messages=came, kept=None, due=at, now=at, memory=Recollection()))
    deliver(smtp(), report)
    (file,) = office.mail().iter_attachments()
    assert (office.mail()["Subject"], file.get_filename()) == ("5 messages", "digest-2026-11-21-0830.xlsx")
    book = openpyxl.load_workbook(io.BytesIO(file.get_payload(decode=True)))
    assert {sheet.title: [row[1] for row in sheet.values] for sheet in book.worksheets} == {
        "job 0": ["seconds", 0, 2, 4],
        "job 1": ["seconds", 1, 3],
    }


def test_attachments(smtp, office):
    attachments = [
        {"name": "rows of {{ title }}/ü.csv", "content": "{{ data.csv }}"},
        {"name": "chart.png", "content": "{{ data.chart }}", "base64": True},
        {"name": "none.txt", "content": "{{ data.none | default('') }}"},
        {"name": "blob", "content": "x", "type": "application/x-blob"},
        {"name": "big.txt", "content": "{{ data.big }}"},
    ]
    png = bytes(range(256))
    data = {"csv": "a;b\nü;2\n", "chart": b64encode(png).decode(), "big": "b" * 300_000}
    alert = message(data=data)
    deliver(smtp(attachments=attachments, attach_message=True), alert)
    files = {part.get_filename(): part for part in office.mail().iter_attachments()}
    assert [*files] == ["message.json", "rows of disk full_ü.csv", "chart.png", "blob", "big.txt"]
    assert json.loads(files["message.json"].get_content())["id"] == alert.id
    assert files["rows of disk full_ü.csv"].get_content() == "a;b\nü;2\n"
    assert (files["chart.png"].get_content_type(), files["chart.png"].get_content()) == ("image/png", png)
    assert files["blob"].get_content_type() == "application/x-blob"
    with pytest.raises(PermanentError, match=r"chart\.png is not base64"):
        deliver(smtp(attachments=attachments[1:2]), message(data={"chart": "%%"}))


@pytest.mark.parametrize(
    "value", ["x, eve@example.org", "eve@example.org, x", "eve@example.org; x", 'eve@example.org "', "x> <eve@example.org"]
)
def test_a_value_within_an_address_adds_nobody(smtp, office, value):
    written = [
        "{{ labels.who }} <anna@example.com>",
        "{{ labels.who }}@{{ labels.at }}",
        f"{BERT}, {{{{ labels.who }}}} <x@y.de>",
    ]
    with pytest.raises(PermanentError, match=r"[12] of [45] receivers have it"):
        deliver(smtp(to=[*written, CLEO]), message(labels={"who": value, "at": "example.com"}))
    assert {*office.receivers} <= {CLEO, BERT}


@pytest.mark.parametrize(
    "written",
    [
        "{{ labels.who }}",
        "anna@example.com, {{ labels.two }}",
        "{% for name in labels.who.split(',') %}{{ name }};{% endfor %}",
        "{{ labels.name }} <anna@example.com>, {{ labels.two }}",
    ],
)
def test_a_template_may_name_several(smtp, office, written):
    labels = {"who": "anna@example.com, bert@example.com", "two": "bert@example.com", "name": "Anna"}
    deliver(smtp(to=[written]), message(labels=labels))
    assert office.receivers == [ANNA, BERT]


# who has it


BUSY, GONE = "451 4.7.1 greylisted", "550 5.1.1 no such user"


def test_who_has_it_gets_no_second_one(smtp, office):
    office.refusals = {BERT: [BUSY] * 2}
    memory, alert = Recollection(), message()
    made = [smtp(to=[ANNA, BERT, CLEO], memory=memory) for _ in range(3)]  # as three workers have them
    for plugin in made[:2]:
        with pytest.raises(
            TemporaryError, match=r"^2 of 3 receivers have it; bert@example\.com: SMTP .* 451 4\.7\.1 greylisted$"
        ):
            deliver(plugin, alert)
    deliver(made[2], alert)
    assert office.receivers == [ANNA, CLEO, BERT]
    assert len({office.mail(number)["Message-ID"] for number in range(3)}) == 1
    assert office.mail()["To"] == f"{ANNA}, {BERT}, {CLEO}"


@pytest.mark.against("consumer email", "aiosmtpd with faults per receiver")
def test_refusals_are_told_when_all_others_have_it(smtp, office):
    office.refusals = {ANNA: [GONE] * 3, BERT: [BUSY]}
    plugin, alert = smtp(to=[ANNA, BERT, CLEO, "{{ labels.phone }}"], memory=Recollection()), message(labels={"phone": "123"})
    with pytest.raises(TemporaryError, match="1 of 4"):
        deliver(plugin, alert)
    for _ in range(2):  # the second time as a redrive does it
        with pytest.raises(
            PermanentError, match=r"2 of 4 receivers have it; 123: an address is written .*; anna@.* 550 5\.1\.1 no such user"
        ):
            deliver(plugin, alert)
    assert office.receivers == [CLEO, BERT]


def test_when_nobody_gets_it_nothing_is_remembered(smtp, office):
    office.refusals = {ANNA: [GONE], BERT: [GONE]}
    memory = Recollection()
    plugin = smtp(to=[ANNA, BERT], memory=memory)
    with pytest.raises(PermanentError, match="0 of 2"):
        deliver(plugin, message(key="k"))
    assert memory._texts == {}
    deliver(plugin, message(key="k"))
    assert office.mail()["In-Reply-To"] is None


def test_what_is_refused_after_data_is_refused_for_those_it_was_for(smtp, office):
    office.refusals, office.at_data = {BERT: [BUSY]}, ["554 5.7.1 spam"]
    with pytest.raises(TemporaryError, match=r"0 of 2 .*(554 5\.7\.1 spam.*greylisted|greylisted.*554 5\.7\.1 spam)"):
        deliver(smtp(to=[ANNA, BERT], memory=Recollection()), message())


def test_a_memory_that_is_away(smtp, office):
    with pytest.raises(TemporaryError, match="the memory is away"):
        deliver(smtp(to=[ANNA, BERT], memory=Recollection(away=["recall", "remember"])), message())
    assert office.receivers == []
    office.refusals = {BERT: [BUSY]}
    with capture_logs() as lines, pytest.raises(TemporaryError, match="1 of 2"):
        deliver(smtp(to=[ANNA, BERT], memory=Recollection(away=["remember"])), message())
    assert [line["log_level"] for line in lines] == ["info", "warning"]


# threads


def test_later_messages_of_a_key_answer_the_first(smtp, office):
    plugin = smtp(memory=Recollection())
    for fields in ({}, {"title": "disk fuller"}, {"status": "resolved"}, {"title": "again"}):
        deliver(plugin, message(**{"key": "disk"} | fields))
    mails = [office.mail(number) for number in range(4)]
    first = mails[0]["Message-ID"]
    assert [mail["Subject"] for mail in mails] == ["disk full", "Re: disk full", "Re: disk full", "again"]
    assert [mail["In-Reply-To"] for mail in mails] == [None, first, first, None]
    thread = mails[0]["References"]
    assert [mail["References"] for mail in mails[1:3]] == [f"{thread} {first}"] * 2
    assert mails[3]["References"] not in (None, thread)
    assert len({mail["Message-ID"] for mail in mails}) == 4
    assert "Resolved: disk full" in mails[2].get_body(("plain",)).get_content().replace("\r\n", "\n")


def test_threads_that_are_not_wanted(smtp, office):
    plugin = smtp(memory=Recollection(), threads=False)
    for status in ("firing", "resolved"):
        deliver(plugin, message(key="disk", status=status))
    assert [office.mail(number)["Subject"] for number in (0, 1)] == ["disk full", "Resolved: disk full"]
    assert office.mail()["References"] is None


@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_who_gets_it_later_has_the_same_thread(smtp, office, status):
    plugin = smtp(to=[ANNA, BERT], memory=Recollection())
    deliver(plugin, message(key="disk"))
    office.refusals = {BERT: [BUSY]}
    later = message(key="disk", status=status)
    with pytest.raises(TemporaryError):
        deliver(plugin, later)
    deliver(plugin, later)
    assert office.receivers == [ANNA, BERT, ANNA, BERT]
    told = [[office.mail(number)[name] for name in ("Subject", "References", "In-Reply-To", "Message-ID")] for number in (2, 3)]
    assert told[0] == told[1]
    assert told[0][0] == "Re: disk full"


def test_a_message_id_is_of_the_message_and_of_the_step(smtp, office):
    alert = message(key="disk")
    for options in ({}, {}, {"to": [BERT]}):
        deliver(smtp(**options), alert)
    ids = [office.mail(number)["Message-ID"] for number in range(3)]
    assert ids[0] == ids[1] != ids[2]
    assert re.fullmatch(rf"<{alert.id}\.[0-9a-f]{{8}}@example\.com>", ids[0])


def test_long_ids_stay_as_they_are(smtp, office):
    domain = ".".join(["d" * 60] * 3)
    plugin = smtp(memory=Recollection(), **{"from": f"bell@{domain}"})
    for _ in range(2):
        deliver(plugin, message(key="disk"))
    assert office.mail()["In-Reply-To"] == office.mail(0)["Message-ID"]
    assert b"In-Reply-To: <" in office.went_in[-1][1]


# what a server says


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("421 4.3.2 closing", TemporaryError),
        ("450 4.2.0 greylisted", TemporaryError),
        ("451 local error", TemporaryError),
        ("452 4.5.3 too many recipients", TemporaryError),
        ("552 too many recipients", TemporaryError),
        ("552 5.5.3 too many recipients", TemporaryError),
        ("550 4.4.1 wrong but soft", TemporaryError),
        ("550 5.4.5 daily limit exceeded", TemporaryError),
        ("550 5.1.1 no such user", PermanentError),
        ("550 no such user", PermanentError),
        ("552 5.2.2 mailbox full", PermanentError),
        ("553 5.1.3 bad address", PermanentError),
        ("554 5.7.1 relay access denied", PermanentError),
        ("550 5.4.1 access denied", PermanentError),
    ],
)
@pytest.mark.against("consumer email", "aiosmtpd with faults per receiver")
def test_what_a_server_answers_to_a_receiver(smtp, office, answer, kind):
    office.refusals = {ANNA: [answer]}
    plugin = smtp()
    with pytest.raises(kind, match=re.escape(answer)) as caught:
        deliver(plugin, message())
    assert type(caught.value) is kind
    deliver(plugin, message())
    assert office.receivers == [ANNA]


@pytest.mark.parametrize(
    ("where", "answer", "kind"),
    [
        ("at_mail", "451 4.3.0 later", TemporaryError),
        ("at_mail", "421 4.7.0 closing", TemporaryError),
        ("at_mail", "550 5.7.1 sender refused", PermanentError),
        ("at_mail", "552 5.3.4 too large", PermanentError),
        ("at_data", "451 4.3.0 later", TemporaryError),
        ("at_data", "552 5.3.4 too large", PermanentError),
        ("at_data", "554 5.6.0 no", PermanentError),
        ("at_data", "hang up", TemporaryError),
        ("greeting", "554 5.3.2 no service for you", PermanentError),
        ("greeting", "421 4.3.2 too many connections", TemporaryError),
    ],
)
def test_what_a_server_answers_to_a_mail(smtp, office, where, answer, kind):
    setattr(office, where, answer if where == "greeting" else [answer])
    plugin = smtp()
    with pytest.raises(kind) as caught:
        deliver(plugin, message())
    assert type(caught.value) is kind
    assert office.went_in == []
    office.greeting = ""
    deliver(plugin, message())
    assert office.receivers == [ANNA]


def test_an_error_is_one_line_without_controls(smtp, office):
    office.refusals = {ANNA: ["550-5.1.1 no\r\n550 \x1b[31m" + "x" * 400]}
    with pytest.raises(PermanentError) as caught:
        deliver(smtp(), message())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_server_that_takes_too_long(smtp, office, monkeypatch):
    monkeypatch.setattr("consumers.email.PATIENCE", 0.3)
    office.pause = 1.0
    with pytest.raises(TemporaryError, match="no answer in time"):
        deliver(smtp(), message())


# connections


def test_connections_are_kept_and_shared(smtp, office):
    plugin = smtp(connections=3)

    async def many():
        for _ in range(2):
            await plugin.consume(message())
        assert len(office.connections) == 1
        await asyncio.gather(*(plugin.consume(message()) for _ in range(30)))

    run(plugin, many())
    assert len(office.went_in) == 32
    assert len(office.connections) <= 3


def test_a_connection_that_was_closed_meanwhile_is_made_anew(office, place, plugins):
    where = place(timeout=0.2)
    plugin = plugins(SMTP | where | {"security": "none"})

    async def with_a_pause():
        await plugin.consume(message())
        await asyncio.sleep(0.5)
        await plugin.consume(message())

    run(plugin, with_a_pause())
    assert len(office.went_in) == len(office.connections) == 2


def test_a_connection_carries_so_many_mails(smtp, office, monkeypatch):
    monkeypatch.setattr("consumers.email.smtp._MAILS", 2)
    plugin = smtp()

    async def five():
        for _ in range(5):
            await plugin.consume(message())

    run(plugin, five())
    assert (len(office.went_in), len(office.connections)) == (5, 3)


# encryption and login


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_encrypted_login(office, place, plugins, context, certificate, security):
    where = place(context=context, implicit=security == "tls", users=("bell", PASSWORD)) if security == "starttls" else None
    where = where or place(context=context, implicit=True)
    login = {"user": "bell", "password": PASSWORD} if security == "starttls" else {}
    options = SMTP | where | login | {"security": security, "ca_file": certificate / "ca.pem", "helo": "bell.example.com"}
    deliver(plugins(options), message())
    assert office.receivers == [ANNA]
    assert office.said[-2][:2] == ("EHLO", "bell.example.com")


@pytest.mark.parametrize("hidden", [set(), {"AUTH"}])
def test_login_by_plain_or_login(office, place, plugins, hidden):
    where = place(users=("bell", PASSWORD), auth_exclude_mechanism=["PLAIN"] if not hidden else [])
    plugin = plugins(SMTP | where | {"user": "bell", "password": PASSWORD, "security": "none"})
    office.hide = hidden
    if hidden:
        with pytest.raises(PermanentError, match="offers no login by PLAIN or LOGIN; see `security`"):
            deliver(plugin, message())
    else:
        deliver(plugin, message())
        assert office.receivers == [ANNA]


def test_a_wrong_password_is_told_without_it(office, place, plugins):
    where = place(users=("bell", PASSWORD))
    with pytest.raises(PermanentError, match=r"535 5\.7\.8.*see `user` and `password`") as caught:
        deliver(plugins(SMTP | where | {"user": "bell", "password": "wrong password", "security": "none"}), message())
    assert "wrong" not in str(caught.value)
    with pytest.raises(PermanentError, match=r"530 .*; see `user`"):
        deliver(plugins(SMTP | where | {"security": "none"}), message())


def test_a_server_that_repeats_what_it_does_not_know(plugins):
    plugin = plugins(SMTP | {"user": "bell", "password": "a-made-up-password"})
    for secret in (
        "a-made-up-password",
        b64encode(b"\0bell\0a-made-up-password").decode(),
        b64encode(b"a-made-up-password").decode(),
    ):
        assert str(plugin._server._judged(500, f"unknown: AUTH {secret}".encode())).endswith("unknown: AUTH ***")


def test_a_certificate_of_nobody_known(office, place, plugins, context):
    for security in ("starttls", "tls"):
        where = place(context=context, implicit=security == "tls")
        with pytest.raises(TemporaryError, match="the certificate does not hold: "):
            deliver(plugins(SMTP | where | {"security": security}), message())
    assert office.went_in == []


def test_without_starttls_nothing_is_said(office, place, plugins):
    with pytest.raises(TemporaryError, match="offers no STARTTLS; write `security: tls`, or `none`"):
        deliver(plugins(SMTP | place() | {"user": "bell", "password": PASSWORD}), message())
    assert [said[0] for said in office.said] == ["EHLO"]


def test_a_ca_file_that_is_none(plugins, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for path in ("ca.pem", "none.pem"):
        with pytest.raises(ConfigError, match="ca_file holds no certificates"):
            Email(EmailConfig.model_validate(SMTP | {"ca_file": tmp_path / path})).open()


# sizes and addresses beyond ASCII


def test_a_mail_that_is_too_large(office, place, plugins):
    where = place(data_size_limit=40_000)
    options = SMTP | where | {"security": "none", "attachments": [{"name": "a.txt", "content": "{{ data.big | default('') }}"}]}
    deliver(plugins(options), message(data={"big": "x" * 50_000}))
    assert [*office.mail().iter_attachments()] == []
    assert "1 attached file(s) left out" in office.mail().get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert "1 attached file(s) left out" in office.mail().get_body(("html",)).get_content()
    deliver(plugins(options), message(text="ü" * 50_000))
    text = office.mail().get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert text.endswith("The rest was cut: the server takes no more.\n")
    assert 4_000 < len(text) < 5_100
    assert all("SIZE=" in said[2][0] for said in office.said if said[0] == "MAIL")


@pytest.mark.parametrize("able", [True, False])
def test_smtputf8(office, place, plugins, able):
    where = place(enable_SMTPUTF8=able)
    plugin = plugins(SMTP | where | {"security": "none", "to": [ANNA, "bärt@exämple.com"]}, memory=Recollection())
    if able:
        deliver(plugin, message(title="größer"))
        assert office.receivers == [ANNA, "bärt@xn--exmple-cua.com"]
        assert "SMTPUTF8" in office.said[-1][2]
        assert "bärt@xn--exmple-cua.com".encode() in office.went_in[0][1]
        assert office.mail()["Subject"] == "größer"
    else:
        with pytest.raises(PermanentError, match=r"1 of 2 .*bärt@.* takes no addresses but in ASCII \(no SMTPUTF8\)"):
            deliver(plugin, message())
        assert (office.receivers, office.mail()["To"]) == ([ANNA], ANNA)


# SES


@pytest.fixture(scope="module")
def amazon():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def ses(amazon, plugins, monkeypatch):
    from moto.ses.models import ses_backends

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-made-up-secret")
    for backends in ses_backends.values():
        for backend in backends.values():
            backend.reset()
    client = new_session().create_client("sesv2", region_name="eu-west-1", endpoint_url=amazon)
    client.create_email_identity(EmailIdentity="bell@example.com")  # moto answered 500 to one of two that came first at once
    yield lambda **options: plugins(SES | {"base_url": amazon} | options, memory=Recollection())
    client.close()


def sent_by_moto():
    from moto.ses.models import ses_backends

    return [sent for backends in ses_backends.values() for sent in backends["eu-west-1"].sent_messages]


@pytest.mark.against("consumer email", "moto server 5 (SES)")
def test_ses(ses):
    deliver(
        ses(to=[ANNA, "Bert <bert@example.com>"], attach_message=True), attach(message(title="größer", text="ü" * 100), BORNE)
    )
    sent = sorted(sent_by_moto(), key=lambda one: one.destinations[0])
    assert [one.destinations[0] for one in sent] == [ANNA, BERT]  # moto adds those of the headers, which SES does not
    mail = email.message_from_string(sent[0].raw_data, policy=email.policy.default)
    assert (mail["Subject"], mail["To"]) == ("größer", f"{ANNA}, Bert <{BERT}>")
    assert [part.get_filename() for part in mail.iter_attachments()] == ["message.json", "rows.csv", "rows.xlsx"]


@pytest.mark.against("consumer email", "moto server 5 (SES)")
def test_ses_refuses_a_sender_that_is_not_verified(ses):
    with pytest.raises(PermanentError, match=r"SES answered 400 MessageRejected: Did not have authority"):
        deliver(ses(**{"from": "eve@example.org"}), message())
    with pytest.raises(PermanentError, match=r"1 of 2 receivers have it; bärt@example\.com: ses takes no addresses but in ASCII"):
        deliver(ses(to=[ANNA, "bärt@example.com"]), message())


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "TooManyRequestsException", TemporaryError),
        (400, "SendingPausedException", TemporaryError),
        (400, "LimitExceededException", TemporaryError),
        (403, "ExpiredTokenException", TemporaryError),
        (500, "InternalFailure", TemporaryError),
        (503, "ServiceUnavailable", TemporaryError),
        (400, "AccountSuspendedException", PermanentError),
        (400, "MailFromDomainNotVerifiedException", PermanentError),
        (400, "MessageRejected", PermanentError),
        (403, "AccessDeniedException", PermanentError),
    ],
)
def test_what_ses_answers(plugins, monkeypatch, status, code, kind):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-made-up-secret")
    with LoopbackServer() as server:
        server.answer = Answer(status, {"x-amzn-errortype": code}, json.dumps({"message": "no\nmore"}).encode())
        with pytest.raises(kind, match=f"SES answered {status} {code}: no more"):
            deliver(plugins(SES | {"base_url": server.url}), message())
        assert len(server.received) == 1


def test_ses_without_credentials_or_region(plugins, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(TemporaryError, match="Unable to locate credentials"):
        deliver(plugins(SES | {"base_url": "http://127.0.0.1:9"}), message())
    with pytest.raises(ConfigError, match="Give `region`"):
        plugins({name: value for name, value in SES.items() if name != "region"})


# SendGrid


class SendGrid(LoopbackServer):
    """SendGrid's `mail/send`, with the rules of its reference; `mails` has what it took."""

    def __init__(self):
        super().__init__()
        self.mails = []

    def next_answer(self, request):
        answer = super().next_answer(request)
        if answer.status != 200:
            return answer
        wrong = self.wrong(request)
        if wrong:
            return Answer(wrong[0], body=json.dumps({"errors": [{"message": wrong[1], "field": None, "help": None}]}).encode())
        return Answer(202, {"X-Message-Id": "14c5d75ce93"})

    def wrong(self, request):
        if request.headers.get("authorization") != "Bearer SG.a-made-up-key":
            return 401, "The provided authorization grant is invalid, expired, or revoked"
        if (request.method, request.path) != ("POST", "/v3/mail/send") or request.headers["content-type"] != "application/json":
            return 404, "not found"
        if len(request.body) > 30_000_000:
            return 413, "too large"
        mail = json.loads(request.body)
        broken = [rule for rule, holds in self.rules(mail) if not holds]
        if broken:
            return 400, broken[0]
        self.mails.append(mail)
        return None

    def rules(self, mail):
        known = {"personalizations", "from", "reply_to", "subject", "content", "attachments", "headers", "tracking_settings"}
        yield "Additional property is not allowed", mail.keys() <= known
        yield "You must have at least one personalization.", 1 <= len(mail["personalizations"]) <= 1000
        everybody = []
        for block in mail["personalizations"]:
            people = [one["email"] for name in ("to", "cc", "bcc") for one in block.get(name, [])]
            yield "The to array is required, and must have at least one email object", block.get("to") and all(block.values())
            yield "Does not contain a valid address.", all(re.fullmatch(r"[^@\s]+@[^@\s]+", one) for one in people)
            everybody += [one.lower() for one in people]
        yield "Each unique email address should only be included once.", len({*everybody}) == len(everybody) <= 1000
        kinds = [one["type"] for one in mail["content"]]
        yield "text/plain comes first, then text/html", kinds in (["text/plain"], ["text/plain", "text/html"])
        yield "The content value must be at least one character in length.", all(one["value"] for one in mail["content"])
        yield "The subject is required.", mail["subject"]
        reserved = {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding"}
        reserved |= {"to", "from", "subject", "reply-to", "cc", "bcc"}
        yield "A header is reserved.", not {name.lower() for name in mail["headers"]} & reserved
        yield "The headers are too large.", sum(map(len, mail["headers"].values())) <= 10_000
        for file in mail.get("attachments", []):
            yield "An attachment has a field that none has.", file.keys() == {"content", "filename", "type", "disposition"}
            yield "The type may not contain ';', ',', or CRLF.", not re.search(r"[;,\s]", file["type"])
            yield "The content is base64.", b64encode(b64decode(file["content"])).decode() == file["content"]


@pytest.fixture
def sendgrid():
    with SendGrid() as server:
        yield server


@pytest.mark.against("consumer email", "a server of our own that checks SendGrid's schema")
def test_sendgrid(sendgrid, plugins):
    people = {"to": [ANNA, "Bert <bert@example.com>"], "cc": [CLEO], "bcc": ["dora@example.com"], "reply_to": "ops@example.com"}
    extra = {"attachments": [{"name": "a.csv", "content": "a,b"}], "headers": {"List-Id": "<ops.example.com>"}}
    plugin = plugins(SENDGRID | {"base_url": sendgrid.url} | people | extra, memory=Recollection())
    for title in ("disk full", "disk fuller"):
        deliver(plugin, attach(message(title=title, key="disk"), BORNE[:1]))
    first, second = sendgrid.mails
    assert first["personalizations"] == [
        {
            "to": [{"email": ANNA}, {"email": BERT, "name": "Bert"}],
            "cc": [{"email": CLEO}],
            "bcc": [{"email": "dora@example.com"}],
        }
    ]
    assert (first["from"], first["reply_to"]) == ({"email": "bell@example.com", "name": "Siftbell"}, {"email": "ops@example.com"})
    borne = {
        "content": b64encode(BORNE[0].content).decode(),
        "filename": "rows.csv",
        "type": "text/csv",
        "disposition": "attachment",
    }
    assert first["attachments"] == [borne, borne | {"content": "YSxi", "filename": "a.csv"}]
    assert (first["headers"]["Auto-Submitted"], first["headers"]["List-Id"]) == ("auto-generated", "<ops.example.com>")
    assert second["subject"] == "Re: disk full"
    assert second["headers"]["In-Reply-To"] == first["headers"]["Message-ID"]


@pytest.mark.parametrize("number", range(5))
def test_sendgrid_takes_every_message(sendgrid, plugins, number):
    deliver(plugins(SENDGRID | {"base_url": sendgrid.url}), sample_messages()[number])
    assert len(sendgrid.mails) == 1


def test_a_text_of_nothing_is_none(sendgrid, plugins):
    deliver(plugins(SENDGRID | {"base_url": sendgrid.url, "text": " {{ text }}", "subject": "{{ text }}"}), message())
    assert sendgrid.mails[0]["subject"] == "disk full"
    assert sendgrid.mails[0]["content"][0]["value"].startswith("disk full\n\ntest")


def test_sendgrid_has_mails_to_nobody_but_those_unseen(sendgrid, plugins):
    options = {"base_url": sendgrid.url, "to": ["{{ labels.who }}"], "bcc": [ANNA, BERT]}
    deliver(plugins(SENDGRID | options), message(labels={"who": ""}))
    assert sendgrid.mails[0]["personalizations"] == [{"to": [{"email": ANNA}]}, {"to": [{"email": BERT}]}]


def test_sendgrid_takes_what_others_are_refused(sendgrid, plugins):
    plugin = plugins(SENDGRID | {"base_url": sendgrid.url, "to": [ANNA, "{{ labels.who }}"]}, memory=Recollection())
    for alert in [message(labels={"who": "nobody"})] * 2:
        with pytest.raises(PermanentError, match="1 of 2 receivers have it; nobody: an address is written as"):
            deliver(plugin, alert)
    assert len(sendgrid.mails) == 1


@pytest.mark.against("consumer email", "a server of our own that checks SendGrid's schema")
def test_sendgrids_limits_are_kept(sendgrid, plugins):
    plugin = plugins(SENDGRID | {"base_url": sendgrid.url})
    sendgrid.answers.append(Answer(429, {"X-RateLimit-Reset": str(int(time.time()) + 40)}))
    with pytest.raises(TemporaryError) as caught:
        deliver(plugin, message())
    assert 35 < caught.value.retry_after <= 40
    sendgrid.answers.append(Answer(401, body=b'{"errors":[{"message":"Maximum credits exceeded","field":null,"help":null}]}'))
    with pytest.raises(TemporaryError, match=r"401.*Maximum credits exceeded"):
        deliver(plugin, message())
    with pytest.raises(PermanentError, match=r"401.*authorization grant is invalid"):
        deliver(plugins(SENDGRID | {"base_url": sendgrid.url, "token": "SG.another"}), message())


def test_what_sendgrid_does_not_take_goes_without_its_files(sendgrid, plugins, monkeypatch):
    monkeypatch.setattr("consumers.email.sendgrid._TAKES", 20_000)
    options = {"base_url": sendgrid.url, "attachments": [{"name": "a.txt", "content": "{{ 'x' * 30000 }}"}]}
    deliver(plugins(SENDGRID | options), message())
    assert "attachments" not in sendgrid.mails[0]
    assert "1 attached file(s) left out" in sendgrid.mails[0]["content"][0]["value"]


# options


def test_a_preview(plugins):
    options = SMTP | {"to": [ANNA, "{{ labels.who }}"], "attachments": [{"name": "a.txt", "content": "x"}]}
    shown = Email(EmailConfig.model_validate(options)).preview(
        message(labels={"who": "x"}, time=datetime(2026, 11, 21, tzinfo=UTC))
    )
    assert shown.pop("html").startswith("<!DOCTYPE html>")
    assert shown == {
        "from": "Siftbell <bell@example.com>",
        "to": [ANNA],
        "subject": "disk full",
        "text": "disk full\n\nwho: x\n\ntest · 2026-11-21 00:00:00 UTC",
        "attachments": ["a.txt"],
        "not sent to": ["x"],
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"from": "bell@example.com", "to": [ANNA]}, "give the SMTP server's name as `host`"),
        (SMTP | {"to": []}, "`to` names nobody"),
        (SMTP | {"to": ["anna"]}, "an address is written as"),
        (SMTP | {"to": [f"{ANNA}, bert@"]}, "an address is written as"),
        (SMTP | {"to": [7]}, "an address is written as"),
        (SMTP | {"from": f"{ANNA}, {BERT}"}, "`from`: an address is written as"),
        (SMTP | {"from": "{{ title }}"}, "`from`: an address is written as"),
        (SMTP | {"to": "x" * 2000}, "an address is written as"),
        (SES | {"from": "bäll@example.com"}, "ses takes no addresses but in ASCII"),
        (SMTP | {"reply_to": "x"}, "an address is written as"),
        (SMTP | {"user": "bell"}, "`user` and `password` go together"),
        (SMTP | {"token": "SG.x"}, "token is for via: sendgrid"),
        (SMTP | {"base_url": "http://x"}, "base_url is for via: sendgrid and ses"),
        (SENDGRID | {"host": "x"}, "host is for via: smtp"),
        ({"via": "sendgrid", "from": "a@b.de", "to": [ANNA]}, "sendgrid needs `token`"),
        (SMTP | {"headers": {"Bcc": "x"}}, "Bcc cannot be set here"),
        (SMTP | {"headers": {"X Y": "x"}}, "should match pattern"),
        (SMTP | {"host": "a\r\nb"}, "should match pattern"),
        (SMTP | {"via": "pigeon"}, "'smtp', 'sendgrid' or 'ses'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        EmailConfig.model_validate(options)


def test_an_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("consumers.email.options.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=re.escape('via: ses needs: pip install "siftbell[aws]"')):
        EmailConfig.model_validate(SES)
    for name in ("consumers.email", "consumers.email.writer", "consumers.email.html"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nh3", None)
    with pytest.raises(MissingExtraError, match=re.escape('needs: pip install "siftbell[email]"')):
        Registry().find("consumer", "email")
