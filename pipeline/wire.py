"""HTTP/1.1 on the wire: requests on connections that stay open, and their answers. It knows nothing of messages and outcomes.

A delivery is one small request and one small answer, and a general client spends several times as long on it as the other side
and the kernel together (docs/decisions/0018). What is read is parsed by httptools: Node's parser.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from pipeline.address import Place, written
from pipeline.networks import ANYWHERE, Networks

KEPT: Final = 15.0
"""Seconds for which a connection that nobody uses stays open."""
HEAD_LIMIT: Final = 64 * 1024
"""Bytes that status and headers of an answer may have."""
_FAMILY_DELAY: Final = 0.25
"""Seconds after which the next of a name's addresses is tried as well."""


class BrokenError(OSError):
    """The connection ended before the answer did, or what came is no answer."""


class Answer(NamedTuple):
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What is waited for and read: seconds for a connection, seconds for all, bytes of the answer's body."""

    connect: float
    total: float
    body: int


class Connections:
    """The connections of one event loop, to wherever in `networks` requests go; as many as there are requests under way."""

    def __init__(self, networks: Networks = ANYWHERE) -> None:
        self._networks = networks
        self._open: set[_Connection] = set()
        self._idle: dict[tuple[bool, str, int], list[_Connection]] = {}

    async def send(self, method: str, place: Place, headers: Mapping[str, str], body: bytes, limits: Limits) -> Answer:
        """Send a request, and give the answer; a body is cut at its limit, and the rest of it not waited for.

        Raises TimeoutError, OSError where there is no connection, BrokenError where it broke off, and ValueError for a request
        that cannot be written; what `Networks.guard` raises. Nothing is sent twice.
        """
        request = written(method, place, headers, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.total
        idle = self._idle.setdefault((place.tls, place.host, place.port), [])
        connection = _usable(idle) or await self._connected(loop, place, limits)
        answer = await connection.exchange(request, deadline, limits.body, bodiless=method == "HEAD")
        if connection.reusable:
            connection.rest(idle)
        else:
            connection.abort()
        return answer

    async def reach(self, place: Place, limits: Limits) -> None:
        """Open a connection, with its TLS, send nothing, and close it; raises as `send` does."""
        (await self._connected(asyncio.get_running_loop(), place, limits)).abort()

    async def close(self) -> None:
        """Close all connections; requests under way end with BrokenError."""
        closing = list(self._open)
        for connection in closing:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in closing))

    async def _connected(self, loop: asyncio.AbstractEventLoop, place: Place, limits: Limits) -> _Connection:
        with self._networks.guard():
            async with asyncio.timeout(min(limits.connect, limits.total)):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, self._open),
                    place.host,
                    place.port,
                    ssl=_tls() if place.tls else None,
                    server_hostname=place.host if place.tls else None,
                    happy_eyeballs_delay=_FAMILY_DELAY,
                )
        return connection


def _usable(idle: list[_Connection]) -> _Connection | None:
    """Take out the connection that was used last, leaving out those that are about to be closed."""
    while idle:
        connection = idle.pop()
        if connection.reusable and not connection.closing:
            return connection
    return None


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Connection(asyncio.Protocol):
    """One connection: takes a request, gives its answer, and rests until the next. Idle for too long, it closes itself.

    Its one timer is set anew only when it goes off, or would go off too late: not for each request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, others: set[_Connection]) -> None:
        self.reusable = True
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when it is closed."""
        self._loop = loop
        self._open = others
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._end = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._idle: list[_Connection] | None = None
        self._limit = 0
        self._bodiless = False
        self._begin()

    @property
    def closing(self) -> bool:
        """Whether one of the two sides has begun to close it."""
        return self._transport is None or self._transport.is_closing()

    async def exchange(self, request: bytes, deadline: float, limit: int, *, bodiless: bool) -> Answer:
        """Write a request, and give its answer; raises TimeoutError or BrokenError. The connection is of no use then."""
        if self._transport is None or self.closing:
            raise BrokenError("it was closed")
        self._idle = None
        self._limit = limit
        self._bodiless = bodiless
        self._begin()
        self._answer = self._loop.create_future()
        self._until(deadline)
        try:
            self._transport.write(request)
            return await self._answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._answer = None

    def rest(self, idle: list[_Connection]) -> None:
        """Wait among others for the next request."""
        self._idle = idle
        idle.append(self)
        self._end = self._loop.time() + KEPT

    def abort(self) -> None:
        """Close at once."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on in the answer; what nobody has asked for ends the connection."""
        if self._answer is None:
            self.abort()
            return
        if not self._whole_head:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.reusable = False
        except HttpParserError:
            self._fail(BrokenError("what came is not HTTP"))
        if not self._whole_head and self._head > HEAD_LIMIT:
            self._fail(BrokenError("the headers do not end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits: done where the end of the connection is the end of the answer."""
        self.reusable = False
        self._open.discard(self)
        if not self.lost.done():  # who waited for it may have given up
            self.lost.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._idle is not None:
            with suppress(ValueError):
                self._idle.remove(self)
        if self._whole_head and exc is None and not {"content-length", "transfer-encoding"} & self._headers.keys():
            self._done()
        self._fail(BrokenError(type(exc).__name__ if exc else "it was closed"))

    def on_message_begin(self) -> None:
        """Spoil the connection where this is a second answer."""
        if self._answer is None or self._answer.done():
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of several of one name the last counts."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Look whether more is to come."""
        self._whole_head = True
        if self._bodiless:
            self.reusable = False
            self._done()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += body
        if len(self._body) >= self._limit:
            self.reusable = False
            self._done()

    def on_message_complete(self) -> None:
        """Give the answer, save where it only says that the answer is to come."""
        if 100 <= self._parser.get_status_code() < 200 and not self._parser.should_upgrade():
            self._begin()
            return
        if not self._parser.should_keep_alive():
            self.reusable = False
        self._done()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""
        self._head = 0
        self._whole_head = False

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, self._body[: self._limit]))

    def _fail(self, error: Exception) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _until(self, end: float) -> None:
        self._end = end
        if self._timer is not None and self._timer.when() > end:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._end:
            self._until(self._end)
            return
        self._fail(TimeoutError())
        self.abort()
