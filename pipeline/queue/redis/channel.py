"""The channel of the Redis transport: what kombu and Celery call, put into commands."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # new in kombu 5.7, the stubs lag
from kombu.log import get_logger
from kombu.transport import virtual
from redis.exceptions import RedisError

from pipeline.queue.redis.address import PRIORITIES
from pipeline.queue.redis.unsettled import Unsettled
from pipeline.queue.redis.wire import UnreadableError, read, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.queue.redis.claims import Claimed, Claims

logger = get_logger(__name__)

BINDING = "\x06\x16"
"""What stands between routing key, pattern and queue of a binding."""


class Route(NamedTuple):
    """Where the messages of a consumed queue go."""

    tag: str
    no_ack: bool
    callback: Callable[[Any], None]


class Batch:
    """Messages of one `Producer.batch()`: each `max_size` of them are queued in one transaction, all or none."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._pending: list[tuple[str, str, bytes]] = []

    def publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Take a message; queues what has gathered when that is `max_size`."""
        self._pending += self.channel.outgoing(message, exchange, routing_key)
        if len(self._pending) >= self._max_size:
            self.flush()

    def flush(self) -> None:
        """Queue what has gathered; raises BatchPublishError when it may not all be queued."""
        pending, self._pending = self._pending, []
        try:
            self.channel.send(pending)
        except RedisError as error:
            raise BatchPublishError(f"a batch of {len(pending)} messages may not be queued: {error}") from error

    def discard(self) -> None:
        """Forget what has gathered."""
        self._pending.clear()

    close = discard


class Channel(virtual.Channel):
    """One channel. Of kombu's priorities, 0 goes first, as with kombu's own Redis transport.

    A delivered message has the header `x-delivery-count`: how often it was delivered before and neither acknowledged
    nor handed back at an orderly end. `delivery_info["redelivered"]` is true when it was delivered before at all.
    """

    QoS = Unsettled
    supports_fanout = True
    connection: Any
    qos: Unsettled

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.routes: dict[str, Route] = {}
        self.fanouts: dict[str, Route] = {}
        self._tags: dict[str, tuple[str, Route]] = {}
        self._fanout_exchanges: dict[str, str] = {}

    # Queues and bindings

    def _size(self, queue: str) -> int:
        with self.connection.opened().pipeline(transaction=False) as pipe:
            for key in self.connection.keys.lists(queue):
                pipe.llen(key)
            sizes = pipe.execute(raise_on_error=False)  # a key that is no list holds no messages
        return sum(size for size in sizes if isinstance(size, int))

    def _purge(self, queue: str) -> int:
        size = self._size(queue)
        self.connection.opened().delete(*self.connection.keys.lists(queue))
        return size

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout_exchanges[queue] = exchange
        else:
            binding = BINDING.join((routing_key or "", pattern or "", queue))
            self.connection.opened().sadd(self.connection.keys.bindings(exchange), binding)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """Give the exchange's bindings, those of other processes too, as (routing key, pattern, queue)."""
        found = self.connection.opened().smembers(self.connection.keys.bindings(exchange))
        parts = (binding.decode().split(BINDING) for binding in found)
        return [(routing_key, pattern, queue) for routing_key, pattern, queue in parts]

    def _delete(self, queue: str, *meta: Any, **_: Any) -> None:
        exchange, routing_key, pattern = (*meta, "", "", "")[:3]
        with self.connection.opened().pipeline(transaction=True) as pipe:
            pipe.srem(self.connection.keys.bindings(exchange), BINDING.join((routing_key or "", pattern or "", queue)))
            pipe.delete(*self.connection.keys.lists(queue))
            pipe.execute()

    # Messages on their way in

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **_: Any) -> None:
        """Queue the message; raises RedisError when it may not be queued."""
        self.send(self.outgoing(message, exchange, routing_key))

    def create_publish_batch(self, max_size: int) -> Batch:
        """Return what `Producer.batch()` publishes through."""
        return Batch(self, max_size)

    def outgoing(self, message: dict[str, Any], exchange: str, routing_key: str) -> list[tuple[str, str, bytes]]:
        """Give what `send` takes: kind (push or publish), the queue or exchange, the item."""
        message["properties"]["delivery_info"] |= {"exchange": exchange or "", "routing_key": routing_key}
        item = write(message)
        if exchange and self.typeof(exchange).type == "fanout":
            return [("publish", exchange, item)]
        priority = self._priority(message)
        return [("push", queue + priority, item) for queue in self._lookup(exchange, routing_key) if queue]

    def send(self, messages: Iterable[tuple[str, str, bytes]]) -> None:
        """Queue messages, all or none, and ring the bell of each queue; raises RedisError."""
        keys = self.connection.keys
        published, pushed, bells = [], defaultdict(list), set()
        for kind, name, item in messages:
            if kind == "publish":
                published.append(("PUBLISH", keys.fanout(name), item))
            else:
                pushed[f"{keys.prefix}{name}"].append(item)
                bells.add(keys.bell(name.partition(BINDING)[0]))
        commands = published + [("LPUSH", key, *items) for key, items in pushed.items()]
        self.connection.commands().together(commands, then=[("PUBLISH", bell, "") for bell in bells])
        self.connection.stir()

    def _priority(self, message: dict[str, Any]) -> str:
        steps = [int(ending.removeprefix(BINDING) or 0) for ending in PRIORITIES]
        priority = self._get_message_priority(message)
        return PRIORITIES[max(at for at, step in enumerate(steps) if step <= priority)]

    # Messages on their way out

    def basic_consume(  # type: ignore[override]  # kombu gives them all
        self, queue: str, no_ack: bool, callback: Callable[[Any], None], consumer_tag: str, **_: Any
    ) -> None:
        """Deliver the queue's messages to the callback; of several consumers of a channel, the first has them."""
        route = Route(consumer_tag, no_ack, callback)
        self._consumers.add(consumer_tag)
        self._tags[consumer_tag] = (queue, route)
        exchange = self._fanout_exchanges.get(queue)
        if exchange is None:
            self.routes.setdefault(queue, route)
            self.connection.listen(self.connection.keys.bell(queue))
        else:
            self.fanouts[exchange] = route
            self.connection.listen(self.connection.keys.fanout(exchange))
        self.connection.stir()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop delivering to the consumer."""
        if consumer_tag not in self._tags:
            return
        self._consumers.discard(consumer_tag)
        queue, route = self._tags.pop(consumer_tag)
        self.fanouts = {exchange: other for exchange, other in self.fanouts.items() if other is not route}
        if self.routes.get(queue) is route:
            del self.routes[queue]
            self.routes.update((name, other) for name, other in self._tags.values() if name == queue)
        self.connection.retire()

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """Return the queue's first message, None when there is none."""
        received: list[Any] = []
        claims = self.connection.claims()
        while not received:
            claimed = claims.claim([queue], 1)
            if not claimed:
                return None
            self.receive(Route("", no_ack, received.append), claimed[0], claims)
        return received[0]

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Remove the message from its queue, with `multiple` also those delivered to this channel before it."""
        self.qos.ack(delivery_tag, multiple=multiple)

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Hold at most `prefetch_count` unsettled messages, 0 for any number."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self.connection.stir()

    def room(self, limit: int) -> int:
        """Return how many messages may be handed out now, at most `limit`."""
        return min(limit, self.qos.can_consume_max_estimate())

    def receive(self, route: Route, claimed: Claimed, claims: Claims) -> None:
        """Give a claimed item to its consumer; what is no message is set aside."""
        try:
            message = self._message(claimed)
        except UnreadableError as error:
            claims.settle("aside", [claimed.tag])
            logger.error(  # noqa: TRY400 - where it was read says nothing
                "queue %s held something that is no task (%s): moved to the list %s",
                claimed.queue,
                error,
                self.connection.keys.unreadable,
            )
            return
        if route.no_ack:
            claims.settle("done", [claimed.tag])
        else:
            self.qos.hold(message, claims)
        route.callback(message)

    def receive_fanout(self, exchange: str, item: bytes) -> None:
        """Give a message of a fanout exchange to its consumer, if there is one."""
        route = self.fanouts.get(exchange)
        if route is None:
            return
        try:
            envelope = read(item)
            envelope["properties"].setdefault("delivery_tag", "")
            message = self.Message(envelope, channel=self)
        except Exception as error:  # noqa: BLE001 - whatever somebody else has published there
            logger.warning("exchange %s carried something that is no message: %s", exchange, error)
            return
        route.callback(message)

    def _message(self, claimed: Claimed) -> Any:
        envelope = read(claimed.item)
        envelope["properties"]["delivery_tag"] = str(claimed.tag)
        try:
            return self.Message(envelope, channel=self)
        except Exception as error:
            raise UnreadableError("its body cannot be decoded") from error
