"""AMQP 0-9-1: persistent messages, each confirmed by the server, none to where nobody takes it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from amqp import Connection
from amqp import Message as RawMessage
from amqp.exceptions import AMQPError

from consumers.queue.options import QueueConfig
from consumers.queue.outgoing import Failures, Outgoing
from pipeline import AmqpRefusedError, AmqpServer, PermanentError, TemporaryError, shorten

_CONFIRMS_WITHIN: Final = 30.0
"""Seconds for the confirms of a batch."""
_PERSISTENT: Final = 2
_NOT_FOUND: Final = 404


class Amqp:
    """One connection, on which one batch after the other is published; it is made anew after an error."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._server = AmqpServer(config.url)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._channel: Any = None
        self._numbers: dict[int, str] = {}
        """The ids of messages that are not confirmed, by their numbers on the channel."""
        self._sent = 0
        self._left: dict[str, Outgoing] = {}
        """What is neither confirmed nor refused."""
        self._failures: Failures = {}

    def send(self, batch: Sequence[Outgoing]) -> Failures:
        """Publish the messages; gives the error of each that the server did not take."""
        with self._lock:
            self._failures = {}
            self._publish(batch)
            return self._failures

    def close(self) -> None:
        """End the connection."""
        with self._lock, suppress(AMQPError, OSError, TemporaryError):  # it may have been cut
            if self._connection is not None:
                self._connection.close()
            self._end()

    def probe(self) -> str:
        """Ask for the server and the exchange."""
        with self._server.told():
            connection = self._server.connect()
            try:
                if self._config.exchange:
                    connection.channel().exchange_declare(self._config.exchange, "direct", passive=True)
                return self._server.version(connection)
            finally:
                connection.close()

    def _publish(self, batch: Sequence[Outgoing]) -> None:
        self._left = {outgoing.message.id: outgoing for outgoing in batch}
        try:
            with self._server.told():
                self._connect()
                for outgoing in batch:
                    self._sent += 1
                    self._numbers[self._sent] = outgoing.message.id
                    self._channel.basic_publish(_raw(outgoing, self._config), self._config.exchange, outgoing.routing_key, True)
                self._await_confirms()
        except AmqpRefusedError as error:
            for_all = len(batch) == 1 or not self._numbers or error.code == _NOT_FOUND
            left = [*self._left.values()]
            self._end()
            if for_all:
                self._failures |= {outgoing.message.id: error for outgoing in left}
                return
            for outgoing in left:  # the server ends the channel, and does not say for which message
                self._publish([outgoing])
        except TemporaryError as error:
            self._failures |= dict.fromkeys(self._left, error)
            self._end()

    def _connect(self) -> None:
        """Have a connection that lives: the server may have ended it since the last batch."""
        if self._connection is not None:
            try:
                self._connection.drain_events(timeout=0)
            except TimeoutError:
                return
            except (AMQPError, OSError, TemporaryError):
                self._end()
        if self._connection is None:
            self._connection = self._server.connect(heartbeat=0, on_blocked=_refuse_blocked)
            self._channel = self._connection.channel()
            self._channel.confirm_select()
            self._channel.events["basic_ack"].add(self._confirmed)
            self._channel.events["basic_nack"].add(self._refused)
            self._channel.events["basic_return"].add(self._returned)

    def _await_confirms(self) -> None:
        end = monotonic() + _CONFIRMS_WITHIN
        while self._numbers:
            assert self._connection is not None
            try:
                self._connection.drain_events(timeout=max(0.001, end - monotonic()))
            except TimeoutError:
                raise TimeoutError(f"it did not confirm within {_CONFIRMS_WITHIN:g} s") from None

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        self._numbers, self._sent = {}, 0
        if connection is not None:
            connection.collect()

    def _settled(self, number: int, multiple: bool) -> list[str]:
        numbers = [one for one in self._numbers if one <= number] if multiple else [number]
        settled = [self._numbers.pop(one) for one in numbers]
        for message_id in settled:
            self._left.pop(message_id, None)
        return settled

    def _confirmed(self, number: int, multiple: bool) -> None:
        self._settled(number, multiple)

    def _refused(self, number: int, multiple: bool) -> None:
        error = TemporaryError(f"{self._server.place} could not keep the message")
        self._failures |= dict.fromkeys(self._settled(number, multiple), error)

    def _returned(self, _: Exception, exchange: str, routing_key: str, raw: RawMessage) -> None:
        """Note that nothing takes a message; its confirm comes next."""
        where = f"exchange '{exchange}' has nothing bound that takes" if exchange else "there is no queue"
        error = PermanentError(f"{self._server.place}: {where} '{routing_key[:100]}'")
        self._failures[str(raw.properties["message_id"])] = error


def _raw(outgoing: Outgoing, config: QueueConfig) -> RawMessage:
    message = outgoing.message
    return RawMessage(
        outgoing.body,
        content_type=config.content_type,
        content_encoding="utf-8",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        timestamp=max(0, int(message.time.timestamp())),
        type=shorten(message.type, 255, unit="bytes"),
        app_id="siftbell",
        application_headers=dict(outgoing.headers),
    )


def _refuse_blocked(reason: str) -> None:
    """Take RabbitMQ's word that it reads nothing now."""
    raise TemporaryError(f"the server takes nothing until its memory or disk has room again ({reason})")
