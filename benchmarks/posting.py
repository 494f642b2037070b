"""Posts alerts to an intake when they are due: `python -m benchmarks.posting URL KEY STAMPS RATE SECONDS`; rate 0 is a flood.

A process of its own. Each alert has a connection for itself until it is answered, so that none waits for another's answer.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.moments import OUTSTANDING, count, schedule
from benchmarks.work import alert

READY: Final = 64
"""Connections that are open from the beginning."""
PATIENCE: Final = 30.0
"""Seconds in which the last answers have to come."""
_SOON: Final = 0.0005


class Sender:
    """Posts, and collects the answers while it waits."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "", parts.port or 80)
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._idle = [self._connected() for _ in range(READY)]
        self._busy: dict[socket.socket, bytes] = {}
        self.posted = 0

    @property
    def busy(self) -> int:
        """How many requests are not answered yet."""
        return len(self._busy)

    def post(self, due: int) -> None:
        """Send an alert that says when it was due."""
        body = json.dumps(alert(self.posted) | {"key": f"{due:016x}"}, separators=(",", ":"))
        connection = self._idle.pop() if self._idle else self._connected()
        connection.sendall(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        self._busy[connection] = b""
        self.posted += 1

    def listen(self, seconds: float) -> None:
        """Take answers for so long, or until some have come. `select` counts in microseconds, others in milliseconds."""
        for connection in select.select(list(self._busy), [], [], seconds)[0]:
            answer = self._busy[connection] + connection.recv(65536)
            head, whole, rest = answer.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]
            if not whole or len(rest) < int(length):
                self._busy[connection] = answer
                continue
            if b" 202 " not in head:
                raise RuntimeError(f"an alert was not accepted: {answer.decode(errors='replace')}")
            del self._busy[connection]
            self._idle.append(connection)

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(self._place)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def steadily(sender: Sender, rate: float, seconds: float) -> None:
    """Post each alert when it is due, whatever the others are doing."""
    for due in schedule(rate, seconds):
        while (left := due - time.monotonic_ns()) > 0:
            sender.listen(left / 1e9)
        sender.post(due)


def flood(sender: Sender, stamps: Path, seconds: float) -> None:
    """Post as many as are consumed."""
    before = count(stamps)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        while sender.busy < READY and sender.posted - (count(stamps) - before) < OUTSTANDING:
            sender.post(time.monotonic_ns())
        sender.listen(_SOON)


def main(url: str, key: str, stamps: Path, rate: float, seconds: float) -> None:
    """Post, wait for all answers, and print how many there were."""
    sender = Sender(url, key)
    if rate:
        steadily(sender, rate, seconds)
    else:
        flood(sender, stamps, seconds)
    end = time.monotonic() + PATIENCE
    while sender.busy and time.monotonic() < end:
        sender.listen(0.1)
    if sender.busy:
        raise TimeoutError(f"{sender.busy} requests were not answered")
    print(sender.posted)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
