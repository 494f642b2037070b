"""One consumer's outage inside a worker: the others go on, and nothing of it is lost."""

from __future__ import annotations

import signal

import pytest
from trees import until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("arguments", [["--only", "deliveries"], ["--concurrency", "2"]], ids=["threads", "processes"])
def test_a_consumer_that_hangs_delays_no_other(place, text_messages, ending, arguments):
    here = place({"hanging": 600, "healthy": 0})
    here.deliver("hanging", text_messages([str(n) for n in range(3000)]))
    worker = here.worker(*arguments)
    try:
        until(lambda: here.lines("hanging.begun"), "the hanging consumer has been called")
        here.deliver("healthy", text_messages([str(n) for n in range(300)]))
        until(lambda: here.delivered("healthy") == 300, "the healthy consumer has everything", seconds=30)
        assert here.delivered("hanging") == 0
    finally:
        ending(worker)


def test_what_a_hanging_consumer_left_is_delivered_when_it_answers_again(place, text_messages, ending):
    here = place({"hanging": 1, "healthy": 0})
    here.deliver("hanging", text_messages([str(n) for n in range(600)]))
    worker = here.worker("--only", "deliveries")
    try:
        until(lambda: here.lines("hanging.begun"), "the slow consumer has been called")
        until(lambda: here.delivered("hanging") == 600, "everything has arrived", seconds=60)
        assert sorted(here.lines("hanging"), key=int) == [str(n) for n in range(600)]
    finally:
        ending(worker, signal.SIGTERM)
    assert worker.returncode == 0
