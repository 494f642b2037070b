"""The brokers: each one's settings in one place, chosen by the scheme of its URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.queue import sqlite

VISIBILITY: Final = 900
"""Seconds after which an unacknowledged batch is given to another worker, on brokers that cannot see a worker die.
Longer than a batch may take (`engine.delivery`: 120 s and one call more)."""
CONFIRM: Final = 3.0
"""Seconds to wait for a broker's answer to a publish."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What Celery is told about a broker."""

    url: str = field(repr=False)
    needs: str = ""
    """The module it needs, and with it the extra."""
    extra: str = ""
    transport_options: dict[str, Any] = field(default_factory=dict)
    quorum: bool = False


def broker(url: str) -> Broker:
    """Give the settings for a broker's URL; raises `ConfigError` for a scheme that is not known, or lacks its extra."""
    scheme = url.partition(":")[0]
    found = _known(url).get(scheme)
    if found is None:
        raise ConfigError(f"no broker is known for '{scheme}://'; there are {', '.join(_known(url))}")
    if found.needs and find_spec(found.needs) is None:
        raise ConfigError(f'the broker needs: pip install "siftbell[{found.extra}]"')
    if scheme == sqlite.SCHEME:
        sqlite.register()
    return found


def _known(url: str) -> dict[str, Broker]:
    redis = Broker(
        url,
        needs="redis",
        extra="redis",
        transport_options={
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "global_keyprefix": "siftbell:",
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "retry_on_timeout": False,
        },
    )
    amqp = Broker(
        url,
        transport_options={"confirm_publish": True, "connect_timeout": 2, "read_timeout": 5, "write_timeout": 5},
        quorum=True,
    )
    sqs = Broker(
        url,
        needs="pycurl",
        extra="sqs",
        transport_options={
            "visibility_timeout": VISIBILITY,
            "wait_time_seconds": 5,
            "polling_interval": 0.1,
            "queue_name_prefix": "siftbell-",
        },
    )
    return {
        sqlite.SCHEME: Broker(url, transport_options={"visibility_timeout": VISIBILITY}),
        "redis": redis,
        "rediss": redis,
        "amqp": amqp,
        "amqps": amqp,
        "sqs": sqs,
        "memory": Broker(url),
    }
