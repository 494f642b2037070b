"""What kombu promises of every virtual transport: the same checks on its memory transport and on ours."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import kombu
import pytest
from kombu.exceptions import ChannelError
from kombu.transport.virtual.base import NotEquivalentError

from pipeline.queue import sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_names = count()


@pytest.fixture(params=["memory", "sqlite"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[kombu.Connection]:
    sqlite.register()
    url = "memory://" if request.param == "memory" else sqlite.url(tmp_path / "queue.db")
    with kombu.Connection(url) as connection:
        yield connection


@pytest.fixture
def name() -> str:
    """A name no other test has used: the memory transport keeps its exchanges for the life of the process."""
    return f"shared{next(_names)}"


def drained(connection: kombu.Connection, *queues: kombu.Queue, no_ack: bool = False) -> list[object]:
    """Consume until the queues are empty, acknowledging."""
    bodies: list[object] = []

    def take(body: object, message: kombu.Message) -> None:
        bodies.append(body)
        if not no_ack:
            message.ack()

    with connection.Consumer(list(queues), callbacks=[take], no_ack=no_ack):
        while True:
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                return bodies


def test_what_was_put_comes_out_in_order_and_once(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name, kombu.Exchange(name), name)
    producer = connection.Producer()
    for number in range(20):
        producer.publish({"number": number}, exchange=queue.exchange, routing_key=name, declare=[queue])
    assert drained(connection, queue) == [{"number": number} for number in range(20)]
    assert drained(connection, queue) == []


@pytest.mark.parametrize("no_ack", [True, False])
def test_consumers_with_and_without_acknowledgement(connection: kombu.Connection, name: str, no_ack: bool) -> None:
    queue = kombu.Queue(name)
    connection.Producer().publish("x", routing_key=name, declare=[queue])
    assert drained(connection, queue, no_ack=no_ack) == ["x"]
    assert queue(connection.default_channel).queue_declare(passive=True).message_count == 0


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"text": "Grüße \x00 \U0001f514", "numbers": [1, 2.5, None]}, {}),
        ("plain", {"content_type": "text/plain", "content_encoding": "utf-8"}),
        (b"\x00\xff\xfe", {"content_type": "application/data", "content_encoding": "binary"}),
        ({"long": "x" * 300_000}, {"compression": "zlib"}),
        (b"", {"content_type": "application/data", "content_encoding": "binary"}),
    ],
)
def test_bodies_come_back_as_they_were(connection: kombu.Connection, name: str, body: object, options: dict[str, str]) -> None:
    queue = kombu.Queue(name)
    connection.Producer().publish(body, routing_key=name, declare=[queue], headers={"a": [1, {"b": None}]}, **options)
    message = queue(connection.default_channel).get()
    assert body in (message.payload, message.body)
    assert message.headers["a"] == [1, {"b": None}]
    message.ack()


def test_direct_exchange_routes_by_key(connection: kombu.Connection, name: str) -> None:
    exchange = kombu.Exchange(name, type="direct")
    one, two = (kombu.Queue(f"{name}.{key}", exchange, key) for key in ("one", "two"))
    both = kombu.Queue(f"{name}.both", exchange, "one", bindings=[])
    both.bindings = {kombu.binding(exchange, "one"), kombu.binding(exchange, "two")}
    producer = connection.Producer(exchange=exchange)
    for queue in (one, two, both):
        queue(connection.default_channel).declare()
    producer.publish(1, routing_key="one")
    producer.publish(2, routing_key="two")
    producer.publish(3, routing_key="three")
    assert drained(connection, one) == [1]
    assert drained(connection, two) == [2]
    assert drained(connection, both) == [1, 2]


def test_topic_exchange_routes_by_pattern(connection: kombu.Connection, name: str) -> None:
    exchange = kombu.Exchange(name, type="topic")
    patterns = {"all": "#", "tasks": "task.*", "failed": "*.failed", "deep": "task.#"}
    queues = {key: kombu.Queue(f"{name}.{key}", exchange, pattern) for key, pattern in patterns.items()}
    for queue in queues.values():
        queue(connection.default_channel).declare()
    producer = connection.Producer(exchange=exchange)
    for key in ("task.failed", "task.sent", "worker.failed", "task.a.b"):
        producer.publish(key, routing_key=key)
    assert drained(connection, queues["all"]) == ["task.failed", "task.sent", "worker.failed", "task.a.b"]
    assert drained(connection, queues["tasks"]) == ["task.failed", "task.sent"]
    assert drained(connection, queues["failed"]) == ["task.failed", "worker.failed"]
    assert drained(connection, queues["deep"]) == ["task.failed", "task.sent", "task.a.b"]


def test_fanout_exchange_reaches_every_queue_once(connection: kombu.Connection, name: str) -> None:
    exchange = kombu.Exchange(name, type="fanout")
    queues = [kombu.Queue(f"{name}.{number}", exchange) for number in range(3)]
    for queue in queues:
        queue(connection.default_channel).declare()
    connection.Producer(exchange=exchange).publish("to all", routing_key="whatever")
    assert [drained(connection, queue) for queue in queues] == [["to all"]] * 3


def test_unbound_queue_gets_nothing_more(connection: kombu.Connection, name: str) -> None:
    exchange = kombu.Exchange(name)
    queue = kombu.Queue(name, exchange, "key")(connection.default_channel)
    queue.declare()
    queue.unbind_from(exchange, "key")
    connection.Producer(exchange=exchange).publish("x", routing_key="key")
    assert queue.get() is None


def test_exchange_cannot_change_its_type(connection: kombu.Connection, name: str) -> None:
    kombu.Exchange(name, type="topic")(connection.default_channel).declare()
    with pytest.raises(NotEquivalentError):
        kombu.Exchange(name, type="direct")(connection.default_channel).declare()


def test_passive_declarations_find_only_what_is_there(connection: kombu.Connection, name: str) -> None:
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        connection.default_channel.queue_declare(name, passive=True)
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        connection.default_channel.exchange_declare(name, passive=True)
    connection.default_channel.queue_declare(name)
    connection.default_channel.exchange_declare(name)
    assert connection.default_channel.queue_declare(name, passive=True).queue == name
    connection.default_channel.exchange_declare(name, passive=True)


def test_size_purge_and_delete(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name, kombu.Exchange(name), name)(connection.default_channel)
    queue.declare()
    producer = connection.Producer(exchange=queue.exchange)
    for number in range(3):
        producer.publish(number, routing_key=name)
    assert connection.default_channel.queue_declare(name, passive=True).message_count == 3
    assert queue.purge() == 3
    assert connection.default_channel.queue_declare(name, passive=True).message_count == 0
    producer.publish("again", routing_key=name)
    queue.delete(if_empty=True)
    assert connection.default_channel.queue_declare(name, passive=True).message_count == 1
    queue.delete()
    with pytest.raises(ChannelError, match="NOT_FOUND"):
        connection.default_channel.queue_declare(name, passive=True)


def test_prefetch_count_bounds_what_is_handed_out(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name)
    producer = connection.Producer()
    for number in range(5):
        producer.publish(number, routing_key=name, declare=[queue])
    held: list[kombu.Message] = []
    consumer = connection.Consumer([queue], on_message=held.append, prefetch_count=2)
    consumer.qos(prefetch_count=2)
    with consumer:
        for _ in range(2):
            connection.drain_events(timeout=1)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        held[0].ack()
        connection.drain_events(timeout=1)
        assert [message.payload for message in held] == [0, 1, 2]
        for message in held[1:]:
            message.ack()


def test_rejected_message_is_gone(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name)(connection.default_channel)
    connection.Producer().publish("bad", routing_key=name, declare=[queue])
    queue.get().reject()
    assert queue.get() is None


def test_requeued_message_comes_again(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name, kombu.Exchange(name), name)(connection.default_channel)
    connection.Producer(exchange=queue.exchange).publish("again", routing_key=name, declare=[queue])
    queue.get().requeue()
    message = queue.get()
    assert message.payload == "again"
    message.ack()
    assert queue.get() is None


def test_simple_queue(connection: kombu.Connection, name: str) -> None:
    with connection.SimpleQueue(name) as queue:
        queue.put({"a": 1})
        assert queue.qsize() == 1
        message = queue.get(timeout=1)
        assert message.payload == {"a": 1}
        message.ack()
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.05)


def test_two_channels_of_a_connection_consume_side_by_side(connection: kombu.Connection, name: str) -> None:
    seen: dict[str, list[object]] = {"one": [], "two": []}
    channels = {key: connection.channel() for key in seen}
    consumers = [
        kombu.Consumer(channels[key], [kombu.Queue(f"{name}.{key}")], on_message=lambda m, key=key: taken(key, m)) for key in seen
    ]

    def taken(key: str, message: kombu.Message) -> None:
        seen[key].append(message.payload)
        message.ack()

    producer = connection.Producer()
    for consumer in consumers:
        consumer.consume()
    for key in seen:
        producer.publish(key, routing_key=f"{name}.{key}")
    for _ in seen:
        connection.drain_events(timeout=1)
    assert seen == {"one": ["one"], "two": ["two"]}
    channels["one"].close()
    producer.publish("later", routing_key=f"{name}.two")
    connection.drain_events(timeout=1)
    assert seen["two"] == ["two", "later"]


def test_batch_publishes_every_message(connection: kombu.Connection, name: str) -> None:
    queue = kombu.Queue(name)
    producer = connection.Producer()
    queue(connection.default_channel).declare()
    with producer.batch(max_size=4):
        for number in range(10):
            producer.publish(number, routing_key=name)
    assert drained(connection, queue) == list(range(10))


def test_drain_events_times_out(connection: kombu.Connection, name: str) -> None:
    with connection.Consumer([kombu.Queue(name)], on_message=print):
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=timeout)
