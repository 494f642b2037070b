"""The brokers: each one's settings in one place, chosen by the scheme of its URL."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.queue import sqlite, sqs

VISIBILITY: Final = 900
"""Seconds after which an unacknowledged batch is given to another worker, on brokers that cannot see a worker die.
Longer than a batch may take (`engine.delivery`: 120 s and one call more)."""
CONFIRM: Final = 3.0
"""Seconds to wait for a broker's answer to a publish."""
REDIS: Final = ("redis", "rediss", "valkey", "valkeys", "redis+socket")
"""The schemes that our transport for Redis and Valkey takes."""
BEAT: Final = 2.0
"""Seconds between two signs of life of a worker on Redis; after six without any, others have what it held."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What Celery is told about a broker."""

    url: str = field(repr=False)
    needs: str = ""
    """The module it needs, and with it the extra."""
    extra: str = ""
    transport_options: dict[str, Any] = field(default_factory=dict)
    quorum: bool = False
    largest: int = sys.maxsize
    """Bytes as JSON of the largest message that it takes."""


def broker(url: str) -> Broker:
    """Give the settings for a broker's URL; raises `ConfigError` for a scheme that is not known, or lacks its extra."""
    scheme = url.partition(":")[0]
    found = _known(url).get(scheme)
    if found is None and scheme in ("sentinel", "redis+sentinel", "redis+cluster"):
        raise ConfigError(f"'{scheme}://': Redis Sentinel and Cluster are not supported; give redis:// and one server")
    if found is None:
        raise ConfigError(f"no broker is known for '{scheme}://'; there are {', '.join(_known(url))}")
    if found.needs and find_spec(found.needs) is None:
        raise ConfigError(f'the broker needs: pip install "siftbell[{found.extra}]"')
    if scheme == sqlite.SCHEME:
        sqlite.register()
    if scheme in REDIS:
        return _on_redis(found)
    return _on_sqs(found) if scheme == "sqs" else found


def _on_redis(found: Broker) -> Broker:
    from pipeline.queue import redis  # noqa: PLC0415 - it needs the extra

    redis.register()
    try:
        url = redis.url(found.url)
    except ValueError as error:
        raise ConfigError(f"the broker's URL: {error}") from None
    return replace(found, url=url, transport_options={"beat": BEAT, "socket_timeout": 5.0, "socket_connect_timeout": 2.0})


def _on_sqs(found: Broker) -> Broker:
    sqs.register()
    try:
        settings = sqs.read_settings(found.url)
    except ValueError as error:
        raise ConfigError(f"the broker's URL: {error}") from None
    # Celery shows its URL in logs, so the credentials are not in there.
    return replace(found, url=sqs.shown_url(settings), transport_options={"settings": settings})


def _known(url: str) -> dict[str, Broker]:
    amqp = Broker(
        url,
        transport_options={"confirm_publish": True, "connect_timeout": 2, "read_timeout": 5, "write_timeout": 5},
        quorum=True,
    )
    return {
        sqlite.SCHEME: Broker(url, transport_options={"visibility_timeout": VISIBILITY}),
        **dict.fromkeys(REDIS, Broker(url, needs="redis", extra="redis")),
        "amqp": amqp,
        "amqps": amqp,
        "sqs": Broker(url, needs="botocore", extra="sqs", largest=sqs.LARGEST),
        "memory": Broker(url),
    }
