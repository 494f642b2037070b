"""Hears what is published in Redis, on a connection of its own, past redis-py's client, which takes twice the time for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from redis import ConnectionPool


class Heard(NamedTuple):
    """What came on a channel; None is no message: it is listened to from now on."""

    channel: str
    message: bytes | None


class Bell:
    """The channels that are listened to. A connection that was cut is made anew.

    Methods raise RedisError where it cannot be, and where Redis refuses.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._connection: Any = pool.get_connection()
        self._channels: dict[str, None] = {}

    @property
    def socket(self) -> Any:
        """The socket that can be read when there is something to hear; another one after the connection was cut."""
        return self._connection._sock  # noqa: SLF001 - redis-py has no other way to wait for several things

    def listen(self, channel: str) -> None:
        """Hear from now on what is published on a channel."""
        if channel not in self._channels:
            self._channels[channel] = None
            self._connection.send_command("SUBSCRIBE", channel)

    def hear(self, wait: float = 0) -> Heard | None:
        """Give what came, waiting at most so many seconds for it."""
        try:
            if not self._connection.can_read(wait):
                return None
            kind, channel, message = self._connection.read_response()
        except ResponseError:  # this user may not listen
            raise
        except RedisError:
            self._connection.disconnect()
            self._connection.send_command("SUBSCRIBE", *self._channels)
            return None
        return Heard(channel.decode(), message if kind == b"message" else None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
