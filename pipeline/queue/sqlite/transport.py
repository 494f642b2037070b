"""Siftbell's embedded broker: a kombu transport on one SQLite file, for all processes of one machine, without a server."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from kombu.transport import TRANSPORT_ALIASES, virtual

from pipeline.queue.sqlite.bells import Bell
from pipeline.queue.sqlite.channel import Channel as SqliteChannel
from pipeline.queue.sqlite.file import QueueFileError
from pipeline.queue.sqlite.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.queue.sqlite.rows import Claimed

SCHEME: Final = "siftbell-sqlite"
"""The scheme of this transport's URLs."""

BATCH: Final = 4
"""Messages claimed in one transaction, over all queues, when polled from an event loop: what nobody has room for goes back."""

SHORTEST_PAUSE: Final = 0.001
"""Seconds to the next poll after one that found something; doubled after each that did not."""

WHERE_IT_RINGS: Final = 5
"""How much longer the pause between two polls is with a bell: it is for what goes back to a queue, which rings nowhere."""

CLEAR_UP_EVERY: Final = 1.0
"""Seconds between two looks for dead owners and expired messages, of each polling connection."""


def register() -> None:
    """Make kombu and Celery understand `siftbell-sqlite:////absolute/path` as a broker's URL. May be called again."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def url(path: Path) -> str:
    """Return the broker URL of the queue file at an absolute path."""
    return f"{SCHEME}:///{quote(str(path))}"


class Settings(NamedTuple):
    """What a transport is told: by `transport_options`, or by its URL, which takes precedence.

    `path` is absolute. `synchronous` is `full`: a publish returns when the message has been fsynced, or `normal`: when
    the system has it, so that a power cut may lose it. `busy_timeout` is the longest wait for a locked file and
    `polling_interval` the longest pause between two polls where no bell can ring, in seconds. kombu's
    `visibility_timeout` is accepted and not needed: whether the owner of a claim lives is known, not guessed from the time.
    """

    path: Path
    synchronous: str = "full"
    busy_timeout: float = 5.0
    polling_interval: float = 0.02


def read_settings(address: str | None, options: Mapping[str, Any]) -> Settings:
    """Return the settings of a connection's URL and transport options; raises ValueError that names what is wrong."""
    told = {name: options[name] for name in Settings._fields if options.get(name) is not None}
    if address and "://" in address:
        parts = urlsplit(address)
        told |= dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        told["path"] = unquote(parts.path)[1:]
    unknown = sorted(set(told) - set(Settings._fields))
    if unknown:
        raise ValueError(f"{SCHEME}: no option is called {unknown[0]!r}; there are {', '.join(Settings._fields)}")
    path = Path(told.get("path", ""))
    if not path.is_absolute():
        raise ValueError(f"{SCHEME}: the path must be absolute, as in {SCHEME}:////var/lib/siftbell/queue.db")
    settings = Settings(
        path=path.resolve(),
        synchronous=str(told.get("synchronous", "full")).lower(),
        busy_timeout=float(told.get("busy_timeout", 5.0)),
        polling_interval=float(told.get("polling_interval", 0.02)),
    )
    if settings.synchronous not in {"full", "normal"}:
        raise ValueError(f"{SCHEME}: synchronous must be full or normal")
    return settings


class Transport(virtual.Transport):
    """One connection to the queue: the channels of one `kombu.Connection`, polled together."""

    Channel = SqliteChannel
    can_parse_url = True
    default_port = None
    driver_type = "sqlite"
    driver_name = "sqlite3"
    connection_errors = (*virtual.Transport.connection_errors, QueueFileError)
    implements = virtual.Transport.implements.extend(
        asynchronous=True, batch_publish=True, exchange_type=frozenset({"direct", "topic", "fanout"})
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.settings = read_settings(client.hostname, client.transport_options)
        self.rows: Rows | None = None
        self._stirs = itertools.count(1)
        self._stirred = 0  # changes with everything in this process that may let a poll find more
        self._quiet: tuple[int, int] | None = None  # the state of the file and of `_stirred` at which nothing was found
        self._last = ("", 0)  # queue and channel that were served last
        self._blocked = False  # a channel had no room for more
        self._cleared_up = 0.0
        self._wake = threading.Event()
        self._bell: Bell | None = None
        self._loop: Any = None
        self._timer: Any = None

    def establish_connection(self) -> Transport:
        """Open the file. Raises QueueFileError, which Celery retries, and WrongQueueFileError, which it does not."""
        if self.rows is None:
            self.rows = Rows(
                self.settings.path,
                durable=self.settings.synchronous == "full",
                busy_timeout=self.settings.busy_timeout,
            )
        self.rows.ready()
        super().establish_connection()
        return self

    def close_connection(self, connection: Any) -> None:
        """Hand back what is claimed, end what is temporary, and close the file."""
        self.unregister_from_event_loop(connection, self._loop)
        try:
            super().close_connection(connection)
        finally:
            if self.rows is not None:
                self.rows.close()
                self.rows = None

    def verify_connection(self, connection: Any) -> bool:  # noqa: ARG002 - kombu's signature
        """Say whether the connection is open."""
        return self.rows is not None

    def opened(self) -> Rows:
        """Return the rows of the open file; raises QueueFileError when the connection is closed."""
        if self.rows is None:
            raise QueueFileError(f"{self.settings.path}: this connection to the queue is closed")
        return self.rows

    def driver_version(self) -> str:
        """Return the version of SQLite."""
        return sqlite3.sqlite_version

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:  # noqa: ARG002 - kombu's signature
        """Return the URL, which holds no secret."""
        return url(self.settings.path)

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver one message, waiting at most `timeout` seconds for it, then raise TimeoutError; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = SHORTEST_PAUSE
        while True:
            self._wake.clear()
            if self._poll(1):
                return
            wait = pause
            if deadline is not None:
                wait = min(pause, deadline - time.monotonic())
                if wait <= 0:
                    raise TimeoutError("no message came in time")
            self._wake.wait(wait)
            pause = min(2 * pause, self.settings.polling_interval)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver messages from a timer of the worker's event loop until the connection is closed or unregistered."""
        self._bell = Bell.hung(self.settings.path)
        pause = self.settings.polling_interval * (WHERE_IT_RINGS if self._bell is not None else 1)

        def tick() -> None:
            try:
                self._poll_once()
            finally:
                if self._timer is timer and not timer.canceled:
                    loop.timer.enter_after(pause, timer)

        self._loop = loop
        self._timer = timer = loop.call_later(0, tick)
        if self._bell is not None:
            loop.add_reader(self._bell.descriptor, self._rung)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Stop delivering from the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._bell is not None and self._loop is not None:
            self._loop.remove_reader(self._bell.descriptor)
            self._bell.close()
        self._loop = self._timer = self._bell = None

    def _rung(self, *_: Any) -> None:
        channels: list[Any] = list(self.channels or ())
        if self._bell is not None and self._bell.heard(queue for channel in channels for queue in channel.routes):
            self._poll_once()

    def stir(self, *, look: bool = False) -> None:
        """Note that the next poll may find more than the last: a place became free, a consumer or a message came.

        `look`: have it come at once.
        """
        self._stirred = next(self._stirs)
        self._wake.set()
        if self._loop is not None and (self._blocked or look):
            self._blocked = False
            self._loop.call_later(0, self._poll_once)

    def _poll_once(self) -> None:
        if self.rows is not None and self._poll(BATCH) and self._loop is not None:
            self._loop.call_later(0, self._poll_once)  # there may be more

    def _poll(self, limit: int) -> int:
        """Claim and deliver up to `limit` messages; returns how many. Costs about 15 µs when nothing has changed."""
        rows = self.opened()
        rows.pay()
        now = time.monotonic()
        if now - self._cleared_up >= CLEAR_UP_EVERY:
            self._cleared_up = now
            if rows.clear_up():
                self.stir()
        state = (rows.passing.version(), self._stirred)
        if state == self._quiet:
            return 0
        plan = self._plan(rows.ready(), limit)
        if not plan:
            self._quiet = state
            return 0
        claimed = rows.claim([(queue, count) for queue, _, count in plan])
        return self._hand_out(
            rows, deque((channel, row) for (_, channel, _), found in zip(plan, claimed, strict=True) for row in found)
        )

    def _plan(self, ready: list[str], limit: int) -> list[tuple[str, SqliteChannel, int]]:
        """Share `limit` among the consumed queues that have something, in turn after the one served last."""
        channels: list[Any] = list(self.channels or ())
        channels = [channel for channel in channels if channel.routes]
        room = {channel: channel.room(limit) for channel in channels}
        self._blocked = not all(room.values())
        served = [
            (queue, channel.channel_id, channel)
            for queue in ready
            for channel in channels
            if queue in channel.routes and room[channel]
        ]
        served.sort(key=lambda place: (place[:2] <= self._last, place[:2]))
        share = max(1, limit // max(1, len(served)))
        plan = []
        for queue, number, channel in served:
            count = min(share, room[channel], limit)
            if count:
                plan.append((queue, channel, count))
                limit -= count
                room[channel] -= count
                self._last = (queue, number)
        return plan

    def _hand_out(self, rows: Rows, waiting: deque[tuple[SqliteChannel, Claimed]]) -> int:
        """Hand each message to its consumer; what could not be, because one raised or left, goes back untouched."""
        done: list[int] = []
        kept: list[int] = []
        found = len(waiting)
        try:
            while waiting:
                channel, row = waiting.popleft()
                route = channel.routes.get(row.queue)
                if route is None:
                    kept.append(row.id)
                    continue
                if route.no_ack:
                    done.append(row.id)
                route.deliver(row)
        finally:
            kept += [row.id for _, row in waiting]
            if kept:
                rows.keep(kept)
                self.stir()
            rows.acknowledge(done)
        return found - len(kept)
