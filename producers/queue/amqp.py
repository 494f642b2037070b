"""AMQP 0-9-1: a queue of others, or one of ours that is bound to an exchange of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import msgspec
from amqp import Channel
from amqp import Message as RawMessage
from amqp.exceptions import ConsumerCancelled, NotFound

from pipeline import AmqpServer
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

_WAIT: Final = 0.5
_GATHER: Final = 0.01
"""Seconds that the next message of a batch may take to come: they are on their way already, or there are none."""
_NAMES: Final = {"content_type": "content-type", "type": "type", "app_id": "app-id", "correlation_id": "correlation-id"}


class Amqp:
    """A consumer of one queue."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._server = AmqpServer(config.url)
        self._arrived: list[Delivery] = []
        with self._server.told():
            self._connection = self._server.connect()
            try:
                self._channel = self._subscribed()
            except BaseException:
                self._connection.collect()
                raise

    def receive(self) -> Sequence[Delivery]:
        """Give what has arrived, and what arrives with it."""
        with self._server.told():
            wait, end = _WAIT, monotonic() + _WAIT
            while len(self._arrived) < self._config.prefetch and monotonic() < end:
                try:
                    self._connection.drain_events(timeout=wait)
                except TimeoutError:
                    break
                wait = _GATHER
            self._connection.heartbeat_tick()
        deliveries, self._arrived = self._arrived, []
        return deliveries

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge each by its tag: others that arrived before may not be ours yet."""
        with self._server.told():
            for delivery in deliveries:
                self._channel.basic_ack(delivery.tag)

    def close(self) -> None:
        """Close the connection; the server puts back what was not acknowledged."""
        with self._server.told():
            self._connection.close()

    def _subscribed(self) -> Channel:
        config = self._config
        self._declare()
        channel = self._connection.channel()
        channel.auto_decode = False  # bodies are bytes to us, whatever encoding the sender names
        if config.exchange is not None:
            for key in config.routing_keys or [""]:
                channel.queue_bind(config.queue, config.exchange, key)
        channel.basic_qos(0, config.prefetch, False)
        channel.basic_consume(config.queue, callback=self._arrive, on_cancel=_cancelled)
        return channel

    def _declare(self) -> None:
        """Make what the options say and is not there; what is there may be of another make, and is left as it is."""
        config, name = self._config, self._config.exchange
        kind = config.exchange_type
        if name and kind and not self._is_there(lambda channel: channel.exchange_declare(name, kind, passive=True)):
            self._connection.channel().exchange_declare(name, kind, durable=True, auto_delete=False)
        if config.declare and not self._is_there(lambda channel: channel.queue_declare(config.queue, passive=True)):
            self._connection.channel().queue_declare(config.queue, durable=True, auto_delete=False)

    def _is_there(self, ask: Callable[[Channel], object]) -> bool:
        channel: Any = self._connection.channel()
        with channel:  # a no ends it
            try:
                ask(channel)
            except NotFound:
                return False
        return True

    def _arrive(self, raw: RawMessage) -> None:
        own = raw.properties
        headers = {str(name).lower(): _text(value) for name, value in own.get("application_headers", {}).items()}
        told = raw.delivery_info
        headers |= {"routing_key": told["routing_key"], "exchange": told["exchange"], "queue": self._config.queue}
        headers |= {header: own[name] for name, header in _NAMES.items() if own.get(name)}
        body = raw.body if isinstance(raw.body, bytes) else raw.body.encode()
        name = f"{self._config.queue}/{own['message_id']}" if own.get("message_id") else ""
        self._arrived.append(Delivery(body, headers, name, _time(own.get("timestamp")), told["delivery_tag"]))


def _cancelled(tag: str) -> None:
    raise ConsumerCancelled(f"the server ended the consumer {tag}: its queue was deleted, or moved")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode().strip('"')


def _time(seconds: int | None) -> datetime | None:
    """Give the moment of a message's property; some senders give it in milliseconds."""
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds / 1000 if seconds > 10**11 else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def probe(config: QueueConfig) -> str:
    """Ask for the server and, where it has to be there, the queue."""
    server = AmqpServer(config.url)
    with server.told():
        connection = server.connect()
        try:
            name = server.version(connection)
            if config.declare:
                return name
            found: Any = connection.channel().queue_declare(config.queue, passive=True)
            return f"{name}, {found.message_count} on the queue"
        finally:
            connection.close()
