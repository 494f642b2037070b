"""The server process: its socket, and its end on SIGTERM with requests under way."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import ConfigError
from pipeline.web.listening import listen, url_of

PROGRAM = textwrap.dedent("""
    import importlib.util, pathlib, sys
    spec = importlib.util.spec_from_file_location("toys", sys.argv[1])
    toys = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = toys
    spec.loader.exec_module(toys)
    from pipeline.web.listening import url_of
    from pipeline.web.server import serve
    data = pathlib.Path(sys.argv[2])
    store = toys.Store(f"sqlite:///{data / 'store.db'}")
    store.migrate()
    queue = toys.ToyQueue()

    def slow():
        print("publishing", flush=True)
        sys.stdin.readline()

    queue.trouble = slow
    services = toys.Services(
        pipelines=toys.toy_pipelines(), store=store, publisher=toys.Publisher(queue, store),
        settings=toys.Settings(data=data), check_broker=lambda: None,
    )
    key = toys.create_key(store, "test", ["intake"])
    listening = toys.listen("127.0.0.1", 0)
    url = url_of(listening)
    app = toys.create_app(services)
    serve(app, listening, started=lambda: print(url, key, flush=True))
    print("published", len(queue.messages), "draining", app.state.draining, flush=True)
    store.close()
""")


@pytest.fixture
def process(tmp_path):
    conftest = Path(__file__).with_name("conftest.py")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(conftest), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as started:  # fmt: skip
        yield started
        started.kill()


def next_line(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return line
    raise AssertionError(f"it ended without saying {start}")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_on_a_signal_it_stops_accepting_answers_what_is_under_way_and_exits_0(process, sign):
    url, key = next_line(process, "http").split()
    port = int(url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/in/toy/echo", b'{"title": "x"}', {"X-API-Key": key})
    next_line(process, "publishing")

    process.send_signal(sign)
    refused = False
    while not refused:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=30).close()
        except ConnectionError:
            refused = True
    process.stdin.write("go on\n")
    response = connection.getresponse()

    assert (response.status, json.loads(response.read())["count"]) == (202, 1)
    connection.close()
    assert next_line(process, "published") == "published 1 draining True\n"
    assert process.wait(30) == 0


def test_a_second_signal_ends_it_without_waiting(process):
    url, key = next_line(process, "http").split()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(f"POST /in/toy/echo HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: 9\r\n\r\n".encode())
        process.send_signal(signal.SIGTERM)
        next_line_of_log = None
        while process.poll() is None and next_line_of_log is None:
            try:
                socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30).close()
            except ConnectionError:
                next_line_of_log = "stopped accepting"
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 0


def test_a_port_in_use_names_the_setting():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^port {port} on 127.0.0.1 is in use; set SIFTBELL_PORT$"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "word"), [("no.such.host.invalid", 0, "SIFTBELL_HOST"), ("192.0.2.1", 0, "SIFTBELL_HOST")]
)
def test_an_address_that_is_not_ours_is_refused(host, port, word):
    with pytest.raises(ConfigError, match=f"cannot listen on .*{word}"):
        listen(host, port)


def test_the_url_has_the_real_port_and_brackets_for_ipv6():
    with listen("127.0.0.1", 0) as listening:
        assert url_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        listening = listen("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 here")
    with listening:
        assert url_of(listening) == f"http://[::1]:{listening.getsockname()[1]}"
