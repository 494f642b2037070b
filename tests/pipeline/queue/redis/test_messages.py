"""One process and a Redis: what goes in comes out, in which order, how often, and what is no message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import kombu
import pytest
from kombu.exceptions import BatchPublishError

from pipeline.queue import redis

if TYPE_CHECKING:
    from collections.abc import Callable

Connect = "Callable[[str], kombu.Connection]"


def put(connection: kombu.Connection, *bodies: object, queue: str = "q", **options: Any) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key=queue, **options)


def consume(connection: kombu.Connection, count: int, *queues: str) -> list[kombu.Message]:
    """Take and acknowledge as many messages."""
    messages: list[kombu.Message] = []

    def take(message: kombu.Message) -> None:
        messages.append(message)
        message.ack()

    with connection.Consumer([kombu.Queue(name) for name in queues or ("q",)], on_message=take):
        while len(messages) < count:
            connection.drain_events(timeout=30)
    return messages


def get(connection: kombu.Connection, queue: str = "q") -> Any:
    return kombu.Queue(queue)(connection.default_channel).get()


@pytest.fixture
def connection(server: Any, connect: Callable[[str], kombu.Connection]) -> kombu.Connection:
    return connect(server.url())


def test_what_was_put_comes_out_in_order_and_once(connection: kombu.Connection, server: Any) -> None:
    put(connection, *range(50))
    assert [message.payload for message in consume(connection, 50)] == list(range(50))
    with connection.Consumer([kombu.Queue("q")], on_message=print), pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.05)
    assert (server.ready(), server.claimed(), server.owners()) == (0, 0, 0)


def test_a_batch_is_queued_as_a_whole_or_not_at_all(connection: kombu.Connection, server: Any) -> None:
    producer = connection.Producer()
    with producer.batch(max_size=10):
        for number in range(10):
            assert server.ready() == 0
            producer.publish(number, routing_key="q")
    assert [message.payload for message in consume(connection, 10)] == list(range(10))

    def publish() -> None:
        with producer.batch():
            producer.publish("one", routing_key="q")
            producer.publish("other", routing_key="full")

    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BatchPublishError, match="a batch of 2 messages may not be queued"):
            publish()
    finally:
        server.client.config_set("maxmemory", 0)
    assert (server.ready(), server.ready("full")) == (0, 0)


def test_queues_take_turns(connection: kombu.Connection) -> None:
    for queue in ("a", "b", "c"):
        put(connection, *([queue] * 30), queue=queue)
    got = [message.payload for message in consume(connection, 9, "a", "b", "c")]
    assert {queue: got.count(queue) for queue in "abc"} == {"a": 3, "b": 3, "c": 3}
    claimed = connection.transport.claims().claim(["a", "b", "c"], 12)
    assert [one.queue for one in claimed] == ["a", "b", "c"] * 4


def test_a_message_with_a_higher_priority_goes_first(connection: kombu.Connection) -> None:
    for priority in (9, 3, 0, 5):
        put(connection, priority, priority=priority)
    assert [message.payload for message in consume(connection, 4)] == [0, 3, 5, 9]


def test_a_plain_kombu_producer_may_publish(connection: kombu.Connection, server: Any) -> None:
    with kombu.Connection(f"redis://127.0.0.1:{server.port}/0", transport_options={"global_keyprefix": "siftbell:"}) as plain:
        plain.Producer().publish({"from": "kombu"}, routing_key="q", headers={"x": [], "y": {}})
        [message] = consume(connection, 1)
        assert (message.payload, message.headers["x"], message.headers["y"]) == ({"from": "kombu"}, [], {})


@pytest.mark.parametrize("body", ['{"a": 1}', b"\x00\xff\n\n", b""])
def test_a_body_lies_in_redis_as_it_is(connection: kombu.Connection, server: Any, body: str | bytes) -> None:
    connection.Producer().publish(body, routing_key="q", content_type="x/y", content_encoding="utf-8")
    written = body.encode() if isinstance(body, str) else body
    assert server.client.lindex("siftbell:q", 0).partition(b"\n")[2] == written
    for times in range(3):
        message = get(connection)
        assert (message.body, message.headers["x-delivery-count"], message.content_type) == (written, times, "x/y")
        message.requeue()


def test_a_message_of_a_former_version_is_read(connection: kombu.Connection, server: Any) -> None:
    for before in (b"{", b'{"siftbell-failures":2,'):
        rest = b'"body":"[1]","content-type":"application/json","content-encoding":"utf-8","headers":{},"properties":{}}'
        server.client.lpush("siftbell:q", before + rest)
    messages = [get(connection) for _ in range(2)]
    assert [message.payload for message in messages] == [[1], [1]]
    assert [message.headers["x-delivery-count"] for message in messages] == [0, 2]


def test_a_message_of_another_process_is_seen_at_rest(connection: kombu.Connection, server: Any) -> None:
    """Without the bell, that is by polling: nobody rings for what a foreign producer puts there."""
    got: list[Any] = []
    with connection.Consumer(
        [kombu.Queue("q"), kombu.Queue("other")], on_message=lambda message: (got.append(message), message.ack())
    ):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.3)
        envelope = {"body": "1", "content-type": "application/json", "content-encoding": "utf-8", "headers": {}, "properties": {}}
        server.client.lpush("siftbell:other", json.dumps(envelope))
        connection.drain_events(timeout=20)
    assert [message.payload for message in got] == [1]


def test_no_more_are_handed_out_than_the_prefetch_count(connection: kombu.Connection, server: Any) -> None:
    put(connection, *range(5))
    held: list[kombu.Message] = []
    with connection.Consumer([kombu.Queue("q")], on_message=held.append, prefetch_count=2):
        for _ in range(2):
            connection.drain_events(timeout=10)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        assert (len(held), server.claimed(), server.ready()) == (2, 2, 3)
        held[0].ack()
        connection.drain_events(timeout=10)
        assert len(held) == 3


def test_what_is_requeued_takes_its_old_place_and_is_counted(connection: kombu.Connection) -> None:
    put(connection, *range(3), headers={"deep": {"empty": [], "large": 12345678901234567890}})
    for times in range(3):
        message = get(connection)
        assert message.payload == 0
        assert (message.headers["x-delivery-count"], message.delivery_info["redelivered"]) == (times, times > 0)
        assert message.headers["deep"] == {"empty": [], "large": 12345678901234567890}
        message.requeue()
    assert [message.payload for message in consume(connection, 3)] == [0, 1, 2]


def test_an_orderly_end_hands_back_in_order_and_counts_nothing(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    first, second = connect(server.url()), connect(server.url())
    put(first, *range(6))
    assert [get(first).payload for _ in range(4)] == [0, 1, 2, 3]
    first.release()
    assert (server.ready(), server.claimed(), server.owners()) == (6, 0, 0)
    messages = consume(second, 6)
    assert [message.payload for message in messages] == list(range(6))
    assert [message.delivery_info["redelivered"] for message in messages] == [True] * 4 + [False] * 2
    assert {message.headers["x-delivery-count"] for message in messages} == {0}


FOREIGN = [
    b'{"alert": "disk full"}',
    b"no JSON \xff",
    b"[1, 2]",
    b"{}",
    b'{"properties": {"body_encoding": "x"}, "body": "y"}',
    b'{"properties": 1}\nbody',
    b"no head\nbody",
    b"[" * 99999,
]


@pytest.mark.parametrize("item", FOREIGN, ids=["object", "bytes", "list", "empty", "encoding", "head", "body", "deep"])
def test_trap_a_foreign_document_is_set_aside_and_the_rest_goes_on(
    connection: kombu.Connection, server: Any, item: bytes
) -> None:
    """kombu's own transport loses it and reconnects for ever."""
    put(connection, "before")
    server.client.lpush("siftbell:q", item)
    put(connection, "after")
    assert [message.payload for message in consume(connection, 2)] == ["before", "after"]
    assert server.client.lrange("siftbell:queue:unreadable", 0, -1) == [item]
    assert (server.ready(), server.claimed()) == (0, 0)


def test_what_is_rejected_is_kept(connection: kombu.Connection, server: Any) -> None:
    put(connection, ["unwanted"])
    get(connection).reject()
    [item] = server.client.lrange("siftbell:queue:unreadable", 0, -1)
    assert item.endswith(b'\n["unwanted"]')
    assert server.claimed() == 0


def test_a_key_that_is_no_list_stops_no_other_queue(connection: kombu.Connection, server: Any) -> None:
    server.client.set("siftbell:wrong", "x")
    put(connection, "x")
    assert [message.payload for message in consume(connection, 1, "wrong", "q")] == ["x"]


def test_two_prefixes_on_one_database_know_nothing_of_each_other(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    one, other = connect(server.url(prefix="one:")), connect(server.url(prefix="other:"))
    put(one, "for one")
    put(other, "for the other")
    assert get(one).payload == "for one"
    assert get(other).payload == "for the other"
    assert {key.partition(b":")[0] for key in server.client.keys("*")} == {b"one", b"other"}


def test_a_fanout_exchange_reaches_who_listens(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    exchange = kombu.Exchange("news", type="fanout")
    got: list[object] = []
    listeners = [connect(server.url()) for _ in range(2)]
    for number, listener in enumerate(listeners):
        listener.Consumer(
            [kombu.Queue(f"n{number}", exchange)], callbacks=[lambda body, _: got.append(body)], no_ack=True
        ).consume()
    connect(server.url()).Producer(exchange=exchange).publish("hello")
    for listener in listeners:
        listener.drain_events(timeout=10)
    assert got == ["hello", "hello"]


def test_a_named_exchange_is_known_to_other_connections(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    queue = kombu.Queue("bound", kombu.Exchange("direct", type="direct"), routing_key="key")
    one, other = connect(server.url()), connect(server.url())
    queue(one.default_channel).declare()
    other.Producer(exchange=queue.exchange).publish("x", routing_key="key")
    assert get(one, "bound").payload == "x"
    put(one, "y", queue="bound")
    channel = one.default_channel
    assert channel.queue_declare("bound", passive=True).message_count == 1
    assert channel.queue_purge("bound") == 1
    channel.queue_delete("bound")
    assert server.client.keys("siftbell:queue:bindings:*") == []


def test_a_url_names_one_server_and_shows_no_password() -> None:
    assert redis.url("valkeys://user:secret@host:1/2") == "siftbell-valkeys://user:secret@host:1/2"
    assert redis.url("redis+socket:///run/redis.sock?virtual_host=2") == "siftbell-redis-socket:///run/redis.sock?virtual_host=2"
    settings = redis.read_settings(redis.url("valkeys://user:secret@host:1/2?prefix=a:&ssl_cert_reqs=none"), {"beat": 3})
    assert settings.url == "rediss://user:secret@host:1/2?ssl_cert_reqs=none"
    assert (settings.prefix, settings.beat) == ("a:", 3)
    assert settings.place() == "rediss://host:1/2"
    assert redis.read_settings(redis.url("redis+socket:///s?virtual_host=2"), {}).url == "unix:///s?db=2"
    for several in ("redis://a;redis://b", "redis://a:1,b:2/0"):
        with pytest.raises(ValueError, match="one Redis server is needed"):
            redis.url(several)
    with pytest.raises(ValueError, match="a Redis URL begins with redis://, rediss://"):
        redis.url("sentinel://a")
