"""Redis: a list that gets all of a batch at once, or a stream that gets an entry for each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from consumers.queue.options import QueueConfig
from consumers.queue.outgoing import Failures, Outgoing
from pipeline import RedisServer


class Redis:
    """A client of one server; threads may send at once."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._server = RedisServer(config.url)
        with self._server.told():
            self._redis: Any = self._server.connect()

    def send(self, batch: Sequence[Outgoing]) -> Failures:
        """Give the messages to the server; it has them when it has answered."""
        return self._append(batch) if self._config.stream else self._push(batch)

    def close(self) -> None:
        """End the connections."""
        self._redis.close()

    def probe(self) -> str:
        """Ask for the server."""
        with self._server.told():
            return self._server.version(self._redis)

    def _push(self, batch: Sequence[Outgoing]) -> Failures:
        key, most, bodies = self._config.list, self._config.maxlen, [outgoing.body for outgoing in batch]
        with self._server.told(), self._redis.pipeline(transaction=True) as pipe:
            if self._config.push_to == "right":
                pipe.rpush(key, *bodies)
            else:
                pipe.lpush(key, *bodies)
            if most is not None:
                pipe.ltrim(key, *((-most, -1) if self._config.push_to == "right" else (0, most - 1)))
            pipe.execute()
        return {}

    def _append(self, batch: Sequence[Outgoing]) -> Failures:
        with self._server.told(), self._redis.pipeline(transaction=False) as pipe:
            for outgoing in batch:
                entry = {self._config.body_field: outgoing.body, **outgoing.headers}
                pipe.xadd(self._config.stream, entry, maxlen=self._config.maxlen, approximate=True)
            answers = pipe.execute(raise_on_error=False)
        return {
            outgoing.message.id: self._server.failure(answer)
            for outgoing, answer in zip(batch, answers, strict=True)
            if isinstance(answer, Exception)
        }
