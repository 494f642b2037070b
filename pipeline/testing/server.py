"""A web server on loopback that answers as a test tells it to, and badly where a test wants that."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, Self

Fault = Literal["", "close", "cut", "cut chunk", "cut headers", "garbage", "reset", "silence"]
_BROKEN: Final = {
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nonly",
    "cut headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "garbage": b"\x00\x01 this is not HTTP\r\n\r\n",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answers; `fault` says how it fails instead.

    `close`: the connection ends without an answer; `cut`: in the middle of the body; `cut chunk`, `cut headers`: in the middle of
    those; `garbage`: what comes is not HTTP; `reset`: the connection breaks; `silence`: nothing comes.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    fault: Fault = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came: header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class LoopbackServer:
    """The server; use it as a context manager. `answer` is given to each request, `answers` first, one each."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.answers: deque[Answer] = deque()
        self.received: list[Received] = []
        self.connections: list[int] = []
        """The port that each connection came from, in order."""
        self._ending = threading.Event()
        owner = self

        class Handler(_Handler):
            server_of = owner

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="loopback")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_answer(self, request: Received) -> Answer:
        """Note the request, and give its answer; called from the server's threads."""
        self.received.append(request)
        try:
            return self.answers.popleft()
        except IndexError:
            return self.answer

    def wait_for_end(self) -> None:
        """Return when the server is being closed."""
        self._ending.wait(60)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing where a consumer has left, as it may; all else is a bug of this server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: LoopbackServer

    def setup(self) -> None:
        super().setup()
        self.server_of.connections.append(self.client_address[1])

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server_of.next_answer(Received(self.command, self.path, headers, body))
        if answer.fault:
            self._fail(answer)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.status not in (204, 304):
            try:
                self.wfile.write(answer.body)
            except ConnectionError:  # the consumer need not read all of it
                self.close_connection = True

    def _fail(self, answer: Answer) -> None:
        self.close_connection = True
        self.wfile.write(_BROKEN.get(answer.fault, b""))
        if answer.fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif answer.fault == "silence":
            self.server_of.wait_for_end()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names http.server asks for

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""
