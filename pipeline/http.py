"""HTTP out: a consumer says what to send, and this sends it, with one set of rules for answers and retries."""

from __future__ import annotations

import asyncio
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from ssl import SSLCertVerificationError
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from pipeline.address import Place, place_of
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import C, Consumer
from pipeline.secrecy import masker, secrets_in
from pipeline.wire import Answer, BrokenError, Connections, Limits

LONGEST_WAIT: Final = 86400.0
"""Seconds that a `Retry-After` is believed, at most."""
_AGAIN: Final = frozenset({408, 425, 429})
_CONTENT: Final = frozenset({400, 413, 422})
_EXCERPT: Final = 200
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CALL: Final = re.compile(r"\[Errno (\d+)\] Connect call failed")
"""How asyncio says that no address could be connected to; of a name with several it lists all."""
_BREAK: Final = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to send: the body as bytes with its `content-type` among the headers."""

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


class UnacceptableError(PermanentError):
    """The other side does not take what it was sent: too large, or not what it expects. It might take less of it."""


class HttpConsumer(Consumer[C]):
    """A consumer whose delivery is one HTTP request: a subclass says what to send, and perhaps how to read the answer.

    Done: 2xx. Tried again: 408, 425, 429 and 5xx, with `Retry-After` believed up to a day; no connection, no answer
    in time, an answer that breaks off, a name that is not found or leads into a private network that the process's settings do
    not allow (`networks`), a certificate that does not hold (it may be renewed).
    Given up: every other status, redirects too, since what was posted would go to an address nobody configured; a URL or
    header that cannot be sent. Errors name scheme, host and port of the URL and nothing else of it, and hold at
    most 200 characters of the answer; the values of the config's `SecretStr` fields are masked in them.
    """

    connect_timeout: ClassVar[float] = 5.0
    """Seconds for a connection, with its TLS handshake."""
    total_timeout: ClassVar[float] = 10.0
    """Seconds for everything, from the connection to the end of the answer."""
    answer_limit: ClassVar[int] = 64 * 1024
    """Bytes of an answer that are read; the rest is not waited for."""

    _connections: tuple[asyncio.AbstractEventLoop, Connections] | None = None

    @abstractmethod
    def request(self, message: Message) -> HttpRequest:
        """Give the request that delivers the message: computes only, and gives the same for the same message."""

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge an answer: return where the other side has the message, raise `TemporaryError` or `PermanentError` else.

        Override it for services that answer 200 with an error in the body, and call `super().check(…)` first. Header
        names are in lower case; `body` is cut at `answer_limit`. What is raised is masked as any other error.
        """
        judge(status, headers, body)

    async def consume(self, message: Message) -> None:
        """Send the request, and judge the answer by `check`."""
        await self.send(self.request(message))

    async def send(self, request: HttpRequest) -> bytes:
        """Send a request, judge the answer by `check`, and give its body: for a delivery that takes more than one request.

        What is raised is of the class that `check` raised, so a subclass of an error can tell one refusal from another.
        """
        return await self._judged(request, self.check)

    async def ask(self, request: HttpRequest) -> bytes:
        """Send a request that changes nothing, judge the answer by its status alone, and give its body: for `probe`."""
        return await self._judged(request, judge)

    async def _judged(self, request: HttpRequest, check: Callable[[int, Mapping[str, str], bytes], None]) -> bytes:
        try:
            answer = await self._send(request)
            check(*answer)
        except (TemporaryError, PermanentError) as error:
            error.args = (self._told(f"{request.method} {origin(request.url)}", error),)
            raise error from None
        return answer.body

    async def probe(self) -> str | None:
        """Open a connection to where a message would go, and ask nothing.

        Override it where the service has a question that changes nothing: `await self.ask(HttpRequest(url, method="GET"))`.
        """
        try:
            url = self.request(Message(source="siftbell", title="a sample", key="sample")).url
        except PermanentError:
            return None  # where it would go depends on the message
        return await self.reach(url)

    async def reach(self, url: str) -> str:
        """Open a connection to where a URL leads, with its TLS, and send nothing; give the line for `probe`."""
        try:
            await self._reach(url)
        except (TemporaryError, PermanentError) as error:
            error.args = (self._told(origin(url), error),)
            raise error from None
        return f"{origin(url)} answers; it was asked nothing"

    async def aclose(self) -> None:
        """Close the connections. The engine awaits this on the loop that `consume` ran on, then calls `close`."""
        if self._connections is not None:
            (_, connections), self._connections = self._connections, None
            await connections.close()

    def preview(self, message: Message) -> object:
        """Give method, host and body of the request, masked."""
        request = self.request(message)
        body = self._masked(request.body.decode(errors="replace"))
        return {"request": f"{request.method} {origin(request.url)}", "body": body}

    async def _send(self, request: HttpRequest) -> Answer:
        place = _sendable(request)
        try:
            return await self._open_connections().send(request.method, place, request.headers, request.body, self._limits)
        except (OSError, ValueError, TypeError) as error:
            raise self._unsent(error) from None

    async def _reach(self, url: str) -> None:
        place = _sendable(HttpRequest(url))
        try:
            await self._open_connections().reach(place, self._limits)
        except (OSError, ValueError, TypeError) as error:
            raise self._unsent(error) from None

    def _unsent(self, error: OSError | ValueError | TypeError) -> TemporaryError | PermanentError:
        """Give what it means that a request could not be sent, or was not answered."""
        if isinstance(error, TimeoutError):
            return TemporaryError(f"no answer within {self.total_timeout:g} s")
        if isinstance(error, SSLCertVerificationError):
            return TemporaryError(f"the certificate does not hold: {error.verify_message}")
        if isinstance(error, BrokenError):
            return TemporaryError(f"the connection broke off ({error})")
        if isinstance(error, OSError):
            refused = _CALL.search(str(error))
            reason = os.strerror(int(refused[1])) if refused else error.strerror or error
            return TemporaryError(f"no connection: {reason}")
        return PermanentError(f"the request cannot be sent ({type(error).__name__})")

    @property
    def _limits(self) -> Limits:
        return Limits(self.connect_timeout, self.total_timeout, self.answer_limit)

    def _open_connections(self) -> Connections:
        loop = asyncio.get_running_loop()
        if self._connections is None or self._connections[0] is not loop:
            self._connections = loop, Connections(self.networks)
        return self._connections[1]

    def _told(self, where: str, error: Exception) -> str:
        return told(where, error, self._masked)

    @cached_property
    def _masked(self) -> Callable[[str], str]:
        return masker(secrets_in(self.config))


def json_object(body: bytes) -> dict[str, Any]:
    """Give the JSON object that an answer is; one without fields where it is none."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def judge(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Return for 2xx; raise `TemporaryError` for 408, 425, 429 and 5xx, `PermanentError` for all else.

    400, 413 and 422 are its subclass `UnacceptableError`.
    """
    if 200 <= status < 300:
        return
    if status in _AGAIN or status >= 500:
        raise TemporaryError(f"answered {status}{_excerpt(body)}", retry_after=_retry_after(headers))
    if 300 <= status < 400:
        raise PermanentError(f"answered {status}: redirects are not followed; write the final URL into the configuration")
    kind = UnacceptableError if status in _CONTENT else PermanentError
    raise kind(f"answered {status}{_excerpt(body)}")


def told(where: str, error: Exception, mask: Callable[[str], str]) -> str:
    """Give what went wrong with a request as it is told: where, masked, and cut."""
    text = mask(str(error))
    return f"{where}: {text if len(text) <= _EXCERPT + 20 else text[: _EXCERPT + 19] + '…'}"


def origin(url: str) -> str:
    """Give scheme, host and port: the rest of a URL may hold a token."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid URL"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else "an invalid URL"


def _sendable(request: HttpRequest) -> Place:
    """Give where a request goes; raises `PermanentError` where it goes nowhere, or would be another request on the wire."""
    try:
        place = place_of(request.url)
    except ValueError:
        raise PermanentError("a URL that begins with http:// or https:// is expected") from None
    if not _TOKEN.fullmatch(request.method):
        raise PermanentError("the method is not one word")
    for name, value in request.headers.items():
        if not _TOKEN.fullmatch(name):
            raise PermanentError(f"the header {re.sub(r'[^ -~]', '?', name)} has a name that none may have")
        if _BREAK.search(value):
            raise PermanentError(f"the header {name} holds a line break or a NUL")
    return place


def _excerpt(body: bytes) -> str:
    """Give the beginning of an answer on one line; it is masked and cut afterwards, by `consume`."""
    text = " ".join(
        re.sub(r"[^\S ]|[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e]", " ", body.decode(errors="replace")).split()
    )
    return f": {text}" if text else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After`: seconds or a date; None where there is none that can be read, never below 0 or above a day."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[+-]?\d{1,300}(\.\d*)?", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_WAIT)
