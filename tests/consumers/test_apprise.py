"""Apprise: through the library to local servers that take what JSON, XML, forms, ntfy, Gotify and Mattermost look like."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_network
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

import pytest
from pydantic import ValidationError

from consumers.apprise import Apprise, AppriseConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.networks import Networks
from pipeline.spec import check
from pipeline.testing import Answer, ConsumerContract, LoopbackServer, Recollection
from pipeline.testing.delivering import deliver, failure

TOKEN = "AbCdEf0123456789"  # a made-up one
MESSAGE = Message(
    source="t", title="disk <full>", text="2 % left\n& falling", severity="critical", url="https://x.example/?a=1&b=2"
)


class TestApprise(ConsumerContract):
    plugin = Apprise
    options = {"url": "json://user:pass-word@127.0.0.1:9/hooks/secret-path?key=another"}
    away_options = options


class TestAppriseWithSeveral(ConsumerContract):
    plugin = Apprise
    options = {"urls": {"room": f"gotify://127.0.0.1:9/{TOKEN}", "desk": "xml://127.0.0.1:9/a-secret-path"}}
    away_options = options


@pytest.fixture
def server():
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def host(server):
    return server.url.removeprefix("http://")


def plugin(memory=None, networks=None, **options):
    made = Apprise(AppriseConfig.model_validate(options))
    made.memory = memory
    if networks is not None:
        made.networks = networks
    made.open()
    return made


def tell(*, message=MESSAGE, **options):
    made = plugin(**options)
    try:
        return failure(made, message)
    finally:
        made.close()


@pytest.mark.against("consumer apprise", "local servers, by json://, xml://, form://, ntfy://, gotify:// and mmost://")
class TestServices:
    def test_json(self, server, host):
        assert tell(url=f"json://user:pass-word@{host}/hook?+x-team=db") is None
        (request,) = server.received
        sent = json.loads(request.body)
        assert (sent["title"], sent["message"], sent["type"]) == (
            MESSAGE.title,
            f"{MESSAGE.text}\n{MESSAGE.url}",
            "failure",
        )
        assert request.headers["authorization"].startswith("Basic ")
        assert (request.headers["user-agent"], request.headers["x-team"]) == ("Siftbell", "db")
        assert sent["attachments"] == []

    def test_xml(self, server, host):
        assert tell(url=f"xml://{host}/hook") is None
        body = ET.fromstring(server.received[0].body)
        told = {element.tag.rpartition("}")[2]: element.text for element in body.iter()}
        assert (told["Subject"], told["MessageType"]) == (MESSAGE.title, "failure")
        assert told["Message"] == f"{MESSAGE.text}\n{MESSAGE.url}"

    def test_form(self, server, host):
        assert tell(url=f"form://{host}/hook") is None
        form = parse_qs(server.received[0].body.decode())
        assert (form["title"], form["type"]) == ([MESSAGE.title], ["failure"])

    def test_ntfy(self, server, host):
        server.answer = Answer(body=b'{"id": "x"}')
        assert tell(url=f"ntfy://{host}/alerts?priority=max") is None
        (request,) = server.received
        sent = json.loads(request.body)
        assert (sent["topic"], sent["title"], request.headers["x-priority"]) == ("alerts", MESSAGE.title, "max")

    def test_gotify(self, server, host):
        assert tell(url=f"gotify://{host}/{TOKEN}") is None
        (request,) = server.received
        assert request.headers["x-gotify-key"] == TOKEN
        assert json.loads(request.body)["title"] == MESSAGE.title

    def test_mattermost(self, server, host):
        server.answer = Answer(body=b"ok")
        assert tell(url=f"mmost://{host}/{TOKEN}") is None
        (request,) = server.received
        assert request.path == f"/hooks/{TOKEN}"
        assert MESSAGE.title in json.loads(request.body)["text"]


def sent_json(server):
    return [json.loads(request.body) for request in server.received]


@pytest.mark.parametrize(
    ("fields", "types", "kind"),
    [
        ({"severity": "critical"}, {}, "failure"),
        ({"severity": "error"}, {}, "failure"),
        ({"severity": "warning"}, {}, "warning"),
        ({"severity": "info"}, {}, "info"),
        ({"severity": ""}, {}, "info"),
        ({"severity": "critical", "status": "resolved"}, {}, "success"),
        ({"severity": "page"}, {"page": "failure"}, "failure"),
        ({"severity": "error"}, {"error": "warning"}, "warning"),
    ],
)
def test_severities(server, host, fields, types, kind):
    assert tell(url=f"json://{host}", types=types, message=Message(source="t", title="x", **fields)) is None
    assert [sent["type"] for sent in sent_json(server)] == [kind]


def test_a_title_alone_is_the_body(server, host):
    assert tell(url=f"json://{host}", message=Message(source="t", title="x")) is None
    (sent,) = sent_json(server)
    assert (sent["title"], sent["message"]) == ("", "x")


def test_title_and_body_of_ones_own(server, host):
    assert tell(url=f"json://{host}", title="{{ severity }}", body="{{ title }}!") is None
    (sent,) = sent_json(server)
    assert (sent["title"], sent["message"]) == ("critical", "disk <full>!")


def test_html_and_markdown_become_what_the_service_takes(server, host):
    assert tell(url=f"json://{host}?format=text", html="<b>{{ title }}</b><br/>{{ text }}") is None
    assert tell(url=f"json://{host}?format=html", html="<b>{{ title }}</b>") is None
    assert tell(url=f"json://{host}?format=html", body="**{{ severity }}**", format="markdown") is None
    as_text, as_html, from_markdown = [sent["message"] for sent in sent_json(server)]
    assert as_text.splitlines()[0] == "disk <full>"
    assert as_html == "<b>disk &lt;full&gt;</b>"
    assert "<strong>critical</strong>" in from_markdown


def test_a_body_that_is_too_long_goes_in_parts(server, host):
    server.answer = Answer(body=b"ok")
    long = MESSAGE.replace(text=" ".join(f"word{number}" for number in range(2000)))
    assert tell(url=f"mmost://{host}/{TOKEN}", message=long) is None
    assert len(server.received) > 1
    assert "word1999" in server.received[-1].body.decode()
    server.received.clear()
    assert tell(url=f"mmost://{host}/{TOKEN}", message=long, overflow="truncate") is None
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(server, host, status):
    server.answer = Answer(status)
    error = tell(url=f"json://{host}/hook")
    assert isinstance(error, TemporaryError)
    assert f"error={status}" in str(error)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 413])
def test_what_will_not_pass_is_given_up(server, host, status):
    server.answer = Answer(status, {"Location": f"{server.url}/elsewhere"})
    error = tell(url=f"json://{host}/hook")
    assert isinstance(error, PermanentError)
    assert f"error={status}" in str(error)
    assert len(server.received) == 1, "a redirect was followed"


def test_each_target_has_a_result_of_its_own(server, host):
    with LoopbackServer() as other:
        urls = {"one": f"json://{host}/one", "two": f"json://{other.url.removeprefix('http://')}/two"}
        other.answers.extend([Answer(503), Answer(200)])
        memory = Recollection()
        error = tell(memory=memory, urls=urls)
        assert isinstance(error, TemporaryError)
        assert str(error).startswith("1 of 2 receivers have it; two: JSON: Failed to send JSON")
        assert tell(memory=memory, urls=urls) is None
        assert (len(server.received), len(other.received)) == (1, 2)


def test_where_only_refusals_are_left_it_is_given_up(server, host):
    server.answer = Answer(404)
    error = tell(memory=Recollection(), urls={"one": f"json://{host}/one", "two": f"json://{host}/two"})
    assert isinstance(error, PermanentError)
    assert str(error).startswith("0 of 2 receivers have it; ")
    assert str(error).count("error=404") == 2


@pytest.mark.parametrize("path", ["json://user:pass-word@{}/hooks/a-secret", f"gotify://{{}}/{TOKEN}", f"mmost://{{}}/{TOKEN}"])
def test_no_part_of_a_url_is_told(server, host, path, caplog):
    caplog.set_level(logging.DEBUG)
    url = path.format(host)
    answers = [Answer(401, body=url.encode()), Answer(500), Answer(fault="close"), Answer(fault="garbage")]
    for answer in answers:
        server.answer = answer
        told = str(tell(url=url)) + repr(AppriseConfig(url=url)) + caplog.text
        for secret in ("pass-word", "a-secret", TOKEN):
            assert secret not in told


def test_no_beginning_of_a_part_is_told_where_the_text_is_cut(server, host):
    server.answer = Answer(500)
    told = str(tell(url=f"ntfy://{host}/" + "/".join(letter * 36 for letter in "abc")))
    assert "error=500" in told
    assert not [letter for letter in "abc" if letter * 4 in told]


def test_it_keeps_to_the_networks_that_are_allowed(server, host):
    error = tell(networks=Networks(), url=f"json://{host}/hook")
    assert isinstance(error, TemporaryError)
    assert "JSON: 127.0.0.1 is a loopback address; to allow it, add " in str(error)
    assert server.connections == []


def test_what_connects_in_a_thread_of_its_own_is_not_taken(monkeypatch):
    """With slixmpp installed, that is; without it Apprise does not take the URL."""
    monkeypatch.setattr("apprise.plugins.xmpp.base.NotifyXMPP.enabled", True)
    with pytest.raises(ValidationError, match="cannot be kept from private networks"):
        AppriseConfig(url="xmpp://user:password@x.example/a@x.example")


def test_a_redirect_that_is_followed_keeps_to_them_too(server, host):
    with LoopbackServer() as other:
        port = other.url.rpartition(":")[2]
        server.answer = Answer(307, {"Location": f"http://127.0.0.2:{port}/"})
        only = Networks([ip_network("127.0.0.1")])
        error = tell(networks=only, url=f"json://{host}/hook?redirect=yes")
        assert isinstance(error, TemporaryError)
        assert "127.0.0.2 is a loopback address" in str(error)
        assert other.connections == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "json://x.example", "urls": {"a": "json://x.example"}},
        {"url": "nothing://x.example"},
        {"url": "json://"},
        {"url": "syslog://"},
        {"url": "windows://"},
        {"urls": {"a": "hello"}},
        {"url": "json://x.example", "types": {"error": "bad"}},
        {"url": "json://x.example", "body": "{{ titel }}"},
        {"url": "json://x.example", "format": "html"},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValidationError):
        AppriseConfig.model_validate(options)


@pytest.mark.parametrize("url", ["nothing://some-token@x.example", "https://service.example/this/url"])
def test_a_url_that_is_none_is_told_at_its_place_and_not_repeated(tmp_path, url):
    path = tmp_path / "a.yaml"
    path.write_text(f"producers: [http]\nconsumers:\n  - apprise: {url}\n")
    (problem,) = check([path]).problems
    assert (problem.position.line, problem.position.column) == (3, 14)
    assert (
        problem.text == "consumer apprise.url: no service of Apprise takes this URL, or it needs a library that is not installed"
    )


def test_nothing_is_not_sent(server, host):
    error = tell(url=f"json://{host}", message=Message(source="t"), title="{{ title }}")
    assert isinstance(error, PermanentError)
    assert server.received == []


def test_a_preview_names_the_service_alone():
    made = plugin(urls={"desk": f"gotify://x.example/{TOKEN}"})
    shown = made.preview(MESSAGE)
    made.close()
    assert shown == {
        "targets": {"desk": "Gotify"},
        "type": "failure",
        "title": MESSAGE.title,
        "body": f"{MESSAGE.text}\n{MESSAGE.url}",
    }


def test_it_delivers_several_at_once(server, host):
    made = plugin(url=f"json://{host}")
    for _ in range(3):
        deliver(made, MESSAGE)
    made.close()
    assert len(server.received) == 3
