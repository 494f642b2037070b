"""A consumer with a rate is called no more often than that, by all workers together, and hardly less often."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import Field

from pipeline import Config, Consumer, HttpConsumer, HttpRequest, NoOptions, TemporaryError
from pipeline.engine import pace
from pipeline.engine.clock import Clock
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.routes import delivery
from pipeline.engine.runner import Runner
from pipeline.memory import open_memory
from pipeline.spec.model import Configuration
from pipeline.store import Store, Why
from pipeline.units import parse_rate


class Sink:
    """An HTTP server that notes when it was asked."""

    def __init__(self):
        self.times = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                sink.times.append(time.monotonic())
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # of the 5 that are usual, what four workers open at once can be lost

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def most_within(self, seconds):
        times = sorted(self.times)
        return max(sum(start <= other < start + seconds for other in times) for start in times)


class PostConfig(Config):
    """Options."""

    url: str = Field(description="Where to.")


class Post(HttpConsumer[PostConfig]):
    """Posts the title."""

    def request(self, message):
        return HttpRequest(self.config.url, message.title.encode())


class SharedQueue(queue.Queue):
    """A broker for threads."""

    largest = 10**9

    def publish(self, batches):
        for batch in batches:
            self.put(batch)


@pytest.mark.parametrize("place", ["sqlite", "redis"])
def test_workers_together_keep_to_the_rate_and_use_it(request, tmp_path, consumer, spec, message, place):
    count, rate = 300, 50
    url = f"sqlite:///{tmp_path / 'store.db'}"
    memory_url = request.getfixturevalue("require_redis") if place == "redis" else url
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        setup = stack.enter_context(closing(Store(url)))
        setup.migrate()
        config = PostConfig(url=f"http://127.0.0.1:{sink.server.server_port}/")
        label = f"post-{tmp_path.name}-{time.time_ns()}"
        step = consumer(Post, label=label, config=config, rate=parse_rate(f"{rate}/s"))
        configuration = Configuration({"toy": spec(consumers=[step])})
        shared = SharedQueue()
        ended = threading.Event()

        def runner():
            store = stack.enter_context(closing(Store(url)))
            memory = stack.enter_context(closing(open_memory(memory_url)))
            pipelines = stack.enter_context(closing(Pipelines(configuration)))
            return Runner(pipelines, store, memory, shared)

        def work(mine):
            while not ended.is_set():
                try:
                    mine.run(shared.get(timeout=0.05))
                except queue.Empty:
                    continue

        clock = Clock(runner(), owner="test", retention=timedelta(days=1))
        threads = [threading.Thread(target=work, args=(runner(),)) for _ in range(4)]
        threads.append(threading.Thread(target=clock.run, args=(ended,)))
        for thread in threads:
            thread.start()
        try:
            shared.publish(delivery("toy", step, [message()], revision="r1"))
            while not sink.times:
                time.sleep(0.01)  # the first call imports the HTTP client
            for _ in range(count // 50):
                shared.publish(delivery("toy", step, [message() for _ in range(50)], revision="r1"))
            end = time.monotonic() + 60
            while len(sink.times) <= count and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        assert len(sink.times) == count + 1
        took = max(sink.times) - min(sink.times)
        print(f"{place}: {count / took:.1f}/s of {rate}/s, at most {sink.most_within(1)} in a second")
        assert sink.most_within(1) <= rate * 1.5 + 15, "the rate, what half a second allows besides, and the way to the sink"
        assert took >= (count - rate / 2) / rate * 0.95
        assert took <= count / rate * 2, "generous: a busy machine"


@pytest.fixture
def no_patience(monkeypatch):
    """Nobody waits in the worker, where time is real."""
    monkeypatch.setattr(pace, "PATIENCE", timedelta(0))
    monkeypatch.setattr(pace, "EARLY", timedelta(0))


class Counts(Consumer[NoOptions]):
    """Counts its calls, or fails."""

    got: list
    error: Exception | None

    def consume(self, message):
        if type(self).error is not None:
            raise type(self).error
        type(self).got.append(message.id)


@pytest.fixture
def counts():
    return type("Counts", (Counts,), {"got": [], "error": None})


def test_what_has_to_wait_longer_waits_in_the_store_in_order_and_is_no_failure(engine, consumer, counts, message, no_patience):
    run = engine(consumers=[consumer(counts, label="counts", rate=parse_rate("1/s"), concurrency=1)])
    messages = [message() for _ in range(20)]
    run.send(*messages)
    run.work()
    assert len(counts.got) == 1
    (record,) = run.store.history(messages[-1].id)
    assert (record.outcome, record.attempt, record.since) == ("held", 0, None)
    assert record.reason == "not tried: its turn at a rate of 1/s comes at about 2026-03-01 12:00:18 UTC"
    assert run.store.held_counts() == {("toy", "counts", Why.RETRY): 19}
    for _ in range(25):
        run.later(seconds=1)
    assert counts.got == [m.id for m in messages]


def test_those_that_wait_go_before_newcomers(engine, consumer, counts, message, no_patience):
    run = engine(consumers=[consumer(counts, label="counts", rate=parse_rate("1/s"), concurrency=1)])
    early, late = [message() for _ in range(10)], [message() for _ in range(10)]
    run.send(*early)
    run.work()
    for one in late:
        run.later(milliseconds=500)
        run.send(one)
        run.work()
    for _ in range(30):
        run.later(seconds=1)
    assert counts.got == [m.id for m in (*early, *late)]


def test_a_second_attempt_takes_a_turn_too(engine, consumer, counts, message, no_patience):
    run = engine(consumers=[consumer(counts, label="counts", rate=parse_rate("1/m"), concurrency=1)])
    counts.error = TemporaryError("busy", retry_after=1)
    one = message()
    run.send(one)
    run.work()
    counts.error = None
    run.later(seconds=30)
    assert counts.got == []
    (record,) = run.store.history(one.id)
    assert (record.attempt, record.since) == (1, datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    run.later(seconds=31)
    assert counts.got == [one.id]
