"""The proxy: data pass through it, late or not at all, and connections end as it is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from harness.background import Background
from harness.proxy import DELAY, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that answers what it is sent."""
    background = Background()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    made = Proxy(background, listening.getsockname()[1])
    yield made
    made.close()
    background.close()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echo(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(100)


def test_it_passes_on(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection) == b"hello"
    assert proxy.connections == 1


def test_it_cuts_what_there_is_and_takes_new_connections(proxy: Proxy) -> None:
    with connect(proxy) as old:
        assert echo(old) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with connect(proxy) as new:
        assert echo(new) == b"hello"


def test_a_half_closed_connection_gives_its_end_and_takes_data(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection) == b"hello"
        proxy.half_close()
        assert connection.recv(100) == b""
        connection.sendall(b"still open")


def test_it_delays(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        proxy.become("delays")
        began = time.monotonic()
        assert echo(connection) == b"hello"
        assert time.monotonic() - began > DELAY


def test_it_freezes_and_goes_on(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection) == b"hello"
        proxy.become("freezes")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            echo(connection)
        proxy.become("none")
        connection.settimeout(5)
        assert connection.recv(100) == b"hello"


def test_it_refuses(proxy: Proxy) -> None:
    proxy.become("refuses")
    with connect(proxy) as connection, suppress(ConnectionResetError):
        assert connection.recv(100) == b""
    proxy.become("none")
    with connect(proxy) as connection:
        assert echo(connection) == b"hello"
