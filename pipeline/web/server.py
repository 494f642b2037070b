"""The web server: uvicorn on a socket bound beforehand, with an orderly end."""

from __future__ import annotations

import asyncio
import gc
import importlib
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from pipeline.web.protocol import best_protocol

log = structlog.get_logger()

GRACE: Final = 10
"""Seconds that requests under way have to finish after SIGTERM."""
MOST_CONNECTIONS: Final = 800
"""Connections at once; more are answered 503. Below the 1024 open files that a process usually may have."""
KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept: senders of webhooks come again on the same one."""

_IMPORTED_LATE: Final = (
    "anyio._backends._asyncio",
    "fastapi.telemetry._runtime",
    "pydantic.v1",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
)
"""What the framework and uvicorn import by name while routes are made, and when they begin to serve."""
COLLECTED: Final = 10_000
"""Objects made and kept before Python looks for cycles among them: those of requests have none."""


class Server(uvicorn.Server):
    """uvicorn that says when it answers, lets /readyz know that it stops, and returns after SIGTERM or SIGINT."""

    def __init__(
        self, app: FastAPI, *, started: Callable[[], None] | None = None, protocol: type[asyncio.Protocol] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                http=protocol or best_protocol(),
                ws="none",
                lifespan="on",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._app = app
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self._say_started is not None and self.started:
            self._say_started()

    def stop(self) -> None:
        """Stop accepting, finish what is under way, then return from `run`. May be called from another thread."""
        self._app.state.draining = True
        self.should_exit = True

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Stop in order on the first signal; a second one ends it without waiting for requests."""
        if self.should_exit:
            self.force_exit = True
        log.debug("the web server stops", signal=sig)
        self.stop()


def serve(app: FastAPI, listening: socket.socket, *, started: Callable[[], None] | None = None) -> None:
    """Answer requests on the socket until SIGTERM or SIGINT, then finish those under way and return; closes the socket.

    `started` is called once, as soon as requests are answered. What the process holds by now, it goes on holding.
    """
    gc.freeze()  # else each full collection goes through all of it, and a fifth of the time of large requests went there
    gc.set_threshold(COLLECTED)
    Server(app, started=started).run([listening])


def preload_web() -> None:
    """Import what a server imports when it begins to serve, for processes that will be forked from this one."""
    for name in _IMPORTED_LATE:
        with suppress(ImportError):  # uvloop is not everywhere
            importlib.import_module(name)
    best_protocol()
