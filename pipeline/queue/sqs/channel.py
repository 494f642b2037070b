"""The channel of the SQS transport: what kombu and Celery call, put into calls of SQS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any, Final

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # new in kombu 5.7, the stubs lag
from kombu.transport import virtual
from kombu.utils.uuid import uuid

from pipeline.queue.sqs.claims import Claims
from pipeline.queue.sqs.errors import SqsError
from pipeline.queue.sqs.poller import Poller
from pipeline.queue.sqs.service import Claim, Service
from pipeline.queue.sqs.wire import pack, unpack

MARGIN: Final = 5.0
"""Seconds beyond a long poll for which a channel that closes waits for it."""


class Batch:
    """Messages of one `Producer.batch()`, sent in tens; it may be that some are there when it fails."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._pending: dict[str, list[str]] = {}

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Take a message; sends what has gathered when that is `max_size`."""
        for queue, body in self.channel.outgoing(message, exchange, routing_key):
            self._pending.setdefault(queue, []).append(body)
        if sum(map(len, self._pending.values())) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered; raises BatchPublishError when some of it may not be there."""
        pending, self._pending = self._pending, {}
        try:
            for queue, bodies in pending.items():
                self.channel.send(queue, bodies)
        except SqsError as error:
            raise BatchPublishError(str(error)) from error

    def discard(self) -> None:
        """Forget what has gathered."""
        self._pending.clear()

    close = discard


class Channel(virtual.Channel):
    """One channel. There are no priorities.

    A delivered message has the header `x-delivery-count`: how often it was delivered before and neither acknowledged
    nor handed back at an orderly end. `delivery_info["redelivered"]` is true when it was delivered before at all.
    """

    QoS: Any = Claims
    body_encoding: Any = None
    connection: Any
    qos: Any

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.service: Service = connection.service
        self._pollers: dict[str, Poller] = {}
        self._leaving: list[Poller] = []

    # Queues

    def queue_declare(self, queue: str | None = None, passive: bool = False, **_: Any) -> queue_declare_ok_t:
        """See that the queue is there; with `passive`, tell about how many messages it has."""
        name = queue or f"amq-gen-{uuid()}"
        self.service.url(name)
        return queue_declare_ok_t(name, self.service.size(name) if passive else 0, 0)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Remove the queue with its messages."""
        if not (if_empty and self.service.size(queue)):
            self.service.drop(queue)

    def _size(self, queue: str) -> int:
        return self.service.size(queue)

    def _purge(self, queue: str) -> int:
        size = self.service.size(queue)
        self.service.purge(queue)
        return size

    # Messages on their way in

    def outgoing(self, message: dict[str, Any], exchange: str, routing_key: str) -> list[tuple[str, str]]:
        """Give the queues that a message goes to, and what is sent to each."""
        self._inplace_augment_message(message, exchange, routing_key)
        body = pack(message)
        return [(queue, body) for queue in self._lookup(exchange, routing_key) if queue]

    def send(self, queue: str, bodies: Sequence[str]) -> None:
        """Send messages; raises SqsError when some may not be there."""
        self.service.send(queue, [(body, None) for body in bodies])

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Send one message; when this returns, SQS has it."""
        for queue, body in self.outgoing(message, exchange, routing_key):
            self.send(queue, [body])

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return what `Producer.batch()` publishes through."""
        return Batch(self, max_size)

    # Messages on their way out

    def basic_consume(  # type: ignore[override]  # kombu gives them all
        self, queue: str, no_ack: bool, callback: Callable[[Any], None], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Fetch the queue's messages until the consumer is cancelled."""
        super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        self._pollers[queue] = Poller(
            self.service, self.qos, queue, queues=lambda: len(self._pollers), found=self.connection.stir
        )

    def basic_cancel(self, consumer_tag: str) -> None:
        """Fetch no more; what waits here, and what a request under way brings, goes back to others."""
        queue = self._tag_to_queue.get(consumer_tag)
        super().basic_cancel(consumer_tag)
        poller = self._pollers.pop(queue, None) if queue else None
        if poller is not None:
            poller.stop()
            self._leaving = [one for one in [*self._leaving, poller] if one.runs()]
            self.qos.leave(queue)

    def deliver(self) -> int:
        """Hand out what waits here and has room; gives how many messages that were."""
        count = 0
        while not self.closed and (claim := self.qos.take()) is not None:
            callback = self.connection._callbacks.get(claim.queue)  # noqa: SLF001 - kombu's own registry
            if callback is None:
                self.qos.hand_back([claim])
                continue
            callback(self._received(claim))
            count += 1
        if count:
            self.stir()
        return count

    def stir(self) -> None:
        """Have the pollers look for room."""
        for poller in list(self._pollers.values()):
            poller.stir()

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        claims = self.service.receive(queue, 1, 0)
        if not claims:
            raise Empty
        self.qos.hold(claims[0])
        return self._received(claims[0])

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return one message, None when there is none."""
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.qos.ack(message.delivery_tag)
        return message

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Remove the message from its queue."""
        self.qos.ack(delivery_tag, multiple)
        self.connection.stir()

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Remove the message from its queue, or let others have it."""
        self.qos.reject(delivery_tag, requeue=requeue)
        self.connection.stir()

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Hold at most `prefetch_count` unsettled messages, 0 for any number."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.connection.stir()

    def close(self) -> None:
        """Stop fetching, wait for the requests under way, and hand back what is not settled."""
        for tag in list(self._consumers):
            self.basic_cancel(tag)
        for poller in self._leaving:
            poller.join(self.service.settings.wait + MARGIN)
        super().close()

    def _received(self, claim: Claim) -> dict[str, Any]:
        payload = unpack(claim.body)
        payload["headers"] = (payload.get("headers") or {}) | {"x-delivery-count": claim.failures}
        properties = payload["properties"]
        properties["delivery_tag"] = claim.handle
        info = properties.get("delivery_info") or {}
        properties["delivery_info"] = info | {"routing_key": claim.queue, "redelivered": claim.redelivered}
        return payload
