"""Looks at how a Redis server is set up, before messages are entrusted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError
from kombu.log import get_logger
from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from redis import Redis

logger = get_logger(__name__)


def refuse_cluster(client: Redis, place: str) -> None:
    """Raise OperationalError for a member of a cluster; `place` names the server. One that may not be asked is taken."""
    try:
        enabled = client.info("cluster").get("cluster_enabled")
    except ResponseError:
        return
    if enabled:
        raise OperationalError(f"{place} is a Redis Cluster: one server is needed")


def warn_of_eviction(client: Redis, place: str) -> None:
    """Tell the log of a server that drops what it was given when it is full."""
    try:
        policy = str(client.info("memory").get("maxmemory_policy"))
    except ResponseError:
        return
    if policy.startswith("allkeys"):
        logger.error("%s drops queued messages when it is full (maxmemory-policy %s): set it to noeviction", place, policy)
