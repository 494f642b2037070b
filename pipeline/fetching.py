"""HTTP asked: a polling producer says where, and this asks, with the rules for answers that deliveries have (`pipeline.http`)."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import httpx2
import msgspec

from pipeline.errors import PermanentError, TemporaryError
from pipeline.http import judge, origin, told
from pipeline.plugin import Config
from pipeline.secrecy import masker, secrets_in

CONNECT_SECONDS: Final = 5.0
_NOT_MODIFIED: Final = 304


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was answered: a status of 2xx, or 304 to a question that had a condition. Header names are in lower case."""

    where: str
    """Scheme, host and port that were asked."""
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Read the body as JSON; raises `PermanentError` where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise PermanentError(f"GET {self.where}: the answer is not JSON") from None


Judge = Callable[[int, Mapping[str, str], bytes], None]


class Fetcher:
    """Asks other systems by GET, for one polling producer: make it in `open`, close it in `close`. Threads may share it.

    Connections stay open between two questions. Redirects are not followed, since credentials would go to an address nobody
    configured; proxies and .netrc of the environment are not asked, as little as for deliveries. Errors name scheme, host and
    port of the URL, and hold at most 200 characters of the answer; the values of the config's `SecretStr` fields are masked.
    """

    def __init__(
        self,
        config: Config,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 30.0,
        limit: int = 32 * 1024 * 1024,
        judged: Judge = judge,
    ) -> None:
        """`headers` go with every question; `timeout` is in seconds for a whole answer, `limit` the bytes it may have.

        `judged` takes status, headers (names in lower case) and body of an answer, and raises what `get` is to raise: for a
        service that says otherwise than most what is to be tried again.
        """
        for chatty in ("httpx2", "httpcore2"):
            logging.getLogger(chatty).setLevel(logging.WARNING)  # httpx2 writes whole URLs, and a token may be in one
        self._mask = masker(secrets_in(config))
        self._timeout = timeout
        self._limit = limit
        self._judged = judged
        self._client = httpx2.Client(
            headers={"user-agent": "siftbell", "accept": "application/json", "accept-encoding": "gzip", **(headers or {})},
            verify=tls or ssl.create_default_context(),
            timeout=httpx2.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, url: str, query: Mapping[str, str] | None = None, *, headers: Mapping[str, str] | None = None) -> Fetched:
        """Ask, and give the answer where it is a 2xx, or 304.

        Raises `TemporaryError` for 408, 425, 429 and 5xx (with `Retry-After`), no connection, no answer in time and an answer
        that breaks off; `PermanentError` for any other status, for an answer that is too large and a URL that is none.
        """
        return self._ask("GET", url, query, headers)

    def post(self, url: str, *, headers: Mapping[str, str] | None = None) -> Fetched:
        """Ask for what is made anew at each question, such as a token that lasts an hour; else as `get`."""
        return self._ask("POST", url, None, headers)

    def _ask(self, method: str, url: str, query: Mapping[str, str] | None, headers: Mapping[str, str] | None) -> Fetched:
        with self._told(method, url):
            asked = self._client.build_request(method, url, params=query, headers=headers)
            end = monotonic() + self._timeout
            answer = self._client.send(asked, stream=True)
            try:
                body = self._read(answer, end)
            finally:
                answer.close()
            if answer.status_code != _NOT_MODIFIED:
                self._judged(answer.status_code, dict(answer.headers), body)
        return Fetched(origin(url), answer.status_code, dict(answer.headers), body)

    def _read(self, answer: httpx2.Response, end: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in answer.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._limit:
                raise PermanentError(f"the answer is larger than {self._limit} bytes")
            if monotonic() > end:
                raise TemporaryError(f"no whole answer within {self._timeout:g} s")
        return b"".join(parts)

    @contextmanager
    def _told(self, method: str, url: str) -> Iterator[None]:
        """Put what goes wrong into the words of `pipeline.http`, masked."""
        try:
            with _understood(self._timeout):
                yield
        except (TemporaryError, PermanentError) as error:
            error.args = (told(f"{method} {origin(url)}", error, self._mask),)
            raise error from None


@contextmanager
def _understood(timeout: float) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException:
        raise TemporaryError(f"no answer within {timeout:g} s") from None
    except httpx2.ConnectError as error:
        raise TemporaryError(f"no connection: {error}") from None
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL, ValueError, TypeError) as error:
        raise PermanentError(f"the question cannot be sent ({type(error).__name__})") from None
    except httpx2.HTTPError as error:
        raise TemporaryError(f"the connection broke off ({type(error).__name__})") from None
