"""Stand-ins of SQS: ministack, fast and a process of its own; moto as the second opinion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from trees import ask, free_port, until

from pipeline.aws.session import new_session
from pipeline.queue.app import make_app
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.sqs.service import service

OPTIONS = "?region=eu-central-1&wait=1&visibility=4"


class Standin:
    """A server that can be frozen, and killed with all it holds."""

    def __init__(self, directory) -> None:
        self.port = free_port()
        self._directory = directory
        self.start()

    def start(self) -> None:
        told = {"GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "SERVICES": "sqs"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            env=os.environ | told | {"LOG_LEVEL": "ERROR", "TMPDIR": str(self._directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            with suppress(OSError):
                return ask(f"{self.url}/?Action=ListQueues")[0] == 200
            return False

        until(answers, "ministack answers")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def broker(self) -> str:
        return f"sqs://key:secret@127.0.0.1:{self.port}{OPTIONS}"

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory) -> Iterator[Standin]:
    standin = Standin(tmp_path_factory.mktemp("ministack"))
    yield standin
    standin.kill()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"sqs://key:secret@{host}:{port}{OPTIONS}"
    server.stop()


@pytest.fixture
def own_ministack(tmp_path) -> Iterator[Standin]:
    """One that may be frozen and killed."""
    standin = Standin(tmp_path)
    yield standin
    standin.thaw()
    standin.kill()


@pytest.fixture(params=["ministack", "moto"])
def url(request) -> str:
    server = request.getfixturevalue(request.param)
    return server if isinstance(server, str) else server.broker


@pytest.fixture
def name() -> str:
    """A queue of this test's own."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def connect() -> Iterator[Callable[[str], CeleryQueue]]:
    """Makes the engine's queue for a URL, as a process of its own has it."""
    made = []

    def make(url: str) -> CeleryQueue:
        service._forget()  # what other tests made is on other servers, frozen or gone
        made.append(CeleryQueue(make_app(broker(url))))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def amazon() -> Callable[[str], object]:
    """Gives a plain client of AWS, to look at what is really there."""

    def client(url: str):
        place = url.partition("@")[2].partition("?")[0]
        return new_session().create_client(
            "sqs",
            endpoint_url=f"http://{place}",
            region_name="eu-central-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    return client


@pytest.fixture
def threads() -> Iterator[Callable[[], list[str]]]:
    """Names this transport's threads that run."""
    return lambda: [thread.name for thread in threading.enumerate() if thread.name.startswith("sqs-")]
