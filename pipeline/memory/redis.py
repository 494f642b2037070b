"""The memory in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, TemporaryError
from pipeline.memory.backend import MOST_MEMBERS, SLACK, Reservation, Scoped, microseconds, milliseconds, rate_digest
from pipeline.plugin import Memory

PREFIX: Final = "siftbell:memory:"
"""What all keys in Redis begin with."""
_WAIT_SECONDS: Final = 3

_FIRST: Final = """
local asker = redis.call('GET', KEYS[1])
if asker == false then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return (asker ~= '' and asker == ARGV[1]) and 1 or 0
"""
_COUNT: Final = """
local told = KEYS[2] and redis.call('GET', KEYS[2])
if told then
  return tonumber(told)
end
local count = redis.call('INCR', KEYS[1])
if count == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
if KEYS[2] then
  redis.call('SET', KEYS[2], count, 'PX', ARGV[1])
end
return count
"""

_SWAP: Final = """
local kept = redis.call('GET', KEYS[1])
if (ARGV[1] == 'nothing' and kept ~= false) or (ARGV[1] ~= 'nothing' and kept ~= ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""

_ADD: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], last[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
_MEMBERS_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""
_RESERVE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, patience, slack = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local again, fresh = tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('HMGET', KEYS[1], 'next', 'line')
local turn = math.max(tonumber(known[1]) or 0, now - slack)
local line = tonumber(known[2]) or 0
local waiting = line > now and line > turn
local room = math.max(0, math.floor((now + patience - turn) / interval) + 1)
local granted = math.min(room, waiting and again or again + fresh)
local after = turn + granted * interval
line = math.max(line, after)
local ending = line + (again + fresh - granted) * interval
redis.call('HSET', KEYS[1], 'next', string.format('%.0f', after), 'line', string.format('%.0f', ending))
redis.call('PEXPIRE', KEYS[1], math.ceil((ending - now + slack) / 1000) + 1)
return {granted, string.format('%.0f', turn - now), string.format('%.0f', line - now)}
"""


class RedisMemory:
    """The memory in Redis, which forgets what is over by itself."""

    def __init__(self, url: str) -> None:
        try:
            from redis import Redis, RedisError  # noqa: PLC0415 - an extra that only this class needs
            from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
            from redis.retry import Retry  # noqa: PLC0415 - as above
        except ImportError as error:
            raise ConfigError('the memory needs: pip install "siftbell[redis]"') from error
        self._error = RedisError
        try:
            parts = urlsplit(url)
            self._place = f"redis at {parts.hostname}:{parts.port or 6379}" if parts.hostname else f"redis at {parts.path}"
            self._redis = Redis.from_url(
                url,
                socket_timeout=_WAIT_SECONDS,
                socket_connect_timeout=_WAIT_SECONDS,
                health_check_interval=15,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            raise ConfigError("the memory's URL: redis://HOST:PORT/NUMBER is expected") from None
        self._first = self._redis.register_script(_FIRST)
        self._count = self._redis.register_script(_COUNT)
        self._reserve = self._redis.register_script(_RESERVE)
        self._add = self._redis.register_script(_ADD)
        self._members = self._redis.register_script(_MEMBERS_NOW)
        self._swap = self._redis.register_script(_SWAP)

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory."""
        return Scoped(self, (pipeline, step), asker)

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give turns."""
        sizes = [microseconds(interval), microseconds(patience), microseconds(SLACK), again, fresh]
        with self._translated():
            granted, first, line = self._reserve(keys=[PREFIX + rate_digest(pipeline, step, interval)], args=sizes)
        return Reservation(int(granted), timedelta(microseconds=int(first)), timedelta(microseconds=int(line)))

    def purge(self) -> int:
        """Ask the server for a sign of life; there is nothing to delete."""
        with self._translated():
            self._redis.ping()
        return 0

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def first(self, digest: str, within: timedelta, asker: str) -> bool:
        """Start a window where there is none; say whether this asker started it."""
        with self._translated():
            return bool(self._first(keys=[PREFIX + digest], args=[asker, milliseconds(within)]))

    def count(self, digest: str, within: timedelta, asked: str | None) -> int:
        """Count up in a window, starting it where there is none; or give again what was noted under `asked`."""
        keys = [PREFIX + digest, *([PREFIX + asked] if asked else [])]
        with self._translated():
            return int(self._count(keys=keys, args=[milliseconds(within)]))

    def remember(self, digest: str, value: str, within: timedelta) -> None:
        """Keep a text."""
        with self._translated():
            self._redis.set(PREFIX + digest, value, px=milliseconds(within))

    def recall(self, digest: str) -> str | None:
        """Give the text, or None where there is none."""
        with self._translated():
            kept = self._redis.get(PREFIX + digest)
        return kept.decode() if isinstance(kept, bytes) else kept

    def swap(self, digest: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected there."""
        expected = ["nothing", ""] if old is None else ["text", old]
        with self._translated():
            return bool(self._swap(keys=[PREFIX + digest], args=[*expected, new, milliseconds(within)]))

    def forget(self, *digests: str) -> None:
        """Delete windows and texts."""
        with self._translated():
            self._redis.delete(*(PREFIX + digest for digest in digests))

    def add(self, digest: str, member: str, within: timedelta) -> list[str]:
        """Make a text a member, let those beyond the bound go, and give all there are."""
        with self._translated():
            return _texts(self._add(keys=[PREFIX + digest], args=[member, milliseconds(within), MOST_MEMBERS]))

    def remove(self, digest: str, member: str) -> None:
        """Let a text be no member any more."""
        with self._translated():
            self._redis.zrem(PREFIX + digest, member)

    def members(self, digest: str) -> list[str]:
        """Give the members."""
        with self._translated():
            return _texts(self._members(keys=[PREFIX + digest]))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise TemporaryError(f"the memory ({self._place}) is away: {type(error).__name__}") from error


def _texts(found: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else text for text in found]
