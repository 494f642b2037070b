"""The channel of the SQLite transport: what kombu and Celery call, put into statements on the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import BatchPublishError, ChannelError  # type: ignore[attr-defined]  # new in kombu 5.7, the stubs lag
from kombu.log import get_logger
from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments  # type: ignore[attr-defined]  # not in the stubs
from kombu.utils.uuid import uuid

from pipeline.queue.sqlite import routes
from pipeline.queue.sqlite.file import QueueFileError
from pipeline.queue.sqlite.routes import Lifetime
from pipeline.queue.sqlite.rows import Outgoing
from pipeline.queue.sqlite.unsettled import Unsettled

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pipeline.queue.sqlite.rows import Claimed, Rows

logger = get_logger(__name__)


class Route(NamedTuple):
    """Where the messages of a consumed queue go."""

    tag: str
    no_ack: bool
    deliver: Callable[[Claimed], None]


class Batch:
    """Messages of one `Producer.batch()`: each `max_size` of them is stored in one transaction, all or none."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._pending: list[Outgoing] = []

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **options: Any) -> None:
        """Take a message; stores what has gathered when that is `max_size`."""
        self._pending.append(self.channel.outgoing(message, exchange, routing_key, **options))
        if len(self._pending) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Store what has gathered; raises BatchPublishError when none of it was."""
        pending, self._pending = self._pending, []
        try:
            self.channel.rows.publish(pending)
        except QueueFileError as error:
            raise BatchPublishError(f"none of the batch's {len(pending)} messages was stored: {error}") from error

    def discard(self) -> None:
        """Forget what has gathered."""
        self._pending.clear()

    close = discard


class Channel(virtual.Channel):
    """One channel. Priorities run from 0 to 9, the higher first; within one, the older first.

    A delivered message has the header `x-delivery-count`: how often it was delivered before and neither acknowledged
    nor handed back at an orderly end. `delivery_info["redelivered"]` is true when it was delivered before at all.
    """

    QoS = Unsettled
    supports_fanout = True
    body_encoding: Any = None
    connection: Any
    channel_id: int
    qos: Unsettled

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.routes: dict[str, Route] = {}
        self._tags: dict[str, tuple[str, Route]] = {}

    @property
    def rows(self) -> Rows:
        """The open file; raises QueueFileError when the channel is closed."""
        if self.connection is None:
            raise QueueFileError("this channel of the queue is closed")
        rows: Rows = self.connection.opened()
        return rows

    def room(self, limit: int) -> int:
        """Return how many messages may be handed out now, at most `limit`."""
        return min(limit, self.qos.can_consume_max_estimate())

    # Exchanges, queues and bindings

    def exchange_declare(  # type: ignore[override]  # kombu and Celery pass the rest by name
        self,
        exchange: str | None = None,
        type: str = "direct",  # noqa: A002 - kombu's name
        passive: bool = False,
        **_: Any,
    ) -> None:
        """Create the exchange; raises ChannelError, or NotEquivalentError when it exists with another type."""
        kind = type or "direct"
        name = exchange or f"amq.{kind}"
        with self.rows.passing.reading() as handle:
            known = routes.known_exchange(handle, name)
            if passive and known is None:
                raise ChannelError(f"NOT_FOUND - no exchange {name!r}", reply_code=404)
        if not passive and known != kind:
            with self.rows.passing.writing() as handle:
                routes.declare_exchange(handle, name, kind)

    def exchange_delete(  # type: ignore[override]  # kombu and Celery pass the rest by name
        self, exchange: str, **_: Any
    ) -> None:
        """Remove the exchange and its bindings."""
        with self.rows.passing.writing() as handle:
            routes.delete_exchange(handle, exchange)

    def prepare_queue_arguments(self, arguments: dict[str, Any] | None, **kwargs: Any) -> dict[str, Any]:
        """Name the arguments as RabbitMQ does."""
        named: dict[str, Any] = to_rabbitmq_queue_arguments(arguments or {}, **kwargs)
        return named

    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        """Create the queue; with `passive`, raises ChannelError when there is none."""
        name = queue or f"amq.gen-{uuid()}"
        rows = self.rows
        with rows.passing.reading() as handle:
            if passive and not routes.has_queue(handle, name):
                raise ChannelError(f"NOT_FOUND - no queue {name!r}", reply_code=404)
            known = routes.queue_lifetime(handle, name)
        if not passive:
            lifetime = Lifetime(
                owner=rows.owner() if exclusive else 0,
                auto_delete=auto_delete,
                ttl=_seconds(arguments, "x-message-ttl"),
                unused_for=_seconds(arguments, "x-expires"),
            )
            if lifetime != known or lifetime.unused_for is not None:
                with rows.passing.writing() as handle:
                    routes.declare_queue(handle, name, lifetime)
        return queue_declare_ok_t(name, rows.size(name), 0)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        """Remove the queue with its bindings and messages, unless a condition forbids it; returns the ready messages."""
        rows = self.rows
        size = rows.size(queue)
        consumed = any(queue in channel.routes for channel in self.connection.channels)
        if not (if_empty and size) and not (if_unused and consumed):
            with rows.passing.writing() as handle:
                routes.delete_queue(handle, queue)
        return size

    def queue_bind(  # type: ignore[override]  # kombu and Celery pass the rest by name
        self, queue: str, exchange: str | None = None, routing_key: str = "", **_: Any
    ) -> None:
        """Let the queue take what the exchange gets under the routing key. Raises ChannelError without the exchange."""
        binding = (exchange or "amq.direct", routing_key or "", queue)
        with self.rows.passing.reading() as handle:
            bound = routes.is_bound(handle, *binding)
        if not bound:
            with self.rows.passing.writing() as handle:
                routes.bind(handle, *binding)

    def queue_unbind(  # type: ignore[override]  # kombu and Celery pass the rest by name
        self, queue: str, exchange: str | None = None, routing_key: str = "", **_: Any
    ) -> None:
        """Undo `queue_bind`."""
        with self.rows.passing.writing() as handle:
            routes.unbind(handle, exchange or "amq.direct", routing_key or "", queue)

    def list_bindings(self) -> Generator[tuple[str, str, str], None, None]:
        """Yield all bindings of the file as (queue, exchange, routing key)."""
        with self.rows.passing.reading() as handle:
            found = routes.bindings(handle)
        yield from found

    def _size(self, queue: str) -> int:
        return self.rows.size(queue)

    def _purge(self, queue: str) -> int:
        return self.rows.purge(queue)

    # Messages on their way in

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **options: Any) -> None:
        """Store the message; when this returns it is on the disk (`synchronous=full`).

        Raises QueueFileError when it was not stored, ChannelError for an exchange that was never declared and, with
        `mandatory`, when no queue takes it.
        """
        self.rows.publish([self.outgoing(message, exchange, routing_key, **options)])
        self.connection.stir()

    def outgoing(self, message: dict[str, Any], exchange: str, routing_key: str, mandatory: bool = False, **_: Any) -> Outgoing:
        """Return the message as it is stored."""
        properties = message["properties"]
        properties["delivery_info"] |= {"exchange": exchange or "", "routing_key": routing_key}
        expiration = properties.get("expiration")
        envelope = {name: value for name, value in message.items() if name != "body"}
        return Outgoing(
            exchange=exchange or "",
            routing_key=routing_key or "",
            priority=self._get_message_priority(message),
            envelope=msgspec.json.encode(envelope).decode(),
            body=message["body"],
            lifetime=None if expiration is None else int(expiration) / 1000,
            mandatory=mandatory,
            fallback=self.deadletter_queue,
        )

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return what `Producer.batch()` publishes through."""
        return Batch(self, max_size)

    # Messages on their way out

    def basic_consume(  # type: ignore[override]  # kombu gives them all
        self, queue: str, no_ack: bool, callback: Callable[[Any], None], consumer_tag: str, **_: Any
    ) -> None:
        """Deliver the queue's messages to the callback; of several consumers of a channel, the first has them."""

        def deliver(row: Claimed) -> None:
            message = self._received(row)
            if not no_ack:
                self.qos.append(message, message.delivery_tag)
            callback(message)

        self.rows.join(queue, self._consumer(consumer_tag))
        route = Route(consumer_tag, no_ack, deliver)
        self._consumers.add(consumer_tag)
        self._tags[consumer_tag] = (queue, route)
        self.routes.setdefault(queue, route)
        self.connection.stir(look=True)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop delivering to the consumer; an auto-delete queue ends with its last one."""
        if consumer_tag not in self._tags:
            return
        self._consumers.discard(consumer_tag)
        queue, route = self._tags.pop(consumer_tag)
        if self.routes.get(queue) is route:
            del self.routes[queue]
            self.routes.update((name, other) for name, other in self._tags.values() if name == queue)
        try:
            self.rows.leave(queue, self._consumer(consumer_tag))
        except QueueFileError as error:
            logger.warning("queue %s goes on until this connection ends: %s", queue, error)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """Return the queue's first message, None when there is none."""
        [claimed] = self.rows.claim([(queue, 1)])
        if not claimed:
            return None
        if no_ack:
            self.rows.acknowledge([claimed[0].id])
            return self._received(claimed[0])
        message = self._received(claimed[0])
        self.qos.append(message, message.delivery_tag)
        return message

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Remove the message from its queue, with `multiple` also those delivered to this channel before it."""
        self.qos.ack(delivery_tag, multiple=multiple)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Hold at most `prefetch_count` unsettled messages, 0 for any number."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.connection.stir()

    def _received(self, row: Claimed) -> Any:
        payload = msgspec.json.decode(row.envelope)
        payload["body"] = row.body
        payload["headers"]["x-delivery-count"] = row.failures
        payload["properties"]["delivery_tag"] = str(row.id)
        payload["properties"]["delivery_info"]["redelivered"] = row.redelivered
        return self.Message(payload, channel=self)

    def _consumer(self, tag: str) -> str:
        return f"{self.channel_id}/{tag}"


def _seconds(arguments: dict[str, Any] | None, name: str) -> float | None:
    """Return an argument given in milliseconds."""
    milliseconds = (arguments or {}).get(name)
    return None if milliseconds is None else float(milliseconds) / 1000
