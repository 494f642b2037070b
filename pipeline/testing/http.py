"""The contract of consumers that speak HTTP: what they send, and what they make of each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from pipeline.errors import PermanentError, TemporaryError
from pipeline.http import HttpConsumer
from pipeline.message import Message
from pipeline.networks import Networks
from pipeline.secrecy import secrets_in
from pipeline.testing.consumers import ConsumerContract
from pipeline.testing.contract import DEAD, unchanged
from pipeline.testing.delivering import assert_arrived, deliver, failure, request_of, run, shown_by
from pipeline.testing.probing import assert_probe, probed
from pipeline.testing.secrecy import assert_error_tells_no_secret
from pipeline.testing.server import Answer, Fault, LoopbackServer

PASSWORD = "hunter-two-of-a-url"  # noqa: S105 - nobody's
"""The password of a login in a URL."""


class HttpConsumerContract(ConsumerContract):
    """The contract of an `HttpConsumer`, against a server on loopback: `{url}` in `options` is its address.

    Where the service answers success in a body that `check` reads, set `good_body` to one.
    """

    good_body: ClassVar[bytes] = b""

    @pytest.fixture
    def server(self) -> Iterator[LoopbackServer]:
        """Give the server; it answers 200."""
        with LoopbackServer() as server:
            server.answer = Answer(body=self.good_body)
            yield server

    @pytest.fixture
    def url(self, server: LoopbackServer) -> str:
        """Give what `{url}` stands for."""
        return server.url

    def away(self, directory: Path) -> Any:
        """Give options that lead where nothing listens."""
        return self.config_of(self.away_options or self.options, DEAD, directory)

    def message(self) -> Message:
        """Give the message that is delivered in these tests."""
        return self.messages()[0]

    def test_it_is_an_http_consumer(self) -> None:
        """The class is an `HttpConsumer`."""
        assert issubclass(self.plugin, HttpConsumer)

    def test_the_request_depends_on_the_message_alone(self, config: Any, made: Any) -> None:
        """The same message gives the same request, each time and from every instance, and is left as it is."""
        for message in unchanged(self.messages()):
            with self.opened(config) as other:
                assert request_of(made, message) == request_of(made, message) == request_of(other, message)

    def test_it_delivers(self, made: Any, server: LoopbackServer) -> None:
        """One request arrives, with the method, path, headers and body that `request` says."""
        message = self.message()
        deliver(made, message)
        assert len(server.received) == 1, "one request to the suite's server is expected: is `{url}` in `options`?"
        assert_arrived(server.received[0], made.request(message))

    def test_it_posts_to_no_network_that_is_not_allowed(self, made: Any, server: LoopbackServer) -> None:
        """Where the process's settings allow public addresses alone, no connection is made, and the error says what allows it."""
        made.networks = Networks()
        with pytest.raises(TemporaryError, match="SIFTBELL_PRIVATE_NETWORKS"):
            deliver(made, self.message())
        assert server.connections == []

    def test_every_message_arrives_or_is_given_up(self, made: Any, server: LoopbackServer) -> None:
        """Whatever a message holds, its request arrives as `request` says, or it is `PermanentError` and nothing is sent."""
        for message in unchanged(self.messages()):
            server.received.clear()
            error = failure(made, message)
            if error is None:
                (received,) = server.received
                assert_arrived(received, made.request(message))
            else:
                assert isinstance(error, PermanentError)
                assert server.received == []

    def test_it_keeps_its_connection(self, made: Any, server: LoopbackServer) -> None:
        """Messages one after the other go over one connection."""

        async def one_by_one() -> None:
            for _ in range(3):
                await made.consume(self.message())

        run(made, one_by_one())
        assert len(server.received) == 3
        assert len(server.connections) == 1, "each message made a connection of its own"

    def test_it_delivers_several_at_once(self, made: Any, server: LoopbackServer) -> None:
        """Calls are under way at the same time, over shared connections."""

        async def all_at_once() -> None:
            await asyncio.gather(*(made.consume(self.message()) for _ in range(20)))

        run(made, all_at_once())
        assert len(server.received) == 20

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_2xx_is_done(self, made: Any, server: LoopbackServer, status: int) -> None:
        """These end the delivery."""
        if status == 204 and self.good_body:
            pytest.skip("this service's success has a body")
        server.answer = Answer(status, body=self.good_body)
        deliver(made, self.message())

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 520, 599])
    def test_what_may_pass_is_tried_again(self, made: Any, server: LoopbackServer, status: int) -> None:
        """These are `TemporaryError`."""
        server.answer = Answer(status, body=b"later")
        with pytest.raises(TemporaryError, match=str(status)) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after is None

    @pytest.mark.parametrize(
        "status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 431, 451]
    )
    def test_what_will_not_pass_is_given_up(self, made: Any, server: LoopbackServer, status: int) -> None:
        """These are `PermanentError`; a redirect is not followed."""
        server.answer = Answer(status, {"Location": f"{server.url}/elsewhere"}, b"no")
        with pytest.raises(PermanentError, match=str(status)):
            deliver(made, self.message())
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("7", 7), ("0", 0), ("-5", 0), ("999999999", 86400), ("soon", None), ("", None), ("Sat, 01 Jan 2000 00:00:00 GMT", 0)],
    )
    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_kept(self, made: Any, server: LoopbackServer, status: int, value: str, seconds: float | None) -> None:
        """The wait that the other side asks for is passed on, within sense."""
        server.answer = Answer(status, {"Retry-After": value})
        with pytest.raises(TemporaryError) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize("status", [408, 425, 500, 502, 504])
    def test_retry_after_is_kept_with_every_answer(self, made: Any, server: LoopbackServer, status: int) -> None:
        """It stands beside any answer that is tried again."""
        server.answer = Answer(status, {"Retry-After": "7"})
        with pytest.raises(TemporaryError) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after == 7

    def test_retry_after_may_be_a_date(self, made: Any, server: LoopbackServer) -> None:
        """A date gives the seconds until then."""
        moment = datetime.now(UTC) + timedelta(hours=1)
        server.answer = Answer(503, {"Retry-After": format_datetime(moment, usegmt=True)})
        with pytest.raises(TemporaryError) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after is not None
        assert 3000 < caught.value.retry_after <= 3600

    @pytest.mark.parametrize("fault", ["close", "cut", "cut chunk", "cut headers", "garbage", "reset"])
    def test_a_broken_answer_is_tried_again(self, made: Any, server: LoopbackServer, fault: Fault) -> None:
        """What breaks off, or is not HTTP, is `TemporaryError`."""
        server.answer = Answer(fault=fault)
        with pytest.raises(TemporaryError):
            deliver(made, self.message())

    def test_a_failed_handshake_is_tried_again(self, server: LoopbackServer, tmp_path: Path) -> None:
        """Where TLS cannot be agreed on, here with a server that knows none, it is `TemporaryError`, without a secret in it."""
        config = self.config_of(self.options, server.url.replace("http:", "https:"), tmp_path)
        with self.opened(config) as plugin:
            error = failure(plugin, self.message())
        assert isinstance(error, TemporaryError), f"TemporaryError is expected, not {error!r}"
        assert_error_tells_no_secret(config, error)
        assert server.received == []

    def test_no_answer_is_tried_again(self, made: Any, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is waited for without end."""
        monkeypatch.setattr(type(made), "total_timeout", 0.3)
        server.answer = Answer(fault="silence")
        with pytest.raises(TemporaryError):
            deliver(made, self.message())

    def test_errors_hold_no_secret(self, config: Any, made: Any, server: LoopbackServer) -> None:
        """Not even where the other side answers with all that it was sent; the URL's path and query do not show either."""
        request = made.request(self.message())
        echo = f"{request.url} {request.headers} ".encode() + request.body
        parts = urlsplit(request.url)
        for status in (400, 500):
            server.answer = Answer(status, body=echo)
            with pytest.raises((PermanentError, TemporaryError)) as caught:
                deliver(made, self.message())
            assert_error_tells_no_secret(config, caught.value)
        server.answer = Answer(400)
        with pytest.raises(PermanentError) as caught:
            deliver(made, self.message())
        hidden = (parts.path.strip("/") and parts.path, parts.query, parts.password)
        assert not any(part and part in str(caught.value) for part in hidden), "an error shows more of the URL than its host"

    def test_a_probe_sends_no_message(self, config: Any, made: Any, server: LoopbackServer) -> None:
        """Whatever the other side answers, `probe` sends none of the requests that deliver messages, and tells no secret."""
        request = made.request(self.message())
        echo = f"{request.headers} {[*secrets_in(config)]}".encode()
        for answer in (Answer(body=self.good_body), Answer(401, body=echo), Answer(503, body=echo), Answer(fault="close")):
            server.answer = answer
            assert_probe(config, probed(made))
        delivery = request.method, urlsplit(request.url).path or "/"
        assert delivery not in [(received.method, urlsplit(received.path).path) for received in server.received]

    def test_a_password_in_the_url_is_told_nobody(self, server: LoopbackServer, tmp_path: Path) -> None:
        """Where a URL of the options may hold a login, no preview and no error has its password."""
        try:
            config = self.config_of(self.options, server.url.replace("//", f"//somebody:{PASSWORD}@"), tmp_path)
        except ValidationError:
            pytest.skip("it may not: it is refused as an option")
        server.answer = Answer(400)
        with self.opened(config) as plugin:
            shown = [str(shown_by(plugin, self.message())), str(failure(plugin, self.message())), str(probed(plugin))]
        assert PASSWORD not in " ".join(shown), "a password shows"

    def test_a_long_answer_is_cut(self, made: Any, server: LoopbackServer) -> None:
        """An error holds a bounded excerpt of the answer, on one line."""
        server.answer = Answer(400, body=b"\x1b[31mline\r\n" * 100_000)
        with pytest.raises(PermanentError) as caught:
            deliver(made, self.message())
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()
