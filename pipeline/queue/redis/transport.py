"""The transport: one connection to Redis or Valkey, polled and woken by a bell."""

from __future__ import annotations

import threading
import time
from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import OperationalError
from kombu.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, virtual
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from pipeline.queue.redis.address import SCHEMES, Keys, alias, read_settings
from pipeline.queue.redis.channel import Channel as RedisChannel
from pipeline.queue.redis.claims import Claims, ClaimsLostError

if TYPE_CHECKING:
    from pipeline.queue.redis.claims import Claimed

logger = get_logger(__name__)

BATCH: Final = 16
"""Messages claimed in one call, over all queues, when polled from an event loop."""
SHORTEST_PAUSE: Final = 0.001
"""Seconds to the next poll after one that found something; doubled after each that did not."""
LONGEST_PAUSE: Final = 0.04
"""Seconds to the next poll at rest. Our own publishers ring; the polls are for others' messages and for what goes back."""


def register() -> None:
    """Make kombu and Celery understand the URLs that `address.url` gives. May be called again."""
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[alias(scheme)] = f"{__name__}:Transport"


class Transport(virtual.Transport):
    """One connection: the channels of one `kombu.Connection`, polled together.

    No command is ever left waiting in Redis, so nothing is taken that nobody reads, and every command is bounded by
    `socket_timeout`. Redis is not asked again by redis-py: that would queue a message twice.
    """

    Channel = RedisChannel
    can_parse_url = True
    default_port = 6379
    driver_type = "redis"
    driver_name = "redis"
    connection_errors = (*virtual.Transport.connection_errors, RedisError, OSError, ClaimsLostError)
    implements = virtual.Transport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=frozenset({"direct", "topic", "fanout"})
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.settings = read_settings(client.hostname, client.transport_options)
        self.keys = Keys(self.settings.prefix)
        self._redis: Redis | None = None
        self._claims: Claims | None = None
        self._bell: Any = None
        self._bell_socket: Any = None
        self._bell_number = -1
        self._turn = 0
        self._blocked = False  # no channel has room for more
        self._wake = threading.Event()
        self._loop: Any = None
        self._timer: Any = None

    def establish_connection(self) -> Transport:
        """Connect, in a bounded time. Raises RedisError, which Celery retries."""
        if self._redis is None:
            self._redis = self._client()
            self._redis.ping()
        self._refuse_cluster(self._redis)
        super().establish_connection()
        return self

    def _client(self) -> Redis:
        pool = ConnectionPool.from_url(
            self.settings.url,
            protocol=2,
            socket_timeout=self.settings.socket_timeout,
            socket_connect_timeout=self.settings.socket_connect_timeout,
            retry=Retry(NoBackoff(), 0),
        )
        return Redis(connection_pool=pool)

    def _refuse_cluster(self, client: Redis) -> None:
        try:
            enabled = client.info("cluster").get("cluster_enabled")
        except ResponseError:  # this user may not ask
            return
        if enabled:
            raise OperationalError(f"{self.settings.place()} is a Redis Cluster: one server is needed")

    def _warn_of_eviction(self, client: Redis) -> None:
        try:
            policy = str(client.info("memory").get("maxmemory_policy"))
        except ResponseError:
            return
        if policy.startswith("allkeys"):
            logger.error(
                "%s drops queued messages when it is full (maxmemory-policy %s): set it to noeviction",
                self.settings.place(),
                policy,
            )

    def close_connection(self, connection: Any) -> None:
        """Hand back what is claimed, and close the sockets."""
        self.unregister_from_event_loop(connection, self._loop)
        claims, self._claims = self._claims, None
        super().close_connection(connection)
        if claims is not None:
            claims.close()
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        if self._redis is not None:
            self._redis.connection_pool.disconnect()
            self._redis = None

    def verify_connection(self, connection: Any) -> bool:  # noqa: ARG002 - kombu's signature
        """Say whether the connection is open."""
        return self._redis is not None

    def opened(self) -> Redis:
        """Return the client; raises OperationalError when the connection is closed."""
        if self._redis is None:
            raise OperationalError("this connection to Redis is closed")
        return self._redis

    def claims(self) -> Claims:
        """Return the claims of this connection, which becomes an owner with the first call."""
        if self._claims is None:
            self._warn_of_eviction(self.opened())
            self._claims = Claims(self.opened(), self.keys, self.settings.beat)
        return self._claims

    def retire(self) -> None:
        """Be an owner no longer when nothing is consumed or held: a connection may stay in a pool for long."""
        if self._claims is not None and not any(channel.routes or channel.qos.holds() for channel in self._channels()):
            claims, self._claims = self._claims, None
            claims.close()

    def driver_version(self) -> str:
        """Return the version of redis-py."""
        return version("redis")

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: ARG002 - kombu's signature
        """Return the URL without its password and options."""
        return self.settings.place()

    # Waiting

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver one message, waiting at most `timeout` seconds for it, then raise TimeoutError; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = SHORTEST_PAUSE
        while True:
            self._wake.clear()
            if self._poll(1):
                return
            wait = pause
            if deadline is not None:
                wait = min(pause, deadline - time.monotonic())
                if wait <= 0:
                    raise TimeoutError("no message came in time")
            if self._blocked or self._bell is None:
                self._wake.wait(wait)
            elif self._hear(wait):
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver messages from the worker's event loop until the connection is closed or unregistered."""
        pause = SHORTEST_PAUSE

        def tick() -> None:
            nonlocal pause
            found = 0
            try:
                found = self._poll(BATCH) if self._redis is not None else 0
            finally:
                pause = SHORTEST_PAUSE if found else min(2 * pause, LONGEST_PAUSE)
                if self._timer is timer and not timer.canceled:
                    loop.timer.enter_after(0 if found == BATCH else pause, timer)

        self._loop = loop
        self._timer = timer = loop.call_later(0, tick)
        self._add_reader()

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Stop delivering from the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._remove_reader()
        self._loop = self._timer = None

    def listen(self, channel: str) -> None:
        """Be woken by what is published on a channel of Redis."""
        if self._bell is None:
            self._bell = self.opened().pubsub()  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        self._bell.subscribe(channel)
        self._add_reader()

    def _add_reader(self) -> None:
        if self._loop is None or self._bell is None:
            return
        now = self._bell.connection._sock  # noqa: SLF001 - redis-py has no other way to wait for several things
        if now is not self._bell_socket:  # redis-py has connected anew where it was cut
            self._remove_reader()
            self._loop.add_reader(now.fileno(), self._rung)
            self._bell_socket, self._bell_number = now, now.fileno()

    def _remove_reader(self) -> None:
        if self._loop is not None and self._bell_socket is not None:
            self._loop.remove_reader(self._bell_number)  # by its number: a socket that was closed has none any more
        self._bell_socket = None

    def _rung(self, *_: Any) -> None:
        while self._bell is not None and self._bell.connection.can_read(timeout=0):
            self._hear(0)
        self._add_reader()
        self._poll_once()

    def _hear(self, wait: float) -> bool:
        """Wait for one thing published; says whether it was a message, and delivers that."""
        heard = self._bell.get_message(ignore_subscribe_messages=True, timeout=wait)
        name = heard["channel"].decode() if heard else ""
        start = self.keys.fanout("")
        if not name.startswith(start):
            return False
        for channel in self._channels():
            channel.receive_fanout(name.removeprefix(start), heard["data"])
        return True

    def stir(self) -> None:
        """Note that the next poll may find more than the last: a place became free, a consumer or a message came."""
        self._wake.set()
        if self._loop is not None and self._blocked:
            self._blocked = False
            self._loop.call_later(0, self._poll_once)

    def _poll_once(self) -> None:
        if self._redis is not None:
            self._poll(BATCH)

    def _poll(self, limit: int) -> int:
        """Claim and deliver up to `limit` messages; returns how many."""
        if self._claims is not None:
            self._claims.pay()
            if self._claims.lost:
                raise ClaimsLostError("this worker did not answer for a while: others have what it held")
        found = 0
        rooms = []
        for channel in self._channels():
            if channel.routes:
                rooms.append(channel.room(limit - found))
                if rooms[-1]:
                    found += self._serve(channel, rooms[-1])
        self._blocked = bool(rooms) and not any(rooms)
        return found

    def _channels(self) -> list[RedisChannel]:
        channels: list[Any] = list(self.channels or ())
        return channels

    def _serve(self, channel: RedisChannel, room: int) -> int:
        queues = list(channel.routes)
        turn = self._turn = (self._turn + 1) % len(queues)
        claims = self.claims()
        waiting = deque(claims.claim(queues[turn:] + queues[:turn], room))
        count = len(waiting)
        try:
            while waiting:
                self._hand_out(channel, waiting.popleft(), claims)
        finally:  # one raised: the others have not been looked at
            claims.settle("back", [claimed.tag for claimed in waiting])
        return count

    def _hand_out(self, channel: RedisChannel, claimed: Claimed, claims: Claims) -> None:
        route = channel.routes.get(claimed.queue)
        if route is None:  # it was cancelled by the message before
            claims.settle("back", [claimed.tag])
        else:
            channel.receive(route, claimed, claims)
