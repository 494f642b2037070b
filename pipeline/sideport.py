"""The side port of processes that serve no HTTP otherwise (workers, the clock): /livez, /readyz and /metrics."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from pipeline.errors import ConfigError, PipelineError

log = structlog.get_logger()

BOUND: Final = 2.0
"""Seconds that a check may take."""
FRESH: Final = 1.0
"""Seconds for which the result of the checks holds."""


class Checks:
    """Named checks that say whether a process can do its work; a check raises when what it looks at is not there.

    Each runs in a thread of its own for at most `bound` seconds; one that still hangs is not started again.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], None]],
        *,
        bound: float = BOUND,
        fresh: float = FRESH,
    ) -> None:
        self._checks = dict(checks)
        self._bound = bound
        self._fresh = fresh
        self._lock = threading.Lock()
        self._running: dict[str, _Run] = {}
        self._results: dict[str, str] = {}
        self._until = 0.0

    def run(self) -> dict[str, str]:
        """Give for each check, by name, what is wrong: empty where nothing is. Blocks for at most about `bound` seconds."""
        with self._lock:
            if monotonic() >= self._until:
                self._results = self._ask()
                self._until = monotonic() + self._fresh
            return dict(self._results)

    def _ask(self) -> dict[str, str]:
        for name, check in self._checks.items():
            if name not in self._running or self._running[name].done.is_set():
                self._running[name] = _Run(name, check)
        end = monotonic() + self._bound
        results = {}
        for name, run in self._running.items():
            answered = run.done.wait(max(0.0, end - monotonic()))
            results[name] = run.trouble if answered else f"no answer within {self._bound:g} s"
        return results


class _Run:
    """One check under way, in a daemon thread: a process may end while a check hangs."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self._check = check
        self.done = threading.Event()
        self.trouble = ""
        threading.Thread(target=self._run, name=f"check {name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._check()
        except PipelineError as error:
            self.trouble = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever a check raises is its result; a stranger's text may hold a secret
            self.trouble = type(error).__name__
        self.done.set()


def report(results: Mapping[str, str]) -> tuple[int, str]:
    """Give the status and text of an answer that names each check."""
    lines = [f"[-] {name}: {trouble}" if trouble else f"[+] {name}" for name, trouble in results.items()]
    status = HTTPStatus.SERVICE_UNAVAILABLE if any(results.values()) else HTTPStatus.OK
    return status, "\n".join([*lines, "not ready" if any(results.values()) else "ready", ""])


def metrics() -> bytes:
    """Give the metrics of this process, or of all that share `PROMETHEUS_MULTIPROC_DIR`, for `CONTENT_TYPE_LATEST`."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return generate_latest(registry)


class SideServer:
    """A running side port."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, name="side port", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_side_server(port: int, checks: Checks, *, host: str = "127.0.0.1") -> SideServer:
    """Serve /livez, /readyz and /metrics from a thread; port 0 takes a free one. Raises `ConfigError` for a busy port."""

    class Handler(_Handler):
        known = checks

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise ConfigError(f"port {port} on {host}: {error.strerror}; set SIFTBELL_METRICS_PORT") from None
    server.daemon_threads = True
    return SideServer(server)


class _Handler(BaseHTTPRequestHandler):
    known: Checks
    server_version = "siftbell"
    sys_version = ""
    timeout = 10
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in {"/livez", "/healthz"}:
            self._answer(HTTPStatus.OK, b"ok\n")
        elif path == "/readyz":
            status, text = report(self.known.run())
            self._answer(status, text.encode())
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, metrics(), CONTENT_TYPE_LATEST)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there are /livez, /readyz and /metrics\n")

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug("side port", line=format % args)
