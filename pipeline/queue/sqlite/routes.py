"""Keeps the exchanges, queues and bindings of an SQLite queue, and finds the queues that a message goes to.

Every function runs on the handle it is given; those that change something need one inside a write transaction.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.exceptions import ChannelError
from kombu.transport.virtual.base import NotEquivalentError
from kombu.transport.virtual.exchange import TopicExchange

if TYPE_CHECKING:
    import sqlite3

TYPES = ("direct", "topic", "fanout")
"""The types of exchanges there are."""

_topics: Any = TopicExchange(None)  # only its translation of patterns is used


class Lifetime(NamedTuple):
    """How long a queue and what is in it last.

    An exclusive queue (`owner` above 0) ends with its owner, an `auto_delete` queue with its last consumer, one with
    `unused_for` after as many seconds without consumer or declaration; `ttl` is the age in seconds its messages reach.
    """

    owner: int = 0
    auto_delete: bool = False
    ttl: float | None = None
    unused_for: float | None = None

    @property
    def temporary(self) -> bool:
        """Whether its consumers must be known, so that its end is."""
        return self.auto_delete or self.unused_for is not None


def declare_exchange(handle: sqlite3.Connection, name: str, kind: str) -> None:
    """Create the exchange. Raises ChannelError for an unknown type, NotEquivalentError when it exists with another."""
    if kind not in TYPES:
        raise ChannelError(
            f"COMMAND_INVALID - exchange {name!r}: the type {kind!r} is not one of {', '.join(TYPES)}", reply_code=503
        )
    handle.execute("INSERT OR IGNORE INTO exchanges (name, type) VALUES (?, ?)", (name, kind))
    if exchange_type(handle, name) != kind:
        raise NotEquivalentError(f"exchange {name!r} exists with the type {exchange_type(handle, name)}, not {kind}")


def known_exchange(handle: sqlite3.Connection, name: str) -> str | None:
    """Return the exchange's type, None when there is none; amq.direct, amq.topic and amq.fanout are always there."""
    if name.startswith("amq.") and name[4:] in TYPES:
        return name[4:]
    row = handle.execute("SELECT type FROM exchanges WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def exchange_type(handle: sqlite3.Connection, name: str) -> str:
    """Return the exchange's type. Raises ChannelError when it was never declared."""
    kind = known_exchange(handle, name)
    if kind is None:
        raise ChannelError(f"NOT_FOUND - no exchange {name!r}", reply_code=404)
    return kind


def delete_exchange(handle: sqlite3.Connection, name: str) -> None:
    """Remove the exchange and its bindings; the queues stay."""
    handle.execute("DELETE FROM bindings WHERE exchange = ?", (name,))
    handle.execute("DELETE FROM exchanges WHERE name = ?", (name,))


def has_queue(handle: sqlite3.Connection, name: str) -> bool:
    """Say whether the queue was declared, or holds messages all the same."""
    select = "SELECT 1 FROM queues WHERE name = ? UNION ALL SELECT 1 FROM messages WHERE owner = 0 AND queue = ? LIMIT 1"
    return handle.execute(select, (name, name)).fetchone() is not None


def queue_lifetime(handle: sqlite3.Connection, name: str) -> Lifetime | None:
    """Return how long the queue lasts, None when it was not declared."""
    row = handle.execute("SELECT owner, auto_delete, ttl, unused_for FROM queues WHERE name = ?", (name,)).fetchone()
    return None if row is None else Lifetime(row[0], bool(row[1]), row[2], row[3])


def declare_queue(handle: sqlite3.Connection, name: str, lifetime: Lifetime) -> None:
    """Create the queue, or give it this lifetime from now on."""
    handle.execute(
        "INSERT OR REPLACE INTO queues (name, owner, auto_delete, ttl, unused_for, used) VALUES (?, ?, ?, ?, ?, ?)",
        (name, *lifetime, time.time()),
    )


def delete_queue(handle: sqlite3.Connection, name: str) -> None:
    """Remove the queue, its bindings and its messages, the claimed ones too."""
    handle.execute("DELETE FROM messages WHERE owner = 0 AND queue = ?", (name,))
    handle.execute("DELETE FROM messages WHERE owner > 0 AND queue = ?", (name,))
    handle.execute("DELETE FROM bindings WHERE queue = ?", (name,))
    handle.execute("DELETE FROM consumers WHERE queue = ?", (name,))
    handle.execute("DELETE FROM queues WHERE name = ?", (name,))


def is_bound(handle: sqlite3.Connection, exchange: str, routing_key: str, queue: str) -> bool:
    """Say whether this very binding exists."""
    select = "SELECT 1 FROM bindings WHERE exchange = ? AND routing_key = ? AND queue = ?"
    return handle.execute(select, (exchange, routing_key, queue)).fetchone() is not None


def bind(handle: sqlite3.Connection, exchange: str, routing_key: str, queue: str) -> None:
    """Let the queue take what the exchange gets under the routing key. Raises ChannelError without the exchange."""
    exchange_type(handle, exchange)
    handle.execute("INSERT OR IGNORE INTO bindings VALUES (?, ?, ?)", (exchange, routing_key, queue))


def unbind(handle: sqlite3.Connection, exchange: str, routing_key: str, queue: str) -> None:
    """Undo `bind`."""
    delete = "DELETE FROM bindings WHERE exchange = ? AND routing_key = ? AND queue = ?"
    handle.execute(delete, (exchange, routing_key, queue))


def bindings(handle: sqlite3.Connection) -> list[tuple[str, str, str]]:
    """Return all bindings as (queue, exchange, routing key)."""
    return handle.execute("SELECT queue, exchange, routing_key FROM bindings").fetchall()


def matching(handle: sqlite3.Connection, exchange: str, routing_key: str) -> list[str]:
    """Return the queues that take a message of the exchange, each once. Raises ChannelError without the exchange."""
    kind = exchange_type(handle, exchange)
    if kind == "direct":
        select = "SELECT queue FROM bindings WHERE exchange = ? AND routing_key = ?"
        return [queue for (queue,) in handle.execute(select, (exchange, routing_key)).fetchall()]
    rows = handle.execute("SELECT queue, routing_key FROM bindings WHERE exchange = ?", (exchange,)).fetchall()
    return sorted({queue for queue, pattern in rows if kind == "fanout" or _matches(pattern, routing_key)})


def _matches(pattern: str, routing_key: str) -> bool:
    return re.match(_topics.key_to_pattern(pattern), routing_key) is not None  # re keeps what it has compiled


def ttl(handle: sqlite3.Connection, queue: str) -> float | None:
    """Return the age in seconds that messages of the queue reach, None for any."""
    row = handle.execute("SELECT ttl FROM queues WHERE name = ?", (queue,)).fetchone()
    return None if row is None else row[0]


def add_consumer(handle: sqlite3.Connection, queue: str, owner: int, tag: str) -> None:
    """Note that a temporary queue has a consumer."""
    handle.execute("INSERT OR IGNORE INTO consumers (queue, owner, tag) VALUES (?, ?, ?)", (queue, owner, tag))


def remove_consumer(handle: sqlite3.Connection, queue: str, owner: int, tag: str) -> None:
    """Note that the consumer has left; an auto-delete queue ends with its last one."""
    handle.execute("DELETE FROM consumers WHERE queue = ? AND owner = ? AND tag = ?", (queue, owner, tag))
    _leave(handle, queue)


def forget_owner(handle: sqlite3.Connection, owner: int) -> None:
    """End the owner's exclusive queues and its consumers."""
    for (queue,) in handle.execute("SELECT name FROM queues WHERE owner = ?", (owner,)).fetchall():
        delete_queue(handle, queue)
    for (queue,) in handle.execute("DELETE FROM consumers WHERE owner = ? RETURNING queue", (owner,)).fetchall():
        _leave(handle, queue)


def unused_queues(handle: sqlite3.Connection, now: float) -> list[str]:
    """Return the queues whose time without any use is over."""
    rows = handle.execute(
        "SELECT name FROM queues WHERE unused_for IS NOT NULL AND used + unused_for <= ?"
        " AND NOT EXISTS (SELECT 1 FROM consumers WHERE consumers.queue = queues.name)",
        (now,),
    ).fetchall()
    return [name for (name,) in rows]


def _leave(handle: sqlite3.Connection, queue: str) -> None:
    handle.execute("UPDATE queues SET used = ? WHERE name = ?", (time.time(), queue))
    ended = handle.execute(
        "SELECT 1 FROM queues WHERE name = ? AND auto_delete"
        " AND NOT EXISTS (SELECT 1 FROM consumers WHERE consumers.queue = queues.name)",
        (queue,),
    ).fetchone()
    if ended:
        delete_queue(handle, queue)
