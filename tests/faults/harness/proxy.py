"""A TCP proxy between the product and a server: cuts, delays, half-closes and freezes the connections that run through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

from harness.background import Background

Trouble = Literal["none", "refuses", "delays", "freezes"]
DELAY = 0.2
"""Seconds by which every piece of data is late while the proxy delays."""


class Proxy:
    """Listens on a free port of loopback and passes everything on to a target's port. May be used from any thread."""

    def __init__(self, background: Background, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        """How many have been made through it."""
        self._background = background
        self._trouble: Trouble = "none"
        self._calm = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        background.call(self._listen())

    def become(self, trouble: Trouble) -> None:
        """Change how data is passed on, of the connections there are and of new ones."""
        self._background.call(self._become(trouble))

    def cut(self) -> None:
        """Reset all connections that there are; new ones are passed on."""
        self._background.call(self._cut())

    def half_close(self) -> None:
        """Tell each client that the server has finished, and keep the connection open."""
        self._background.call(self._half_close())

    async def _listen(self) -> None:
        self._calm.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _become(self, trouble: Trouble) -> None:
        self._trouble = trouble
        if trouble == "freezes":
            self._calm.clear()
        else:
            self._calm.set()
        if trouble == "refuses":
            await self._cut()

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        self._background.call(self._close())

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)

    async def _half_close(self) -> None:
        for to_client, _ in list(self._pairs):
            with suppress(OSError, RuntimeError):
                to_client.write_eof()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._trouble == "refuses":
            writer.transport.abort()
            return
        self.connections += 1
        await self._calm.wait()
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, to_target)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pass_on(reader, to_target), self._pass_on(from_target, writer))
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65536):
                if self._trouble == "delays":
                    await asyncio.sleep(DELAY)
                await self._calm.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, whatever is still on its way."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
