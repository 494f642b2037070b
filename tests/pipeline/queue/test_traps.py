"""Celery's and kombu's traps, one by one: what holds with our settings, and what is lost where one of them is removed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from amqp.exceptions import AMQPError
from celery import Celery
from kombu import Queue
from pydantic import SecretStr
from trees import until

from pipeline import TemporaryError
from pipeline.engine.batch import Batch
from pipeline.queue import sqlite
from pipeline.queue.app import NO_DELIVERY_LIMIT, add_tasks, make_app, make_queue
from pipeline.queue.brokers import broker
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings

pytestmark = pytest.mark.e2e

WITHOUT = pytest.mark.parametrize("removed", [False, True], ids=["ours", "removed"])


class Trap:
    """A queue file, and workers on it with settings that differ."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        self.out = root / "out"
        self._log = root / "log"
        self._file = root / "queue.db"
        self.url = url or sqlite.url(self._file)
        self.queue = CeleryQueue(make_app(broker(self.url)))

    def publish(self, *what: str) -> None:
        self.queue.publish([Batch(job="deliver", queue="t", pipeline=one, messages=[]) for one in what])

    def worker(self, changed=None, *, pool="threads", lost="note"):
        script = Path(__file__).with_name("trap_worker.py")
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(script), self.url, json.dumps(changed or {}), pool, str(self.out), lost],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def notes(self) -> list[str]:
        return self.out.read_text().split() if self.out.exists() else []

    def log(self) -> str:
        return self._log.read_text()

    def left(self) -> int:
        """Count what is on the queue or with a worker."""
        with closing(sqlite3.connect(self._file)) as file:
            return file.execute("SELECT count(*) FROM messages WHERE queue = 't'").fetchone()[0]


@pytest.fixture
def trap(tmp_path):
    made = Trap(tmp_path)
    yield made
    made.queue.close()


@WITHOUT
def test_trap_early_acknowledgement_loses_what_a_killed_worker_had_begun(trap, ending, removed):
    trap.publish("sleep")
    worker = trap.worker({"task_acks_late": False} if removed else {})
    until(trap.notes, "the batch has begun")
    if removed:
        until(lambda: trap.left() == 0, "it has been acknowledged early")
    ending(worker)
    assert trap.left() == (0 if removed else 1)


@WITHOUT
def test_trap_a_dead_child_s_batch_is_acknowledged_where_nobody_rejects_it(trap, ending, removed):
    trap.publish("die")
    without = {"task_reject_on_worker_lost": False, "on_failure": "celery's"}
    worker = trap.worker(without if removed else {}, pool="prefork", lost="fail")
    try:
        if removed:
            until(lambda: trap.left() == 0, "the batch is gone, and nobody took it apart")
        else:
            until(lambda: trap.notes().count("die") >= 2, "it comes again, as it could not be taken apart")
            assert trap.left() == 1
    finally:
        ending(worker)


def test_trap_a_batch_that_kills_its_child_is_taken_apart_instead_of_looping(trap, ending):
    trap.publish("die")
    worker = trap.worker(pool="prefork")
    try:
        until(lambda: trap.left() == 0, "it has been handed to the runner, then acknowledged")
    finally:
        ending(worker)
    assert trap.notes() == ["die", "lost"]


def test_trap_a_task_that_fails_is_acknowledged_unless_it_rejects(trap, ending):
    trap.publish("fail")
    worker = trap.worker()
    try:
        until(lambda: trap.notes().count("fail") >= 2, "it came again")
        assert trap.left() == 1
    finally:
        ending(worker)


def test_trap_a_task_that_is_shared_leaks_into_later_apps(tmp_path):
    app = make_app(broker(sqlite.url(tmp_path / "queue.db")))
    add_tasks(app, lambda: None)
    later = Celery("later", set_as_current=False)
    later.finalize()
    assert not [name for name in later.tasks if name.startswith("siftbell.")]
    app.close()
    later.close()


@WITHOUT
def test_trap_a_publish_that_nobody_confirms_is_taken_for_one_that_arrived(new_vhost, new_proxy, removed):
    proxy = new_proxy(new_vhost, 5672)
    app = make_app(broker(proxy.url))
    if removed:
        app.conf.broker_transport_options = {**app.conf.broker_transport_options, "confirm_publish": False}
    batch = Batch(job="process", queue="t", pipeline="a", messages=[])
    with app.connection_for_write() as connection:
        make_queue("t", quorum=True)(connection.default_channel).declare()
        producer = app.amqp.Producer(connection.default_channel, auto_declare=False)
        proxy.flowing.clear()
        if removed:
            producer.publish("x", routing_key="t", confirm_timeout=1)  # returns, and nothing has arrived
        else:
            with pytest.raises(TimeoutError):
                producer.publish("x", routing_key="t", confirm_timeout=1)
        proxy.cut()
        proxy.flowing.set()
    queue = CeleryQueue.from_settings(Settings(broker=SecretStr(proxy.url)))
    queue.publish([batch])
    queue.close()
    app.close()


@WITHOUT
def test_trap_a_quorum_queue_drops_what_came_back_too_often(new_vhost, removed):
    app = make_app(broker(new_vhost))
    ours = make_queue("t", quorum=True)
    assert ours.queue_arguments["x-delivery-limit"] == NO_DELIVERY_LIMIT
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 20}  # RabbitMQ 4's own where a queue does not say otherwise
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        (Queue("t", queue_arguments=arguments) if removed else ours)(channel).declare()
        app.amqp.Producer(channel).publish("x", routing_key="t")
        for _ in range(25):
            taken = until(lambda: channel.basic_get("t") or "gone", "it is there")
            if taken == "gone":
                break
            channel.basic_reject(taken.delivery_tag, requeue=True)
            until(lambda: removed or channel.queue_declare("t", passive=True).message_count, "it is back")
        assert channel.queue_declare("t", passive=True).message_count == (0 if removed else 1)
    app.close()


@WITHOUT
def test_trap_a_publisher_that_declares_another_type_is_refused(new_vhost, removed):
    app = make_app(broker(new_vhost), ["t"])
    with app.connection_for_write() as connection:
        app.amqp.queues["t"](connection.default_channel).declare()
    queue = CeleryQueue(make_app(broker(new_vhost)))
    queue._quorum = not removed
    batch = Batch(job="process", queue="t", pipeline="a", messages=[])
    if removed:
        with pytest.raises(TemporaryError, match="inequivalent arg"):
            queue.publish([batch])
    else:
        queue.publish([batch])
    assert app.conf.task_default_queue_type == "quorum", "what Celery itself declares is of the same type"
    queue.close()
    app.close()


@WITHOUT
def test_trap_a_quorum_queue_is_not_consumed_with_a_window_for_all(new_vhost, removed):
    app = make_app(broker(new_vhost), ["t"])
    assert app.conf.worker_detect_quorum_queues
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        queue = app.amqp.queues["t"](channel)
        queue.declare()
        channel.basic_qos(0, 4, removed)  # Celery's choice: for all where it does not look for quorum queues
        if removed:
            with pytest.raises((AMQPError, OSError)):
                queue.consume("tag", callback=print)
        else:
            queue.consume("tag", callback=print)
    app.close()


@WITHOUT
def test_trap_a_window_without_end_takes_the_whole_queue(trap, ending, removed):
    trap.publish(*["sleep"] * 100)
    worker = trap.worker({"worker_prefetch_multiplier": 10_000} if removed else {})
    try:
        until(trap.notes, "the first has begun")
        until(lambda: claimed(trap) == 100 if removed else claimed(trap) >= 4, "it has taken what it may")
        if not removed:
            assert claimed(trap) < 50
    finally:
        ending(worker)


def claimed(trap):
    with closing(sqlite3.connect(trap._file)) as file:
        return file.execute("SELECT count(*) FROM messages WHERE owner > 0").fetchone()[0]


@WITHOUT
def test_trap_a_cold_shutdown_gives_no_time_to_finish(trap, ending, removed):
    trap.publish("note")
    worker = trap.worker({"worker_soft_shutdown_timeout": 0} if removed else {}, pool="prefork")
    until(lambda: trap.notes() == ["note"] and trap.left() == 0, "the worker works")
    trap.publish("sleep")
    until(lambda: len(trap.notes()) == 2, "a long batch has begun")
    worker.send_signal(signal.SIGQUIT)
    if removed:
        worker.wait(30)
        assert "Initiating Soft Shutdown" not in trap.log()
    else:
        until(lambda: "Initiating Soft Shutdown" in trap.log(), "it waits for the batch")
        assert worker.poll() is None
    ending(worker)
    assert trap.left() == 1, "what was not finished is on the queue"


def test_trap_places_that_were_lost_stall_a_worker_that_does_not_reconnect(place, text_messages, ending, tmp_path):
    """Real workers have lost places where an acknowledgement failed; this one is made to lose all of them at once."""
    leak = tmp_path / "leak.py"
    leak.write_text(
        "import sys\n"
        "from celery.signals import worker_ready\n"
        "def lose(sender, **_):\n"
        "    consumer = sender\n"
        "    qos = consumer.task_consumer.channel.qos\n"
        "    for n in range(qos.prefetch_count):\n"
        "        qos.append(None, f'-{n + 1}')\n"
        "worker_ready.connect(lose, weak=False)\n"
        "from pipeline.cli import main\n"
        "sys.argv = ['siftbell', 'worker', '--only', 'deliveries']\n"
        "main()\n"
    )
    here = place({"slow": 0})
    with (here.root / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, str(leak)],
            env=os.environ | here.settings.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: "it reconnects" in here.log(), "the stall is seen")
        here.deliver("slow", text_messages(["x"]))
        until(lambda: here.delivered("slow") == 1, "it works again")
        assert worker.poll() is None
    finally:
        ending(worker)
