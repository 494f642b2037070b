"""Moves the messages of an SQLite queue: stores, claims, acknowledges, hands back, and clears up after the dead."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from kombu.exceptions import ChannelError

from pipeline.queue.sqlite import bells, owners, routes
from pipeline.queue.sqlite.file import QueueFile, QueueFileError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_READY = """
WITH RECURSIVE ready (queue) AS (
    SELECT min(queue) FROM messages WHERE owner = 0
    UNION ALL
    SELECT (SELECT min(queue) FROM messages WHERE owner = 0 AND queue > ready.queue) FROM ready WHERE queue IS NOT NULL
)
SELECT queue FROM ready WHERE queue IS NOT NULL
"""
"""Jumps from queue to queue along the index: one step for each queue that has something, however many it has."""

_CLAIM = """
UPDATE messages SET owner = ?, deliveries = deliveries + 1
WHERE id IN (SELECT id FROM messages WHERE owner = 0 AND queue = ? ORDER BY priority DESC, id LIMIT ?)
RETURNING id, queue, priority, envelope, body, deliveries, returns
"""

_ACKNOWLEDGE = "DELETE FROM messages WHERE id = ? AND owner = ?"
_REFUSE = "UPDATE messages SET owner = 0 WHERE id = ? AND owner = ?"
_RETURN = "UPDATE messages SET owner = 0, returns = returns + 1 WHERE id = ? AND owner = ?"
_KEEP = "UPDATE messages SET owner = 0, deliveries = deliveries - 1 WHERE id = ? AND owner = ?"


class Outgoing(NamedTuple):
    """A message on its way in: `lifetime` is in seconds, None for ever; `fallback` is the queue of what no queue takes."""

    exchange: str
    routing_key: str
    priority: int
    envelope: str
    body: str | bytes
    lifetime: float | None
    mandatory: bool
    fallback: str | None


class Claimed(NamedTuple):
    """A message on its way out; it stays in the file, claimed by this process, until it is settled."""

    id: int
    queue: str
    priority: int
    envelope: str
    body: str | bytes
    deliveries: int
    returns: int

    @property
    def redelivered(self) -> bool:
        """Whether it was handed to a consumer before, by whomever."""
        return self.deliveries > 1

    @property
    def failures(self) -> int:
        """How often it was handed out before and neither acknowledged nor handed back at an orderly end."""
        return self.deliveries - 1 - self.returns


class Rows:
    """The messages of one queue file as one connection sees them. May be used from any thread.

    Publishing goes through a durable handle where `durable`; claims and acknowledgements never wait for the disk: a
    power cut can undo them, which delivers a message again and loses none. All methods raise QueueFileError when the
    file cannot be used now.
    """

    def __init__(self, path: Path, *, durable: bool, busy_timeout: float) -> None:
        self.path = path
        self.passing = QueueFile(path, durable=False, busy_timeout=busy_timeout)
        self._lasting = QueueFile(path, durable=durable, busy_timeout=busy_timeout)
        self._owner: tuple[int, int] | None = None  # the process it belongs to, and its number
        self._owed: list[tuple[str, list[tuple[int, int]]]] = []

    def publish(self, messages: Sequence[Outgoing]) -> None:
        """Store all of them, once for each queue that takes it, in one transaction, or none. Raises ChannelError."""
        with self._lasting.reading() as handle:
            routed = any(_targets(handle, message) for message in messages)
        if not routed:
            return
        with self._lasting.writing() as handle:
            now, reached = time.time(), set()
            for message in messages:
                for queue in _targets(handle, message):
                    reached.add(queue)
                    lifetime = _shorter(message.lifetime, routes.ttl(handle, queue))
                    expires = None if lifetime is None else now + lifetime
                    handle.execute(
                        "INSERT INTO messages (queue, priority, envelope, body, expires) VALUES (?, ?, ?, ?, ?)",
                        (queue, message.priority, message.envelope, message.body, expires),
                    )
        bells.ring(self.path, reached)

    def ready(self) -> list[str]:
        """Return the names of the queues that have something to claim, in alphabetical order."""
        with self.passing.reading() as handle:
            return [queue for (queue,) in handle.execute(_READY).fetchall()]

    def claim(self, wanted: Iterable[tuple[str, int]]) -> list[list[Claimed]]:
        """Claim up to the wanted number of messages of each queue for this connection, the urgent and old ones first."""
        owner = self.owner()
        claimed = []
        with self.passing.writing() as handle:
            _drop_expired(handle, time.time())
            for queue, count in wanted:
                rows = [Claimed(*row) for row in handle.execute(_CLAIM, (owner, queue, count)).fetchall()]
                claimed.append(sorted(rows, key=lambda row: (-row.priority, row.id)))
        return claimed

    def acknowledge(self, ids: Iterable[int]) -> None:
        """Remove claimed messages. What cannot be written now is owed, and paid with the next poll."""
        self._settle(_ACKNOWLEDGE, ids)

    def refuse(self, ids: Iterable[int]) -> None:
        """Put claimed messages back at their old places, as delivered in vain."""
        self._settle(_REFUSE, ids)

    def hand_back(self, ids: Iterable[int]) -> None:
        """Put claimed messages back at their old places, at an orderly end that says nothing against them."""
        self._settle(_RETURN, ids)

    def keep(self, ids: Iterable[int]) -> None:
        """Put claimed messages back at their old places, as never delivered."""
        self._settle(_KEEP, ids)

    def pay(self) -> None:
        """Write what is owed since an acknowledgement or hand-back failed."""
        if self._owed:
            owed = self._owed[:]
            with self.passing.writing() as handle:
                for statement, rows in owed:
                    handle.executemany(statement, rows)
            del self._owed[: len(owed)]

    def size(self, queue: str) -> int:
        """Return how many messages of the queue are ready; claimed ones do not count."""
        with self.passing.reading() as handle:
            found: int = handle.execute("SELECT count(*) FROM messages WHERE owner = 0 AND queue = ?", (queue,)).fetchone()[0]
            return found

    def purge(self, queue: str) -> int:
        """Remove the ready messages of the queue; returns how many."""
        with self.passing.writing() as handle:
            return handle.execute("DELETE FROM messages WHERE owner = 0 AND queue = ?", (queue,)).rowcount

    def owner(self) -> int:
        """Return the number under which this connection claims in this process; the first call takes one."""
        with self.passing.reading():  # one thread at a time, and none while the process forks
            if self._owner is None or self._owner[0] != os.getpid():
                self._owner = (os.getpid(), self._new_owner())
            return self._owner[1]

    def _new_owner(self) -> int:
        number = 0
        try:
            with self.passing.writing() as handle:
                insert = "INSERT INTO owners (pid, since) VALUES (?, ?) RETURNING id"
                number = handle.execute(insert, (os.getpid(), time.time())).fetchone()[0]
                owners.hold(self.path, number)
        except QueueFileError:
            owners.let_go(self.path, number)
            raise
        return int(number)

    def join(self, queue: str, consumer: str) -> None:
        """Note a consumer of this connection, where the end of the queue depends on it."""
        if self._is_temporary(queue):
            owner = self.owner()
            with self.passing.writing() as handle:
                routes.add_consumer(handle, queue, owner, consumer)

    def leave(self, queue: str, consumer: str) -> None:
        """Undo `join`; an auto-delete queue ends with its last consumer."""
        if self._is_temporary(queue):
            owner = self.owner()
            with self.passing.writing() as handle:
                routes.remove_consumer(handle, queue, owner, consumer)

    def _is_temporary(self, queue: str) -> bool:
        with self.passing.reading() as handle:
            lifetime = routes.queue_lifetime(handle, queue)
        return lifetime is not None and lifetime.temporary

    def clear_up(self) -> bool:
        """Free the claims of dead owners, drop what has expired; returns whether anything changed."""
        now = time.time()
        with self.passing.reading() as handle:
            known = [number for (number,) in handle.execute("SELECT id FROM owners").fetchall()]
            dead = [number for number in known if not owners.is_alive(self.path, number)]
            stale = handle.execute("SELECT 1 FROM messages WHERE expires <= ? AND owner = 0 LIMIT 1", (now,)).fetchall()
            unused = routes.unused_queues(handle, now)
        if not (dead or stale or unused):
            return False
        with self.passing.writing() as handle:
            for number in dead:
                _end_owner(handle, number)
            _drop_expired(handle, now)
            for queue in routes.unused_queues(handle, now):
                routes.delete_queue(handle, queue)
        return True

    def close(self) -> None:
        """Hand back what is still claimed, end the temporary queues of this connection, and close."""
        owner, self._owner = self._owner, None
        try:
            if owner is not None and owner[0] == os.getpid():
                with suppress(QueueFileError):  # letting go of the owner is enough: another process clears up after it
                    self.pay()
                    with self.passing.writing() as handle:
                        _end_owner(handle, owner[1])
                owners.let_go(self.path, owner[1])
        finally:
            self.passing.close()
            self._lasting.close()

    def _settle(self, statement: str, ids: Iterable[int]) -> None:
        if self._owner is None or self._owner[0] != os.getpid():
            raise QueueFileError(f"{self.path}: the connection that was handed the message is gone; it comes again")
        rows = [(number, self._owner[1]) for number in ids]
        if not rows:
            return
        if self._owed:  # one wait for a locked file is enough: these join what the next poll pays
            self._owed.append((statement, rows))
            return
        try:
            with self.passing.writing() as handle:
                handle.executemany(statement, rows)
        except QueueFileError:
            self._owed.append((statement, rows))
            raise


def _targets(handle: sqlite3.Connection, message: Outgoing) -> list[str]:
    """Return the queues that take the message. The nameless exchange leads to the queue of that name, declared or not."""
    if not message.exchange:
        return [message.routing_key]
    queues = routes.matching(handle, message.exchange, message.routing_key)
    if not queues and message.fallback:
        return [message.fallback]
    if not queues and message.mandatory:
        raise ChannelError(f"NO_ROUTE - no queue takes {message.routing_key!r} of exchange {message.exchange!r}", reply_code=312)
    return queues


def _shorter(one: float | None, other: float | None) -> float | None:
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _drop_expired(handle: sqlite3.Connection, now: float) -> None:
    handle.execute("DELETE FROM messages WHERE expires <= ? AND owner = 0", (now,))


def _end_owner(handle: sqlite3.Connection, number: int) -> None:
    """Free the claims of an owner and end what exists only as long as it does."""
    handle.execute("UPDATE messages SET owner = 0 WHERE owner = ? AND owner > 0", (number,))
    routes.forget_owner(handle, number)
    handle.execute("DELETE FROM owners WHERE id = ?", (number,))
