"""The web server: uvicorn on a socket bound beforehand, with an orderly end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from pipeline.errors import ConfigError

log = structlog.get_logger()

GRACE: Final = 10
"""Seconds that requests under way have to finish after SIGTERM."""
MOST_CONNECTIONS: Final = 800
"""Connections at once; more are answered 503. Below the 1024 open files that a process usually may have."""
KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept: senders of webhooks come again on the same one."""


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one. Raises `ConfigError` where it is in use or cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}: {error.strerror}; set SIFTBELL_HOST") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)  # from here on a second server on this port fails, not before
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} on {host} is in use; set SIFTBELL_PORT") from None
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {error.strerror}; set SIFTBELL_HOST and SIFTBELL_PORT"
        ) from None
    listening.setblocking(False)
    return listening


def url_of(listening: socket.socket) -> str:
    """Give the URL under which a bound socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family is socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn that says when it answers, lets /readyz know that it stops, and returns after SIGTERM or SIGINT."""

    def __init__(self, app: FastAPI, *, started: Callable[[], None] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
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
        log.info("the web server stops", signal=sig)
        self.stop()


def serve(app: FastAPI, listening: socket.socket, *, started: Callable[[], None] | None = None) -> None:
    """Answer requests on the socket until SIGTERM or SIGINT, then finish those under way and return; closes the socket.

    `started` is called once, as soon as requests are answered.
    """
    Server(app, started=started).run([listening])
