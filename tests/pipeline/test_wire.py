"""HTTP on the wire: what a service may send, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest

from pipeline import wire
from pipeline.address import place_of, written
from pipeline.wire import Answer, BrokenError, Connections, Limits

LIMITS = Limits(connect=5, total=5, body=1000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """Answers each request with the next of its scripts: bytes, `None` (the connection ends), or an event to wait for."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.connections = 0
        self.ended = 0
        self.changed = asyncio.Condition()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while (request := await self.request(reader)) is not None:
                async with self.changed:
                    self.requests.append(request)
                    self.changed.notify_all()
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                for part in script if isinstance(script, tuple) else (script,):
                    if part is None:
                        return
                    if isinstance(part, asyncio.Event):
                        await part.wait()
                    else:
                        writer.write(part)
                        await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            async with self.changed:
                self.ended += 1
                self.changed.notify_all()

    async def request(self, reader):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return head + await reader.readexactly(length)

    async def until_asked(self, count):
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.requests) >= count)

    async def until_ended(self, count):
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended >= count)


@asynccontextmanager
async def serving(*scripts, tls=None):
    service = Service(*scripts)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=tls)
    connections = Connections()
    host = "localhost" if tls else "127.0.0.1"
    place = place_of(f"http{'s' if tls else ''}://{host}:{server.sockets[0].getsockname()[1]}/x")

    async def send(limits=LIMITS, method="POST"):
        return await connections.send(method, place, {}, b"body", limits)

    try:
        yield service, send, connections
    finally:
        await connections.close()
        server.close()
        await server.wait_closed()


def answers(count, *scripts, limits=LIMITS, method="POST"):
    """Give the answers to so many requests one after the other, and how many connections that took."""

    async def run():
        async with serving(*scripts) as (service, send, _):
            return [await send(limits, method) for _ in range(count)], service.connections

    return asyncio.run(run())


@pytest.mark.parametrize(
    "script",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nTrailer: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
        tuple(bytes([one]) for one in OK),
    ],
    ids=["length", "chunks", "first something else", "byte by byte"],
)
def test_answers_that_keep_the_connection(script):
    got, connections = answers(3, script)
    assert {(answer.status, answer.body) for answer in got} == {(200, b"ok")}
    assert connections == 1


@pytest.mark.parametrize(
    "script",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        (b"HTTP/1.1 200 OK\r\n\r\nok", None),
        (b"HTTP/1.0 200 OK\r\n\r\no", b"k", None),
        OK + OK,
        OK + b"rubbish",
    ],
    ids=["close", "1.0", "to the end", "1.0 to the end", "two answers", "rubbish behind it"],
)
def test_answers_that_end_the_connection(script):
    got, connections = answers(2, script)
    assert {(answer.status, answer.body) for answer in got} == {(200, b"ok")}
    assert connections == 2


def test_no_body_and_headers_in_lower_case():
    got, connections = answers(2, b"HTTP/1.1 204 No Content\r\nX-One: a\r\nX-One: b\r\n\r\n")
    assert got == [Answer(204, {"x-one": "b"}, b"")] * 2
    assert connections == 1
    head = answers(1, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", method="HEAD")[0]
    assert head == [Answer(200, {"content-length": "999"}, b"")]


def test_an_upgrade_that_nobody_asked_for():
    got, connections = answers(2, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
    assert [answer.status for answer in got] == [101, 101]
    assert connections == 2


def test_a_body_is_cut_at_its_limit_and_not_waited_for():
    script = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 2000
    got, connections = answers(2, script)
    assert [len(answer.body) for answer in got] == [LIMITS.body] * 2
    assert connections == 2


@pytest.mark.parametrize(
    "script",
    [
        None,
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", None),
        b"\x00 is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "rubbish", "two lengths", "headers without end"],
)
def test_what_is_no_answer(script):
    async def run():
        async with serving(script, OK) as (service, send, _):
            with pytest.raises(BrokenError):
                await send()
            assert (await send()).body == b"ok", "the next request has a connection that works"
            return service.connections

    assert asyncio.run(run()) == 2


def test_an_answer_that_does_not_come_in_time():
    async def run():
        never = asyncio.Event()
        async with serving(OK, (b"HTTP/1.1 200 OK\r\n", never), OK) as (service, send, _):
            await send()
            with pytest.raises(TimeoutError):
                await send(Limits(connect=5, total=0.05, body=1000))
            never.set()
            await service.until_ended(1)
            assert (await send()).body == b"ok"
            return service.connections

    assert asyncio.run(run()) == 2


def test_the_time_of_each_request_counts_from_its_own_beginning():
    async def run():
        late = asyncio.Event()
        async with serving(OK, (late, OK)) as (_, send, _):
            await send(Limits(connect=5, total=0.1, body=1000))  # its timer is still set when the next one begins
            asyncio.get_running_loop().call_later(0.3, late.set)
            return (await send()).body

    assert asyncio.run(run()) == b"ok"


def test_a_request_that_is_given_up_leaves_nothing_to_the_next():
    async def run():
        never = asyncio.Event()
        async with serving(never, OK) as (service, send, _):
            waiting = asyncio.create_task(send())
            await service.until_asked(1)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert waiting.cancelled()
            never.set()
            assert (await send()).body == b"ok"
            return service.connections

    assert asyncio.run(run()) == 2


def test_as_many_connections_as_requests_and_all_are_used_again():
    async def run():
        go = asyncio.Event()
        async with serving((go, OK)) as (service, send, _):
            many = [asyncio.create_task(send()) for _ in range(150)]
            await service.until_asked(150)
            go.set()
            await asyncio.gather(*many)
            await asyncio.gather(*(send() for _ in range(150)))
            return service.connections

    assert asyncio.run(run()) == 150


def test_what_comes_unasked_ends_a_connection():
    async def run():
        later = asyncio.Event()
        async with serving((OK, later, b"more")) as (service, send, _):
            await send()
            later.set()
            await service.until_ended(1)
            await send()
            return service.connections

    assert asyncio.run(run()) == 2


def test_a_connection_that_nobody_uses_is_closed(monkeypatch):
    async def run():
        async with serving(OK) as (service, send, _):
            await send(Limits(connect=5, total=0.05, body=1000))
            await service.until_ended(1)
            await send()
            return service.connections

    monkeypatch.setattr(wire, "KEPT", 0.1)
    assert asyncio.run(run()) == 2


def test_closing_ends_what_is_under_way():
    async def run():
        never = asyncio.Event()
        async with serving(never) as (service, send, connections):
            waiting = asyncio.create_task(send())
            await service.until_asked(1)
            await connections.close()
            with pytest.raises(BrokenError):
                await waiting
            never.set()

    asyncio.run(run())


def test_over_tls_a_connection_is_kept_as_well(tmp_path, monkeypatch):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(made, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    monkeypatch.setattr(wire, "_tls", lambda: ssl.create_default_context(cafile=tmp_path / "cert.pem"))

    async def run():
        async with serving(OK, tls=tls) as (service, send, _):
            got = [await send() for _ in range(3)]
            return {answer.body for answer in got}, service.connections

    assert asyncio.run(run()) == ({b"ok"}, 1)


@pytest.mark.parametrize(
    ("url", "target", "host", "port"),
    [
        ("http://example.com", "/", "example.com", 80),
        ("https://example.com:443/a?b=c#d", "/a?b=c", "example.com", 443),
        ("http://example.com:8080/ü b/%2F?q=ü&r=%20", "/%C3%BC%20b/%2F?q=%C3%BC&r=%20", "example.com:8080", 8080),
        ("http://[::1]:81/x", "/x", "[::1]:81", 81),
        ("http://Bücher.example/", "/", "xn--bcher-kva.example", 80),
        ("http://user:p%40ss@example.com/", "/", "example.com", 80),
    ],
)
def test_where_urls_lead(url, target, host, port):
    place = place_of(url)
    assert (place.target, place.headers["host"], place.port) == (target, host, port)
    assert place.headers.get("authorization") == ("Basic dXNlcjpwQHNz" if "user" in url else None)


def test_what_is_written():
    sent = written("PUT", place_of("http://u:p@a.example/x"), {"Authorization": "own", "Content-Length": "9", "x": "ü"}, b"body")
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *headers = head.decode().split("\r\n")
    assert first == "PUT /x HTTP/1.1"
    assert sorted(headers) == [
        "accept-encoding: identity",
        "accept: */*",
        "authorization: own",
        "content-length: 4",
        "host: a.example",
        "user-agent: siftbell",
        "x: ü",
    ]
    assert body == b"body"
