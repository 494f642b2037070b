"""A Redis list as a queue: each listener moves what it takes to a list of its own, and what a dead one had goes back."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from pipeline import RedisServer
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

_WAIT: Final = 0.5
_BEAT: Final = 1.0
"""Seconds between two signs of life, at most."""
_FORGOTTEN: Final = 86400

# KEYS: the zset of listeners, the list. ARGV: me, seconds until a listener is dead, the end that has the oldest, seconds more
# until it is forgotten: one that was only stopped may take something before its next sign of life, and die then.
_LIVE: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
local moved = 0
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))) do
    local held = KEYS[1] .. ':' .. dead
    while redis.call('LMOVE', held, KEYS[2], 'RIGHT', ARGV[3]) do
        moved = moved + 1
    end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]) - tonumber(ARGV[4]))
return moved
"""
# KEYS: the zset of listeners, the list, my list. ARGV: me, the end that has the oldest.
_LEAVE: Final = """
while redis.call('LMOVE', KEYS[3], KEYS[2], 'RIGHT', ARGV[2]) do end
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


class RedisList:
    """A listener on one list.

    Beside the list LIST stand `LIST:siftbell`, who listens and when it last gave a sign of life, and `LIST:siftbell:ID`, what
    that listener has taken and not acknowledged, the oldest first.
    """

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._id = uuid4().hex
        self._listeners = f"{config.list}:siftbell"
        self._held = f"{self._listeners}:{self._id}"
        self._end = config.take_from.upper()
        self._beaten = 0.0
        self._server = RedisServer(config.url)
        with self._server.told():
            self._redis: Any = self._server.connect(waits=_WAIT)

    def receive(self) -> Sequence[Delivery]:
        """Move what is there to our own list."""
        with self._server.told():
            self._beat()
            first = self._redis.blmove(self._config.list, self._held, _WAIT, self._end, "RIGHT")
            if first is None:
                return []
            more = min(self._config.prefetch - 1, self._redis.llen(self._config.list))
            with self._redis.pipeline(transaction=False) as pipe:
                for _ in range(more):
                    pipe.lmove(self._config.list, self._held, self._end, "RIGHT")
                rest = pipe.execute() if more else []
        return [self._delivery(body) for body in (first, *rest) if body is not None]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Take them off our list, where they stand first."""
        with self._server.told(), self._redis.pipeline(transaction=True) as pipe:
            for delivery in deliveries:
                pipe.lrem(self._held, 1, delivery.body)
            pipe.execute()

    def close(self) -> None:
        """Put back what was not acknowledged."""
        try:
            with self._server.told():
                self._redis.eval(_LEAVE, 3, self._listeners, self._config.list, self._held, self._id, self._end)
        finally:
            self._redis.close()

    def _beat(self) -> None:
        if monotonic() - self._beaten >= _BEAT:
            lasts = self._config.claim_after.total_seconds()
            self._redis.eval(_LIVE, 2, self._listeners, self._config.list, self._id, lasts, self._end, _FORGOTTEN)
            self._beaten = monotonic()

    def _delivery(self, body: bytes) -> Delivery:
        return Delivery(body, {"queue": self._config.list})


def probe(config: QueueConfig) -> str:
    """Ask for the server and the list."""
    server = RedisServer(config.url)
    with server.told(), server.connect() as redis:
        return f"{server.version(redis)}, {redis.llen(config.list)} on the list"
