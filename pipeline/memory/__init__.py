"""What may be forgotten: what filters and consumers remember, in the store's database or in Redis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from pipeline.memory.backend import MemoryBackend as MemoryBackend
from pipeline.memory.backend import Reservation as Reservation
from pipeline.memory.redis import RedisMemory as RedisMemory
from pipeline.memory.sql import SqlMemory as SqlMemory

_REDIS: Final = ("redis", "rediss", "unix")


def open_memory(url: str, *, now: Callable[[], datetime] | None = None) -> MemoryBackend:
    """Give the memory at a URL: Redis (`redis://`, `rediss://`, `unix://`), or else a database as the store takes it.

    `now` is the clock that windows are measured by; Redis goes by its server's. Nothing is opened yet. Raises
    ConfigError for a URL that cannot be used, or whose driver is missing.
    """
    if urlsplit(url).scheme in _REDIS:
        return RedisMemory(url)
    return SqlMemory(url, now=now or _utc_now)


def _utc_now() -> datetime:
    return datetime.now(UTC)
