"""Stand-ins for the systems that the demo's consumers talk to: a receiver of webhooks and Telegram's Bot API, on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, Self

Mood = Literal["takes", "busy", "flooded", "refuses"]

_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A message's id, as it stands in what a consumer sends."""


class StandIn:
    """A server that takes messages, and by a fixed rule puts some off once (503, 429 with a wait of 1 s) and refuses a few.

    What it knows of a message it reads from the id in the request. Use it as a context manager.
    """

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        """How often each message was answered with success."""
        self.put_off: set[str] = set()
        self.refused: set[str] = set()
        self._moods: dict[str, Mood] = {}
        self._lock = threading.Lock()

        class Handler(_Handler):
            stand_in = self

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Give status, headers and JSON of the answer to a request."""
        found = _ID.search(body)
        return self.say(self._mood(found[0].decode()) if found else "refuses", path)

    def say(self, mood: Mood, path: str) -> tuple[int, dict[str, str], Any]:  # noqa: ARG002 - Telegram's has methods by path
        """Put a mood into this system's words."""
        status = {"takes": 200, "busy": 503, "flooded": 429, "refuses": 400}[mood]
        return status, {"Retry-After": "1"} if mood == "flooded" else {}, {"ok": mood == "takes"}

    def _mood(self, message: str) -> Mood:
        with self._lock:
            known = self._moods.get(message)
            mood: Mood = (known if known == "refuses" else "takes") if known else _mood(len(self._moods))
            self._moods[message] = mood
            if mood == "takes":
                self.taken[message] += 1
            elif mood == "refuses":
                self.refused.add(message)
            else:
                self.put_off.add(message)
            return mood


class Webhook(StandIn):
    """Takes whatever is posted."""


class Telegram(StandIn):
    """The part of the Bot API that sending messages needs."""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Answer `getMe` as well, which tells a bot its name."""
        if path.lower().endswith("/getme"):
            bot = {"id": 1, "is_bot": True, "first_name": "Siftbell", "username": "siftbell_bot"}
            return 200, {}, {"ok": True, "result": bot}
        return super().answer(path, body)

    def say(self, mood: Mood, path: str) -> tuple[int, dict[str, str], Any]:  # noqa: ARG002 - one method sends here
        """Say it as Telegram does."""
        if mood == "takes":
            chat = {"id": -1, "type": "group", "title": "on call"}
            return 200, {}, {"ok": True, "result": {"message_id": 1, "date": 0, "chat": chat, "text": "-"}}
        status, text = {
            "busy": (503, "Service Unavailable"),
            "flooded": (429, "Too Many Requests: retry after 1"),
            "refuses": (400, "Bad Request: chat not found"),
        }[mood]
        answer: dict[str, Any] = {"ok": False, "error_code": status, "description": text}
        if mood == "flooded":
            answer["parameters"] = {"retry_after": 1}
        return status, {}, answer


def _mood(number: int) -> Mood:
    """Decide what happens to the first attempt of the `number`-th message."""
    if number % 150 == 40:
        return "refuses"
    return "busy" if number % 25 == 7 else "flooded" if number % 60 == 33 else "takes"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, answer = self.stand_in.answer(self.path, body)
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(text))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the demo counts."""
