"""HTTP as uvicorn speaks it, with bounds on the time of a request, and on the size of its head, which uvicorn leaves open."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.web.answers import error_response

PATIENCE: Final = 15.0
"""Seconds that a connection may take to send a request's head, and that what follows a refused request is read and discarded."""
BODY_PATIENCE: Final = 30.0
"""Seconds that a request's body may take."""
MOST_HEAD: Final = 64 * 1024
"""Bytes that a request's head may have."""
MOST_HELD: Final = 64 * 1024
"""Bytes of answers that wait for the end of a turn of the loop."""
_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class Deadline:
    """Ends a connection whose next request does not arrive in time: first its head, then its body."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._cycle: Any = None
        self._patience = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.update(None)

    def update(self, cycle: Any) -> None:
        """Look, after each piece of data, for what is still to come: uvicorn's cycle is None before the first request."""
        patience = _patience(cycle)
        if patience == self._patience and cycle is self._cycle:
            return
        self.drop()
        self._cycle, self._patience = cycle, patience
        if patience:
            self._timer = asyncio.get_running_loop().call_later(patience, self._end)

    def drop(self) -> None:
        """Forget about it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        if self._cycle is None or self._cycle.response_started:
            self._transport.close()
        else:
            refuse(self._transport, 408, f"the body did not arrive within {self._patience:g} s")


def _patience(cycle: Any) -> float:
    if cycle is None or cycle.response_complete:
        return PATIENCE
    return BODY_PATIENCE if cycle.more_body else 0.0


def refuse(transport: asyncio.Transport, status: int, text: str) -> None:
    """Answer what could not be read as a request in the one shape of errors, and close."""
    body = bytes(error_response(status, text).body)
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, _REASONS[status], len(body))
    transport.write(head + b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n" + body)
    transport.close()


class Joined(asyncio.Transport):
    """A connection's transport on which what is written in one turn of the loop leaves together.

    uvicorn writes an answer's head, then its body, and each would be a packet of its own that wakes who waits for the answer.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._held: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send this with what else is written in this turn; where that is much, at once."""
        if not self._held:
            asyncio.get_running_loop().call_soon(self.flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        held, self._held, self._size = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def close(self) -> None:
        """Send what is left, then close."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell of the connection."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take nothing in."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take in again."""
        self._transport.resume_reading()


class Bounded(asyncio.Protocol):
    """What a protocol of uvicorn's lacks; goes before it among the bases."""

    cycle: Any
    transport: Any

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start to wait for the first request."""
        self.joined = Joined(transport)
        super().connection_made(self.joined)
        self.deadline = Deadline(self.joined)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        super().data_received(data)
        self.deadline.update(self.cycle)

    def eof_received(self) -> None:
        """Send what is held: for a sender that has said all that it will, the loop closes the connection."""
        self.joined.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self.deadline.drop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        refuse(self.transport, 400, msg)


class PureProtocol(Bounded, H11Protocol):
    """The one without compiled parts; it bounds the head's size itself."""


def fast_protocol() -> type[asyncio.Protocol]:
    """Give the protocol over httptools; raises ImportError without it."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - an optional dependency

    class FastProtocol(Bounded, HttpToolsProtocol):
        head = 0
        in_head = False

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.head = self.head + len(data) if self.in_head else 0
            if self.head > MOST_HEAD and not self.transport.is_closing():
                refuse(self.transport, 431, f"the request's head is larger than {MOST_HEAD} bytes")

        def on_message_begin(self) -> None:
            self.in_head = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.in_head = False
            super().on_headers_complete()

    return FastProtocol


def best_protocol() -> type[asyncio.Protocol]:
    """Give the protocol over httptools where it is installed, else the one over h11."""
    return fast_protocol() if find_spec("httptools") else PureProtocol
