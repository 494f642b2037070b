"""What our SQLite transport promises beyond kombu's other transports: order, fairness, leases, counts, and ends."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import kombu
import pytest
from kombu.asynchronous import Hub
from kombu.exceptions import BatchPublishError, ChannelError

from pipeline.queue import sqlite
from pipeline.queue.sqlite import transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def connection(path: Path) -> Iterator[kombu.Connection]:
    with connect(path) as connection:
        yield connection


def connect(path: Path, **options: object) -> kombu.Connection:
    options = {"path": str(path), "visibility_timeout": 300} | options
    return kombu.Connection(transport="pipeline.queue.sqlite:Transport", transport_options=options)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def put(connection: kombu.Connection, queue: str, *bodies: object, **options: object) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(body, routing_key=queue, **options)


def get(connection: kombu.Connection, queue: str, **options: object) -> kombu.Message:
    return kombu.Queue(queue)(connection.default_channel).get(**options)


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as handle:
        return handle.execute(statement).fetchall()


def clear_up(connection: kombu.Connection) -> bool:
    return connection.transport.opened().clear_up()


# Order


def test_higher_priority_first_then_older_first(connection: kombu.Connection) -> None:
    for number, priority in enumerate([0, 9, 5, 9, 0, 42, -1]):
        put(connection, "q", (number, priority), priority=priority)
    got = []
    with connection.Consumer([kombu.Queue("q")], on_message=lambda m: (got.append(m.payload[0]), m.ack())):
        while len(got) < 7:
            connection.drain_events(timeout=1)
    assert got == [1, 3, 5, 2, 0, 4, 6]


def test_requeued_message_keeps_its_place(connection: kombu.Connection) -> None:
    put(connection, "q", "first", "second")
    get(connection, "q").requeue()
    assert get(connection, "q").payload == "first"


def test_long_queue_does_not_starve_short_ones(connection: kombu.Connection) -> None:
    put(connection, "a-long", *range(200))
    put(connection, "z-long", *range(200))
    put(connection, "m-short", "short")
    got: list[object] = []
    queues = [kombu.Queue(name) for name in ("a-long", "m-short", "z-long")]
    with connection.Consumer(queues, on_message=lambda m: got.append(m.payload)):
        for _ in range(3):
            connection.drain_events(timeout=1)
        assert sorted(map(str, got)) == ["0", "0", "short"]
        for _ in range(10):
            connection.drain_events(timeout=1)
    assert sorted(map(str, got[3:])) == sorted([str(number) for number in range(1, 6)] * 2)


def test_event_loop_shares_its_batch_among_the_queues(connection: kombu.Connection) -> None:
    put(connection, "a-long", *range(200))
    put(connection, "m-short", "short")
    got: list[object] = []
    with connection.Consumer([kombu.Queue("a-long"), kombu.Queue("m-short")], on_message=lambda m: got.append(m.payload)):
        assert connection.transport._poll(16) == 9
    assert got == [*range(8), "short"]


def test_prefetch_window_bounds_a_batch(connection: kombu.Connection) -> None:
    put(connection, "q", *range(50))
    held: list[kombu.Message] = []
    consumer = connection.Consumer([kombu.Queue("q")], on_message=held.append)
    consumer.qos(prefetch_count=5)
    with consumer:
        assert connection.transport._poll(16) == 5
        assert connection.transport._poll(16) == 0
        held[4].ack(multiple=True)
        assert connection.transport._poll(16) == 5
    assert [message.payload for message in held] == list(range(10))


def test_what_the_channel_holds(connection: kombu.Connection) -> None:
    put(connection, "q", "x", "y")
    channel = connection.default_channel
    channel.basic_qos(0, 1, False)
    assert channel.qos.can_consume()
    message = get(connection, "q")
    assert not channel.qos.can_consume()
    assert channel.qos.get(message.delivery_tag) is message
    assert channel._size("q") == 1


def test_two_channels_share_one_queue(connection: kombu.Connection) -> None:
    put(connection, "q", *range(4))
    got: dict[int, list[object]] = {0: [], 1: []}
    consumers = [
        kombu.Consumer(connection.channel(), [kombu.Queue("q")], on_message=lambda m, n=n: got[n].append(m.payload)) for n in got
    ]
    for consumer in consumers:
        consumer.consume()
    for _ in range(4):
        connection.drain_events(timeout=1)
    assert got == {0: [0, 2], 1: [1, 3]}


def test_second_consumer_of_a_channel_takes_over_from_the_first(connection: kombu.Connection) -> None:
    got: list[str] = []
    first = connection.Consumer([kombu.Queue("q")], on_message=lambda m: (got.append("first"), m.ack()))
    second = connection.Consumer([kombu.Queue("q")], on_message=lambda m: (got.append("second"), m.ack()))
    first.consume()
    second.consume()
    put(connection, "q", 1)
    connection.drain_events(timeout=1)
    first.cancel()
    put(connection, "q", 2)
    connection.drain_events(timeout=1)
    second.cancel()
    connection.default_channel.basic_cancel("never heard of")
    assert got == ["first", "second"]


# Counting deliveries


def test_first_delivery_counts_nothing(connection: kombu.Connection) -> None:
    put(connection, "q", "x", headers={"x-delivery-count": 7})
    message = get(connection, "q")
    assert message.headers["x-delivery-count"] == 0
    assert message.delivery_info == {"exchange": "", "routing_key": "q", "redelivered": False}


def test_refused_deliveries_are_counted(connection: kombu.Connection) -> None:
    put(connection, "q", "x")
    for times in range(4):
        message = get(connection, "q")
        assert (message.headers["x-delivery-count"], message.delivery_info["redelivered"]) == (times, times > 0)
        message.requeue()


def test_orderly_end_hands_back_without_counting(path: Path, connection: kombu.Connection) -> None:
    put(connection, "q", "channel", "connection", "recovered")
    with connect(path) as other:
        channel = other.channel()
        assert kombu.Queue("q")(channel).get().payload == "channel"
        assert get(other, "q").payload == "connection"
        channel.close()
    assert get(connection, "q").payload == "channel"
    connection.default_channel.basic_recover(requeue=True)
    messages = [get(connection, "q") for _ in range(3)]
    assert [message.payload for message in messages] == ["channel", "connection", "recovered"]
    assert [message.delivery_info["redelivered"] for message in messages] == [True, True, False]
    assert {message.headers["x-delivery-count"] for message in messages} == {0}


def test_what_a_failing_callback_left_over_goes_back_untouched(connection: kombu.Connection) -> None:
    put(connection, "q", *range(5))

    def fail(message: kombu.Message) -> None:
        raise LookupError(message.payload)

    with connection.Consumer([kombu.Queue("q")], on_message=fail), pytest.raises(LookupError):
        connection.transport._poll(transport.BATCH)
    messages = [get(connection, "q") for _ in range(4)]
    assert [message.payload for message in messages] == [1, 2, 3, 4]
    assert not any(message.delivery_info["redelivered"] for message in messages)


def test_what_a_cancelled_consumer_did_not_get_goes_back_untouched(connection: kombu.Connection) -> None:
    put(connection, "q", *range(5))
    got: list[object] = []
    consumer = connection.Consumer(
        [kombu.Queue("q")], no_ack=True, on_message=lambda m: (got.append(m.payload), consumer.cancel())
    )
    consumer.consume()
    assert connection.transport._poll(transport.BATCH) == 1
    assert got == [0]
    assert connection.default_channel.queue_declare("q", passive=True).message_count == 4
    assert get(connection, "q", no_ack=True).payload == 1
    assert not get(connection, "q").delivery_info["redelivered"]


# Settling


def test_settled_by_another_thread(connection: kombu.Connection) -> None:
    put(connection, "q", *range(40))
    held: list[kombu.Message] = []
    consumer = connection.Consumer([kombu.Queue("q")], on_message=held.append)
    consumer.qos(prefetch_count=4)
    acked: list[object] = []

    def work() -> None:
        while len(acked) < 40:
            while held:
                message = held.pop()
                message.ack()
                acked.append(message.payload)
            time.sleep(0)

    worker = threading.Thread(target=work)
    worker.start()
    with consumer:
        while len(acked) < 40:
            try:
                connection.drain_events(timeout=0.05)
            except TimeoutError:
                continue
    worker.join()
    assert sorted(acked) == list(range(40))
    assert rows(path_of(connection), "SELECT count(*) FROM messages") == [(0,)]


def path_of(connection: kombu.Connection) -> Path:
    return connection.transport.settings.path


def test_publishing_from_many_threads(connection: kombu.Connection, path: Path) -> None:
    threads = [threading.Thread(target=put, args=(connection, "q", *range(25))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert connection.default_channel.queue_declare("q", passive=True).message_count == 200


def test_acknowledging_after_the_channel_closed_is_refused(connection: kombu.Connection) -> None:
    put(connection, "q", "x", "y")
    channel = connection.channel()
    message = kombu.Queue("q")(channel).get()
    again = get(connection, "q")
    again.channel.basic_ack(again.delivery_tag)
    with pytest.raises(sqlite.QueueFileError, match="no longer held"):
        again.ack()
    channel.close()
    with pytest.raises(sqlite.QueueFileError, match="closed"):
        message.ack()
    assert get(connection, "q").payload == "x"


def test_deleted_queue_takes_its_claimed_messages_along(connection: kombu.Connection, path: Path) -> None:
    put(connection, "q", "held", "ready")
    message = get(connection, "q")
    assert connection.default_channel.queue_delete("q") == 1
    message.ack()
    assert rows(path, "SELECT count(*) FROM messages") == [(0,)]


def test_consumed_queue_is_not_deleted_when_unused_is_asked_for(connection: kombu.Connection) -> None:
    with connection.Consumer([kombu.Queue("q")], on_message=print):
        connection.default_channel.queue_delete("q", if_unused=True)
        assert connection.default_channel.queue_declare("q", passive=True).queue == "q"
    connection.default_channel.queue_delete("q", if_unused=True)
    with pytest.raises(ChannelError):
        connection.default_channel.queue_declare("q", passive=True)


# Routing


def test_publishing_to_an_unknown_exchange_is_an_error(connection: kombu.Connection) -> None:
    with pytest.raises(ChannelError, match="no exchange 'nowhere'"):
        connection.default_channel.basic_publish(
            connection.default_channel.prepare_message("x"), exchange="nowhere", routing_key="q"
        )
    with pytest.raises(ChannelError, match="no exchange 'nowhere'"):
        connection.default_channel.queue_bind("q", "nowhere", "key")


def test_exchange_of_an_unknown_type_is_an_error(connection: kombu.Connection) -> None:
    with pytest.raises(ChannelError, match="'headers' is not one of direct, topic, fanout"):
        connection.default_channel.exchange_declare("x", type="headers")


def test_message_that_no_queue_takes(path: Path, connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("x")
    producer = connection.Producer(exchange=exchange)
    producer.publish("dropped", routing_key="nobody")
    with pytest.raises(ChannelError, match="no queue takes 'nobody'"):
        producer.publish("wanted", routing_key="nobody", mandatory=True)
    with connect(path, deadletter_queue="dead") as other:
        other.Producer(exchange=exchange).publish("kept", routing_key="nobody")
    assert get(connection, "dead").payload == "kept"


def test_exchanges_and_bindings_are_shared_by_all_connections(path: Path, connection: kombu.Connection) -> None:
    kombu.Queue("q", kombu.Exchange("x", type="topic"), "a.#")(connection.default_channel).declare()
    with connect(path) as other:
        other.default_channel.basic_publish(other.default_channel.prepare_message("x"), exchange="x", routing_key="a.b")
        assert list(other.default_channel.list_bindings()) == [("q", "x", "a.#")]
        assert other.manager.get_bindings() == [{"destination": "q", "source": "x", "routing_key": "a.#"}]
        other.default_channel.exchange_delete("x")
    assert get(connection, "q") is not None
    assert list(connection.default_channel.list_bindings()) == []


def test_built_in_exchanges_need_no_declaration(connection: kombu.Connection) -> None:
    connection.default_channel.queue_bind("q", "amq.topic", "a.*")
    connection.default_channel.queue_bind("q", None, "direct")
    connection.default_channel.exchange_declare(None, "fanout", passive=True)
    for exchange, key in (("amq.topic", "a.b"), ("amq.direct", "direct"), ("amq.direct", "a.b")):
        message = connection.default_channel.prepare_message(exchange)
        connection.default_channel.basic_publish(message, exchange=exchange, routing_key=key)
    assert [get(connection, "q").body for _ in range(2)] == [b"amq.topic", b"amq.direct"]
    assert get(connection, "q") is None


# Ends


def test_expired_messages_are_not_delivered(connection: kombu.Connection, path: Path) -> None:
    put(connection, "q", "soon", expiration=0.001)
    put(connection, "q", "later", expiration=3600)
    until(lambda: rows(path, f"SELECT 1 FROM messages WHERE expires < {time.time()}"))
    message = get(connection, "q")
    assert message.payload == "later"
    assert get(connection, "q") is None


def test_messages_of_a_queue_with_a_lifetime_do_not_pile_up(connection: kombu.Connection, path: Path) -> None:
    queue = kombu.Queue("events", kombu.Exchange("ev", type="topic"), "#", message_ttl=0.001)
    queue(connection.default_channel).declare()
    connection.Producer(exchange=queue.exchange).publish("x", routing_key="a", expiration=60)
    assert rows(path, "SELECT count(*) FROM messages") == [(1,)]
    until(lambda: clear_up(connection))
    assert rows(path, "SELECT count(*) FROM messages") == [(0,)]


def test_exclusive_queue_ends_with_its_connection(connection: kombu.Connection, path: Path) -> None:
    exchange = kombu.Exchange("x", type="fanout")
    with connect(path) as other:
        queue = kombu.Queue("mine", exchange, exclusive=True)(other.default_channel)
        queue.declare()
        connection.Producer(exchange=exchange).publish("x", routing_key="")
        assert rows(path, "SELECT count(*) FROM messages") == [(1,)]
    for table in ("messages", "queues", "bindings", "owners"):
        assert rows(path, f"SELECT count(*) FROM {table}") == [(0,)], table


def test_auto_delete_queue_ends_with_its_last_consumer(connection: kombu.Connection, path: Path) -> None:
    queue = kombu.Queue("auto", auto_delete=True)
    with connect(path) as other:
        mine = connection.Consumer([queue], on_message=print)
        theirs = other.Consumer([queue], on_message=print)
        assert rows(path, "SELECT name FROM queues") == [("auto",)]
        mine.consume()
        theirs.consume()
        mine.cancel()
        assert rows(path, "SELECT name FROM queues") == [("auto",)]
    assert rows(path, "SELECT name FROM queues") == []


def test_queue_without_use_ends_after_its_time(connection: kombu.Connection, path: Path) -> None:
    queue = kombu.Queue("brief", expires=0.05)
    with connection.Consumer([queue], on_message=print):
        until(lambda: rows(path, f"SELECT 1 FROM queues WHERE used + unused_for < {time.time()}"))
        assert not clear_up(connection)
    until(lambda: clear_up(connection))
    assert rows(path, "SELECT name FROM queues") == []


# Batches


def test_batch_is_one_transaction(connection: kombu.Connection, path: Path) -> None:
    producer = connection.Producer()
    assert producer.supports_batch_publish
    with producer.batch(max_size=100) as batch:
        put_in(producer, 3)
        assert rows(path, "SELECT count(*) FROM messages") == [(0,)]
        batch.flush()
        assert rows(path, "SELECT count(*) FROM messages") == [(3,)]
        put_in(producer, 2)
    assert rows(path, "SELECT count(*) FROM messages") == [(5,)]


def put_in(producer: kombu.Producer, count: int) -> None:
    for number in range(count):
        producer.publish(number, routing_key="q")


def test_abandoned_batch_stores_nothing(connection: kombu.Connection, path: Path) -> None:
    producer = connection.Producer()

    def give_up() -> None:
        with producer.batch():
            put_in(producer, 3)
            raise LookupError

    with pytest.raises(LookupError):
        give_up()
    assert rows(path, "SELECT count(*) FROM messages") == [(0,)]


def test_failing_batch_says_so_and_stores_nothing(path: Path) -> None:
    with connect(path, busy_timeout=0.05) as connection, closing(sqlite3.connect(path)) as other:
        producer = connection.Producer()
        producer.publish("before", routing_key="q")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BatchPublishError, match="none of the batch's 3 messages was stored"), producer.batch():
            put_in(producer, 3)
        other.execute("ROLLBACK")
        assert rows(path, "SELECT count(*) FROM messages") == [(1,)]


# Polling


def test_idle_poll_costs_the_same_for_a_thousand_queues(connection: kombu.Connection) -> None:
    queues = [kombu.Queue(f"q{number}") for number in range(1000)]
    consumer = connection.Consumer(queues, on_message=lambda m: m.ack())
    consumer.consume()
    statements: list[str] = []
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0)
    connection.transport._cleared_up = time.monotonic()
    with connection.transport.opened().passing.reading() as handle:
        handle.set_trace_callback(statements.append)
    assert connection.transport._poll(transport.BATCH) == 0
    assert statements == ["PRAGMA data_version"]
    put(connection, "q777", "x")
    assert connection.transport._poll(transport.BATCH) == 1
    assert len(statements) < 20


def test_looking_for_ready_queues_and_claiming_use_the_index(connection: kombu.Connection) -> None:
    from pipeline.queue.sqlite import rows

    connection.connect()
    with connection.transport.opened().passing.reading() as handle:
        for statement, arguments in ((rows._READY, ()), (rows._CLAIM, (1, "q", 5))):
            plan = " / ".join(row[3] for row in handle.execute(f"EXPLAIN QUERY PLAN {statement}", arguments))
            assert "SCAN messages" not in plan.replace("SCAN messages USING COVERING INDEX messages_ready", "")
            assert "messages_ready" in plan
            assert "TEMP B-TREE" not in plan


def test_event_loop_delivers_and_stops(connection: kombu.Connection) -> None:
    hub = Hub()
    held: list[kombu.Message] = []
    consumer = connection.Consumer([kombu.Queue("q")], on_message=held.append)
    consumer.qos(prefetch_count=2)
    try:
        connection.register_with_event_loop(hub)
        with consumer:
            put(connection, "q", *range(5))
            until(lambda: hub.run_once() or len(held) == 2)
            held[0].ack()
            held[1].ack()
            until(lambda: hub.run_once() or len(held) == 4)
            connection.transport.unregister_from_event_loop(connection.connection, hub)
            held[2].ack()
            for _ in range(5):
                hub.run_once()
            assert [message.payload for message in held] == [0, 1, 2, 3]
    finally:
        hub.close()


def test_event_loop_outlives_a_closed_connection(connection: kombu.Connection) -> None:
    hub = Hub()
    try:
        connection.register_with_event_loop(hub)
        transport = connection.transport
        tick = hub.timer.queue[0].entry
        transport._loop = hub
        transport._blocked = True
        transport.stir()
        connection.release()
        assert tick.canceled
        for _ in range(3):
            hub.run_once()
        tick()
        transport._poll_once()
    finally:
        hub.close()


def test_waiting_consumer_is_woken_by_an_acknowledgement(path: Path) -> None:
    with connect(path, polling_interval=60) as connection:
        put(connection, "q", "one", "two")
        held: list[kombu.Message] = []
        consumer = connection.Consumer([kombu.Queue("q")], on_message=held.append)
        consumer.qos(prefetch_count=1)
        with consumer:
            connection.drain_events(timeout=1)
            timer = threading.Timer(0.2, held[0].ack)
            timer.start()
            connection.drain_events(timeout=30)
            timer.join()
        assert [message.payload for message in held] == ["one", "two"]


def test_driver_and_address(path: Path) -> None:
    sqlite.register()
    with kombu.Connection(f"{sqlite.url(path)}?synchronous=normal&busy_timeout=2") as connection:
        assert connection.as_uri() == f"siftbell-sqlite:///{path}"
        assert connection.transport.driver_version() == sqlite3.sqlite_version
        assert connection.transport.settings == sqlite.Settings(path, "normal", 2.0)
        assert not connection.connected
        connection.connect()
        assert connection.connected
        transport = connection.transport
    with pytest.raises(sqlite.QueueFileError, match="closed"):
        transport.opened()


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        ("siftbell-sqlite:///relative/queue.db", {}, "must be absolute"),
        (None, {}, "must be absolute"),
        ("siftbell-sqlite:////a/queue.db?sync=full", {}, "no option is called 'sync'"),
        (None, {"path": "/a/queue.db", "synchronous": "off"}, "synchronous must be full or normal"),
    ],
)
def test_wrong_settings_are_named(address: str | None, options: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sqlite.read_settings(address, options)


def test_address_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "a b%?#" / "queue.db"
    assert sqlite.read_settings(sqlite.url(path), {}).path == path
