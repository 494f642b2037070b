"""Queue: raw messages of RabbitMQ, Redis and SQS, taken over whatever is killed or cut; poison buried."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import amqp
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness import servers
from harness.background import Background
from harness.proxy import Proxy
from moto.server import ThreadedMotoServer
from moto.sns import sns_backends
from pydantic import SecretStr, ValidationError
from trees import until

import producers.queue
from pipeline import PermanentError, PipelineError, TemporaryError
from pipeline.aws.session import new_session
from pipeline.foreign import AmqpServer
from pipeline.testing import ListeningProducerContract
from producers.queue import Queue, QueueConfig
from producers.queue.delivery import Delivery
from producers.queue.reading import message_id, read

RABBITMQ = pytest.mark.against("producer queue", "RabbitMQ 3.10")
REDIS = pytest.mark.against("producer queue", "Redis 7.0")
MOTO = pytest.mark.against("producer queue", "moto server 5")


class OnRabbit:
    """A queue on RabbitMQ, and somebody who sends to it."""

    def __init__(self, url: str, name: str = "") -> None:
        self.name = name or f"siftbell-test-{uuid4().hex[:12]}"
        self.url, self.options = url, {"queue": self.name}
        self.connection = AmqpServer(SecretStr(url)).connect(heartbeat=0)
        self.channel = self.connection.channel()
        self.channel.confirm_select()
        self.channel.queue_declare(self.name, durable=True, auto_delete=False)

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.publish(body, message_id=uuid4().hex)

    def publish(self, body: bytes, headers: Any = None, **properties: Any) -> None:
        raw = amqp.Message(body, application_headers=headers or {}, delivery_mode=2, **properties)
        self.channel.basic_publish_confirm(raw, routing_key=self.name)

    def left(self) -> int:
        return self.channel.queue_declare(self.name, passive=True).message_count

    def consumers(self) -> int:
        with self.connection.channel() as channel:
            try:
                return channel.queue_declare(self.name, passive=True).consumer_count
            except amqp.NotFound:
                return 0

    def part(self) -> None:
        """End the connection, whatever became of the server."""
        self.connection.collect()

    def close(self) -> None:
        self.channel.queue_delete(self.name)
        self.connection.close()


class OnList:
    """A list on Redis."""

    def __init__(self, url: str, name: str = "") -> None:
        self.name = name or f"siftbell-test-{uuid4().hex[:12]}"
        self.url, self.options = url, {"list": self.name, "claim_after": "1s"}
        self.redis = redis.Redis.from_url(url)

    def send(self, *bodies: bytes) -> None:
        self.redis.rpush(self.name, *bodies)

    def left(self) -> int:
        kept = [key for key in self.redis.keys(f"{self.name}*") if self.redis.type(key) == b"list"]
        return sum(self.redis.llen(key) for key in kept)

    def part(self) -> None:
        """End the connections, whatever became of the server."""
        self.redis.close()

    def close(self) -> None:
        for key in self.redis.keys(f"{self.name}*"):
            self.redis.delete(key)
        self.redis.close()


class OnStream(OnList):
    """A stream on Redis."""

    def __init__(self, url: str, name: str = "") -> None:
        super().__init__(url, name)
        self.options = {"stream": self.name, "claim_after": "1s"}

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.redis.xadd(self.name, {"body": body})

    def left(self) -> int:
        (group,) = self.redis.xinfo_groups(self.name) or ({"pending": 0, "lag": 1},)
        return group["pending"] + group["lag"]


class OnSqs:
    """A queue on moto's SQS."""

    def __init__(self, place: str) -> None:
        self.amazon = new_session().create_client(
            "sqs", endpoint_url=place, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )
        self.queue = self.amazon.create_queue(QueueName=f"test-{uuid4().hex[:12]}")["QueueUrl"]
        self.url = f"sqs://key:a-made-up-secret@{urlsplit(place).netloc}/{self.queue.rpartition('/')[2]}"
        self.options = {"region": "eu-central-1", "visibility": "4s"}

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.amazon.send_message(QueueUrl=self.queue, MessageBody=body.decode())

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.amazon.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def close(self) -> None:
        self.amazon.delete_queue(QueueUrl=self.queue)
        self.amazon.close()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def rabbit(require_rabbitmq) -> Iterator[OnRabbit]:
    foreign = OnRabbit(require_rabbitmq)
    yield foreign
    foreign.close()


@pytest.fixture
def redis_list(require_redis) -> Iterator[OnList]:
    foreign = OnList(require_redis)
    yield foreign
    foreign.close()


@pytest.fixture
def stream(require_redis) -> Iterator[OnStream]:
    foreign = OnStream(require_redis)
    yield foreign
    foreign.close()


@pytest.fixture
def sqs(moto) -> Iterator[OnSqs]:
    foreign = OnSqs(moto)
    yield foreign
    foreign.close()


SYSTEMS = [
    pytest.param("rabbit", marks=RABBITMQ),
    pytest.param("redis_list", marks=REDIS),
    pytest.param("stream", marks=REDIS),
    pytest.param("sqs", marks=MOTO),
]


@pytest.fixture(params=SYSTEMS)
def foreign(request) -> Any:
    """A queue of somebody else's on each system in turn."""
    return request.getfixturevalue(request.param)


class Heard:
    """What a listener published and buried."""

    def __init__(self) -> None:
        self.messages: list = []
        self.buried: list[tuple[bytes, str, str]] = []
        self.errors: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, messages, /) -> None:
        self.before()
        self.messages += messages

    def bury(self, raw, reason, /, *, message_id="") -> None:
        self.buried.append((raw, reason, message_id))

    @property
    def titles(self) -> list[str]:
        return sorted(message.title for message in self.messages)


@contextmanager
def listening(foreign: Any, url: str = "", **options: Any) -> Iterator[Heard]:
    """Listen as a clock does: again whenever it fails. It has to end within seconds."""
    config = QueueConfig.model_validate({"url": url or foreign.url, **foreign.options, **options})
    heard, stopping = Heard(), threading.Event()
    plugin = Queue(config)
    plugin.open()

    def listen() -> None:
        while not stopping.is_set():
            try:
                plugin.listen(heard, stopping.is_set)
            except PipelineError as error:
                heard.errors.append(str(error))
                stopping.wait(0.2)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stopping.set()
        thread.join(10)
        plugin.close()
        assert not thread.is_alive()


def bodies(count: int, first: int = 0) -> list[bytes]:
    return [json.dumps({"title": f"no {number:03}"}).encode() for number in range(first, first + count)]


class _Contract(ListeningProducerContract):
    plugin = Queue

    @pytest.fixture
    def url(self, foreign_of_contract) -> str:
        foreign_of_contract.send(*bodies(3))
        return foreign_of_contract.url


@RABBITMQ
class TestContractWithAmqp(_Contract):
    options = {"url": "{url}", "queue": "siftbell-test-contract"}

    @pytest.fixture
    def foreign_of_contract(self, rabbit):
        rabbit.channel.queue_declare("siftbell-test-contract", durable=True, auto_delete=False)
        rabbit.channel.queue_purge("siftbell-test-contract")
        rabbit.name, name = "siftbell-test-contract", rabbit.name
        yield rabbit
        rabbit.channel.queue_delete("siftbell-test-contract")
        rabbit.name = name


@REDIS
class TestContractWithList(_Contract):
    options = {"url": "{url}", "list": "siftbell-test-contract"}

    @pytest.fixture
    def foreign_of_contract(self, redis_list):
        redis_list.name = "siftbell-test-contract"
        redis_list.redis.delete(redis_list.name)
        return redis_list


@REDIS
class TestContractWithStream(_Contract):
    options = {"url": "{url}", "stream": "siftbell-test-contract-stream", "claim_after": "1s"}

    @pytest.fixture
    def foreign_of_contract(self, stream):
        stream.name = "siftbell-test-contract-stream"
        stream.redis.delete(stream.name)
        return stream


@MOTO
class TestContractWithSqs(_Contract):
    options = {"url": "{url}", "region": "eu-central-1", "visibility": "4s"}

    @pytest.fixture
    def foreign_of_contract(self, sqs):
        return sqs


def test_all_that_is_there_is_taken_over_and_acknowledged(foreign):
    foreign.send(*bodies(25))
    with listening(foreign) as heard:
        until(lambda: len(heard.messages) == 25, "all have come")
        foreign.send(*bodies(5, 25))
        until(lambda: len(heard.messages) == 30, "the later ones too")
    assert heard.titles == [f"no {number:03}" for number in range(30)]
    assert foreign.left() == 0
    assert heard.errors == []


def test_what_cannot_be_read_is_buried_with_the_reason_and_acknowledged(foreign):
    foreign.send(b'{"title": ', b'{"title": ["a", "b"]}', *bodies(1), b"[1]")
    with listening(foreign, body="json") as heard:
        until(lambda: len(heard.messages) + len(heard.buried) == 4, "all have come")
    assert heard.titles == ["no 000"]
    assert sorted((raw, reason) for raw, reason, _ in heard.buried) == [
        (b"[1]", "[0]: an object is expected"),
        (b'{"title": ', "the body is not JSON: Input data was truncated"),
        (b'{"title": ["a", "b"]}', "title: a text is expected"),
    ]
    assert foreign.left() == 0


def test_what_could_not_be_published_comes_again_under_its_id(foreign, monkeypatch):
    monkeypatch.setattr(producers.queue, "HELD_FOR", -1.0)
    refused = []

    with listening(foreign, prefetch=10) as heard:

        def refuse():
            heard.before = lambda: None
            refused.append(1)
            raise TemporaryError("the queue is away")

        heard.before = refuse
        foreign.send(*bodies(3))
        until(lambda: len(heard.messages) == 3, "they have come again")
    assert heard.titles == ["no 000", "no 001", "no 002"]
    assert heard.errors == ["the queue is away"]
    assert foreign.left() == 0


LISTENER = """
import os, signal, sys
from producers.queue import Queue, QueueConfig

class Heard:
    def __call__(self, messages):
        with open(sys.argv[2], "a") as file:
            for message in messages:
                print(message.id, message.title, file=file)
        if len(open(sys.argv[2]).readlines()) >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    def bury(self, raw, reason, *, message_id=""):
        raise AssertionError(reason)

plugin = Queue(QueueConfig.model_validate_json(sys.argv[1]))
plugin.open()
plugin.listen(Heard(), lambda: False)
"""


def test_a_listener_that_is_killed_between_publish_and_acknowledgement_loses_nothing(foreign, tmp_path):
    foreign.send(*bodies(40))
    told, options = tmp_path / "heard", {"url": foreign.url, **foreign.options, "prefetch": 8}
    command = [sys.executable, "-c", LISTENER, json.dumps(options), str(told), "20"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    before = dict(line.split(" ", 1) for line in told.read_text().splitlines())
    with listening(foreign) as heard:
        until(lambda: {*before.values(), *heard.titles} == {f"no {number:03}" for number in range(40)}, "all have come")
        until(lambda: foreign.left() == 0, "all are acknowledged")
    again = [message for message in heard.messages if message.title in before.values()]
    assert again, "what was published and not acknowledged comes again"
    if not isinstance(foreign, OnList) or isinstance(foreign, OnStream):
        assert {message.id for message in again} <= {*before}


@pytest.fixture
def proxied(foreign) -> Iterator[tuple[Any, Proxy, str]]:
    """A queue on each system, and a way to it that can be cut."""
    background = Background()
    parts = urlsplit(foreign.url)
    proxy = Proxy(background, parts.port)
    netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    yield foreign, proxy, parts._replace(netloc=netloc.lstrip("@")).geturl()
    proxy.close()
    background.close()


def test_a_connection_that_is_cut_is_made_anew(proxied):
    foreign, proxy, url = proxied
    foreign.send(*bodies(5))
    with listening(foreign, url) as heard:
        until(lambda: len(heard.messages) == 5, "the first have come")
        proxy.become("refuses")
        foreign.send(*bodies(5, 5))
        until(lambda: len(heard.errors) >= 2, "it has noticed, and tried again")
        proxy.become("none")
        until(lambda: len({*heard.titles}) == 10, "all have come")
    secret = urlsplit(url).password
    assert not any(secret and secret in error for error in heard.errors)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "queue"),
    [
        pytest.param(servers.RabbitMQ, OnRabbit, marks=RABBITMQ),
        pytest.param(servers.Redis, OnList, marks=REDIS),
        pytest.param(servers.Redis, OnStream, marks=REDIS),
    ],
)
def test_a_server_that_is_killed_and_started_again_is_listened_to_again(kind, queue, tmp_path, require_binary):
    require_binary(f"{kind.name}-server", f"{kind.name}-server")
    server = kind(tmp_path / "server")
    server.start()
    try:
        url = server.url(server.port)
        foreign = queue(url)
        with listening(foreign) as heard:
            foreign.send(*bodies(5))
            until(lambda: len(heard.messages) == 5, "the first have come")
            server.kill()
            foreign.part()
            until(lambda: len(heard.errors) >= 2, "it has noticed, and tried again")
            server.start()
            again = queue(url, foreign.name)
            again.send(*bodies(5, 5))
            until(lambda: len({*heard.titles}) == 10, "all have come")
            until(lambda: again.left() == 0, "all are acknowledged")
        again.close()
    finally:
        server.kill()


# What each system has of its own.


@RABBITMQ
class TestAmqp:
    @pytest.fixture
    def exchange(self, rabbit) -> Iterator[str]:
        name = f"{rabbit.name}-exchange"
        yield name
        rabbit.channel.exchange_delete(name)

    def test_a_queue_of_its_own_is_made_and_bound_and_headers_become_labels(self, rabbit, exchange):
        rabbit.channel.queue_delete(rabbit.name)
        told = {
            "declare": True,
            "exchange": exchange,
            "exchange_type": "topic",
            "routing_keys": ["disk.#", "*.critical"],
            "labels": {"route": "routing_key", "via": "exchange", "host": "X-Host", "count": "x-count", "none": "x-none"},
        }
        with listening(rabbit, **told) as heard:
            until(lambda: rabbit.consumers() == 1, "it listens")
            headers = {"x-host": "db-1", "x-count": 3}
            for key in ("disk.full", "net.down", "net.critical"):
                raw = amqp.Message(b'{"title": "a", "labels": {"host": "own"}}', application_headers=headers)
                rabbit.channel.basic_publish(raw, exchange, key)
            until(lambda: len(heard.messages) == 2, "what is bound has come")
        assert [message.labels for message in heard.messages] == [
            {"route": key, "via": exchange, "host": "own", "count": "3"} for key in ("disk.full", "net.critical")
        ]

    def test_a_queue_that_is_there_is_taken_as_it_is(self, rabbit):
        rabbit.channel.queue_delete(rabbit.name)
        rabbit.channel.queue_declare(rabbit.name, durable=False, auto_delete=False, arguments={"x-max-length": 9})
        rabbit.send(*bodies(1))
        with listening(rabbit, declare=True, exchange="amq.topic", exchange_type="direct", routing_keys=["a"]) as heard:
            until(lambda: heard.messages, "it has come")
        assert heard.errors == []

    def test_over_tls(self, rabbit, tls_to):
        rabbit.send(*bodies(1))
        parts = urlsplit(rabbit.url)
        port, authority = tls_to(parts.port)
        url = f"amqps://guest:guest@localhost:{port}{parts.path}?cacertfile={authority}"
        with listening(rabbit, url) as heard:
            until(lambda: heard.messages, "it has come")
        with pytest.raises(TemporaryError, match="CERTIFICATE_VERIFY_FAILED"):
            probed(rabbit, url=url.partition("?")[0])
        with pytest.raises(TemporaryError, match="CERTIFICATE_VERIFY_FAILED"):
            probed(rabbit, url=url.replace("localhost", "127.0.0.1"))

    def test_what_waits_for_our_own_queue_is_not_handed_over_again_and_again(self, rabbit, monkeypatch):
        monkeypatch.setattr(producers.queue, "_PAUSE", 0.1)
        name = f"quorum-{uuid4().hex[:8]}"
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1}
        rabbit.channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        rabbit.channel.basic_publish(amqp.Message(bodies(1)[0]), routing_key=name)
        refused = []
        with listening(rabbit, queue=name) as heard:

            def refuse():
                if len(refused) < 5:
                    refused.append(1)
                    raise TemporaryError("the queue is away")

            heard.before = refuse
            until(lambda: heard.messages, "it has come")
        assert heard.errors == []
        rabbit.channel.queue_delete(name)

    def test_a_queue_that_is_not_there_is_told_and_asked_for_again(self, rabbit):
        rabbit.channel.queue_delete(rabbit.name)
        with listening(rabbit) as heard:
            until(lambda: len(heard.errors) >= 2, "it says so")
            rabbit.channel.queue_declare(rabbit.name, durable=True, auto_delete=False)
            rabbit.send(*bodies(1))
            until(lambda: heard.messages, "it has come")
        assert "NOT_FOUND - no queue" in heard.errors[0]
        assert "guest" not in heard.errors[0]

    def test_a_queue_that_is_deleted_is_noticed(self, rabbit):
        with listening(rabbit, declare=True) as heard:
            until(lambda: rabbit.consumers() == 1, "it listens")
            rabbit.channel.queue_delete(rabbit.name)
            until(lambda: rabbit.consumers() == 1, "it listens again")
            rabbit.send(*bodies(1))
            until(lambda: heard.messages, "it has come")
        assert "its queue was deleted" in heard.errors[0]

    def test_headers_that_cannot_be_read_do_not_stop_the_queue(self, rabbit):
        rabbit.channel.basic_publish(_Odd(b'{"title": "odd"}'), routing_key=rabbit.name)
        rabbit.publish(b'{"title": "even"}', {"at": datetime(2026, 3, 1, tzinfo=UTC)})
        with listening(rabbit, labels={"at": "at"}) as heard:
            until(lambda: len(heard.messages) == 2, "both have come")
        assert [(message.title, message.labels) for message in heard.messages] == [
            ("odd", {}),
            ("even", {"at": "2026-03-01T00:00:00"}),
        ]
        assert heard.errors == []

    def test_no_more_than_prefetch_are_taken_at_once(self, rabbit):
        rabbit.send(*bodies(7))
        sizes: list[int] = []
        with listening(rabbit, prefetch=3) as heard:
            heard.before = lambda: sizes.append(len(heard.messages))
            until(lambda: len(heard.messages) == 7, "all have come")
        assert max(after - before for before, after in zip(sizes, [*sizes[1:], 7], strict=True)) <= 3

    def test_a_binary_cloud_event(self, rabbit):
        event = {
            "cloudEvents:specversion": "1.0",
            "cloudEvents:id": "1",
            "cloudEvents:source": "/ci",
            "cloudEvents:type": "built",
        }
        rabbit.publish(b'{"title": "build 7"}', event, content_type="application/json")
        with listening(rabbit) as heard:
            until(lambda: heard.messages, "it has come")
        (message,) = heard.messages
        assert (message.title, message.source, message.type) == ("build 7", "/ci", "built")

    def test_a_probe_says_who_answers_and_takes_nothing(self, rabbit):
        rabbit.send(*bodies(2))
        assert probed(rabbit).startswith("RabbitMQ 3.")
        assert probed(rabbit).endswith(", 2 on the queue")
        with pytest.raises(PermanentError, match="no queue"):
            probed(rabbit, queue="siftbell-test-missing")
        with pytest.raises(PermanentError, match="ACCESS_REFUSED"):
            probed(rabbit, url=rabbit.url.replace("guest:guest@", "guest:a-wrong-password@"))


@pytest.fixture
def tls_to(tmp_path, key) -> Iterator[Callable[[int], tuple[int, str]]]:
    """Ends TLS before a server's port; gives the port to connect to, and the file of whom to trust."""
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(2)
    made = made.not_valid_before(datetime.now(UTC)).not_valid_after(datetime.now(UTC) + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    (tmp_path / "certificate.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    background = Background()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def listen(target: int) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner = await asyncio.open_connection("127.0.0.1", target)
            await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def end() -> None:
        for server in servers:
            server.close()

    servers: list[asyncio.Server] = []
    yield lambda target: (background.call(listen(target)), str(tmp_path / "certificate.pem"))
    background.call(end())
    background.close()


class _Odd(amqp.Message):
    """Has a header of the type timestamp as some senders write it: in milliseconds, where seconds are meant."""

    def _serialize_properties(self) -> bytes:
        table = b"\x02atT" + struct.pack(">Q", 1_795_280_000_000)
        return struct.pack(">HI", 1 << 13, len(table)) + table


@REDIS
class TestRedis:
    def test_what_a_dead_listener_held_goes_back_where_it_stood(self, redis_list):
        redis_list.send(*bodies(2, 2))
        redis_list.redis.rpush(f"{redis_list.name}:siftbell:dead", *bodies(2))
        redis_list.redis.zadd(f"{redis_list.name}:siftbell", {"dead": 1})
        with listening(redis_list) as heard:
            until(lambda: len(heard.messages) == 4, "all have come")
        assert [message.title for message in heard.messages] == ["no 000", "no 001", "no 002", "no 003"]
        assert redis_list.redis.keys(f"{redis_list.name}*") == []

    def test_what_a_listener_takes_after_it_was_taken_for_dead_goes_back_too(self, redis_list):
        silent = redis_list.redis.time()[0] - 3600
        redis_list.redis.zadd(f"{redis_list.name}:siftbell", {"stopped": silent})
        redis_list.send(*bodies(1))
        with listening(redis_list) as heard:
            until(lambda: heard.messages, "it is taken for dead")
            redis_list.redis.rpush(f"{redis_list.name}:siftbell:stopped", *bodies(1, 1))
            until(lambda: len(heard.messages) == 2, "what it took then has come")

    def test_what_a_living_listener_holds_stays_its_own(self, redis_list):
        redis_list.send(*bodies(1))
        now = redis_list.redis.time()[0] + 3600
        redis_list.redis.rpush(f"{redis_list.name}:siftbell:alive", b"theirs")
        redis_list.redis.zadd(f"{redis_list.name}:siftbell", {"alive": now})
        with listening(redis_list) as heard:
            until(lambda: heard.messages, "ours has come")
        assert heard.titles == ["no 000"]
        assert redis_list.redis.lrange(f"{redis_list.name}:siftbell:alive", 0, -1) == [b"theirs"]

    @pytest.mark.parametrize("end", ["left", "right"])
    def test_the_oldest_come_first_from_either_end(self, redis_list, end, monkeypatch):
        monkeypatch.setattr(producers.queue, "HELD_FOR", -1.0)
        push = redis_list.redis.rpush if end == "left" else redis_list.redis.lpush
        push(redis_list.name, *bodies(5))
        with listening(redis_list, take_from=end, prefetch=2) as heard:

            def refuse_the_second():
                if len(heard.messages) == 2 and not heard.errors:
                    raise TemporaryError("the queue is away")

            heard.before = refuse_the_second
            until(lambda: len(heard.messages) == 5, "all have come")
        assert [message.title for message in heard.messages] == [f"no {number:03}" for number in range(5)]

    def test_two_of_the_same_body_are_two(self, redis_list):
        redis_list.send(b'{"title": "again"}', b'{"title": "again"}')
        with listening(redis_list) as heard:
            until(lambda: len(heard.messages) == 2, "both have come")
        assert len({message.id for message in heard.messages}) == 2
        assert redis_list.left() == 0

    def test_an_entry_of_a_stream_is_an_object_or_holds_one(self, stream):
        stream.redis.xadd(stream.name, {"title": "disk full", "severity": "warn"})
        stream.redis.xadd(stream.name, {"anything": '{"title": "in a field"}'})
        stream.redis.xadd(stream.name, {"anything": "only a text"})
        with listening(stream) as heard:
            until(lambda: len(heard.messages) == 3, "all have come")
        assert [(one.title, one.text, one.severity) for one in heard.messages] == [
            ("disk full", "", "warning"),
            ("in a field", "", ""),
            ("", "only a text", ""),
        ]

    def test_the_other_fields_of_an_entry_are_headers(self, stream):
        entry = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/ci", "ce-type": "built", "team": "web", "data": "{}"}
        stream.redis.xadd(stream.name, entry)
        stream.redis.xadd(stream.name, {"title": "no such field"})
        with listening(stream, body_field="data", labels={"team": "team"}) as heard:
            until(lambda: heard.messages and heard.buried, "both have come")
        assert [(one.source, one.labels) for one in heard.messages] == [("/ci", {"team": "web"})]
        ((raw, reason, _),) = heard.buried
        assert reason == "it has no field 'data', which `body_field` names"
        assert json.loads(raw) == {"title": "no such field"}

    def test_entries_that_were_deleted_while_they_waited_are_passed_over(self, stream):
        stream.redis.xgroup_create(stream.name, "siftbell", "0", mkstream=True)
        entries = [stream.redis.xadd(stream.name, {"body": body}) for body in bodies(3)]
        stream.redis.xreadgroup("siftbell", "siftbell-dead", {stream.name: ">"})
        stream.redis.xdel(stream.name, entries[1])
        with listening(stream) as heard:
            until(lambda: len(heard.messages) == 2, "the others have come")
            until(lambda: stream.redis.xinfo_groups(stream.name)[0]["pending"] == 0, "nothing is left pending")
        assert heard.titles == ["no 000", "no 002"]

    def test_a_key_of_another_type_is_told(self, stream, redis_list):
        redis_list.redis.set(redis_list.name, "a text")
        stream.redis.set(stream.name, "a text")
        for foreign in (redis_list, stream):
            with listening(foreign) as heard:
                until(lambda heard=heard: len(heard.errors) >= 2, "it says so")
            assert "WRONGTYPE" in heard.errors[0]

    def test_a_probe_says_who_answers_and_takes_nothing(self, redis_list, stream):
        redis_list.send(*bodies(2))
        stream.send(*bodies(3))
        assert probed(redis_list) == f"Redis {redis_list.redis.info()['redis_version']}, 2 on the list"
        assert probed(stream).endswith(", 3 entries in the stream")
        assert redis_list.left() == 2
        with pytest.raises(TemporaryError, match=r"127\.0\.0\.1:9"):
            probed(redis_list, url="redis://:a-password@127.0.0.1:9/0")


def probed(foreign: Any, **options: Any) -> str:
    plugin = Queue(QueueConfig.model_validate({"url": foreign.url, **foreign.options, **options}))
    plugin.open()
    try:
        return plugin.probe()
    finally:
        plugin.close()


@MOTO
class TestSqs:
    def test_a_queue_has_a_url_of_its_own_too(self, sqs):
        name = sqs.queue.rpartition("/")[2]
        sqs.url = f"http://{urlsplit(sqs.url).netloc}{urlsplit(sqs.queue).path}"
        sqs.send(*bodies(1))
        assert probed(sqs) == "SQS, about 1 on the queue"
        with listening(sqs) as heard:
            until(lambda: heard.messages, "it has come")
        with pytest.raises(PermanentError, match="NonExistentQueue"):
            probed(sqs, url=sqs.url.replace(name, "missing"))

    def test_what_is_worked_on_for_long_stays_hidden(self, sqs, moto):
        sqs.send(*bodies(1))
        with listening(sqs) as heard:

            def work():
                end = monotonic() + 6  # longer than the 4 s of `visibility`
                while monotonic() < end:
                    answer = sqs.amazon.receive_message(QueueUrl=sqs.queue, WaitTimeSeconds=1)
                    assert "Messages" not in answer, "another one got it"

            heard.before = work
            until(lambda: heard.messages, "it has come")
        assert sqs.left() == 0

    def test_it_stops_while_a_question_waits_for_its_answer(self, sqs):
        with listening(sqs):
            until(lambda: any(thread.name.startswith("sqs ") for thread in threading.enumerate()), "it asks")
        sqs.send(*bodies(1))
        with listening(sqs) as heard:
            until(lambda: heard.messages, "what the old question was answered was given back")

    def test_attributes_become_labels(self, sqs):
        attributes = {"Team": {"DataType": "String", "StringValue": "db"}}
        sqs.amazon.send_message(QueueUrl=sqs.queue, MessageBody="disk full", MessageAttributes=attributes)
        with listening(sqs, labels={"team": "team", "from": "queue"}) as heard:
            until(lambda: heard.messages, "it has come")
        (message,) = heard.messages
        assert (message.text, message.labels["team"]) == ("disk full", "db")
        assert message.labels["from"] == sqs.queue.rpartition("/")[2]


class Certificates:
    """Stands in for AWS's hosts: gives certificates by their paths."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.status = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.known.get(self.path, b"")
                self.send_response(outer.status or (200 if body else 404))
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def certificates() -> Iterator[Certificates]:
    server = Certificates()
    yield server
    server.close()


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


TOPIC = "arn:aws:sns:eu-central-1:123456789012:alarms"


@pytest.fixture
def envelope(certificates, key) -> Callable[..., bytes]:
    """Makes what SNS makes, signed with a key of our own whose certificate can be had at the stand-in."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificates.known["/own.pem"] = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def make(version: str = "2", forged: dict[str, Any] | None = None, **told: Any) -> bytes:
        fields = {
            "Type": "Notification",
            "MessageId": str(uuid4()),
            "TopicArn": TOPIC,
            "Message": '{"title": "disk full"}',
            "Timestamp": "2026-11-21T08:30:00.000Z",
            "SignatureVersion": version,
            "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/own.pem",
        } | told
        signed = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{fields[name]}\n" for name in signed if name in fields)
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
        fields["Signature"] = base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode()
        return json.dumps(fields | (forged or {})).encode()

    return make


@MOTO
class TestSns:
    def test_what_moto_signs_is_believed(self, sqs, moto, certificates):
        def client(service: str) -> Any:
            return new_session().create_client(
                service, endpoint_url=moto, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret"
            )

        topic = client("sns").create_topic(Name=f"t-{uuid4().hex[:8]}")["TopicArn"]
        arn = sqs.amazon.get_queue_attributes(QueueUrl=sqs.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        attributes = {"team": {"DataType": "String", "StringValue": "db"}}
        client("sns").publish(TopicArn=topic, Message='{"title": "disk full"}', MessageAttributes=attributes)
        client("sns").publish(TopicArn=topic, Message="only a text")
        keys = sns_backends["123456789012"]["eu-central-1"]._message_public_keys
        certificates.known = {f"/{name}": pem for name, pem in keys.items()}
        told = {"sns_topics": [topic], "sns_certificates": certificates.url, "labels": {"team": "team", "topic": "topic"}}
        with listening(sqs, **told) as heard:
            until(lambda: len(heard.messages) + len(heard.buried) == 2, "both have come")
        assert heard.buried == []
        assert sorted((one.title, one.text, one.labels.get("team")) for one in heard.messages) == [
            ("", "only a text", None),
            ("disk full", "", "db"),
        ]
        assert {one.labels["topic"] for one in heard.messages} == {topic}
        assert sqs.left() == 0

    @pytest.mark.parametrize("version", ["1", "2"])
    def test_both_versions_of_the_signature(self, sqs, certificates, envelope, version):
        sqs.send(*(envelope(version, Subject="an alarm", Message="text") for _ in range(3)))
        with listening(sqs, sns_certificates=certificates.url) as heard:
            until(lambda: len(heard.messages) == 3, "all have come")
        assert {(one.title, one.text) for one in heard.messages} == {("an alarm", "text")}
        assert certificates.asked == ["/own.pem"]

    @pytest.mark.parametrize(
        ("forged", "reason"),
        [
            ({"Message": "all is well"}, "its signature does not fit"),
            ({"TopicArn": TOPIC + "2"}, "its signature does not fit"),
            ({"Subject": "more"}, "its signature does not fit"),
            ({"Signature": "AAAA"}, "its signature does not fit"),
            ({"Signature": "not base64!"}, "its signature does not fit"),
            ({"SignatureVersion": "1"}, "its signature does not fit"),
            ({"SignatureVersion": "3"}, "its signature is of a version that is not known"),
            ({"Type": "SubscriptionConfirmation"}, "its signature does not fit"),
            ({"SigningCertURL": "https://sns.eu-central-1.amazonaws.com/missing.pem"}, "404"),
            ({"SigningCertURL": "https://sns.eu-central-1.amazonaws.com/own.txt"}, "its certificate's address"),
        ],
    )
    def test_what_is_forged_is_buried(self, sqs, certificates, envelope, forged, reason):
        raw = envelope(forged=forged)
        sqs.send(raw)
        with listening(sqs, sns_certificates=certificates.url) as heard:
            until(lambda: heard.buried, "it has come")
        assert heard.messages == []
        assert heard.buried[0][0] == raw
        assert reason in heard.buried[0][1]
        assert sqs.left() == 0

    @pytest.mark.parametrize(
        "url",
        [
            "http://sns.eu-central-1.amazonaws.com/own.pem",
            "https://sns.eu-central-1.amazonaws.com.evil.example/own.pem",
            "https://evil.example/sns.eu-central-1.amazonaws.com/own.pem",
            "https://sns.eu-central-1.amazonaws.com@evil.example/own.pem",
            "https://sns.eu-central-1.amazonaws.com:8443/own.pem",
            "https://evil.s3.eu-central-1.amazonaws.com/own.pem",
            "https://sns.eu-central-1.amazonaws.com/own.pem?Action=GetTopicAttributes&TopicArn=evil",
            "https://[::1/own.pem",
            "",
        ],
    )
    def test_certificates_come_from_hosts_of_aws(self, sqs, envelope, url):
        sqs.send(envelope(SigningCertURL=url))
        with listening(sqs) as heard:
            until(lambda: heard.buried, "it has come")
        assert "its certificate" in heard.buried[0][1]

    def test_with_topics_nothing_else_is_believed(self, sqs, certificates, envelope):
        sqs.send(envelope(), envelope(TopicArn="arn:aws:sns:eu-central-1:666666666666:alarms"), *bodies(1))
        with listening(sqs, sns_certificates=certificates.url, sns_topics=[TOPIC]) as heard:
            until(lambda: len(heard.messages) + len(heard.buried) == 3, "all have come")
        assert heard.titles == ["disk full"]
        assert sorted(reason for _, reason, _ in heard.buried) == [
            "`sns_topics` does not name its topic: arn:aws:sns:eu-central-1:666666666666:alarms",
            "it does not come from SNS, as `sns_topics` asks for",
        ]

    def test_without_topics_what_is_not_wrapped_passes(self, sqs):
        sqs.send(*bodies(1), b'{"title": "of a \\"TopicArn\\"", "TopicArn": 3}')
        with listening(sqs) as heard:
            until(lambda: len(heard.messages) == 2, "both have come")

    def test_a_certificate_that_cannot_be_had_now_leaves_the_message(self, sqs, certificates, envelope):
        certificates.status = 503
        sqs.send(envelope(), *bodies(1))
        with listening(sqs, sns_certificates=certificates.url) as heard:
            until(lambda: heard.messages, "the other one has come")
            until(lambda: certificates.asked, "the certificate was asked for")
        assert heard.titles == ["no 000"]
        assert heard.buried == []
        certificates.status = 0
        with listening(sqs, sns_certificates=certificates.url) as heard:
            until(lambda: heard.messages, "it has come")
        assert heard.titles == ["disk full"]

    def test_a_subscription_is_confirmed_for_a_topic_that_is_named(self, sqs, certificates, envelope):
        told = {"Token": "t0ken", "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Confirm&Token=t0ken"}
        asks = envelope(Type="SubscriptionConfirmation", Message="You have chosen to subscribe", **told)
        certificates.known["/?Action=Confirm&Token=t0ken"] = b"<ok/>"
        sqs.send(asks)
        with listening(sqs, sns_certificates=certificates.url) as heard:
            until(lambda: heard.buried, "it has come")
        assert "name it in `sns_topics`" in heard.buried[0][1]
        sqs.send(asks)
        with listening(sqs, sns_certificates=certificates.url, sns_topics=[TOPIC]) as heard:
            until(lambda: sqs.left() == 0, "it is done")
        assert certificates.asked[-1] == "/?Action=Confirm&Token=t0ken"
        assert (heard.messages, heard.buried) == ([], [])


# How a raw message is read, and which options go together.

EVENT = {"specversion": "1.0", "id": "1", "source": "/ci", "type": "built", "data": {"title": "build 7"}}
CONFIG = {"url": "amqp://rabbit.example.com", "queue": "q"}


def reading(
    raw: bytes, /, *, headers: dict[str, str] | None = None, name: str = "", time: datetime | None = None, **told: Any
) -> Any:
    return read(Delivery(raw, headers or {}, name, time), QueueConfig.model_validate({**CONFIG, **told}))


@pytest.mark.parametrize(
    ("body", "headers", "told", "fields"),
    [
        (b'{"title": "a", "severity": "WARN"}', {}, {}, {"title": "a", "severity": "warning"}),
        (b' {"title": "a"}', {"content-type": "application/octet-stream"}, {}, {"title": "a"}),
        (b'{"title": "a"}', {"content-type": "text/plain"}, {}, {"text": '{"title": "a"}', "title": ""}),
        (b'{"title": "a"}', {}, {"body": "text"}, {"text": '{"title": "a"}'}),
        (b"disk full", {}, {}, {"text": "disk full", "data": "disk full", "source": "queue"}),
        (b"disk full", {"subject": "alarm"}, {}, {"text": "disk full", "title": "alarm"}),
        (b'{"check": {"name": "a"}}', {}, {"fields": {"title": "check.name"}, "source": "x"}, {"title": "a", "source": "x"}),
        (json.dumps(EVENT).encode(), {}, {}, {"title": "build 7", "source": "/ci", "type": "built"}),
        (json.dumps([EVENT]).encode(), {}, {}, {"title": "build 7", "source": "/ci"}),
        (json.dumps(EVENT).encode(), {"content-type": "application/cloudevents+json; charset=utf-8"}, {}, {"title": "build 7"}),
        (
            b"some text",
            {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/ci", "ce-type": "built", "content-type": "text/plain"},
            {},
            {"source": "/ci"},
        ),
    ],
)
def test_what_a_body_is_read_as(body, headers, told, fields):
    (message,) = reading(body, headers=headers, **told)
    assert {name: getattr(message, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("body", "headers", "told", "reason"),
    [
        (b"", {}, {}, "it is empty"),
        (b"\xff\xfe", {}, {}, "it is neither JSON nor a text in UTF-8"),
        (b"a\0b", {}, {}, "it holds a NUL character"),
        (b"{", {}, {}, "the body is not JSON"),
        (b"disk full", {"content-type": "application/json"}, {}, "the body is not JSON"),
        (b"disk full", {}, {"body": "json"}, "the body is not JSON"),
        (b'{"time": "soon"}', {}, {}, "time: "),
        (b'{"specversion": "1.0", "id": "", "source": "s", "type": "t"}', {}, {}, "id: a text is required"),
        (b"[" * 100_000, {}, {}, "deeper than 64"),
    ],
)
def test_why_a_body_cannot_be_read(body, headers, told, reason):
    with pytest.raises(PermanentError) as caught:
        reading(body, headers=headers, **told)
    assert reason in str(caught.value)


def test_ids_are_those_of_a_repeat_and_of_nothing_else():
    time = datetime(2026, 3, 1, tzinfo=UTC)
    one = [message.id for message in reading(b'[{"title": "a"}, {"title": "b"}]', name="q/1", time=time)]
    assert one == [message.id for message in reading(b'[{"title": "a"}, {"title": "b"}]', name="q/1", time=time)]
    assert len({*one, *(message.id for message in reading(b'[{"title": "a"}, {"title": "c"}]', name="q/1", time=time))}) == 4
    assert reading(b"a")[0].id != reading(b"a")[0].id
    assert reading(b"a", name="n")[0].id == message_id(Delivery(b"a", name="n"))


def test_what_names_no_time_has_that_of_its_sending():
    time = datetime(2026, 3, 1, tzinfo=UTC)
    for body in (b'{"title": "a"}', b'{"title": ["a"]}', b"a", json.dumps(EVENT).encode()):
        told = {"fields": {"title": "title[0]"}} if b"[" in body else {}
        assert reading(body, time=time, **told)[0].time == time
    assert reading(b'{"time": 86400}', time=time)[0].time == datetime(1970, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "kafka://k", "queue": "q"}, "url: amqp://, amqps://"),
        ({"url": "amqp://host:port/", "queue": "q"}, "this is no URL"),
        ({"url": "amqp://h"}, "queue: which one?"),
        ({"url": "amqp://h", "queue": "q", "list": "l"}, "list: it does not go with amqp://"),
        ({"url": "amqp://h", "queue": "q", "routing_keys": ["a"]}, "exchange: `exchange_type` and `routing_keys` need one"),
        ({"url": "redis://h"}, "give either `list` or `stream`"),
        ({"url": "redis://h", "list": "l", "stream": "s"}, "give either `list` or `stream`"),
        ({"url": "redis://h", "list": "l", "group": "g"}, "go with `stream`"),
        ({"url": "redis://h", "stream": "s", "take_from": "left"}, "`take_from` goes with `list`"),
        ({"url": "sqs://h"}, "the queue's name is missing"),
        ({"url": "https://sqs.eu-central-1.amazonaws.com/1/q", "group": "g"}, "group: it does not go with https://"),
    ],
)
def test_options_that_do_not_go_together(options, text):
    with pytest.raises(ValidationError) as caught:
        QueueConfig.model_validate(options)
    assert text in str(caught.value)
    assert "port/" not in str(caught.value).partition("[")[0]
