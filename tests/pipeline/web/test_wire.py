"""Malformed and unfriendly HTTP, byte by byte, over both parsers."""

from __future__ import annotations

import socket

import pytest
from prometheus_client import REGISTRY

from pipeline.web import protocol as protocol_module
from pipeline.web.protocol import MOST_HEAD


def refused(pipeline: str, status: int) -> float:
    return REGISTRY.get_sample_value("siftbell_requests_refused_total", {"pipeline": pipeline, "status": str(status)}) or 0


@pytest.fixture
def web(either_web):
    return either_web


def header(web, *lines: bytes) -> bytes:
    return b"\r\n".join([b"POST /in/toy/echo HTTP/1.1", b"Host: x", b"X-API-Key: " + web.key.encode(), *lines, b"", b""])


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: abc",),
        (b"Content-Length: -1",),
        (b"Content-Length: 2", b"Content-Length: 3"),
        (b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 99999999999999999999999999",),
        (b"Bad Header: x",),
    ],
)
def test_malformed_http_is_refused_and_publishes_nothing(web, lines):
    received = web.raw(header(web, b"Connection: close", *lines) + b"{}", half_close=True)

    assert not received or received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert web.queue.batches == []


def test_a_broken_chunk_is_400(web):
    received = web.raw(header(web, b"Transfer-Encoding: chunked") + b"zz\r\n{}\r\n", half_close=True)

    assert received.startswith(b"HTTP/1.1 400")


def test_who_has_said_all_that_it_will_is_answered(web):
    received = web.raw(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", half_close=True)

    assert received.startswith(b"HTTP/1.1 404")
    assert received.endswith(b"}")


def test_an_answer_leaves_in_one_piece(web, monkeypatch):
    held: list[int] = []

    class Noting(protocol_module.Joined):
        def flush(self) -> None:
            held.append(len(self._held))
            super().flush()

    monkeypatch.setattr(protocol_module, "Joined", Noting)
    assert web.post({"title": "x"}).status == 202
    assert held[0] >= 2


def test_a_chunked_body_that_is_too_large_is_413_before_it_ends(web):
    head = header(web, b"Transfer-Encoding: chunked", b"Connection: close")
    received = web.raw(head + b"400\r\n" + b"x" * 1024 + b"\r\n")

    assert received.startswith(b"HTTP/1.1 413")


def test_a_sender_that_goes_away_in_the_middle_leaves_nothing_behind(web):
    before = refused("toy", 400)

    web.raw(header(web, b"Content-Length: 100") + b'{"title": ', half_close=True)

    assert web.post({"title": "next"}).status == 202
    assert [message.title for message in web.queue.messages] == ["next"]
    while refused("toy", 400) < before + 1:
        assert web.get("/livez").status == 200


def test_a_body_that_does_not_arrive_is_408_and_the_connection_ends(web, monkeypatch):
    monkeypatch.setattr(protocol_module, "BODY_PATIENCE", 0.2)

    received = web.raw(header(web, b"Content-Length: 100") + b"{")

    assert received.startswith(b"HTTP/1.1 408")
    assert b'"code":"timeout"' in received


def test_two_requests_in_one_packet_are_both_answered(web):
    one = header(web, b"Content-Length: 14") + b'{"title": "a"}'
    two = header(web, b"Content-Length: 14", b"Connection: close") + b'{"title": "b"}'

    assert web.raw(one + two).count(b"HTTP/1.1 202") == 2
    assert [message.title for message in web.queue.messages] == ["a", "b"]


def test_what_is_not_http_is_400_in_the_shape(web):
    received = web.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"nosniff" in received
    assert b'{"error":{"code":"bad_request"' in received


def test_a_head_without_end_is_refused_before_it_fills_the_memory(web):
    line = b"X-Filler: " + b"x" * 1000 + b"\r\n"

    received = web.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + line * (MOST_HEAD // len(line) + 2))

    assert received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize("start", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"\r\n"])
def test_a_head_that_does_not_arrive_ends_the_connection(web, monkeypatch, start):
    monkeypatch.setattr(protocol_module, "PATIENCE", 0.1)

    received = web.raw(start)

    assert not received or received.startswith(b"HTTP/1.1 400")


def test_the_next_head_on_a_connection_has_a_limit_too(web, monkeypatch):
    monkeypatch.setattr(protocol_module, "PATIENCE", 0.1)

    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"\r\n\r\nok\n"):
            received += connection.recv(65536)
        connection.sendall(b"GET /livez")
        assert connection.recv(65536) == b""


def test_a_refused_body_is_read_on_for_a_while_only(web, monkeypatch):
    monkeypatch.setattr(protocol_module, "PATIENCE", 0.1)
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        connection.sendall(header(web, b"Content-Length: 1000000000"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")

        def send_on():
            while True:
                connection.sendall(b"x" * 1000)

        with pytest.raises(ConnectionError):
            send_on()


@pytest.mark.parametrize("host", [b"[", b"", b"a b", b"\xff", b"x:99999999"])
def test_a_strange_host_is_no_500(web, host):
    for path in (b"/nothing", b"/in/toy/echo", b"/api/v1/dead-letters?limit=1"):
        request = b"GET %s HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\nConnection: close\r\n\r\n"
        received = web.raw(request % (path, host, web.key.encode()))
        assert received.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))
