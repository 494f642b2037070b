"""Speaks to Redis: each call is one exchange, asked once, over a connection that nobody else uses meanwhile."""

from __future__ import annotations

import time
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import NoScriptError, RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import ConnectionPool


RESTED: Final = 0.05
"""Seconds without a command after which a connection is looked at before the next: the server may have closed it meanwhile."""


class Script(NamedTuple):
    """A call of a Lua script."""

    text: str
    keys: Sequence[str]
    args: Sequence[Any]


class Commands:
    """What a batch costs in commands; it is a third of what redis-py's own client needs for one (24 µs of 62).

    May be called from any thread. All methods raise RedisError: `ResponseError` where Redis refuses, with nothing changed,
    anything else where it may or may not have done what it was asked.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._idle: list[tuple[Any, float]] = []
        self._closed = False

    def call(self, *words: Any) -> Any:
        """Give the answer to a command."""
        return _given(self._exchange([words]))[0]

    def script(self, text: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Give the answer of a Lua script."""
        return self.scripts([Script(text, keys, args)])[0]

    def scripts(self, calls: Sequence[Script]) -> list[Any]:
        """Give the answers of Lua scripts, which Redis keeps once they have run; where it refuses one, the others are done."""
        answers = self._exchange([("EVALSHA", _digest(text), len(keys), *keys, *args) for text, keys, args in calls])
        for at, (text, keys, args) in enumerate(calls):
            if isinstance(answers[at], NoScriptError):
                [answers[at]] = self._exchange([("EVAL", text, len(keys), *keys, *args)])
        return _given(answers)

    def together(self, commands: Sequence[Sequence[Any]], then: Sequence[Sequence[Any]]) -> None:
        """Have Redis do all commands or none, `then` the others."""
        alone = len(commands) == 1
        answers = _given(self._exchange([*(commands if alone else (("MULTI",), *commands, ("EXEC",))), *then]))
        if not alone:
            _given(answers[len(commands) + 1])

    def close(self) -> None:
        """Close the connections; one that is in use is closed by its user."""
        self._closed = True
        while self._idle:
            self._idle.pop()[0].disconnect()

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        connection = self._lent()
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [_answer(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # an answer that comes later is not that to the next command
            raise
        finally:
            self._idle.append((connection, time.monotonic()))
            if self._closed:
                self.close()
        return answers

    def _lent(self) -> Any:
        """Give a connection that nobody uses; it connects by itself. One on which something came unasked was cut."""
        try:
            connection, used = self._idle.pop()
        except IndexError:
            return self._pool.get_connection()
        if connection.is_connected and time.monotonic() - used > RESTED and not _in_step(connection):
            connection.disconnect()
        return connection


def _answer(connection: Any) -> Any:
    """Give the next answer, also one that is an error: those after it must be read as well."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _given(answers: list[Any]) -> list[Any]:
    """Give the answers; raises the first that is an error."""
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    return answers


def _in_step(connection: Any) -> bool:
    try:
        return not connection.can_read()
    except (RedisError, OSError):
        return False


@cache
def _digest(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()
