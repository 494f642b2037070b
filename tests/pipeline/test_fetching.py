"""What polling producers ask by HTTP, against a server on loopback."""

from __future__ import annotations

import gzip
import ssl
import subprocess
import traceback

import pytest
from pydantic import Field, SecretStr
from pytest_httpserver import HTTPServer

from pipeline import Config, Fetcher, PermanentError, TemporaryError
from pipeline.testing import Answer, LoopbackServer


class AskConfig(Config):
    """Options."""

    token: SecretStr = Field(default=SecretStr("a-token-of-the-test"), description="A token.")


TOKEN = "a-token-of-the-test"


@pytest.fixture
def server():
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def fetcher():
    made = Fetcher(AskConfig(), headers={"authorization": f"Bearer {TOKEN}"}, timeout=2, limit=10_000)
    yield made
    made.close()


def failure(fetcher, url, kind):
    with pytest.raises(kind) as caught:
        fetcher.get(url)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_it_asks_and_gives_the_answer(server, fetcher):
    server.answer = Answer(headers={"ETag": '"x"', "Content-Encoding": "gzip"}, body=gzip.compress(b'{"a": 1}'))
    answer = fetcher.get(f"{server.url}/api/v1/query", {"query": "up == 0 & x"}, headers={"If-None-Match": '"w"'})
    assert (answer.status, answer.json(), answer.headers["etag"]) == (200, {"a": 1}, '"x"')
    (asked,) = server.received
    assert (asked.method, asked.path) == ("GET", "/api/v1/query?query=up+%3D%3D+0+%26+x")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert (asked.headers["if-none-match"], asked.headers["user-agent"]) == ('"w"', "siftbell")


def test_connections_stay_open(server, fetcher):
    for _ in range(3):
        fetcher.get(server.url)
    assert len(server.connections) == 1


def test_not_modified_is_an_answer(server, fetcher):
    server.answer = Answer(304)
    assert fetcher.get(server.url).status == 304


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_these_are_asked_again(server, fetcher, status):
    server.answer = Answer(status, {"Retry-After": "7"}, f"the token {TOKEN} is busy".encode())
    error = failure(fetcher, f"{server.url}/path?secret=1", TemporaryError)
    assert str(error) == f"GET {server.url}: answered {status}: the token *** is busy"
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410, 422])
def test_these_are_not(server, fetcher, status):
    server.answer = Answer(status, {"Location": f"{server.url}/other"}, b"no")
    assert f"answered {status}" in str(failure(fetcher, server.url, PermanentError))
    assert len(server.received) == 1


@pytest.mark.parametrize("fault", ["close", "cut", "garbage", "silence"])
def test_a_broken_connection_is_asked_again(server, fetcher, fault):
    server.answer = Answer(fault=fault)
    assert str(failure(fetcher, server.url, TemporaryError)).startswith(f"GET {server.url}: ")


def test_who_is_not_there_is_asked_again(fetcher):
    with LoopbackServer() as gone:
        url = gone.url
    assert "no connection" in str(failure(fetcher, url, TemporaryError))


def test_an_answer_has_a_largest_size(server, fetcher):
    server.answer = Answer(body=b"x" * 10_000)
    assert len(fetcher.get(server.url).body) == 10_000
    server.answer = Answer(body=b"x" * 10_001)
    assert "larger than 10000 bytes" in str(failure(fetcher, server.url, PermanentError))
    server.answer = Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"x" * 1_000_000))
    assert "larger than 10000 bytes" in str(failure(fetcher, server.url, PermanentError))


def test_an_answer_that_is_not_compressed_as_it_says(server, fetcher):
    server.answer = Answer(headers={"Content-Encoding": "gzip"}, body=b"plain")
    assert "broke off" in str(failure(fetcher, server.url, TemporaryError))


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 5000])
def test_what_is_not_json(server, fetcher, body):
    server.answer = Answer(body=body)
    answer = fetcher.get(server.url)
    with pytest.raises(PermanentError, match=r"^GET http://127\.0\.0\.1:\d+: the answer is not JSON$"):
        answer.json()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "no url", "http://[::1"])
def test_a_url_that_is_none(fetcher, url):
    assert "cannot be sent" in str(failure(fetcher, url, PermanentError))


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A server with a certificate of its own making: its URL, and the file that vouches for it."""
    key, file = (tmp_path_factory.mktemp("certificate") / name for name in ("key.pem", "certificate.pem"))
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(file)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    with HTTPServer("127.0.0.1", 0, ssl_context=context) as server:
        server.expect_request("/").respond_with_data("by TLS")
        yield server.url_for("/"), file


def test_a_certificate_that_does_not_hold(certified, fetcher):
    url, file = certified
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure(fetcher, url, TemporaryError))
    trusting = Fetcher(AskConfig(), tls=ssl.create_default_context(cafile=file), timeout=5)
    assert trusting.get(url).body == b"by TLS"
    trusting.close()


def test_proxies_of_the_environment_are_not_asked(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    fetcher = Fetcher(AskConfig())
    assert fetcher.get(server.url).status == 200
    fetcher.close()


def test_a_service_may_say_otherwise_what_is_tried_again(server):
    def limited(status, headers, body):
        if status == 403:
            raise TemporaryError(f"answered {status} {body.decode()}", retry_after=float(headers["x-reset"]))

    fetcher = Fetcher(AskConfig(), judged=limited)
    server.answers += [Answer(403, {"X-Reset": "7"}, b"slow down"), Answer(404)]
    error = failure(fetcher, server.url, TemporaryError)
    assert (str(error), error.retry_after) == (f"GET {server.url}: answered 403 slow down", 7)
    assert fetcher.get(server.url).status == 404
    fetcher.close()


def test_it_posts_without_a_body_for_what_is_made_anew(server, fetcher):
    server.answer = Answer(201, body=b'{"token": "t"}')
    assert fetcher.post(f"{server.url}/tokens", headers={"x": "y"}).json() == {"token": "t"}
    (asked,) = server.received
    assert (asked.method, asked.path, asked.body, asked.headers["x"]) == ("POST", "/tokens", b"", "y")
    server.answer = Answer(500)
    with pytest.raises(TemporaryError, match="POST http"):
        fetcher.post(server.url)
