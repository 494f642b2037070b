"""Queue: raw messages of RabbitMQ, Redis and SQS, taken over whatever is killed or cut; poison buried."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import amqp
import pytest
import redis
from botocore.session import Session
from harness.background import Background
from harness.proxy import Proxy
from moto.server import ThreadedMotoServer
from pydantic import SecretStr
from trees import until

from pipeline import PipelineError, TemporaryError
from pipeline.foreign import AmqpServer
from pipeline.testing import ListeningProducerContract
from producers.queue import Queue, QueueConfig

RABBITMQ = pytest.mark.against("producer queue", "RabbitMQ 3.10")
REDIS = pytest.mark.against("producer queue", "Redis 7.0")
MOTO = pytest.mark.against("producer queue", "moto server 5")


class OnRabbit:
    """A queue on RabbitMQ, and somebody who sends to it."""

    def __init__(self, url: str) -> None:
        self.name = f"siftbell-test-{uuid4().hex[:12]}"
        self.url, self.options = url, {"queue": self.name}
        self.connection = AmqpServer(SecretStr(url)).connect(heartbeat=0)
        self.channel = self.connection.channel()
        self.channel.queue_declare(self.name, durable=True, auto_delete=False)

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.publish(body, message_id=uuid4().hex)

    def publish(self, body: bytes, headers: Any = None, **properties: Any) -> None:
        raw = amqp.Message(body, application_headers=headers or {}, delivery_mode=2, **properties)
        self.channel.basic_publish(raw, routing_key=self.name)

    def left(self) -> int:
        return self.channel.queue_declare(self.name, passive=True).message_count

    def close(self) -> None:
        self.channel.queue_delete(self.name)
        self.connection.close()


class OnList:
    """A list on Redis."""

    def __init__(self, url: str) -> None:
        self.name = f"siftbell-test-{uuid4().hex[:12]}"
        self.url, self.options = url, {"list": self.name, "claim_after": "1s"}
        self.redis = redis.Redis.from_url(url)

    def send(self, *bodies: bytes) -> None:
        self.redis.rpush(self.name, *bodies)

    def left(self) -> int:
        kept = [key for key in self.redis.keys(f"{self.name}*") if self.redis.type(key) == b"list"]
        return sum(self.redis.llen(key) for key in kept)

    def close(self) -> None:
        for key in self.redis.keys(f"{self.name}*"):
            self.redis.delete(key)
        self.redis.close()


class OnStream(OnList):
    """A stream on Redis."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
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
        self.amazon = Session().create_client(
            "sqs", endpoint_url=place, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )
        self.queue = self.amazon.create_queue(QueueName=f"test-{uuid4().hex[:12]}")["QueueUrl"]
        self.url = f"http://key:secret@{urlsplit(place).netloc}{urlsplit(self.queue).path}"
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

    def bury(self, raw, reason, /, *, id="") -> None:
        self.buried.append((raw, reason, id))

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


def test_what_could_not_be_published_comes_again_under_its_id(foreign):
    foreign.send(*bodies(3))
    refused = []

    with listening(foreign, prefetch=10) as heard:

        def refuse():
            heard.before = lambda: None
            refused.append(1)
            raise TemporaryError("the queue is away")

        heard.before = refuse
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
    def bury(self, raw, reason, *, id=""):
        raise AssertionError(reason)

plugin = Queue(QueueConfig.model_validate_json(sys.argv[1]))
plugin.open()
plugin.listen(Heard(), lambda: False)
"""


def test_a_listener_that_is_killed_between_publish_and_acknowledgement_loses_nothing(foreign, tmp_path):
    foreign.send(*bodies(40))
    told, options = tmp_path / "heard", {"url": foreign.url, **foreign.options, "prefetch": 8}
    command = [sys.executable, "-c", LISTENER, json.dumps(options), str(told), "20"]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
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
