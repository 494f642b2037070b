"""The side port of workers and clocks: probes and metrics over real sockets, and checks that hang."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading

import pytest

from pipeline import ConfigError, TemporaryError
from pipeline.sideport import Checks, report, start_side_server
from pipeline.telemetry import ACCEPTED


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes, str | None]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(), response.headers["Content-Type"]


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(checks=None):
            side = start_side_server(0, Checks(checks or {}, fresh=0))
            stack.callback(side.close)
            return side.port

        yield start


def test_it_answers_the_three_paths_and_nothing_else(serve):
    port = serve({"store": lambda: None})

    assert ask(port, "/livez")[:2] == ask(port, "/healthz")[:2] == (200, b"ok\n")
    assert ask(port, "/readyz?x=1")[:2] == (200, b"[+] store\nready\n")
    ACCEPTED.labels("side", "port").inc()
    status, body, kind = ask(port, "/metrics")
    assert (status, b'siftbell_messages_accepted_total{pipeline="side",producer="port"} 1.0' in body) == (200, True)
    assert kind.startswith("text/plain")
    assert ask(port, "/")[0] == 404
    assert ask(port, "/livez", "DELETE")[0] == 501


def test_it_is_not_ready_while_a_check_fails(serve):
    trouble = [TemporaryError("away")]

    def broker():
        if trouble:
            raise trouble[0]

    port = serve({"broker": broker, "store": lambda: None})

    assert ask(port, "/readyz")[:2] == (503, b"[-] broker: away\n[+] store\nnot ready\n")
    trouble.clear()
    assert ask(port, "/readyz")[0] == 200


def test_a_busy_port_says_which_setting_to_change():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1: .*SIFTBELL_METRICS_PORT"):
            start_side_server(port, Checks({}))


def test_a_closed_side_port_refuses_connections():
    side = start_side_server(0, Checks({}))
    side.close()

    with pytest.raises(ConnectionRefusedError):
        ask(side.port, "/livez")


def test_a_check_that_hangs_is_bounded_not_started_twice_and_forgotten_when_it_ends():
    goes_on, calls = threading.Event(), []

    def hangs():
        calls.append(1)
        goes_on.wait(30)

    checks = Checks({"slow": hangs, "quick": lambda: None}, bound=0.05, fresh=0)

    for _ in range(3):
        assert checks.run() == {"slow": "no answer within 0.05 s", "quick": ""}
    assert len(calls) == 1
    goes_on.set()
    while checks.run()["slow"]:
        pass
    assert len(calls) >= 1


def test_results_hold_for_a_moment():
    calls = []
    checks = Checks({"one": lambda: calls.append(1)}, fresh=60)

    checks.run()
    checks.run()

    assert len(calls) == 1


def test_an_error_without_text_still_shows():
    def empty():
        raise TemporaryError("")

    assert Checks({"one": empty}).run() == {"one": "TemporaryError"}
    assert report({"one": "TemporaryError"}) == (503, "[-] one: TemporaryError\nnot ready\n")


def test_the_metrics_of_several_processes_are_added_up(tmp_path):
    count = "from pipeline.telemetry import SPOOLED; SPOOLED.inc(2)"
    show = "from pipeline.sideport import metrics; print(metrics().decode())"
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], env=environment, check=True)

    shown = subprocess.run([sys.executable, "-c", show], env=environment, check=True, capture_output=True, text=True).stdout

    assert "siftbell_messages_spooled_total 4.0" in shown
