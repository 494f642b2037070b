"""Messages from a worker's event loop: nothing that is there waits for the timer, which looks for what nobody rings for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu
import pytest
from kombu.asynchronous import Hub

from pipeline.queue.redis import transport
from pipeline.queue.redis.rota import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Worker:
    """A connection on an event loop of its own, whose timer does not come again."""

    def __init__(self, connection: kombu.Connection, *queues: str) -> None:
        self.hub = Hub()
        self.held: list[Any] = []
        self.got: list[Any] = []
        self.seen: Callable[[], None] = lambda: None
        self.queue = kombu.Queue(queues[0] if queues else "q")
        self.consumer = connection.Consumer([self.queue, *map(kombu.Queue, queues[1:])], on_message=self._take)
        self.consumer.consume()
        connection.transport.register_with_event_loop(connection.connection, self.hub)

    def _take(self, message: Any) -> None:
        self.got.append(message.payload)
        self.held.append(message)
        self.seen()

    def until(self, count: int) -> None:
        while len(self.got) < count:
            self.hub.run_once()


@pytest.fixture(autouse=True)
def _rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAUSE", 3600)


@pytest.fixture
def sender(server: Any, connect: Callable[[str], kombu.Connection]) -> kombu.Connection:
    return connect(server.url())


@pytest.fixture
def worker(server: Any, connect: Callable[[str], kombu.Connection]) -> Iterator[Worker]:
    made = Worker(connect(server.url()))
    yield made
    made.hub.close()


def put(connection: kombu.Connection, *bodies: object) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key="q")


def test_all_that_was_there_comes(sender: kombu.Connection, worker: Worker) -> None:
    put(sender, *range(3 * transport.BATCH))
    worker.until(3 * transport.BATCH)
    assert worker.got == list(range(3 * transport.BATCH))


def test_what_is_published_rings(sender: kombu.Connection, worker: Worker) -> None:
    worker.hub.run_once()
    for number in range(5):
        put(sender, number)
        worker.until(number + 1)
    assert worker.got == list(range(5))


def test_a_bell_that_was_cut_rings_again(sender: kombu.Connection, worker: Worker, server: Any) -> None:
    for number in range(3):
        put(sender, number)
        worker.until(number + 1)
        server.client.client_kill_filter(_type="pubsub")
        while not server.client.pubsub_numsub("siftbell:queue:bell:q")[0][1]:
            worker.hub.run_once()
    assert worker.got == list(range(3))


def test_what_is_acknowledged_makes_room(sender: kombu.Connection, worker: Worker) -> None:
    worker.consumer.qos(prefetch_count=2)
    put(sender, *range(6))
    for count in (2, 4, 6):
        worker.until(count)
        assert len(worker.got) == count
        for message in worker.held:
            message.ack()
        worker.held.clear()


def test_what_is_done_is_told_with_the_next_claim_or_soon(sender: kombu.Connection, worker: Worker, server: Any) -> None:
    for count in (1, 2, 3):
        put(sender, count)
        worker.until(count)
        assert server.claimed() == 1
        worker.held.pop().ack()
    while server.claimed():
        worker.hub.run_once()
    assert server.ready() == 0


def test_a_queue_that_is_taken_up_again_is_asked_at_once(sender: kombu.Connection, worker: Worker) -> None:
    put(sender, 0)
    worker.until(1)
    worker.consumer.cancel_by_queue("q")
    put(sender, 1)
    while len(worker.hub.readers) and worker.hub.poller.poll(0):  # the bell finds nobody
        worker.hub.run_once()
    worker.consumer.add_queue(worker.queue)
    worker.consumer.consume()
    worker.until(2)
    assert worker.got == [0, 1]


def test_what_was_taken_for_a_queue_that_was_left_goes_back_in_order(
    sender: kombu.Connection, worker: Worker, server: Any
) -> None:
    """And as it was: taken for delivered before, each of its starts would be counted in the store."""
    put(sender, *range(transport.BATCH))
    worker.seen = lambda: worker.consumer.cancel_by_queue("q")
    worker.until(1)
    assert (server.ready(), server.claimed()) == (transport.BATCH - 1, 1)
    worker.seen = lambda: None
    worker.consumer.add_queue(worker.queue)
    worker.consumer.consume()
    worker.until(transport.BATCH)
    assert worker.got == list(range(transport.BATCH))
    assert not any(message.delivery_info["redelivered"] for message in worker.held)


MANY = [f"many{number:03d}" for number in range(3 * AT_ONCE)]


@pytest.mark.parametrize("first", ["messages", "consumers"])
def test_of_many_queues_each_message_comes_without_the_timer(
    server: Any, connect: Callable[[str], kombu.Connection], sender: kombu.Connection, first: str
) -> None:
    def fill() -> None:
        for name in MANY:
            sender.Producer().publish(name, routing_key=name)

    if first == "messages":
        fill()
    worker = Worker(connect(server.url()), *MANY)
    if first == "consumers":
        fill()
    worker.until(len(MANY))
    assert sorted(worker.got) == MANY
    worker.hub.close()


def test_of_many_queues_what_rang_no_bell_is_found_by_the_polls(
    server: Any, connect: Callable[[str], kombu.Connection], sender: kombu.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PAUSE", 0.001)
    worker = Worker(connect(server.url()), *MANY)
    for name in MANY:
        sender.Producer().publish(name, routing_key=name)
    worker.until(len(MANY))
    for message in worker.held:
        message.requeue()
    worker.until(2 * len(MANY))
    worker.hub.close()
