"""Real workers on a stand-in of SQS: killed, stopped, slow, and cut off from it."""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest
from trees import until

from pipeline.queue.sqs import sqs_name
from pipeline.queue.sqs.service import service

pytestmark = pytest.mark.e2e


@pytest.fixture
def here(place, own_ministack):
    """Gives a place whose one consumer takes so many seconds for each batch of one message."""

    def make(seconds: float, visibility: int = 4):
        service._forget()
        return place({"slow": seconds}, broker=own_ministack.broker.replace("visibility=4", f"visibility={visibility}"))

    return make


def count(client, counter):
    url = client.get_queue_url(QueueName=sqs_name("siftbell-", "out.slow"))["QueueUrl"]
    return int(client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][counter])


def titles(number):
    return [f"m{n}" for n in range(number)]


def test_trap_what_a_killed_worker_had_taken_comes_back_within_seconds(here, text_messages, ending):
    """kombu's claims last for 30 minutes whether the worker lives or not."""
    place = here(600)
    place.deliver("slow", text_messages(titles(3)), in_a_batch=1)
    worker = place.worker("--only", "deliveries")
    try:
        until(lambda: len(place.lines("slow.begun")) == 3, "all have begun")
    finally:
        ending(worker)
    worker = place.worker("--only", "deliveries")
    try:
        until(lambda: len(set(place.lines("slow.begun")[3:])) == 3, "all have begun again", seconds=40)
    finally:
        ending(worker)


def test_trap_long_work_is_not_done_twice(here, text_messages, ending):
    """Without the heartbeat another worker begins it again when the visibility timeout is over."""
    place = here(9)
    place.deliver("slow", text_messages(titles(2)), in_a_batch=1)
    workers = [place.worker("--only", "deliveries", "--concurrency", "2") for _ in range(2)]
    try:
        until(lambda: place.delivered("slow") == 2, "all are delivered")
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)  # both at once
        for worker in workers:
            ending(worker, signal.SIGTERM)
    assert max(Counter(place.lines("slow.begun")).values()) == 1, place.log()[-3000:]


def test_trap_a_worker_that_is_stopped_hides_nothing(here, text_messages, ending, own_ministack, amazon):
    """kombu #1835, #2049: what was prefetched, or came in while the worker stopped, stayed hidden for the whole timeout."""
    place = here(0.5, visibility=600)
    place.deliver("slow", text_messages(titles(20)), in_a_batch=1)
    worker = place.worker("--only", "deliveries", "--concurrency", "2")
    until(lambda: place.lines("slow.begun"), "the worker is at work")
    ending(worker, signal.SIGTERM)
    assert worker.returncode == 0, place.log()[-3000:]
    client = amazon(own_ministack.broker)
    begun = place.lines("slow.begun")
    assert sorted(place.lines("slow")) == sorted(begun)
    assert count(client, "ApproximateNumberOfMessagesNotVisible") == 0
    assert count(client, "ApproximateNumberOfMessages") == 20 - len(begun)
    worker = place.worker("--only", "deliveries")
    try:
        until(lambda: place.delivered("slow") == 20, "the others are delivered by the next worker")
    finally:
        ending(worker)
    assert max(Counter(place.lines("slow.begun")).values()) == 1


def test_three_kills_lose_nothing(here, text_messages, ending, restarted):
    place = here(0.05)
    rng = random.Random(11)
    place.deliver("slow", text_messages(titles(200)), in_a_batch=2)

    for _ in range(3):
        before = place.delivered("slow")
        worker = place.worker("--only", "deliveries", "--concurrency", "4")
        least = before + rng.randrange(5, 40)
        until(lambda least=least: place.delivered("slow") >= least, "some are delivered")
        ending(worker)
    worker = place.worker("--only", "deliveries")
    try:
        until(lambda: place.delivered("slow") == 200, "all are delivered")
    finally:
        ending(worker)
    assert set(place.lines("slow")) == set(titles(200))
    assert len(place.lines("slow")) - 200 <= 3 * 4 * 2, "more was done twice than was under way at the kills"


def test_a_worker_goes_on_by_itself_when_sqs_was_away(here, text_messages, ending, own_ministack):
    place = here(0.05)
    place.deliver("slow", text_messages(titles(20)), in_a_batch=1)
    worker = place.worker("--only", "deliveries")
    try:
        until(lambda: place.delivered("slow") == 20, "the first are delivered")
        own_ministack.freeze()
        until(lambda: "cannot be asked" in place.log(), "the worker has noticed")
        own_ministack.thaw()
        until(lambda: "answers again" in place.log(), "the worker has noticed that too")
        place.deliver("slow", text_messages([f"second-{n}" for n in range(40)]), in_a_batch=1)
        until(lambda: place.delivered("slow") == 60, "the second are delivered")
        own_ministack.kill()
        own_ministack.start()  # with no queue any more
        place.deliver("slow", text_messages([f"third-{n}" for n in range(40)]), in_a_batch=1)
        until(lambda: place.delivered("slow") == 100, "the third are delivered")
        assert worker.poll() is None
    finally:
        ending(worker)
    assert max(Counter(place.lines("slow.begun")).values()) == 1
