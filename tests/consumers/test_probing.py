"""What consumers ask for `siftbell check --connect`: what the service's documentation has for it, or a connection alone."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import warnings
from base64 import b64encode
from time import monotonic, sleep

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from consumers.discord import Discord
from consumers.email import Email
from consumers.file import File
from consumers.opsgenie import Opsgenie
from consumers.pagerduty import Pagerduty
from consumers.slack import Slack
from consumers.sms import Sms
from consumers.sql import Sql
from consumers.teams import Teams
from consumers.webhook import Webhook
from pipeline import PermanentError, TemporaryError
from pipeline.testing import Answer, LoopbackServer
from pipeline.testing.probing import assert_probe, probed

SECRET = "a-made-up-secret"
MAIL = {"from": "bell@example.com", "to": ["ada@example.com"]}
SMS = {"token": SECRET, "from": "+4915112345678", "to": ["+4915112345679"]}
BASIC = f"Basic {b64encode(f'AC1:{SECRET}'.encode()).decode()}"

SERVICES = {
    "slack": (
        Slack,
        {"token": SECRET, "channel": "C1", "base_url": "{url}/api"},
        ("POST", "/api/auth.test", f"Bearer {SECRET}"),
        {"ok": True, "url": "https://acme.slack.com/", "team": "Acme", "user": "bell", "team_id": "T1", "user_id": "U1"},
        "@bell of Acme",
    ),
    "discord": (
        Discord,
        {"url": "{url}/api/webhooks/1/a-made-up-secret?wait=true", "thread": "77"},
        ("GET", "/api/webhooks/1/a-made-up-secret", None),
        {"id": "1", "type": 1, "name": "bell", "channel_id": "2", "guild_id": "3", "token": SECRET},
        "the webhook bell",
    ),
    "opsgenie": (
        Opsgenie,
        {"api_key": SECRET, "base_url": "{url}"},
        ("GET", "/v2/alerts/count", f"GenieKey {SECRET}"),
        {"data": {"count": 7}, "took": 0.051, "requestId": "9ae63dd7"},
        "Opsgenie knows the key",
    ),
    "twilio": (
        Sms,
        SMS | {"via": "twilio", "account": "AC1", "base_url": "{url}"},
        ("GET", "/2010-04-01/Accounts/AC1/Messages.json?PageSize=1", BASIC),
        {"messages": [], "page_size": 1},
        "Twilio knows the account",
    ),
    "vonage": (
        Sms,
        SMS | {"via": "vonage", "account": "AC1", "base_url": "{url}"},
        ("GET", "/account/get-balance", BASIC),
        {"value": 10.28, "autoReload": False},
        "Vonage knows the account; its balance is 10.28 EUR",
    ),
    "clickatell": (
        Sms,
        SMS | {"via": "clickatell", "base_url": "{url}"},
        ("GET", "/public-client/balance", SECRET),
        {"balance": 1267.92, "currency": "ZAR"},
        "Clickatell knows the key; its balance is 1267.92 ZAR",
    ),
    "sendgrid": (
        Email,
        MAIL | {"via": "sendgrid", "token": SECRET, "base_url": "{url}"},
        ("GET", "/v3/scopes", f"Bearer {SECRET}"),
        {"scopes": ["mail.send", "alerts.read"]},
        "SendGrid knows the token, which may send mails",
    ),
}


class Service(LoopbackServer):
    """Answers the one question that it knows, and 401 where the credential is not the one."""

    def __init__(self, question, answer):
        super().__init__()
        self.question = question
        self.told = answer

    def next_answer(self, request):
        self.received.append(request)
        method, path, credential = self.question
        if (request.method, request.path) != (method, path):
            return Answer(404)
        if request.headers.get("authorization") != credential:
            return Answer(401, body=json.dumps({"error": "invalid"} | dict(request.headers)).encode())
        return Answer(body=json.dumps(self.told).encode())


def opened(kind, options):
    plugin = kind(kind.config_type.model_validate(options))
    plugin.open()
    return plugin


def asked(kind, options):
    plugin = opened(kind, options)
    try:
        found = probed(plugin)
    finally:
        plugin.close()
    assert_probe(plugin.config, found)
    return found


def until(holds):
    end = monotonic() + 30
    while not holds():
        assert monotonic() < end
        sleep(0.01)


def at(url, options):
    return {name: value.replace("{url}", url) if isinstance(value, str) else value for name, value in options.items()}


@pytest.mark.parametrize(("kind", "options", "question", "answer", "line"), SERVICES.values(), ids=SERVICES.keys())
def test_a_service_is_asked_by_its_documentation(kind, options, question, answer, line):
    with Service(question, answer) as service:
        assert asked(kind, at(service.url, options)) == line
        assert len(service.received) == 1


@pytest.mark.parametrize(("kind", "options", "question", "answer"), [one[:4] for one in SERVICES.values()], ids=SERVICES.keys())
def test_a_credential_that_is_not_known_is_told(kind, options, question, answer):
    with Service((*question[:2], "another"), answer) as service:
        found = asked(kind, at(service.url, options))
        assert isinstance(found, PermanentError)
        assert "answered 401" in str(found)


def test_slack_refuses_in_a_200():
    _, options, question, _, _ = SERVICES["slack"]
    with Service(question, {"ok": False, "error": "token_revoked"}) as service:
        found = asked(Slack, at(service.url, options))
    assert isinstance(found, PermanentError)
    assert "the token was revoked" in str(found)


def test_a_token_of_sendgrid_that_may_not_send():
    _, options, question, _, _ = SERVICES["sendgrid"]
    with Service(question, {"scopes": ["alerts.read"]}) as service:
        found = asked(Email, at(service.url, options))
    assert isinstance(found, PermanentError)
    assert str(found) == "SendGrid knows the token, which lacks the permission Mail Send"


def test_a_key_of_opsgenie_that_may_not_read_is_no_error():
    _, options, _, _, _ = SERVICES["opsgenie"]
    with LoopbackServer() as server:
        server.answer = Answer(403, body=b'{"message": "not authorized"}')
        assert asked(Opsgenie, at(server.url, options)) == "Opsgenie answers, and does not let the key read alerts"
        server.answer = Answer(422, body=b'{"message": "Key format is not valid!"}')
        assert isinstance(asked(Opsgenie, at(server.url, options)), PermanentError)


def test_ses_is_asked_for_the_account(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with LoopbackServer() as server:
        options = MAIL | {"via": "ses", "region": "eu-west-1", "base_url": server.url}
        server.answer = Answer(body=b'{"SendingEnabled": true, "ProductionAccessEnabled": true}')
        assert asked(Email, options) == "SES answers"
        assert [(received.method, received.path) for received in server.received] == [("GET", "/v2/email/account")]
        server.answer = Answer(403, {"x-amzn-errortype": "AccessDeniedException"}, b'{"message": "not authorized"}')
        assert asked(Email, options) == "SES knows the credential, which may not get_account"
        server.answer = Answer(403, {"x-amzn-errortype": "UnrecognizedClientException"}, b'{"message": "the token is invalid"}')
        assert isinstance(asked(Email, options), PermanentError)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Slack, {"url": "{url}/services/T0/B0/very-secret"}),
        (Teams, {"url": "{url}/workflows/very-secret"}),
        (Webhook, {"url": "{url}/very-secret"}),
        (Pagerduty, {"routing_key": "0" * 32, "base_url": "{url}"}),
    ],
)
def test_what_has_no_question_is_connected_to(kind, options):
    with LoopbackServer() as server:
        assert asked(kind, at(server.url, options)) == f"{server.url} answers; it was asked nothing"
        until(lambda: server.connections)
        assert (len(server.connections), server.received) == (1, [])


class Mailbox:
    """Takes mails; `heard` are the commands that are none of a greeting."""

    def __init__(self):
        self.heard = []

    async def handle_NOOP(self, _server, _session, _envelope, _argument):  # noqa: N802 - the name aiosmtpd asks for
        self.heard.append("NOOP")
        return "250 OK"

    async def handle_MAIL(self, _server, _session, _envelope, _address, _options):  # noqa: N802 - as above
        self.heard.append("MAIL")
        return "250 OK"


class Place(Controller):
    """Listens on a free port."""

    def factory(self):
        with warnings.catch_warnings():  # aiosmtpd warns of logins that are not encrypted
            warnings.simplefilter("ignore")
            return super().factory()

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mailbox():
    """An SMTP server that knows one login."""

    def know(_server, _session, _envelope, _mechanism, data):
        return AuthResult(success=data.password == SECRET.encode(), handled=False)

    controller = Place(Mailbox(), hostname="127.0.0.1", port=0, authenticator=know, auth_required=True, auth_require_tls=False)
    controller.start()
    yield controller
    controller.stop()


def smtp(controller, **options):
    return MAIL | {"host": "127.0.0.1", "port": controller.port, "security": "none"} | options


@pytest.mark.against("consumer email", "aiosmtpd 1.4")
def test_an_smtp_server_is_logged_in_to_and_left(mailbox):
    port = mailbox.port
    assert asked(Email, smtp(mailbox, user="bell", password=SECRET)) == f"SMTP 127.0.0.1:{port} takes the login of bell"
    assert mailbox.handler.heard == ["NOOP"]
    assert asked(Email, smtp(mailbox)) == f"SMTP 127.0.0.1:{port} answers"


def test_a_login_that_is_not_known(mailbox):
    found = asked(Email, smtp(mailbox, user="bell", password="another-secret"))
    assert isinstance(found, PermanentError)
    assert "answered 535" in str(found)
    assert "see `user` and `password`" in str(found)


def test_an_smtp_server_without_starttls(mailbox):
    found = asked(Email, smtp(mailbox, security="starttls"))
    assert isinstance(found, TemporaryError)
    assert "offers no STARTTLS" in str(found)


def test_a_table_is_looked_for(tmp_path):
    options = {"url": f"sqlite:///{tmp_path}/ops.db?cached_statements=7", "table": "messages"}
    assert isinstance(asked(Sql, options), TemporaryError)
    assert not (tmp_path / "ops.db").exists()
    with sqlite3.connect(tmp_path / "ops.db") as connection:
        connection.execute("CREATE TABLE other (id TEXT)")
    found = asked(Sql, options)
    assert isinstance(found, PermanentError)
    assert "messages" in str(found)
    connection.execute("CREATE TABLE messages (id TEXT, title TEXT)")
    assert asked(Sql, options) == f"sqlite {sqlite3.sqlite_version}, database {tmp_path}/ops.db"
    assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("server", ["empty_postgres", "empty_mariadb"])
def test_a_database_server_tells_its_version(server, request):
    url = request.getfixturevalue(server)
    found = asked(Sql, {"url": url, "statement": "INSERT INTO nowhere VALUES (:title)"})
    assert isinstance(found, str)
    assert re.fullmatch(rf"{server.removeprefix('empty_')[:4]}\w+ \d+\.\d.*, database {url.rpartition('/')[2]}", found)


def test_a_file_is_looked_at_and_not_made(tmp_path, monkeypatch):
    path = tmp_path / "new" / "messages.jsonl"
    assert asked(File, {"path": path}) == f"{path} can be made"
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()
    assert asked(File, {"path": path}) == f"{path} can be written to"
    assert isinstance(asked(File, {"path": path.parent}), TemporaryError)
    assert isinstance(asked(File, {"path": path / "below-a-file"}), TemporaryError)
    monkeypatch.chdir(tmp_path)
    assert asked(File, {"path": "here.jsonl"}) == "here.jsonl can be made"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert isinstance(asked(File, {"path": tmp_path / "messages.jsonl"}), TemporaryError)
