"""The Lumberjack protocol, version 2, as Beats speak it: windows of events that the other side acknowledges.

pylogbeat speaks it too, and is not used: it compares no host name with a certificate, may write half of a frame where a
socket is busy, and does not tell which events were acknowledged before a connection ended.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from consumers.logstash.lines import Event, Failures
from consumers.logstash.options import LogstashConfig
from consumers.logstash.stream import Streams, left, write
from pipeline import TemporaryError

_VERSION: Final = b"2"
_WINDOW: Final = 2048
_BYTES: Final = 8 * 2**20


class Beats:
    """The events of a batch in windows, each of which is acknowledged before the next."""

    def __init__(self, config: LogstashConfig) -> None:
        self._target = config.target
        self._streams = Streams(config.target, config.tls())
        self.close = self._streams.close
        self.probe = self._streams.probe

    def send(self, events: Sequence[Event], until: float) -> Failures:
        """Send the events; gives an error for each that was not acknowledged."""
        done = 0
        try:
            with self._streams.told(), self._streams.kept(until) as stream:
                for window in _windows(events):
                    write(stream, _framed(window), until)
                    for acknowledged in _acknowledged(stream, len(window), until):
                        done += acknowledged
        except TemporaryError as error:
            return dict.fromkeys((message_id for message_id, _ in events[done:]), error)
        except _RefusedError:
            odd = TemporaryError(f"{self._target}: the answer is no acknowledgement: does it speak Lumberjack 2?")
            return dict.fromkeys((message_id for message_id, _ in events[done:]), odd)
        return {}


class _RefusedError(Exception):
    """What came is none of the protocol."""


def _windows(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    start = size = 0
    for index, (_, body) in enumerate(events):
        if index > start and (index - start == _WINDOW or size + len(body) > _BYTES):
            yield events[start:index]
            start, size = index, 0
        size += len(body)
    if start < len(events):
        yield events[start:]


def _framed(window: Sequence[Event]) -> bytes:
    """Give the frames: how many events come, and all of them compressed, numbered from 1."""
    frames = b"".join(
        _VERSION + b"J" + struct.pack(">II", number, len(body)) + body for number, (_, body) in enumerate(window, 1)
    )
    packed = zlib.compress(frames, 3)
    return _VERSION + b"W" + struct.pack(">I", len(window)) + _VERSION + b"C" + struct.pack(">I", len(packed)) + packed


def _acknowledged(stream: socket.socket, count: int, until: float) -> Iterator[int]:
    """Give how many more events were acknowledged, each time some are, until all are. A 0 says that it is being worked on."""
    done = 0
    while done < count:
        frame = _read(stream, 6, until)
        (number,) = struct.unpack(">I", frame[2:])
        if frame[:2] != _VERSION + b"A" or number > count:
            raise _RefusedError
        if number > done:
            yield number - done
            done = number


def _read(stream: socket.socket, count: int, until: float) -> bytes:
    read = b""
    while len(read) < count:
        stream.settimeout(left(until))
        some = stream.recv(count - len(read))
        if not some:
            raise EOFError
        read += some
    return read
