"""Real workers: the ordinary Celery command, a filter that kills its process, and the answers to `inspect`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from trees import until

from pipeline import Message
from pipeline.engine.batch import Batch
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings
from pipeline.store import Store

KILLER = '''
"""Kills its process over one message."""
import os, signal
from collections.abc import Iterable
from pipeline import Filter, Message, NoOptions

class Killer(Filter[NoOptions]):
    """Kills its process."""

    def filter(self, message: Message) -> Iterable[Message]:
        """Kill, or pass."""
        if message.title == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if message.title == "endless":
            signal.pause()
        yield message
'''


@pytest.fixture
def place(tmp_path):
    configs = tmp_path / "configs"
    (configs / "plugins").mkdir(parents=True)
    (configs / "plugins" / "killer.py").write_text(KILLER)
    (configs / "a.yaml").write_text(
        f"name: a\nproducers: [http]\nfilters: [killer]\nconsumers:\n  - file: {{path: '{tmp_path}/out.jsonl'}}\n"
    )
    settings = Settings(config=(configs,), data=tmp_path / "data")
    settings.data.mkdir()
    store = Store(settings.store_url)
    store.migrate()
    yield settings, store, tmp_path / "out.jsonl"
    store.close()


def messages(count, poison=()):
    time = datetime(2026, 3, 1, tzinfo=UTC)
    return [Message(source="t", time=time, title="poison" if n in poison else str(n)) for n in range(count)]


def celery(settings, *arguments):
    command = [sys.executable, "-m", "celery", "-A", "pipeline.queue", *arguments]
    return subprocess.Popen(
        command, env=os.environ | settings.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.e2e
def test_the_ordinary_celery_worker_runs_pipelines_and_answers_inspect(place):
    settings, store, out = place
    queue = CeleryQueue.from_settings(settings)
    queue.publish([Batch(job="process", queue="in", pipeline="a", messages=messages(5))])
    worker = celery(settings, "worker", "--loglevel=info", "--concurrency=1")
    try:
        until(lambda: len(lines(out)) == 5, "five lines in the file")
        ping = celery(settings, "inspect", "ping", "--timeout=5")
        answer, _ = ping.communicate(timeout=30)
        assert b"pong" in answer
        assert ping.returncode == 0
    finally:
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=30)
    assert worker.returncode == 0, output.decode()
    assert sum(store.counts().values()) == 5
    queue.close()


@pytest.mark.e2e
def test_a_message_that_kills_its_worker_is_buried_alone(place):
    settings, store, out = place
    queue = CeleryQueue.from_settings(settings)
    sent = messages(40, poison={7, 31})
    queue.publish([Batch(job="process", queue="in", pipeline="a", messages=sent)])
    worker = celery(settings, "worker", "--loglevel=warning", "--concurrency=2")
    try:
        until(lambda: len(store.dead_letters()) == 2 and len(lines(out)) >= 38, "two buried, the others delivered", seconds=90)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert {letter.message.title for letter in store.dead_letters()} == {"poison"}
    assert all(letter.error.startswith("its worker died 3 times") for letter in store.dead_letters())
    assert len(lines(out)) == 38
    queue.close()


@pytest.mark.e2e
def test_a_child_that_is_killed_is_told_in_the_log_as_everything_else(place, tmp_path):
    settings, *_ = place
    queue = CeleryQueue.from_settings(settings)
    queue.publish([Batch(job="process", queue="in", pipeline="a", messages=messages(1, poison={0}))])
    command = [sys.executable, "-m", "pipeline.cli", "worker", "--only", "filters", "--concurrency", "1"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=os.environ | settings.environment(), stderr=log, start_new_session=True)
    try:
        until(lambda: any("signal 9" in line for line in lines(tmp_path / "log")), "the death of a child is told", seconds=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    told = [json.loads(line) for line in lines(tmp_path / "log")]
    assert next(line["level"] for line in told if "signal 9" in line["event"]) == "error"
    queue.close()


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_message_over_which_a_filter_never_ends_is_buried_and_the_worker_goes_on(place):
    settings, store, out = place
    queue = CeleryQueue.from_settings(settings)
    (endless, other) = messages(2)
    queue.publish([Batch(job="process", queue="in", pipeline="a", messages=[endless.replace(title="endless")])])
    code = (
        "from pipeline.queue import app, worker; from pipeline.settings import Settings; app.FILTER_LIMIT = 8;"
        "raise SystemExit(worker.run_worker(Settings(), concurrency=1))"
    )
    command = [sys.executable, "-c", code]
    worker = subprocess.Popen(command, env=os.environ | settings.environment(), start_new_session=True)
    try:
        until(lambda: store.dead_letter(endless.id), "it is buried", seconds=100)
        queue.publish([Batch(job="process", queue="in", pipeline="a", messages=[other])])
        until(lambda: len(lines(out)) == 1, "the other one is delivered", seconds=100)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    (letter,) = store.dead_letter(endless.id)
    assert letter.error.startswith("its worker died 3 times")
    queue.close()


@pytest.mark.e2e
def test_what_waits_on_a_queue_that_is_gone_from_the_configuration_is_buried(place):
    settings, store, out = place
    store.remember_queues({"in", "out.gone", "later"}, datetime.now(UTC))
    queue = CeleryQueue.from_settings(settings)
    (one, other) = messages(2)
    queue.publish([Batch(job="deliver", queue="out.gone", pipeline="a", step="gone", messages=[one])])
    queue.publish([Batch(job="process", queue="later", pipeline="a", step="later", messages=[other])])
    worker = celery(settings, "worker", "--loglevel=warning", "--concurrency=1")
    try:
        until(lambda: len(store.dead_letters()) == 2, "both are buried", seconds=60)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert {letter.error for letter in store.dead_letters()} == {
        "pipeline 'a' has no consumer 'gone' any more",
        "pipeline 'a' has no filter 'later' any more",
    }
    assert lines(out) == []
    queue.close()


def test_queues_are_remembered_for_thirty_days(place):
    _, store, _ = place
    start = datetime(2026, 3, 1, tzinfo=UTC)
    assert store.remember_queues({"in", "out.a"}, start) == {"in", "out.a"}
    assert store.remember_queues({"in"}, start + timedelta(days=29)) == {"in", "out.a"}
    assert store.remember_queues({"in"}, start + timedelta(days=30)) == {"in"}
