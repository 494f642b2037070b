"""The contracts of consumers: what holds for all, and what for those that speak HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec
import pytest

from pipeline.errors import PermanentError, TemporaryError
from pipeline.http import HttpConsumer, HttpRequest
from pipeline.message import Message
from pipeline.plugin import BatchConsumer, Consumer
from pipeline.testing.contract import PluginContract, assert_no_secret, sample_messages, unchanged
from pipeline.testing.server import Answer, Fault, LoopbackServer


class ConsumerContract(PluginContract):
    """The contract of every consumer."""

    def messages(self) -> list[Message]:
        """Give what the consumer is tried with; override it for one that expects more of a message."""
        return sample_messages()

    def test_it_is_a_consumer(self) -> None:
        """The class is a `Consumer` or a `BatchConsumer`."""
        assert issubclass(self.plugin, (Consumer, BatchConsumer))

    def test_a_preview_shows_no_secret(self, config: Any, made: Any) -> None:
        """`siftbell try` can print what would be sent; nothing secret is in it, and no message is changed."""
        for message in unchanged(self.messages()):
            try:
                shown = made.preview(message)
            except PermanentError as error:
                shown = str(error)
            assert_no_secret(config, msgspec.json.encode(shown).decode())


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

    def message(self) -> Message:
        """Give the message that is delivered in these tests."""
        return self.messages()[0]

    def test_it_is_an_http_consumer(self) -> None:
        """The class is an `HttpConsumer`."""
        assert issubclass(self.plugin, HttpConsumer)

    def test_the_request_depends_on_the_message_alone(self, config: Any, made: Any) -> None:
        """The same message gives the same request, from every instance, and is left as it is."""
        for message in unchanged(self.messages()):
            assert _request(made, message) == _request(self.plugin(config), message)

    def test_it_delivers(self, made: Any, server: LoopbackServer) -> None:
        """One request arrives, as `request` says."""
        message = self.message()
        deliver(made, message)
        (received,) = server.received
        request: HttpRequest = made.request(message)
        assert (received.method, received.body) == (request.method, request.body)
        wanted = {name.lower(): value for name, value in request.headers.items()}
        assert {name: received.headers.get(name) for name in wanted} == wanted

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

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_what_may_pass_is_tried_again(self, made: Any, server: LoopbackServer, status: int) -> None:
        """These are `TemporaryError`."""
        server.answer = Answer(status, body=b"later")
        with pytest.raises(TemporaryError, match=str(status)) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after is None

    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422])
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

    def test_retry_after_may_be_a_date(self, made: Any, server: LoopbackServer) -> None:
        """A date gives the seconds until then."""
        moment = datetime.now(UTC) + timedelta(hours=1)
        server.answer = Answer(503, {"Retry-After": format_datetime(moment, usegmt=True)})
        with pytest.raises(TemporaryError) as caught:
            deliver(made, self.message())
        assert caught.value.retry_after is not None
        assert 3000 < caught.value.retry_after <= 3600

    @pytest.mark.parametrize("fault", ["close", "cut", "garbage"])
    def test_a_broken_answer_is_tried_again(self, made: Any, server: LoopbackServer, fault: Fault) -> None:
        """What breaks off, or is not HTTP, is `TemporaryError`."""
        server.answer = Answer(fault=fault)
        with pytest.raises(TemporaryError):
            deliver(made, self.message())

    def test_no_answer_is_tried_again(self, made: Any, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is waited for without end."""
        monkeypatch.setattr(type(made), "total_timeout", 0.3)
        server.answer = Answer(fault="silence")
        with pytest.raises(TemporaryError):
            deliver(made, self.message())

    def test_a_dead_server_is_tried_again(self, config: Any) -> None:
        """Where nothing listens any more, it is `TemporaryError`."""
        plugin = self.plugin(config)
        plugin.open()
        with LoopbackServer() as gone:
            dead = gone.url
        live = plugin.request(self.message())
        request = HttpRequest(f"{dead}/", live.body, live.method, live.headers)
        plugin.request = lambda _message: request
        with pytest.raises(TemporaryError):
            deliver(plugin, self.message())
        plugin.close()

    def test_errors_and_logs_hold_no_secret(
        self, config: Any, made: Any, server: LoopbackServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not even where the other side answers with all that it was sent; the URL's path and query do not show either."""
        caplog.set_level(logging.DEBUG)
        request = made.request(self.message())
        echo = f"{request.url} {request.headers} ".encode() + request.body
        parts = urlsplit(request.url)
        for status in (400, 500):
            server.answer = Answer(status, body=echo)
            with pytest.raises((PermanentError, TemporaryError)) as caught:
                deliver(made, self.message())
            assert_no_secret(config, str(caught.value))
        assert_no_secret(config, caplog.text)
        server.answer = Answer(400)
        with pytest.raises(PermanentError) as caught:
            deliver(made, self.message())
        assert not any(part and part in str(caught.value) for part in (parts.path.strip("/"), parts.query, parts.password))

    def test_a_long_answer_is_cut(self, made: Any, server: LoopbackServer) -> None:
        """An error holds a bounded excerpt of the answer, on one line."""
        server.answer = Answer(400, body=b"\x1b[31mline\r\n" * 100_000)
        with pytest.raises(PermanentError) as caught:
            deliver(made, self.message())
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def deliver(plugin: Any, message: Message) -> None:
    """Give one message to an async consumer, on a loop of its own."""
    run(plugin, plugin.consume(message))


def run(plugin: Any, work: Coroutine[Any, Any, None]) -> None:
    """Run work of a plugin on a loop of its own, and close the plugin's connections there."""

    async def and_close() -> None:
        try:
            await work
        finally:
            await plugin.aclose()

    asyncio.run(and_close())


def _request(plugin: Any, message: Message) -> HttpRequest | str:
    try:
        request: HttpRequest = plugin.request(message)
    except PermanentError as error:
        return str(error)
    return request
