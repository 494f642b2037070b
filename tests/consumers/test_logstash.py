"""Logstash: real sockets that are cut in the middle, TLS, a Lumberjack server of our own, Redis, and a server of HTTP."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import zlib
from base64 import b64decode
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic, sleep
from uuid import uuid4

import pytest
from pydantic import ValidationError

import consumers.logstash
from consumers.logstash import Logstash, LogstashConfig
from pipeline import ConfigError, Message, PermanentError, TemporaryError
from pipeline.testing import Answer, BatchConsumerContract, HttpConsumerContract, LoopbackServer, sample_messages
from pipeline.testing.delivering import deliver_many
from pipeline.testing.probing import probed

A_SERVER = "sockets of our own"
LUMBERJACK = "a Lumberjack 2 server of our own"


class Listener:
    """A TCP server: `serve` has each connection, in a thread of its own; it is closed when `serve` returns."""

    def __init__(self, serve, context=None):
        self.serve, self.context = serve, context
        self.connections, self.errors = [], []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._threads.append(threading.Thread(target=self._have, args=(connection,)))
            self._threads[-1].start()

    def _have(self, connection):
        connection.settimeout(30)
        try:
            with self.context.wrap_socket(connection, server_side=True) if self.context else connection as spoken:
                self.connections[self.connections.index(connection)] = spoken
                self.serve(spoken)
        except (OSError, EOFError) as error:
            self.errors.append(error)

    def stop(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def listen():
    """Start servers; all are stopped after the test."""
    made = []

    def start(serve, context=None):
        made.append(Listener(serve, context))
        return made[-1]

    yield start
    for listener in made:
        listener.stop()


@pytest.fixture
def logstash(opened):
    """Make opened plugins; all are closed after the test."""
    return lambda url, **options: opened(Logstash, url=url, **options)


@pytest.fixture
def hurried(monkeypatch):
    """Nothing is waited for longer than a moment."""
    monkeypatch.setattr(consumers.logstash, "_PATIENCE", 2.0)


@pytest.fixture
def context(certificate):
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate / "server.pem")
    return made


def numbered(count, **fields):
    return [Message(source="t", title=f"no {number}", **fields) for number in range(count)]


def titles(lines):
    return [json.loads(line)["title"] for line in lines]


def until(holds, what):
    end = monotonic() + 20
    while not holds():
        assert monotonic() < end, what
        sleep(0.01)


class Reader:
    """Reads lines to the end of each connection, as Logstash's input tcp does, and then ends it."""

    def __init__(self):
        self.lines = []

    def __call__(self, connection):
        with connection.makefile("rb") as file:
            for line in file:
                self.lines.append(line)


def read(connection, count):
    found = b""
    while len(found) < count:
        some = connection.recv(count - len(found))
        if not some:
            raise EOFError
        found += some
    return found


def reset(connection):
    """Cut a connection as a kernel does when its program dies: nothing is said, what comes is answered by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Lines over TCP and TLS


@pytest.mark.against("consumer logstash", A_SERVER)
class TestTcp(BatchConsumerContract):
    plugin = Logstash
    options = {"url": "tcp://127.0.0.1:{url}"}
    away_options = {"url": "tcp://127.0.0.1:9"}

    @pytest.fixture
    def url(self, listen):
        return str(listen(Reader()).port)


class TestTcpOnOneConnection(TestTcp):
    options = TestTcp.options | {"confirm": False}


@pytest.mark.against("consumer logstash", A_SERVER)
class TestTls(BatchConsumerContract):
    plugin = Logstash
    options = {"url": "tls://127.0.0.1:{url}", "ca_file": "{tmp}/ca.pem"}
    away_options = {"url": "tls://127.0.0.1:9"}

    @pytest.fixture
    def url(self, listen, context, certificate, tmp_path):
        (tmp_path / "ca.pem").write_bytes((certificate / "ca.pem").read_bytes())
        return str(listen(Reader(), context).port)


@pytest.fixture(params=["tcp", "tls"])
def encrypted(request):
    return request.param == "tls"


@pytest.fixture
def over(encrypted, listen, logstash, certificate, context):
    """Start a server, and make a plugin that sends to it: over TCP, and over TLS."""

    def start(serve, **options):
        listener = listen(serve, context if encrypted else None)
        trusted = {"ca_file": str(certificate / "ca.pem")} if encrypted else {}
        return listener, logstash(f"{'tls' if encrypted else 'tcp'}://127.0.0.1:{listener.port}", **trusted, **options)

    return start


@pytest.mark.against("consumer logstash", A_SERVER)
class TestLines:
    def test_a_batch_is_there_when_it_has_been_read(self, over):
        reader = Reader()
        listener, plugin = over(reader)
        messages = sample_messages() + numbered(400, text="t" * 1000)
        for batch in (messages, messages[:1]):
            assert deliver_many(plugin, batch) == {}
        events = [json.loads(line) for line in reader.lines]
        assert [event["id"] for event in events] == [message.id for message in messages + messages[:1]]
        assert len(listener.connections) == 2

    def test_one_that_ends_before_it_has_read_all_gets_it_again(self, over):
        def serve(connection):
            read(connection, 1000)
            if len(listener.connections) > 1:
                Reader.__call__(reader, connection)

        reader = Reader()
        listener, plugin = over(serve)
        messages = numbered(500, text="t" * 4000)
        failures = deliver_many(plugin, messages)
        assert {*failures} == {message.id for message in messages}
        assert {type(error) for error in failures.values()} == {TemporaryError}
        assert f"Logstash at 127.0.0.1:{listener.port}: the connection broke off" in str(failures[messages[0].id])
        assert deliver_many(plugin, messages) == {}
        assert titles(reader.lines[1:]) == [message.title for message in messages[-len(reader.lines) + 1 :]]

    def test_one_that_ends_at_once_gets_it_again(self, over):
        """A short batch is in the other kernel before its program has ended the connection."""
        _, plugin = over(lambda _connection: None)
        (message,) = numbered(1)
        for _ in range(20):
            assert isinstance(deliver_many(plugin, [message])[message.id], TemporaryError)

    def test_one_that_dies_gets_it_again(self, over):
        def serve(connection):
            read(connection, 10)
            reset(connection)

        _, plugin = over(serve)
        (message,) = numbered(1, text="t" * 100)
        assert isinstance(deliver_many(plugin, [message])[message.id], TemporaryError)

    def test_an_end_that_is_there_before_ours_is_told_confirms_nothing(self, listen, logstash):
        """As of one that is shutting down. What is sent is more than the kernels hold: the end is there when all is written."""

        def serve(connection):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(100_000):
                pass

        listener = listen(serve)
        messages = numbered(300, text="t" * 60_000)
        failures = deliver_many(logstash(f"tcp://127.0.0.1:{listener.port}"), messages)
        assert len(failures) == 300

    @pytest.mark.usefixtures("hurried")
    def test_one_that_reads_all_and_never_ends_is_told_of(self, over):
        done = threading.Event()

        def serve(connection):
            read(connection, 10)
            done.wait(30)

        _, plugin = over(serve)
        (message,) = numbered(1)
        failures = deliver_many(plugin, [message])
        done.set()
        text = "has not ended the connection after it got everything; where it never does, give `confirm: false`"
        assert str(failures[message.id]).endswith(text)

    def test_one_that_answers_is_no_input_of_lines(self, over):
        """As that of HTTP does, which reads what comes, says that it is bad, and ends."""

        def serve(connection):
            read(connection, 10)
            with suppress(BlockingIOError, ssl.SSLWantReadError):
                connection.settimeout(0)
                while connection.recv(10_000):
                    pass
            connection.settimeout(30)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        _, plugin = over(serve)
        (message,) = numbered(1)
        for _ in range(5):
            assert type(deliver_many(plugin, [message])[message.id]) is TemporaryError

    def test_who_answered_is_told(self, listen, logstash):
        listener = listen(lambda connection: (connection.recv(10_000), connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")))
        (message,) = numbered(1)
        failures = deliver_many(logstash(f"tcp://127.0.0.1:{listener.port}"), [message])
        assert str(failures[message.id]).endswith("answered, which an input of lines never does: is it the right port?")

    @pytest.mark.usefixtures("hurried")
    @pytest.mark.parametrize("confirm", [True, False])
    def test_one_that_does_not_read_is_not_waited_for_without_end(self, over, confirm):
        done = threading.Event()
        _, plugin = over(lambda connection: (read(connection, 1), done.wait(30)), confirm=confirm)
        messages = numbered(500, text="t" * 60_000)
        failures = deliver_many(plugin, messages)
        done.set()
        assert len(failures) == 500
        assert str(failures[messages[0].id]).endswith("no answer in time")

    def test_a_connection_is_kept_where_that_is_wanted(self, over):
        reader = Reader()
        listener, plugin = over(reader, confirm=False)
        for number in range(3):
            assert deliver_many(plugin, numbered(number + 1)) == {}
        until(lambda: len(reader.lines) == 6, "all lines were read")
        assert len(listener.connections) == 1

    def test_a_kept_connection_that_the_other_side_ended_is_made_anew(self, over):
        lines, enough = [], threading.Semaphore(0)

        def serve(connection):
            with connection.makefile("rb") as file:
                lines.append(file.readline())
            enough.acquire()

        listener, plugin = over(serve, confirm=False)
        for number in range(3):
            assert deliver_many(plugin, numbered(1)) == {}
            enough.release()
            until(lambda number=number: len(listener.connections) > number, "the connection was taken")
            ended = listener.connections[number]
            until(lambda ended=ended: ended.fileno() == -1, "the connection was ended")
        assert len(lines) == len(listener.connections) == 3

    def test_a_kept_connection_that_is_cut_while_it_is_written_to(self, over):
        def serve(connection):
            read(connection, 1000)
            reset(connection)

        _, plugin = over(serve, confirm=False)
        messages = numbered(500, text="t" * 20_000)
        failures = deliver_many(plugin, messages)
        assert {*failures} == {message.id for message in messages}
        assert str(failures[messages[0].id]).endswith("the connection broke off")

    def test_several_threads_send_at_once(self, over):
        reader = Reader()
        listener, plugin = over(reader, confirm=False, connections=3)
        failures = []
        threads = [threading.Thread(target=lambda: failures.append(deliver_many(plugin, numbered(5)))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [{}] * 8
        until(lambda: len(reader.lines) == 40, "all lines were read")
        assert sorted(titles(reader.lines)) == sorted(message.title for message in numbered(5) * 8)
        assert len(listener.connections) <= 3


@pytest.mark.against("consumer logstash", A_SERVER)
class TestCertificates:
    def test_one_that_nobody_vouches_for(self, listen, logstash, context):
        listener = listen(Reader(), context)
        plugin = logstash(f"tls://127.0.0.1:{listener.port}")
        (message,) = numbered(1)
        error = deliver_many(plugin, [message])[message.id]
        assert isinstance(error, TemporaryError)
        assert "the certificate does not hold: " in str(error)
        assert "the certificate does not hold: " in str(probed(plugin))

    def test_one_of_another_name(self, listen, logstash, context, certificate):
        listener = listen(Reader(), context)
        plugin = logstash(f"tls://localhost:{listener.port}", ca_file=str(certificate / "ca.pem"))
        (message,) = numbered(1)
        assert "the certificate does not hold: Hostname mismatch" in str(deliver_many(plugin, [message])[message.id])

    def test_a_server_that_speaks_no_tls(self, listen, logstash, certificate):
        listener = listen(lambda connection: connection.sendall(b"220 hello\r\n"))
        plugin = logstash(f"beats+tls://127.0.0.1:{listener.port}", ca_file=str(certificate / "ca.pem"))
        (message,) = numbered(1)
        assert "TLS failed (WRONG_VERSION_NUMBER)" in str(deliver_many(plugin, [message])[message.id])

    def test_our_own_is_shown_where_it_is_asked_for(self, listen, logstash, context, certificate):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate / "ca.pem")
        reader = Reader()
        listener = listen(reader, context)
        options = {"url": f"tls://127.0.0.1:{listener.port}", "ca_file": str(certificate / "ca.pem")}
        (message,) = numbered(1)
        assert isinstance(deliver_many(logstash(**options), [message])[message.id], TemporaryError)
        assert deliver_many(logstash(**options, cert_file=str(certificate / "server.pem")), [message]) == {}
        assert titles(reader.lines) == ["no 0"]

    @pytest.mark.parametrize("name", ["ca_file", "cert_file"])
    def test_files_that_cannot_be_read(self, logstash, tmp_path, name):
        (tmp_path / "x.pem").write_text("nothing")
        for file in (tmp_path / "none.pem", tmp_path / "x.pem"):
            with pytest.raises(ConfigError, match=f"{name} holds nothing that can be read as PEM"):
                logstash("tls://127.0.0.1:9", **{name: str(file)})


# Datagrams


@pytest.fixture
def receiver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**21)
        made.bind(("127.0.0.1", 0))
        made.settimeout(20)
        yield made


@pytest.mark.against("consumer logstash", A_SERVER)
class TestUdp(BatchConsumerContract):
    plugin = Logstash
    options = {"url": "udp://127.0.0.1:{url}"}
    away_options = {"url": "udp://127.0.0.1:9"}

    @pytest.fixture
    def url(self, receiver):
        return str(receiver.getsockname()[1])

    def test_each_event_is_a_datagram(self, made, receiver):
        messages = sample_messages()
        assert deliver_many(made, messages) == {}
        events = [json.loads(receiver.recv(70_000)) for _ in messages]
        assert [event["id"] for event in events] == [message.id for message in messages]

    @pytest.mark.parametrize("ecs", [False, True])
    def test_what_is_too_large_goes_without_its_payload_and_the_end_of_its_text(self, logstash, receiver, url, ecs):
        plugin = logstash(f"udp://127.0.0.1:{url}", ecs=ecs)
        payload = Message(source="t", title="large", text="whole", data={"x": "y" * 70_000})
        text = Message(source="t", title="t" * 70_000, text="\x01ü\n" * 40_000)
        labels = Message(source="t", title="x", labels={"l": "m" * 70_000})
        failures = deliver_many(plugin, [payload, text, labels])
        assert {*failures} == {labels.id}
        assert type(failures[labels.id]) is PermanentError
        assert "of the 65507 of a datagram, even without its text" in str(failures[labels.id])
        first, second = (json.loads(receiver.recv(70_000)) for _ in range(2))
        assert first["message"] == "large\nwhole"
        assert "data" not in first
        assert "original" not in first.get("event", {})
        assert second["message"].startswith("t" * 999 + "…\n\x01ü\n")
        assert second["message"].endswith(" … (cut by Siftbell)")

    def test_a_name_that_is_not_found(self, logstash):
        (message,) = numbered(1)
        error = deliver_many(logstash("udp://no.such.host.invalid:5000"), [message])[message.id]
        assert isinstance(error, TemporaryError)

    def test_nobody_can_be_asked(self, made):
        assert probed(made) is None


# Lumberjack


class Lumberjack:
    """Logstash's input beats: takes windows, and acknowledges them as `plan` says, one word for each window."""

    def __init__(self):
        self.events, self.windows, self.plan = [], [], []

    def __call__(self, connection):
        while True:
            version, kind, count = self.frame(connection)
            assert (version, kind) == (b"2", b"W")
            version, kind, size = self.frame(connection)
            assert (version, kind) == (b"2", b"C")
            events = self.unpacked(zlib.decompress(read(connection, size)))
            assert len(events) == count
            self.windows.append(count)
            if not self.acknowledge(connection, events, self.plan.pop(0) if self.plan else "all"):
                return

    def frame(self, connection):
        head = read(connection, 6)
        return head[:1], head[1:2], struct.unpack(">I", head[2:])[0]

    def unpacked(self, frames):
        events = []
        while frames:
            version, kind, number, size = struct.unpack(">ccII", frames[:10])
            assert (version, kind, number) == (b"2", b"J", len(events) + 1)
            events.append(json.loads(frames[10 : 10 + size]))
            frames = frames[10 + size :]
        return events

    def acknowledge(self, connection, events, word):
        if word == "cut":
            return False
        if word == "garbage":
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return False
        if word == "silence":
            read(connection, 1)
        if word == "slowly":  # says that it works on it, and what it has so far; the last of it in two parts
            for number in (0, len(events) // 2, 0):
                connection.sendall(struct.pack(">ccI", b"2", b"A", number))
            last = struct.pack(">ccI", b"2", b"A", len(events))
            self.events += events
            connection.sendall(last[:3])
            sleep(0.01)
            connection.sendall(last[3:])
            return True
        kept = events[: len(events) // 2] if word == "half" else events
        self.events += kept
        connection.sendall(struct.pack(">ccI", b"2", b"A", len(kept)))
        return word != "half"


@pytest.fixture
def lumberjack():
    return Lumberjack()


@pytest.mark.against("consumer logstash", LUMBERJACK)
class TestBeats(BatchConsumerContract):
    plugin = Logstash
    options = {"url": "beats://127.0.0.1:{url}"}
    away_options = {"url": "beats://127.0.0.1:9"}

    @pytest.fixture
    def url(self, listen, lumberjack):
        return str(listen(lumberjack).port)

    def test_what_was_acknowledged_is_done_and_the_connection_kept(self, listen, logstash, lumberjack):
        lumberjack.plan = ["slowly"]
        listener = listen(lumberjack)
        plugin = logstash(f"beats://127.0.0.1:{listener.port}")
        messages = sample_messages() + numbered(40)
        assert deliver_many(plugin, messages) == {}
        assert deliver_many(plugin, numbered(1)) == {}
        assert [event["id"] for event in lumberjack.events[:-1]] == [message.id for message in messages]
        assert lumberjack.events[0]["@metadata"] == {"beat": "siftbell", "version": "1", "type": "_doc"}
        assert len(listener.connections) == 1

    def test_after_a_cut_only_what_was_not_acknowledged_comes_again(self, listen, logstash, lumberjack):
        lumberjack.plan = ["half", "cut"]
        listener = listen(lumberjack)
        plugin = logstash(f"beats://127.0.0.1:{listener.port}")
        messages = numbered(10)
        left = messages
        for expected in (5, 5, 0):
            failures = deliver_many(plugin, left)
            assert {type(error) for error in failures.values()} <= {TemporaryError}
            left = [message for message in left if message.id in failures]
            assert len(left) == expected
        assert [event["id"] for event in lumberjack.events] == [message.id for message in messages]

    def test_a_connection_that_was_ended_meanwhile_is_made_anew(self, listen, logstash, lumberjack):
        listener = listen(lumberjack)
        plugin = logstash(f"beats://127.0.0.1:{listener.port}")
        for number in range(3):
            assert deliver_many(plugin, numbered(2)) == {}
            listener.connections[number].shutdown(socket.SHUT_RDWR)
        assert len(lumberjack.events) == 6
        assert len(listener.connections) == 3

    def test_what_is_no_acknowledgement(self, listen, logstash, lumberjack):
        lumberjack.plan = ["garbage"]
        plugin = logstash(f"beats://127.0.0.1:{listen(lumberjack).port}")
        messages = numbered(3)
        failures = deliver_many(plugin, messages)
        assert len(failures) == 3
        assert str(failures[messages[0].id]).endswith("the answer is no acknowledgement: does it speak Lumberjack 2?")

    @pytest.mark.usefixtures("hurried")
    def test_silence_has_an_end(self, listen, logstash, lumberjack):
        lumberjack.plan = ["silence"]
        plugin = logstash(f"beats://127.0.0.1:{listen(lumberjack).port}")
        (message,) = numbered(1)
        assert str(deliver_many(plugin, [message])[message.id]).endswith("no answer in time")

    def test_large_batches_go_in_windows(self, listen, logstash, lumberjack):
        plugin = logstash(f"beats://127.0.0.1:{listen(lumberjack).port}")
        messages = numbered(20, text="t" * 2**20)
        assert deliver_many(plugin, messages) == {}
        assert lumberjack.windows == [7, 7, 6]

    def test_over_tls(self, listen, logstash, lumberjack, context, certificate):
        listener = listen(lumberjack, context)
        plugin = logstash(f"beats+tls://127.0.0.1:{listener.port}", ca_file=str(certificate / "ca.pem"))
        for _ in range(2):
            assert deliver_many(plugin, numbered(3)) == {}
        assert len(lumberjack.events) == 6
        assert len(listener.connections) == 1
        assert probed(plugin) == f"Logstash at 127.0.0.1:{listener.port} answers; it was asked nothing"


# Redis


@pytest.fixture
def redis(require_redis):
    from redis import Redis

    with Redis.from_url(require_redis) as client:
        client.key = f"siftbell-test-{uuid4().hex}"
        yield client
        client.delete(client.key)


@pytest.mark.against("consumer logstash", "Redis 7")
class TestRedis(BatchConsumerContract):
    plugin = Logstash
    away_options = {"url": "redis://:a-secret-password@127.0.0.1:9/0"}

    @pytest.fixture
    def config(self, redis, require_redis):
        return LogstashConfig(url=require_redis, key=redis.key)

    options = {"url": "redis://:a-secret-password@127.0.0.1:9/0"}

    def test_events_are_appended_to_the_list(self, made, redis):
        messages = sample_messages()
        assert deliver_many(made, messages) == {}
        assert [json.loads(event)["id"] for event in redis.lrange(redis.key, 0, -1)] == [message.id for message in messages]

    def test_what_is_no_list(self, made, redis):
        redis.set(redis.key, "x")
        (message,) = numbered(1)
        error = deliver_many(made, [message])[message.id]
        assert type(error) is PermanentError
        assert "wrong kind of value" in str(error)

    def test_a_connection_that_was_cut_is_made_anew(self, made, redis):
        assert deliver_many(made, numbered(1)) == {}
        redis.client_kill_filter(_type="normal", skipme=True)
        messages = numbered(2)
        for _ in range(2):
            failures = deliver_many(made, messages)
            messages = [message for message in messages if message.id in failures]
        assert messages == []
        assert redis.llen(redis.key) == 3

    def test_a_probe_tells_the_version(self, made):
        assert probed(made).startswith(("Redis", "Valkey"))


# HTTP


@pytest.mark.against("consumer logstash", "a server on the loopback interface")
class TestHttp(HttpConsumerContract):
    plugin = Logstash
    options = {"url": "{url}/very-secret-path"}

    def test_events_go_as_an_array_with_the_password(self, logstash, server):
        url = server.url.replace("http://", "http://bell:s%C3%A9same@")
        messages = numbered(150)
        plugin = logstash(url)
        assert deliver_many(plugin, messages) == {}
        assert [len(json.loads(request.body)) for request in server.received] == [100, 50]
        assert b64decode(server.received[0].headers["authorization"].removeprefix("Basic ")).decode() == "bell:sésame"
        assert json.loads(server.received[0].body)[0]["message"] == "no 0"

    def test_each_message_has_an_outcome_of_its_own(self, logstash):
        class Picky(LoopbackServer):
            def next_answer(self, request):
                super().next_answer(request)
                return Answer(400 if any(event["title"] == "no 3" for event in json.loads(request.body)) else 200, body=b"no")

        with Picky() as server:
            messages = numbered(8)
            failures = deliver_many(logstash(server.url), messages)
        assert {*failures} == {messages[3].id}
        assert type(failures[messages[3].id]).__name__ != "TemporaryError"


# Events


def shown(message, **options):
    return Logstash(LogstashConfig.model_validate({"url": "tcp://127.0.0.1:9"} | options)).preview(message)


def test_an_event():
    rich, resolved, *_ = sample_messages()
    assert shown(rich) == {
        "@timestamp": "2026-11-21T08:30:00.000Z",
        "@version": "1",
        "message": "disk full on db-1\n2 % left\nof 100 GiB",
        "id": rich.id,
        "source": "http://prometheus:9090",
        "type": "alert",
        "title": "disk full on db-1",
        "severity": "critical",
        "status": "firing",
        "labels": {"alertname": "DiskFull", "instance": "db-1", "team": "db"},
        "key": "c8ce2ad3ba2f9a9d",
        "url": "http://prometheus:9090/graph",
        "data": rich.data,
    }
    assert shown(resolved)["message"] == "Resolved: build 7"
    assert "data" not in shown(rich, data=False)


def test_an_event_of_the_elastic_common_schema():
    rich = sample_messages()[0].replace(labels={"app.kubernetes.io/name": "db"}, time=datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC))
    assert shown(rich, ecs=True) == {
        "@timestamp": "2026-01-02T03:04:05.678Z",
        "@version": "1",
        "message": "disk full on db-1\n2 % left\nof 100 GiB",
        "ecs": {"version": "8.11.0"},
        "event": {
            "id": rich.id,
            "kind": "alert",
            "provider": "http://prometheus:9090",
            "dataset": "siftbell",
            "reference": "http://prometheus:9090/graph",
            "original": json.dumps(rich.data, separators=(",", ":")),
        },
        "siftbell": {"type": "alert", "title": "disk full on db-1", "status": "firing", "key": "c8ce2ad3ba2f9a9d"},
        "log": {"level": "critical"},
        "labels": {"app_kubernetes_io/name": "db"},
    }
    assert "original" not in shown(rich, ecs=True, data=False)["event"]


def test_fields_are_added():
    message = Message(source="t", title="x", labels={"team": "web"})
    event = shown(message, fields={"team": "{{ labels.team }}", "none": "", "source": "bell"})
    assert (event["team"], event["source"], "none" in event) == ("web", "bell", False)


def test_a_field_that_cannot_be_made_gives_up_its_message_alone(listen, logstash):
    reader = Reader()
    plugin = logstash(f"tcp://127.0.0.1:{listen(reader).port}", fields={"team": "{{ labels.team }}"})
    good, bad = Message(source="t", title="x", labels={"team": "web"}), Message(source="t", title="y")
    failures = deliver_many(plugin, [bad, good])
    assert {*failures} == {bad.id}
    assert str(failures[bad.id]).startswith("fields.team: ")
    assert titles(reader.lines) == ["x"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "logstash:5000"}, "a URL is expected that begins with one of tcp://"),
        ({"url": "tcp://:5000"}, "names no host"),
        ({"url": "tcp://logstash..example.com:5000"}, "no URL such as"),
        ({"url": "tcp://logstash"}, "names no port"),
        ({"url": "udp://logstash:99999"}, "no URL such as"),
        ({"url": "tcp://bell:secret@logstash:5000"}, "a host and a port, and nothing else"),
        ({"url": "beats://logstash:5044/x"}, "a host and a port, and nothing else"),
        ({"url": "tcp://logstash:5000", "key": "x"}, "key goes with redis:// and rediss://"),
        ({"url": "udp://logstash:5000", "confirm": False}, "confirm goes with tcp:// and tls://"),
        ({"url": "https://logstash:5000", "ca_file": "x"}, r"ca_file goes with tls:// and beats\+tls://"),
        ({"url": "tls://logstash:5000", "key_file": "x"}, "key_file goes with `cert_file`"),
        ({"url": "tcp://logstash:5000", "fields": {"@timestamp": "x"}}, "@timestamp cannot be set here"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValidationError, match=text) as caught:
        LogstashConfig.model_validate(options)
    assert "secret" not in str(caught.value.errors(include_input=False))
