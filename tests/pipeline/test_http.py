"""HTTP out: what the contract does not ask of every consumer."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic, sleep

import pytest
from pydantic import Field, SecretBytes, SecretStr

from pipeline import Config, HttpConsumer, HttpRequest, Message, PermanentError, TemporaryError, json_object
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer
from pipeline.testing.consumers import deliver
from pipeline.testing.probing import probed

MESSAGE = Message(source="t", title="disk full")


class Inner(Config):
    """Nested options."""

    key: SecretBytes = Field(default=SecretBytes("inner secret/ü".encode()), description="A key.")


class PostConfig(Config):
    """Options."""

    url: str = Field(description="Where to.")
    token: SecretStr = Field(default=SecretStr("sesame"), description="A token.")
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers.")
    inner: Inner = Field(default=Inner(), description="More.")
    many: tuple[SecretStr, ...] = Field(default=(SecretStr("one-of-many"), SecretStr("")), description="More.")


class Post(HttpConsumer[PostConfig]):
    """Posts the title; the service says in its body how it went."""

    def request(self, message: Message) -> HttpRequest:
        headers = {name: value.get_secret_value() for name, value in self.config.headers.items()}
        return HttpRequest(self.config.url, message.title.encode(), headers={"content-type": "text/plain"} | headers)

    def check(self, status, headers, body):
        super().check(status, headers, body)
        answer = json.loads(body or b"{}")
        if answer.get("error") == "busy":
            raise TemporaryError("busy", retry_after=3)
        if "error" in answer:
            raise PermanentError(f"the service says {answer['error']}")


class TestPost(HttpConsumerContract):
    plugin = Post
    options = {"url": "{url}/a/long/path", "token": "sesame"}
    good_body = b'{"ok": true}'


@pytest.fixture
def server():
    with LoopbackServer() as server:
        yield server


def post(url, **options):
    return Post(PostConfig(url=url, **options))


def failure(plugin, kind=PermanentError):
    with pytest.raises(kind) as caught:
        deliver(plugin, MESSAGE)
    return str(caught.value)


def test_a_service_that_answers_200_with_an_error(server):
    server.answer = Answer(body=b'{"error": "no such chat"}')
    assert failure(post(server.url)) == f"POST {server.url}: the service says no such chat"
    server.answer = Answer(body=b'{"error": "busy"}')
    with pytest.raises(TemporaryError) as caught:
        deliver(post(server.url), MESSAGE)
    assert caught.value.retry_after == 3


@pytest.mark.parametrize("body", [b"", b"[1]", b"<html>", b"\xff", b"[" * 100_000, b"null"])
def test_an_answer_that_is_no_object_is_an_empty_one(body):
    assert json_object(body) == {}
    assert json_object(b'{"ok": true}') == {"ok": True}


class BusyError(TemporaryError):
    """One refusal of several."""


class Twice(Post):
    """Posts the title, then what the service answered to it."""

    async def consume(self, message):
        answer = await self.send(self.request(message))
        await self.send(HttpRequest(self.config.url, answer))

    def check(self, status, headers, body):
        if body == b"busy":
            raise BusyError("sesame", retry_after=3) from ValueError("sesame")
        super().check(status, headers, body)


def test_a_delivery_of_two_requests_keeps_the_class_of_an_error(server):
    twice = Twice(PostConfig(url=server.url))
    server.answers.extend([Answer(body=b"{}"), Answer(body=b"{}")])
    deliver(twice, MESSAGE)
    assert [request.body for request in server.received] == [b"disk full", b"{}"]
    server.answer = Answer(body=b"busy")
    with pytest.raises(BusyError) as caught:
        deliver(twice, MESSAGE)
    assert (str(caught.value), caught.value.retry_after) == (f"POST {server.url}: ***", 3)
    assert "sesame" not in "".join(traceback.format_exception(caught.value)).replace('"sesame"', "")


def test_secrets_are_masked_in_all_their_forms(server):
    body = "token=sesame key=inner secret/ü inner%20secret/%C3%BC inner%20secret%2F%C3%BC one-of-many"
    server.answer = Answer(400, body=body.encode())
    assert failure(post(server.url)) == f"POST {server.url}: answered 400: token=*** key=*** *** *** ***"


def test_a_secret_is_not_cut_in_half_at_the_end_of_the_excerpt(server):
    for padding in range(190, 206):
        server.answer = Answer(400, body=b"x" * padding + b"sesame")
        assert "ses" not in failure(post(server.url))


def test_redirects_name_what_to_do(server):
    server.answer = Answer(302, {"Location": "https://elsewhere/sesame"})
    assert "redirects are not followed; write the final URL" in failure(post(server.url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "http://",
        "http:///path",
        "http://[::1",
        "http://a:99999/",
        "http://a b/",
        "file:///etc/passwd",
    ],
)
def test_urls_that_cannot_be_sent_to(url):
    assert "secret" not in failure(post(url.replace("path", "secret")))


def test_userinfo_path_and_query_do_not_show(server):
    server.answer = Answer(404)
    url = server.url.replace("://", "://user:pass@") + "/hooks/T000?key=1#part"
    assert failure(post(url)) == f"POST {server.url}: answered 404"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
def test_headers_cannot_be_forged(server, value):
    assert "the header x-a holds a line break or a NUL" in failure(post(server.url, headers={"x-a": SecretStr(value)}))
    assert server.received == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_connection_is_told_in_words(host):
    told = f"POST http://{host}:9: no connection: Connection refused"
    assert failure(post(f"http://{host}:9/x"), TemporaryError) == told


def test_a_name_that_is_not_found_is_tried_again():
    assert "no connection" in failure(post("http://no-such-host.invalid/"), TemporaryError)


@pytest.fixture
def badly_certified(tmp_path):
    """The URL of a server whose certificate nobody vouches for."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}/x"
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_that_does_not_hold_is_tried_again(badly_certified):
    assert "the certificate does not hold" in failure(post(badly_certified), TemporaryError)


def test_a_probe_opens_a_connection_and_asks_nothing(server):
    assert probed(post(f"{server.url}/hooks/T000")) == f"{server.url} answers; it was asked nothing"
    end = monotonic() + 30
    while not server.connections:
        assert monotonic() < end
        sleep(0.01)
    assert server.received == []


def test_a_probe_looks_at_the_certificate(badly_certified):
    found = probed(post(badly_certified))
    assert isinstance(found, TemporaryError)
    assert str(found).startswith(f"{badly_certified.removesuffix('/x')}: the certificate does not hold: ")


def test_a_probe_of_what_is_no_url():
    found = probed(post("ftp://example.com/secret"))
    assert isinstance(found, PermanentError)
    assert str(found) == "ftp://example.com: a URL that begins with http:// or https:// is expected"


def test_a_probe_knows_no_target_where_the_message_says_it():
    class Chosen(Post):
        def request(self, message):
            raise PermanentError("the message names no channel")

    assert probed(Chosen(PostConfig(url="http://127.0.0.1:9"))) is None


def test_nothing_is_decompressed_and_reading_is_bounded(server, monkeypatch):
    seen = []
    monkeypatch.setattr(Post, "check", lambda _self, _status, _headers, body: seen.append(len(body)))
    server.answer = Answer(body=b"x" * 5_000_000, headers={"Content-Encoding": "gzip"})
    deliver(post(server.url), MESSAGE)
    assert seen == [Post.answer_limit]
    assert server.received[0].headers["accept-encoding"] == "identity"


def test_cookies_are_not_kept(server):
    server.answer = Answer(headers={"Set-Cookie": "a=b"})
    plugin = post(server.url)

    async def twice():
        await plugin.consume(MESSAGE)
        await plugin.consume(MESSAGE)
        await plugin.aclose()
        await plugin.aclose()

    asyncio.run(twice())
    assert all("cookie" not in received.headers for received in server.received)


def test_another_loop_gets_connections_of_its_own(server):
    plugin = post(server.url)
    deliver(plugin, MESSAGE)
    deliver(plugin, MESSAGE)
    assert len(server.received) == 2


def test_a_preview_names_the_host_and_the_body():
    shown = post("https://example.com/hooks/x").preview(MESSAGE.replace(title="sesame full"))
    assert shown == {"request": "POST https://example.com", "body": "*** full"}
