"""The Celery edge without a worker: queues, settings, tasks and what is published, on real brokers."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from kombu.message import Message as KombuMessage
from pydantic import SecretStr

from pipeline import ConfigError, Message, TemporaryError
from pipeline.engine.batch import Batch, decode, encode
from pipeline.queue import app as module
from pipeline.queue import sqlite
from pipeline.queue.app import PerProcess, add_tasks, make_app, queue_names
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.queue.request import BatchRequest
from pipeline.queue.wire import headers
from pipeline.settings import Settings
from pipeline.spec import load


@pytest.fixture
def batch():
    message = Message(source="test", time=datetime(2026, 3, 1, tzinfo=UTC), title="ä")
    return Batch(job="process", queue=f"test-{uuid4()}", pipeline="toy", messages=[message])


@pytest.fixture
def app(tmp_path):
    made = make_app(broker(sqlite.url(tmp_path / "queue.db")))
    yield made
    made.close()


def test_queues_come_from_the_pipelines(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "name: a\nproducers: [http]\n"
        'filters:\n  - match: severity != "x"\n    queue: slow\n'
        "consumers:\n  - log\n  - file: {path: x}\n    as: archive\n"
    )
    assert queue_names(load([tmp_path])) == (["in", "slow"], ["out.archive", "out.log"])


def test_each_broker_has_its_settings():
    assert make_app(broker("amqp://127.0.0.1//")).conf.task_default_queue_type == "quorum"
    assert broker("amqp://127.0.0.1//").transport_options["confirm_publish"]
    assert broker("rediss://127.0.0.1/0").url == "siftbell-rediss://127.0.0.1/0"
    assert broker("sqs://").transport_options["settings"].visibility == 30
    assert make_app(broker("sqs://")).conf.siftbell_largest < make_app(broker("amqp://127.0.0.1//")).conf.siftbell_largest
    with pytest.raises(ConfigError, match="no broker is known for 'kafka://'; there are siftbell-sqlite"):
        broker("kafka://user:hunter2@host")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("pipeline.queue.brokers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'the broker needs: pip install "siftbell\[redis\]"'):
        broker("redis://127.0.0.1")


def test_no_password_of_a_broker_is_shown(app):
    found = broker("amqp://user:hunter2@127.0.0.1:1//")
    assert "hunter2" not in repr(found)
    queue = CeleryQueue(make_app(found))
    with pytest.raises(TemporaryError) as caught:
        queue.check()
    assert "hunter2" not in str(caught.value)
    queue.close()


def test_what_is_filtered_where_it_is_delivered_has_the_time_of_a_delivery(batch):
    process, there = (headers("1", batch.replace(queue=queue))["task"] for queue in ("in", "out.box"))
    assert (process, there) == ("siftbell.process", "siftbell.deliver")


@pytest.mark.parametrize("kind", ["sqlite", "redis", "rabbitmq"])
def test_what_is_published_is_on_the_queue(kind, tmp_path, request, batch):
    url = sqlite.url(tmp_path / "queue.db") if kind == "sqlite" else request.getfixturevalue(f"require_{kind}")
    queue = CeleryQueue(make_app(broker(url)))
    queue.check()
    second = batch.replace(job="deliver", step="x")
    queue.publish([batch, second])
    got = []
    with queue._app.connection_for_read() as connection:
        channel = connection.default_channel
        while len(got) < 2 and (found := channel.basic_get(batch.queue, no_ack=True)):
            message = found if isinstance(found, KombuMessage) else channel.message_to_python(found)
            got.append((message.headers["task"], decode(message.payload[0][0])))
        channel.queue_delete(batch.queue)
    assert got == [("siftbell.process", batch), ("siftbell.deliver", second)]
    queue.close()


def test_a_batch_may_go_back_to_its_queue_any_number_of_times(require_rabbitmq, batch):
    """A quorum queue of RabbitMQ 4 drops what was handed out 20 times, where it does not say otherwise."""
    found = broker(require_rabbitmq)
    app, queue = make_app(found, [batch.queue]), CeleryQueue(make_app(found))
    (declared,) = app.amqp.queues.values()
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        declared(channel).declare()
        queue.publish([batch])  # which declares it as well, and must do so with the same arguments
        for _ in range(25):
            taken = channel.basic_get(batch.queue)
            channel.basic_reject(taken.delivery_tag, requeue=True)
            while channel.queue_declare(batch.queue, passive=True).message_count == 0:
                pass
        assert declared.queue_arguments["x-delivery-limit"] > 1_000_000
        channel.queue_delete(batch.queue)
    queue.close()
    app.close()


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_a_temporary_error(scheme, batch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    settings = Settings(broker=SecretStr(f"{scheme}://127.0.0.1:{port}"))
    queue = CeleryQueue.from_settings(settings)
    with pytest.raises(TemporaryError, match="the broker did not take the messages"):
        queue.publish([batch])
    with pytest.raises(TemporaryError, match="the broker does not answer"):
        queue.check()
    queue.close()


class Recorder:
    """Stands where a runner stands."""

    def __init__(self):
        self.ran, self.lost_batches, self.error = [], [], None

    def read(self, text):
        return decode(text)

    def run(self, batch):
        self.ran.append(batch)
        if self.error:
            raise self.error

    def lost(self, batch):
        if self.error:
            raise self.error
        self.lost_batches.append(batch)


def test_a_task_hands_its_batch_to_the_runner_and_gives_it_back_when_that_fails(app, batch, monkeypatch):
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    runner = Recorder()
    add_tasks(app, lambda: runner)
    app.tasks["siftbell.process"](encode(batch))
    app.tasks["siftbell.process"](encode(batch).decode())  # as it comes from a former version
    assert runner.ran == [batch, batch]
    runner.error = TemporaryError("the store is away")
    with pytest.raises(Reject) as caught:
        app.tasks["siftbell.deliver"](encode(batch))
    assert caught.value.requeue
    assert len(pauses) == 1


def request_of(app, runner, batch, acknowledged, rejected):
    task = app.tasks["siftbell.process"]
    headers = {"id": "1", "task": task.name, "argsrepr": "[1 messages]", "kwargsrepr": "{}", "root_id": "1"}
    message = SimpleNamespace(
        headers=headers,
        body=None,
        content_type="application/json",
        content_encoding="utf-8",
        payload=([encode(batch)], {}, {}),
        delivery_info={},
        properties={},
    )
    kind = type("Request", (BatchRequest,), {"runner": staticmethod(lambda: runner)})
    return kind(
        message,
        app=app,
        task=task,
        on_ack=lambda *_: acknowledged.append(1),
        on_reject=lambda _log, _errors, requeue: rejected.append(requeue),
        decoded=True,
        headers=headers,
        body=([encode(batch)], {}, {}),
    )


@pytest.mark.parametrize("lost", [WorkerLostError("signal 9"), SystemExit(1)], ids=["lost", "exit"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("store_away", [False, True])
def test_a_batch_whose_worker_died_is_dealt_with_before_it_is_acknowledged(app, batch, store_away, wrapped, lost):
    runner = Recorder()
    add_tasks(app, lambda: runner)
    runner.error = TemporaryError("the store is away") if store_away else None
    acknowledged, rejected = [], []
    request = request_of(app, runner, batch, acknowledged, rejected)
    info = SimpleNamespace(
        exception=ExceptionWithTraceback(lost, None) if wrapped else lost, traceback="", exc_info=(type(lost), lost, None)
    )
    request.on_failure(info, send_failed_event=False, return_ok=True)
    assert (runner.lost_batches, acknowledged, rejected) == (([], [], [True]) if store_away else ([batch], [1], []))


def test_a_runner_is_made_once_in_each_process():
    made = []
    per_process = PerProcess(lambda: made.append(os.getpid()) or len(made))
    assert [per_process(), per_process()] == [1, 1]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, bytes([per_process(), per_process()]))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        assert answers.read() == bytes([2, 2])
    os.waitpid(child, 0)
    assert per_process() == 1
