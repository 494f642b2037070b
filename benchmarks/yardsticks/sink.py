"""The other side of each delivery: answers 200 after so many ms. `python -m benchmarks.yardsticks.sink PORT MS FILE`.

It counts in FILE, which others map into their memory (`benchmarks.sink`): asking it would cost it time. Nothing of a request
is read but its length, so that as little as possible of what is measured is the sink's.
"""

from __future__ import annotations

import asyncio
import mmap
import re
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Final, cast

import uvloop

COUNTS: Final = struct.Struct("QQQ")
"""Requests so far, those that wait for their answer, and when the last one came: `time.monotonic_ns`."""
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_BACKLOG: Final = 4096


class Counter:
    """Counts requests where others can see it."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(COUNTS.size))
        with path.open("r+b") as file:
            self._shared = memoryview(mmap.mmap(file.fileno(), COUNTS.size)).cast("Q")
        self._count = self._answered = self._last = 0

    def came(self) -> None:
        """Count a request."""
        self._count += 1
        self._last = time.monotonic_ns()
        self._tell()

    def answered(self) -> None:
        """Count its answer."""
        self._answered += 1
        self._tell()

    def _tell(self) -> None:
        # One at a time, the moment first: whoever looks meanwhile sees no figure half written, and none without its moment.
        self._shared[2] = self._last
        self._shared[1] = self._count - self._answered
        self._shared[0] = self._count


class Connection(asyncio.Protocol):
    """One client's connection; it stays open until the client closes it."""

    def __init__(self, counter: Counter, wait: float) -> None:
        self._counter = counter
        self._wait = wait
        self._came = b""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Count each request that is whole, and answer it when its time has come."""
        self._came += data
        while (end := self._came.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(self._came, 0, end)
            whole = end + int(length[1]) if length else end
            if len(self._came) < whole:
                return
            self._came = self._came[whole:]
            self._counter.came()
            if self._wait:
                self._loop.call_later(self._wait, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        self._counter.answered()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def serve(port: int, wait: float, path: Path) -> None:
    """Serve for ever."""
    counter = Counter(path)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counter, wait), "127.0.0.1", port, backlog=_BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000, Path(sys.argv[3])))
