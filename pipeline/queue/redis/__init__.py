"""Siftbell's transport for Redis and Valkey: atomic claims that belong to owners whose life is watched, not timed."""

from pipeline.queue.redis.address import SCHEMES, Settings, read_settings, url
from pipeline.queue.redis.transport import Transport, register

__all__ = ["SCHEMES", "Settings", "Transport", "read_settings", "register", "url"]
