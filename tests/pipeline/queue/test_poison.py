"""Messages that take the whole worker along are buried alone; being there when an operator kills a worker is no crime."""

from __future__ import annotations

import signal

import pytest
from trees import until

from pipeline.queue import suspects
from pipeline.queue.suspects import AGAIN, STARTS_BEFORE_TRIAL, work

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

THREADS = ["--only", "deliveries"]
PROCESSES = ["--concurrency", "2"]


@pytest.mark.parametrize(
    ("arguments", "poison"),
    [(THREADS, "poison"), (PROCESSES, "poison"), (PROCESSES, "parent")],
    ids=["threads", "processes", "processes-parent"],
)
def test_a_message_that_kills_the_whole_worker_is_buried_alone(place, text_messages, restarted, arguments, poison):
    here = place({"deadly": 0, "healthy": 0})
    titles = [str(n) for n in range(4 if poison == "parent" else 40)]
    here.deliver("deadly", text_messages([*titles[:3], poison, *titles[3:]]), in_a_batch=41)
    here.deliver("healthy", text_messages(titles))
    with restarted(lambda: here.worker(*arguments)) as loop:
        until(
            lambda: here.store.dead_letters() and here.delivered("deadly") == len(titles),
            "one buried, the others delivered",
            seconds=120,
        )
        until(lambda: here.delivered("healthy") == len(titles), "the other consumer has everything")
    assert [letter.message.title for letter in here.store.dead_letters()] == [poison]
    assert here.store.dead_letters()[0].error.startswith("its worker died 3 times")
    assert loop.starts <= 12


def test_ten_kills_by_an_operator_bury_nothing(place, text_messages, ending):
    here = place({"slow": 1})
    here.deliver("slow", text_messages([str(n) for n in range(2)]), in_a_batch=1)
    for _ in range(10):
        begun = len(here.lines("slow.begun"))
        worker = here.worker(*THREADS)
        try:
            until(lambda n=begun: len(here.lines("slow.begun")) > n or here.delivered("slow") == 2, "a call begins", seconds=120)
        finally:
            ending(worker, signal.SIGKILL)
    worker = here.worker(*THREADS)
    try:
        until(lambda: here.delivered("slow") == 2, "everything is delivered", seconds=120)
    finally:
        ending(worker)
    assert here.store.dead_letters() == []


class Memory:
    """Counts starts, as a memory does."""

    def __init__(self):
        self.counts = {}

    def scoped(self, *_):
        return self

    def count(self, key, within):
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def forget(self, key):
        del self.counts[key]


class Runner:
    """Runs, fails, or dies."""

    def __init__(self):
        self.memory, self.ran, self.taken_apart, self.error = Memory(), [], [], None

    def run_text(self, text):
        self.ran.append(text)
        if self.error:
            raise self.error

    def lost(self, batch):
        self.taken_apart.append(batch)


class Request:
    """A task's request."""

    id = "task"

    def __init__(self, **fields):
        self.fields = fields
        self.delivery_info = {"redelivered": fields.pop("redelivered", False)}

    def get(self, name):
        return self.fields.get(name)


TEXT = '{"job": "deliver", "queue": "out.x", "pipeline": "a", "step": "x", "messages": []}'


@pytest.mark.parametrize("request_of", [{"redelivered": True}, {"x-delivery-count": 2}], ids=["redelivered", "counted"])
def test_starts_that_ended_count_nothing_and_others_lead_to_a_trial(request_of):
    runner, tried = Runner(), []

    def hold_trial(text):
        tried.append(text)
        return 0

    for _ in range(10):
        work(runner, Request(**request_of), TEXT, hold_trial)
    assert (len(runner.ran), tried, runner.memory.counts) == (10, [], {})
    runner.error = OSError("the store is away")
    with pytest.raises(OSError, match="store"):
        work(runner, Request(**request_of), TEXT, hold_trial)
    assert runner.memory.counts == {}, "a batch that goes back in an orderly way has killed nobody"
    runner.memory.counts = {"task": STARTS_BEFORE_TRIAL - 1}
    work(runner, Request(**request_of), TEXT, hold_trial)
    assert tried == [TEXT]


def test_a_batch_that_comes_for_the_first_time_is_not_counted():
    runner = Runner()
    runner.memory = None
    work(runner, Request(), TEXT, lambda text: 0)
    assert runner.ran == [TEXT]


def test_what_a_trial_tells_is_done(monkeypatch):
    monkeypatch.setattr(suspects, "PAUSE", 0)
    runner = Runner()
    suspected = TEXT.replace("[]}", '[], "deaths": 1}')
    for unknown in (AGAIN, 1):  # 1: a configuration that cannot be read proves nothing against a message
        with pytest.raises(suspects.TemporaryError, match="was away"):
            work(runner, Request(), suspected, lambda text, code=unknown: code)
    assert runner.taken_apart == []
    work(runner, Request(), suspected, lambda text: -9)
    assert [batch.deaths for batch in runner.taken_apart] == [1]
    assert runner.ran == []


def test_what_is_no_batch_is_the_runners_to_bury():
    runner = Runner()
    work(runner, Request(redelivered=True), "what", lambda text: 0)
    assert runner.ran == ["what"]
