"""A real web server on a loopback port, a real SQLite store, toy producers, and a broker that does what a test wants."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message as Headers
from pathlib import Path
from typing import Any

import pytest

from pipeline import (
    Message,
    NoOptions,
    Note,
    PermanentError,
    PollingProducer,
    Problem,
    RequestError,
    TemporaryError,
    WebhookProducer,
)
from pipeline.engine.batch import Batch, decode, encode
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.publisher import Publisher
from pipeline.keys import create_key
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.spec.model import Configuration, PipelineSpec, Position, ProducerStep
from pipeline.store import Store
from pipeline.web.app import create_app
from pipeline.web.listening import listen
from pipeline.web.protocol import PureProtocol, fast_protocol
from pipeline.web.server import Server
from pipeline.web.services import Services

SECRET = "k1"


@dataclass
class ToyQueue:
    """A broker in memory; `trouble` is called before each publish."""

    batches: list[Batch] = field(default_factory=list)
    trouble: Callable[[], None] = lambda: None
    largest: int = sys.maxsize

    def publish(self, batches: Sequence[Batch]) -> None:
        self.trouble()
        self.batches += [decode(encode(batch)) for batch in batches]

    @property
    def messages(self) -> list[Message]:
        return [message for batch in self.batches for message in batch.messages]


class Echo(WebhookProducer[NoOptions]):
    """Takes an object or an array of objects with a title."""

    def receive(self, request: Request) -> Iterable[Message]:
        value = request.json()
        entries = value if isinstance(value, list) else [value]
        problems = [
            Problem(f"[{index}].title", "a text is needed")
            for index, entry in enumerate(entries)
            if not isinstance(entry, dict) or not isinstance(entry.get("title"), str)
        ]
        if problems:
            raise RequestError("not what is expected", status=422, problems=problems)
        return [Message(source="toy", title=entry["title"], data=entry) for entry in entries]


class Signed(WebhookProducer[NoOptions]):
    @property
    def verifies_sender(self) -> bool:
        return True

    def receive(self, request: Request) -> Iterable[Message]:
        if not request.signed_by(SECRET, request.headers.get("x-signature", "")):
            raise RequestError("the signature is wrong", status=401)
        return [Message(source="toy", title="signed")]


class Fails(WebhookProducer[NoOptions]):
    """Raises what the query names."""

    def receive(self, request: Request) -> Iterable[Message]:
        raise {
            "permanent": PermanentError("never"),
            "temporary": TemporaryError("later", retry_after=7.2),
            "odd": RequestError("odd", status=299),
            "teapot": RequestError("short and stout", status=418),
            "bug": ZeroDivisionError("a secret detail"),
        }[request.query["with"]]


class Odd(WebhookProducer[NoOptions]):
    """Makes messages of which some cannot travel; the query names the field and the value."""

    def receive(self, request: Request) -> Iterable[Message]:
        values: dict[str, Any] = {
            "nul": {"title": "a\0b"},
            "surrogate": {"title": "\ud800"},
            "number": {"title": 5},
            "set": {"data": {object()}},
            "naive": {"time": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the point
            "text": {"time": "2026-01-01T00:00:00Z"},
            "escaped": {"title": "\\u0000"},
            "label": {"labels": {"a": "\0"}},
        }
        yield Message(source="toy", title="fine")
        if request.query["with"] == "stranger":
            yield {"source": "x"}  # type: ignore[misc]  # what a plugin without type checks may do
            return
        yield Message(**{"source": "toy"} | values[request.query["with"]])


class Many(WebhookProducer[NoOptions]):
    def receive(self, request: Request) -> Iterable[Message]:
        shared = "x" * int(request.query.get("size", "0"))
        for _ in range(int(request.query["count"])):
            yield Message(source="toy", data=shared)


class Below(WebhookProducer[NoOptions]):
    """Takes texts at a path of its own, and tells which of them are none."""

    def status_for(self, path: str) -> int | None:
        return {"": 202, "/api/v2/texts": 200}.get(path)

    def receive(self, request: Request) -> Iterable[Message]:
        value = request.json()
        if not isinstance(value, list):
            raise RequestError("no list", status=422, answer={"code": 602})
        texts = [Message(source=request.path, title=entry) for entry in value if isinstance(entry, str)]
        if len(texts) < len(value):
            raise RequestError("some are no texts", problems=[Problem("[?]", "a text is needed")], accepted=texts)
        return texts


class Polled(PollingProducer[NoOptions]):
    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        return []


class Noting(WebhookProducer[NoOptions], PollingProducer[NoOptions]):
    """Notes what calls it, whatever the method, and makes a message of a body."""

    methods = ("GET", "HEAD", "POST")

    def receive(self, request: Request) -> Iterable[Message | Note]:
        yield Note("last", request.method)
        yield Note("path", request.path)
        if request.body:
            yield Message(source="toy", title=request.body.decode())

    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        return [(Message(source="toy", title=self.notes()["last"]), "")]


class Unopened(WebhookProducer[NoOptions]):
    def open(self) -> None:
        raise RuntimeError("no")

    def receive(self, request: Request) -> Iterable[Message]:
        return []


def toy_pipelines() -> Pipelines:
    position = Position(Path("toy.yaml"), 1, 1)
    steps = tuple(
        ProducerStep(
            kind="producer", plugin=name, type=plugin, label=name, config=NoOptions(), position=position
        )
        for name, plugin in {
            "echo": Echo, "signed": Signed, "fails": Fails, "odd": Odd, "many": Many, "below": Below, "polled": Polled,
            "noting": Noting,
            "unopened": Unopened,
        }.items()
    )  # fmt: skip
    spec = PipelineSpec(name="toy", description="For tests", producers=steps, revision="r1", position=position)
    return Pipelines(Configuration({"toy": spec}))


@dataclass
class Answer:
    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert set(error) == {"code", "message", "problems"}
        assert all(set(problem) == {"where", "message"} for problem in error["problems"])
        return error

    @property
    def places(self) -> list[str]:
        return [problem["where"] for problem in self.error["problems"]]


@dataclass
class Web:
    port: int
    server: Server
    services: Services
    queue: ToyQueue
    store: Store
    key: str
    broker_trouble: list[Exception] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"X-API-Key": self.key} if headers is None else headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, body: Any, path: str = "/in/toy/echo", headers: dict[str, str] | None = None) -> Answer:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return self.ask("POST", path, body, headers)

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes and give all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


@contextlib.contextmanager
def running(
    store: Store, data: Path, *, protocol: Any = None, pipelines: Pipelines | None = None, **settings: Any
) -> Iterator[Web]:
    """Run a web server in a thread."""
    queue = ToyQueue()
    trouble: list[Exception] = []

    def check_broker() -> None:
        if trouble:
            raise trouble[0]

    services = Services(
        pipelines=pipelines or toy_pipelines(),
        store=store,
        publisher=Publisher(queue, store),
        settings=Settings(data=data, **settings),
        check_broker=check_broker,
    )
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    started = threading.Event()
    server = Server(create_app(services), started=started.set, protocol=protocol)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    assert started.wait(30)
    try:
        yield Web(port, server, services, queue, store, create_key(store, "test", ["intake", "api"]), trouble)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def web(store, tmp_path):
    with running(store, tmp_path) as web:
        yield web


@pytest.fixture(params=["httptools", "h11"])
def either_web(request, store, tmp_path):
    """The web server over both HTTP parsers."""
    protocol = PureProtocol if request.param == "h11" else fast_protocol()
    with running(store, tmp_path, max_body=1000, protocol=protocol) as web:
        yield web


@pytest.fixture
def web_with(store, tmp_path):
    """Give a web server with other settings."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running(store, tmp_path, **settings))
