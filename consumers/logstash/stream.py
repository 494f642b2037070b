"""Connections of TCP, with TLS or without: how they are made, when they have ended, and what the other side's kernel has."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import ssl
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from consumers.logstash.options import Target
from pipeline import TemporaryError

_CONNECT_SECONDS: Final = 10.0
_IDLE: Final = 50.0
"""Seconds that a connection is kept: Logstash ends those of beats that say nothing for 60."""
_CHUNK: Final = 64 * 1024


class Streams:
    """The connections to one target; those that wait for their next use are kept."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self._target = target
        self._context = context
        self._idle: list[tuple[socket.socket, float]] = []

    def connect(self, until: float) -> socket.socket:
        """Give a new connection, with its TLS; raises what `told` understands."""
        made = socket.create_connection((self._target.host, self._target.port), timeout=min(_CONNECT_SECONDS, left(until)))
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return self._context.wrap_socket(made, server_hostname=self._target.host) if self._context else made
        except BaseException:
            made.close()
            raise

    @contextmanager
    def kept(self, until: float) -> Iterator[socket.socket]:
        """Give a connection that was used before and stands, or a new one; it is kept for the next where nothing is raised."""
        used = self._waiting() or self.connect(until)
        try:
            yield used
        except BaseException:
            used.close()
            raise
        self._idle.append((used, time.monotonic()))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()

    def probe(self) -> str:
        """Make a connection, and end it."""
        with self.told():
            self.connect(time.monotonic() + _CONNECT_SECONDS).close()
        return f"{self._target} answers; it was asked nothing"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what goes wrong with a connection into `TemporaryError`."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise TemporaryError(f"{self._target}: the certificate does not hold: {error.verify_message}") from None
        except (ConnectionResetError, BrokenPipeError, EOFError, ssl.SSLEOFError):
            raise TemporaryError(f"{self._target}: the connection broke off") from None
        except ssl.SSLError as error:
            raise TemporaryError(f"{self._target}: TLS failed ({error.reason or type(error).__name__})") from None
        except TimeoutError:
            raise TemporaryError(f"{self._target}: no answer in time") from None
        except OSError as error:
            broken = error.errno == errno.ENOTCONN
            text = "the connection broke off" if broken else f"no connection: {error.strerror or error}"
            raise TemporaryError(f"{self._target}: {text}") from None

    def _waiting(self) -> socket.socket | None:
        while self._idle:
            found, since = self._idle.pop()
            if time.monotonic() - since < _IDLE and not has_ended(found):
                return found
            found.close()
        return None


def left(until: float) -> float:
    """Give the seconds that are left; raises `TimeoutError` where there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def write(to: socket.socket, data: bytes, until: float) -> None:
    """Write all, within the time."""
    view = memoryview(data)
    for start in range(0, len(view), _CHUNK):
        to.settimeout(left(until))
        to.sendall(view[start : start + _CHUNK])


def has_ended(one: socket.socket) -> bool:
    """Say whether the other side has ended a connection, as far as that is known here, or says what nobody asked."""
    one.settimeout(0)
    try:
        one.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


def await_receipt(one: socket.socket, until: float) -> None:
    """Return when the other side's kernel has all that was written; raises `OSError` where the connection ended before."""
    pause = 0.0005
    while True:
        if error := one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        if not _on_the_way(one):
            return
        time.sleep(min(pause, left(until)))
        pause = min(pause * 2, 0.05)


def finish(one: socket.socket, until: float) -> bytes:
    """Say that nothing more comes, and return when the other side has read all and ended the connection too; give what it said.

    A kernel whose program leaves something unread resets the connection, as does one that something comes too late for: that
    raises, and so does an end that is there before ours is told. What ends without TLS's own goodbye has ended all the same.
    """
    said = _said_already(one)
    one.settimeout(left(until))
    try:
        if isinstance(one, ssl.SSLSocket):
            one.unwrap()  # from here on it is a connection without TLS
        one.shutdown(socket.SHUT_WR)
        while some := one.recv(_CHUNK):
            said = said or some
            one.settimeout(left(until))
    except ssl.SSLEOFError:
        pass
    except OSError as error:
        if error.errno != 0:  # OpenSSL's word for an end without goodbye
            raise
    await_receipt(one, until)
    return said


def _said_already(one: socket.socket) -> bytes:
    """Give what the other side has said so far; raises `EOFError` where it has ended the connection."""
    one.settimeout(0)
    try:
        said = one.recv(_CHUNK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
    if not said:
        raise EOFError
    return said


def _on_the_way(one: socket.socket) -> int:
    """Give how many bytes the other side's kernel has not acknowledged; 0 where the system does not tell."""
    told = bytearray(4)
    with suppress(OSError):
        fcntl.ioctl(one, termios.TIOCOUTQ, told)
    return int.from_bytes(told, sys.byteorder)
