"""The transport: one connection to Redis or Valkey, polled and woken by a bell."""

from __future__ import annotations

import threading
import time
from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, virtual
from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipeline.queue.redis.address import SCHEMES, Keys, alias, read_settings
from pipeline.queue.redis.bell import Bell
from pipeline.queue.redis.channel import Channel as RedisChannel
from pipeline.queue.redis.claims import Claims, ClaimsLostError
from pipeline.queue.redis.commands import Commands
from pipeline.queue.redis.rota import Rota
from pipeline.queue.redis.server import refuse_cluster, warn_of_eviction

if TYPE_CHECKING:
    from pipeline.queue.redis.bell import Heard

BATCH: Final = 4
"""Messages claimed in one call, over all queues, when polled from an event loop: what the worker has no room for goes back."""
PAUSE: Final = 0.1
"""Seconds to the next poll at rest. Our own publishers ring; the polls are for others' messages and for what goes back."""

TELL_WITHIN: Final = 0.005
"""Seconds within which Redis is told what is done, where no claim takes that along before: a batch is one exchange, not two."""


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
        self._commands: Commands | None = None
        self._claims: Claims | None = None
        self._bell: Bell | None = None
        self._bell_socket: Any = None
        self._bell_number = -1
        self._rota = Rota(self.keys.bell(""))
        self._more = True  # there may be more than the last poll found: a queue was not asked, or gave all it was asked for
        self._unasked = False  # of the queues that may have something, some were not asked, although there was room
        self._telling = False  # a timer runs at whose end Redis is told what is owed
        self._wake = threading.Event()
        self._loop: Any = None
        self._timer: Any = None

    def establish_connection(self) -> Transport:
        """Connect, in a bounded time. Raises RedisError, which Celery retries."""
        if self._redis is None:
            self._redis = self._client()
            self._redis.ping()
        refuse_cluster(self._redis, self.settings.place())
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
        self._commands = Commands(pool)
        return Redis(connection_pool=pool)

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
        if self._redis is not None and self._commands is not None:
            self._commands.close()
            self._redis.connection_pool.disconnect(inuse_connections=False)
            self._redis = self._commands = None

    def verify_connection(self, connection: Any) -> bool:  # noqa: ARG002 - kombu's signature
        """Say whether the connection is open."""
        return self._redis is not None

    def opened(self) -> Redis:
        """Return the client; raises OperationalError when the connection is closed."""
        if self._redis is None:
            raise OperationalError("this connection to Redis is closed")
        return self._redis

    def commands(self) -> Commands:
        """Return what a batch is moved with; raises OperationalError when the connection is closed."""
        if self._commands is None:
            raise OperationalError("this connection to Redis is closed")
        return self._commands

    def claims(self) -> Claims:
        """Return the claims of this connection, which becomes an owner with the first call."""
        if self._claims is None:
            warn_of_eviction(self.opened(), self.settings.place())
            self._claims = Claims(self.commands(), self.keys, self.settings.beat)
        return self._claims

    def tells(self, claims: Claims) -> bool:
        """Say whether the event loop tells Redis within `TELL_WITHIN` what these claims owe, and see to it that it does."""
        if self._loop is None or claims is not self._claims:
            return False
        if not self._telling:
            self._telling = True
            self._loop.call_later(TELL_WITHIN, self._tell)
        return True

    def _tell(self) -> None:
        self._telling = False
        if self._claims is not None:
            self._claims.pay()

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
        while True:
            self._wake.clear()
            if self._poll(1):
                return
            wait = PAUSE
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    raise TimeoutError("no message came in time")
            if self._more or self._bell is None:
                self._wake.wait(wait)
            elif (heard := self._bell.hear(wait)) and self._take(heard):
                return

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver messages from the worker's event loop until the connection is closed or unregistered."""

        def tick() -> None:
            try:
                self._poll_once()
            finally:
                if self._timer is timer and not timer.canceled:
                    loop.timer.enter_after(PAUSE, timer)

        self._loop = loop
        self._timer = timer = loop.call_later(0, tick)
        self._add_reader()

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Stop delivering from the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._remove_reader()
        self._loop = self._timer = None
        self._telling = False

    def listen(self, channel: str) -> None:
        """Be woken by what is published on a channel of Redis; what is there already is found by the next poll."""
        if self._bell is None:
            self._bell = Bell(self.opened().connection_pool)
        self._bell.listen(channel)
        self._rota.heard(channel)
        self._add_reader()
        self._more = True

    def _add_reader(self) -> None:
        if self._loop is None or self._bell is None:
            return
        now = self._bell.socket
        if now is not self._bell_socket:
            self._remove_reader()
            self._loop.add_reader(now.fileno(), self._rung)
            self._bell_socket, self._bell_number = now, now.fileno()

    def _remove_reader(self) -> None:
        if self._loop is not None and self._bell_socket is not None:
            self._loop.remove_reader(self._bell_number)  # by its number: a socket that was closed has none any more
        self._bell_socket = None

    def _rung(self, *_: Any) -> None:
        while self._bell is not None and (heard := self._bell.hear()):
            self._take(heard)
        self._add_reader()
        self._poll_once()

    def _take(self, heard: Heard) -> bool:
        """Note that a bell rang, or deliver a message of a fanout exchange; says whether it was one."""
        start = self.keys.fanout("")
        self._rota.heard(heard.channel)
        if heard.message is None or not heard.channel.startswith(start):
            return False
        for channel in self._channels():
            channel.receive_fanout(heard.channel.removeprefix(start), heard.message)
        return True

    def stir(self) -> None:
        """Note that the next poll may find more than the last: a place became free, a consumer or a message came."""
        self._wake.set()
        if self._loop is not None and self._more:
            self._more = False  # until that poll
            self._loop.call_later(0, self._poll_once)

    def _poll_once(self) -> None:
        if self._redis is not None and (self._poll(BATCH) or self._unasked) and self._more:
            self.stir()

    def _poll(self, limit: int) -> int:
        """Claim and deliver up to `limit` messages; returns how many."""
        if self._claims is not None and self._claims.lost:
            raise ClaimsLostError("this worker did not answer for a while: others have what it held")
        found, more, unasked = 0, False, False
        for channel in self._channels():
            if channel.routes:
                room = channel.room(limit - found)
                served = self._serve(channel, room) if room else 0
                found += served
                more |= served == room
                unasked |= bool(room) and self._rota.waiting
        if self._claims is not None:
            self._claims.pay()
        self._more, self._unasked = more or unasked, unasked
        return found

    def _channels(self) -> list[RedisChannel]:
        channels: list[Any] = list(self.channels or ())
        return channels

    def _serve(self, channel: RedisChannel, room: int) -> int:
        """Claim and hand out up to `room` messages; what could not be, as one raised or its route is gone, goes back."""
        queues = self._rota.choose(channel.routes)
        claims = self.claims()
        waiting = deque(claims.claim(queues, room))
        count, back = len(waiting), []
        self._rota.asked(queues, [claimed.queue for claimed in waiting], all_of_it=count < room)
        try:
            while waiting:
                claimed = waiting.popleft()
                route = channel.routes.get(claimed.queue)
                if route is None:  # it was cancelled by the message before
                    back.append(claimed)
                else:
                    channel.receive(route, claimed, claims)
        finally:
            claims.settle("unseen", [claimed.tag for claimed in (*back, *waiting)])
        return count
