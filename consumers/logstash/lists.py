"""A list of Redis, from which Logstash takes events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consumers.logstash.lines import Event, Failures
from consumers.logstash.options import LogstashConfig
from pipeline import RedisServer

if TYPE_CHECKING:
    from redis import Redis


class Lists:
    """The end of a list of Redis; its answer says that the events are there."""

    def __init__(self, config: LogstashConfig) -> None:
        self._key = config.key
        self._server = RedisServer(config.url)
        with self._server.told():
            self._redis: Redis = self._server.connect()

    def send(self, events: Sequence[Event], _until: float) -> Failures:
        """Append the events, all in one command."""
        with self._server.told():
            self._redis.rpush(self._key, *(body for _, body in events))
        return {}

    def probe(self) -> str:
        """Ask for the version."""
        with self._server.told():
            return self._server.version(self._redis)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
