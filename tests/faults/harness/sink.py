"""A consumer's other side: an HTTP server that notes every id, and can hang, refuse, ask for patience or break off answers."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Any, Literal, get_args

import msgspec

from harness.background import Background
from harness.ledger import Ledger

Mood = Literal["takes", "hangs", "500", "429", "cuts", "refuses"]
MOODS: tuple[Mood, ...] = get_args(Mood)
RETRY_AFTER = 1

_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_429 = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n" % RETRY_AFTER
_CUT_IN_BODY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n" + b"x" * 100


class Arrival(msgspec.Struct):
    """What the sink reads of a message."""

    id: str
    key: str = ""
    data: Any = None

    @property
    def number(self) -> int:
        """The message's number within its key."""
        return int(self.data.get("number", 0)) if isinstance(self.data, dict) else 0


DECODER = msgspec.json.Decoder(Arrival)


class Sink:
    """One consumer's server, on a port that it keeps while it refuses connections. Moods may be set from any thread."""

    def __init__(self, name: str, background: Background, seed: int) -> None:
        self.name = name
        self.ledger: Ledger | None = None
        self._random = random.Random(seed)
        self._background = background
        self._mood: Mood = "takes"
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        background.call(self._listen())

    @property
    def url(self) -> str:
        """Where it is posted to."""
        return f"http://127.0.0.1:{self.port}/{self.name}"

    def become(self, mood: Mood) -> None:
        """Change the mood; what hung is cut off without an answer."""
        self._background.call(self._become(mood))

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        self._background.call(self._become("refuses"))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _become(self, mood: Mood) -> None:
        before, self._mood = self._mood, mood
        if mood == "refuses" or before == "hangs":
            for writer in list(self._writers):
                writer.transport.abort()
        if mood == "refuses" and self._server is not None:
            self._server.close()
            self._server = None
        elif mood != "refuses" and self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort() if self._mood == "hangs" else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one request; false when the connection is to be closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
        arrival = DECODER.decode(await reader.readexactly(length))
        match self._mood:
            case "takes":
                self._note(arrival, sure=True)
                writer.write(_TAKEN)
            case "hangs":
                await reader.read()  # until the other side gives up, or the mood changes
                return False
            case "500":
                writer.write(_500)
            case "429":
                writer.write(_429)
            case "cuts":
                return self._cut(writer, arrival)
            case _:
                return False
        await writer.drain()
        return True

    def _cut(self, writer: asyncio.StreamWriter, arrival: Arrival) -> bool:
        """Break off before the answer, in the middle of its head, or in the middle of its body; or take it after all."""
        match self._random.randrange(4):
            case 0:
                self._note(arrival, sure=True)
                writer.write(_TAKEN)
                return True
            case 1:
                writer.write(_TAKEN[:20])
            case 2:
                self._note(arrival, sure=False)
                writer.write(_CUT_IN_BODY)
        return False

    def _note(self, arrival: Arrival, *, sure: bool) -> None:
        if self.ledger is not None:
            self.ledger.arrive(self.name, arrival.id, arrival.key, arrival.number, sure=sure)
