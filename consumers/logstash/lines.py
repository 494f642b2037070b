"""Lines of JSON over TCP or TLS, and datagrams over UDP: neither tells what became of an event."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from consumers.logstash.options import LogstashConfig, Target
from consumers.logstash.stream import Streams, await_receipt, finish, has_ended, left, write
from pipeline import TemporaryError

Event = tuple[str, bytes]
"""A message's id, and its event."""
Failures = dict[str, TemporaryError]


class Lines:
    """A line for each event, over TCP or TLS."""

    def __init__(self, config: LogstashConfig) -> None:
        self._target = config.target
        self._confirm = config.confirm
        self._streams = Streams(config.target, config.tls())
        self.close = self._streams.close
        self.probe = self._streams.probe

    def send(self, events: Sequence[Event], until: float) -> Failures:
        """Write the lines; raises `TemporaryError` where it is not known that the other side has all of them."""
        lines = b"".join(body + b"\n" for _, body in events)
        with self._streams.told():
            if self._confirm:
                self._send_alone(lines, until)
                return {}
            with self._streams.kept(until) as stream:
                write(stream, lines, until)
                await_receipt(stream, until)
                if has_ended(stream):
                    raise EOFError
        return {}

    def _send_alone(self, lines: bytes, until: float) -> None:
        with self._streams.connect(until) as stream:
            write(stream, lines, until)
            try:
                said = finish(stream, until)
            except TimeoutError:
                hint = "where it never does, give `confirm: false`"
                raise TemporaryError(f"{self._target}: has not ended the connection after it got everything; {hint}") from None
        if said:
            raise TemporaryError(f"{self._target}: answered, which an input of lines never does: is it the right port?")


class Datagrams:
    """A datagram for each event, over UDP."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def send(self, events: Sequence[Event], until: float) -> Failures:
        """Send the datagrams; raises `TemporaryError` where the other machine says that nobody takes them."""
        try:
            with self._socket() as datagrams:
                for _, body in events:
                    datagrams.settimeout(left(until))
                    datagrams.send(body)
                datagrams.settimeout(0)
                try:
                    datagrams.recv(1)
                except BlockingIOError:
                    return {}
        except OSError as error:
            raise TemporaryError(f"{self._target}: not sent: {error.strerror or 'no answer in time'}") from None
        return {}

    def probe(self) -> None:
        """Nothing can be asked."""

    def close(self) -> None:
        """Nothing is open."""

    def _socket(self) -> socket.socket:
        found = socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.connect(address)  # so that the system tells when nobody listens
        except BaseException:
            made.close()
            raise
        return made
