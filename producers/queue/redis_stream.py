"""A Redis stream, read as a consumer group: what a dead listener was given is claimed by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

import msgspec
import structlog

from pipeline import RedisServer
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

log = structlog.get_logger()

_WAIT: Final = 0.5
_LOOK: Final = 5.0
"""Seconds between two looks for what dead listeners left, at most."""
_FORGOTTEN: Final = 3600
"""Seconds of silence after which a listener of ours that holds nothing is taken off the group."""

# KEYS: the stream. ARGV: the group, milliseconds of silence. In one go, or what it is given meanwhile would be lost with it.
_FORGET: Final = """
for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local told = {}
    for index = 1, #one, 2 do told[one[index]] = one[index + 1] end
    if told.pending == 0 and told.idle > tonumber(ARGV[2]) and string.sub(told.name, 1, 9) == 'siftbell-' then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], told.name)
    end
end
"""


class RedisStream:
    """A listener on one stream. `name` is the same whenever this plugin listens: what it did not acknowledge comes first then."""

    def __init__(self, config: QueueConfig, name: str) -> None:
        self._config, self._name = config, f"siftbell-{name}"
        self._looked = float("-inf")
        self._claimed = b"0-0"
        self._behind: str | None = "0"
        """Up to which entry we went through what was given to us before; None when we are through."""
        self._server = RedisServer(config.url)
        with self._server.told():
            self._redis: Any = self._server.connect(waits=_WAIT)
            self._join()

    def receive(self) -> Sequence[Delivery]:
        """Give what was ours before, then what dead listeners left, then what is new."""
        stream, group, count = self._config.stream, self._config.group, self._config.prefetch
        with self._server.told():
            if self._behind is not None:
                entries = self._read(self._behind)
                self._behind = entries[-1][0].decode() if entries else None
            elif monotonic() - self._looked >= min(_LOOK, self._config.claim_after.total_seconds() / 2):
                idle = int(self._config.claim_after.total_seconds() * 1000)
                self._claimed, entries, *_ = self._redis.xautoclaim(stream, group, self._name, idle, self._claimed, count=count)
                if self._claimed == b"0-0":
                    self._looked = monotonic()
                    self._redis.eval(_FORGET, 1, stream, group, _FORGOTTEN * 1000)
            else:
                entries = self._read(">")
        return self._deliveries(entries)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge the entries; they stay in the stream, for its other groups."""
        if deliveries:
            with self._server.told():
                self._redis.xack(self._config.stream, self._config.group, *(delivery.tag for delivery in deliveries))

    def close(self) -> None:
        """Leave; what was not acknowledged stays ours until another one claims it."""
        self._redis.close()

    def _join(self) -> None:
        from redis.exceptions import ResponseError  # noqa: PLC0415 - of an extra

        with suppress(ResponseError):  # the group is there already; a key that is no stream is told of by the first XREADGROUP
            self._redis.xgroup_create(self._config.stream, self._config.group, "0", mkstream=True)

    def _read(self, behind: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        wait = int(_WAIT * 1000) if behind == ">" else None
        streams = {self._config.stream: behind}
        found = self._redis.xreadgroup(self._config.group, self._name, streams, count=self._config.prefetch, block=wait)
        if isinstance(found, dict):  # RESP3
            found = list(found.items())
        return [entry for _, entries in found or () for entry in entries]

    def _deliveries(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Delivery]:
        gone = [entry_id for entry_id, fields in entries if not fields]
        if gone:
            log.warning(
                "entries were deleted from the stream before anybody took them", stream=self._config.stream, entries=len(gone)
            )
            self.acknowledge([Delivery(b"", tag=entry_id) for entry_id in gone])
        return [self._delivery(entry_id, fields) for entry_id, fields in entries if fields]

    def _delivery(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Delivery:
        texts = {_text(name): _text(value) for name, value in fields.items()}
        headers = {"queue": self._config.stream, "entry": entry_id.decode()}
        body, problem, wanted = msgspec.json.encode(texts), "", self._config.body_field
        if wanted and wanted.encode() in fields:
            body = fields[wanted.encode()]
            headers |= {name.lower(): value for name, value in texts.items() if name != wanted}
        elif wanted:
            problem = f"it has no field '{wanted}', which `body_field` names"
        elif len(fields) == 1:
            (body,) = fields.values()
        name = f"{self._config.stream}/{entry_id.decode()}"
        return Delivery(body, headers, name, _time(int(entry_id.partition(b"-")[0])), entry_id, problem)


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _time(milliseconds: int) -> datetime | None:
    """Give the moment in an entry's id; whoever numbers entries by hand gives none."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def probe(config: QueueConfig) -> str:
    """Ask for the server and the stream."""
    server = RedisServer(config.url)
    with server.told(), server.connect() as redis:
        return f"{server.version(redis)}, {redis.xlen(config.stream)} entries in the stream"
