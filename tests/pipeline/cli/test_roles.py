"""The roles, each started by hand on one data directory, as somebody does who wants more than one machine."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from pipeline.keys import create_key
from pipeline.store import Store

pytestmark = pytest.mark.e2e

PIPELINE = """
name: roles
producers: [{http: {}}]
filters: [{match: severity != "debug"}]
consumers:
  - file: {path: "${SIFTBELL_DATA}/roles.jsonl"}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until(condition: Callable[[], bool], what: str, within: float = 60) -> None:
    end = monotonic() + within
    while not condition():
        assert monotonic() < end, f"not within {within:g} s: {what}"
        select.select([], [], [], 0.05)


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except URLError as error:
        return getattr(error, "code", 0), str(error)


class Roles:
    """Processes on one directory; the settings come from the environment, as in a container."""

    def __init__(self, place: Path) -> None:
        self.data = place / "data"
        self.port = free_port()
        self.log = place / "log"
        (place / "roles.yaml").write_text(PIPELINE)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SIFTBELL_", "PROMETHEUS_"))}
        self._environment = own | {
            "SIFTBELL_DATA": str(self.data),
            "SIFTBELL_CONFIG": str(place),
            "SIFTBELL_PORT": str(self.port),
            "SIFTBELL_LOG_FORMAT": "json",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "pipeline.cli", *arguments]
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    made = Roles(tmp_path)
    yield made
    made.end()


def test_a_message_goes_through_three_processes_which_stop_in_order(roles: Roles) -> None:
    ports = {"worker": free_port(), "clock": free_port()}
    serve = roles.start("serve")
    worker = roles.start("worker", "--concurrency", "1", "--metrics-port", str(ports["worker"]))
    clock = roles.start("clock", "--metrics-port", str(ports["clock"]))
    url = f"http://127.0.0.1:{roles.port}"
    until(lambda: get(f"{url}/readyz")[0] == 200, "the web server is ready")
    store = Store(f"sqlite:///{roles.data}/store.db")
    key = create_key(store, "test", ["intake"])
    store.close()
    assert roles.data.stat().st_mode & 0o777 == 0o700
    body = json.dumps([{"title": "kept", "severity": "info"}, {"title": "not", "severity": "debug"}]).encode()
    request = Request(
        f"{url}/in/roles/http", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}, method="POST"
    )
    with urlopen(request) as answer:
        ids = json.loads(answer.read())["ids"]
    file = roles.data / "roles.jsonl"
    until(lambda: file.exists() and file.read_bytes().endswith(b"\n"), "the message is in the file")
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ids[:1]
    for port in ports.values():
        assert get(f"http://127.0.0.1:{port}/readyz")[0] == 200
    delivered = re.compile(r'siftbell_messages_decided_total\{[^}]*outcome="delivered"[^}]*\} 1')
    until(lambda: delivered.search(get(f"http://127.0.0.1:{ports['worker']}/metrics")[1]) is not None, "the worker counts")
    for process in (serve, clock, worker):
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("only", ["filters", "deliveries"])
def test_a_worker_may_do_half_of_the_work(roles: Roles, only: str) -> None:
    worker = roles.start("worker", "--only", only)
    until(lambda: roles.log.exists() and " ready." in roles.log.read_text(), "the worker is ready")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    (line,) = [json.loads(line) for line in roles.log.read_text().splitlines() if " ready." in line]
    assert line["part"] == only


def test_a_port_in_use_is_told(roles: Roles) -> None:
    with socket.create_server(("127.0.0.1", roles.port)):
        assert roles.start("serve").wait(60) == 78
    assert f"port {roles.port} on 127.0.0.1 is in use; set SIFTBELL_PORT" in roles.log.read_text()
