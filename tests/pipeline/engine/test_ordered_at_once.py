"""Order under fire: two workers, two clocks, a broker that repeats and mixes, failures, and workers killed in the middle."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from time import monotonic

import pytest

from pipeline import Consumer, Message, NoOptions, TemporaryError
from pipeline.engine import shift
from pipeline.engine.batch import decode, encode
from pipeline.engine.clock import Clock
from pipeline.engine.pipeline import Pipelines
from pipeline.engine.publisher import Publisher
from pipeline.engine.runner import Runner
from pipeline.memory import open_memory
from pipeline.spec.model import Configuration, Retry
from pipeline.store import Store

KEYS, EACH, KILLED = 6, 40, 9


class Killed(BaseException):
    """The worker is gone."""


class World:
    """What consumers saw, and the dice."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.dice = random.Random(7)
        self.batches = 0

    def roll(self) -> float:
        with self.lock:
            return self.dice.random()


world = World()


class Sink(Consumer[NoOptions]):
    def consume(self, message):
        if world.roll() < 0.1:
            raise TemporaryError("not now", retry_after=0.05)
        with world.lock:
            world.seen[message.key].append(int(message.title))
        if world.roll() < 0.02:
            raise TemporaryError("taken, but the answer was lost", retry_after=0.05)


class MixingQueue:
    """A broker that gives batches in any order, and one in five twice."""

    largest = 10**9

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.lock = threading.Lock()

    def publish(self, batches) -> None:
        if world.roll() < 0.05:
            raise TemporaryError("the broker is away")
        with self.lock:
            for batch in batches:
                self.texts += [encode(batch)] * (2 if world.roll() < 0.2 else 1)

    def take(self) -> bytes | None:
        with self.lock:
            return self.texts.pop(int(len(self.texts) * world.dice.random())) if self.texts else None

    def put_back(self, text: bytes) -> None:
        with self.lock:
            self.texts.append(text)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("new_postgres")()


@pytest.fixture
def runners(url, spec, consumer, monkeypatch):
    monkeypatch.setattr(shift, "LEASE", shift.LEASE / 20)
    monkeypatch.setattr(shift, "RENEWED", 0.2)
    monkeypatch.setattr(shift, "SURE", 0.7)
    globals()["world"] = World()
    made, queue = [], MixingQueue()
    step = consumer(Sink, ordered=True, retry=Retry())
    for _ in range(2):
        store = Store(url)
        store.migrate()
        memory = open_memory(url)
        pipelines = Pipelines(Configuration({"toy": spec(consumers=[step])}))
        made.append(Runner(pipelines, store, memory, queue))
    yield made
    for runner in made:
        runner.pipelines.close()
        runner.store.close()
        runner.memory.close()


def work(runner, queue, over):
    while not over.is_set():
        text = queue.take()
        if text is None:
            over.wait(0.01)
            continue
        try:
            with world.lock:
                world.batches += 1
                killed = world.batches % KILLED == 0
            if killed:
                die_over(runner, text)
            runner.run_text(text)
        except Killed:
            if world.roll() < 0.5:
                runner.lost(decode(text))  # its parent lives, and sees it
            else:
                queue.put_back(text)
        except TemporaryError:
            queue.put_back(text)


def die_over(runner, text):
    """Begin with a batch, and be killed: nobody frees its lanes but the end of the lease."""
    batch = decode(text)
    now = runner.now()
    ids = [message.id for message in batch.messages]
    runner.store.lanes.begin(
        (batch.pipeline, batch.step), ids, token=batch.claim, worker="dead", now=now, until=now + shift.LEASE
    )
    raise Killed


def send(hand_in, publisher, pipeline, key):
    for n in range(EACH):
        message = Message(source="test", key=key, title=str(n))
        while True:
            try:
                hand_in(publisher, pipeline, "hook", [message]).result(20)
            except TemporaryError:
                continue
            break


@pytest.mark.timeout(300)  # it has 240 s of its own: two databases' worth of kills on a busy machine
def test_nothing_is_lost_and_nothing_overtakes(runners, hand_in):
    over = threading.Event()
    queue = runners[0].queue
    keys = ["", *(f"k{n}" for n in range(KEYS - 1))]
    publishers = [Publisher(queue, runner.store) for runner in runners]
    clocks = [Clock(runner, owner=f"c{n}", retention=shift.LEASE * 1000) for n, runner in enumerate(runners)]
    threads = [threading.Thread(target=clock.run, args=(over,)) for clock in clocks]
    threads += [threading.Thread(target=work, args=(runner, queue, over)) for runner in runners for _ in range(2)]
    threads += [
        threading.Thread(target=send, args=(hand_in, publishers[n % 2], runners[n % 2].pipelines["toy"], key))
        for n, key in enumerate(keys)
    ]
    for thread in threads:
        thread.start()
    senders = threads[-len(keys) :]
    end = monotonic() + 240
    while monotonic() < end and (any(one.is_alive() for one in senders) or runners[0].store.held_counts()):
        over.wait(0.1)
    over.set()
    for thread in threads:
        thread.join()
    for publisher in publishers:
        publisher.close()
    buried = defaultdict(set)
    for letter in runners[0].store.dead_letters():
        buried[letter.message.key].add(int(letter.message.title))
    for key in keys:
        firsts = list(dict.fromkeys(world.seen[key]))
        assert firsts == [n for n in range(EACH) if n in set(firsts)], f"overtaken in '{key}'"
        assert set(firsts) | buried[key] == set(range(EACH)), f"lost in '{key}'"
    assert world.batches > 2 * KILLED
