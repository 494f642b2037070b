"""How a worker's turns are asked again in time: with the event loop that they have in a worker."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from kombu.asynchronous import Hub

from pipeline.queue.consuming import TakeTurns


@pytest.fixture
def hub():
    made = Hub()
    made.timer.call_repeatedly(1.0, lambda: None)  # as each worker has one, and nothing else for the loop to wake up for
    yield made
    made.close()


@pytest.fixture
def step(hub):
    parent = SimpleNamespace(
        app=SimpleNamespace(conf=SimpleNamespace(worker_prefetch_multiplier=4, worker_detect_quorum_queues=True)),
        controller=SimpleNamespace(concurrency=8),
        call_soon=hub.call_soon,
        timer=hub.timer,
        on_task_request=None,
    )
    made = type("Own", (TakeTurns,), {"deliveries": ("a",)})(parent)
    made.start(parent)
    return made


def run_until(hub, done, seconds=5.0):
    """Run the loop until something is done; gives the seconds that it took."""
    began = time.monotonic()
    for _ in hub.loop:
        if done() or time.monotonic() - began > seconds:
            return time.monotonic() - began
    raise AssertionError("the loop ended")


def test_a_timer_that_asks_for_the_next_is_heard_at_once(hub, step):
    asked = []

    def again():
        asked.append(1)
        if len(asked) < 5:
            step._later(0.005)

    step.turns.again = again
    step._later(0.005)
    assert run_until(hub, lambda: len(asked) == 5) < 0.5


def test_a_thread_that_asks_is_heard_at_once(hub, step):
    asked = []
    step.turns.again = lambda: asked.append(1)
    thread = threading.Timer(0.05, step._later, [0.005])
    thread.start()
    assert run_until(hub, lambda: asked) < 0.5
    thread.join()
