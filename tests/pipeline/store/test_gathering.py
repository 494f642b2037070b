"""Work of several threads goes together, and fails apart; the store writes decisions so."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from pipeline.message import new_id
from pipeline.store.gathering import Gathering, _Fate
from pipeline.store.rows import Outcome


class Work:
    """Notes the items of each work, and lets none end before it is told to; fails where an item is among `bad`."""

    def __init__(self):
        self.done, self.bad, self.error = [], set(), OSError
        self.may_end = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, items):
        self.done.append(sorted(items))
        self.begun.release()
        assert self.may_end.wait(30)
        if self.bad & set(items):
            raise self.error(f"not {sorted(self.bad & set(items))}")


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def begin(gathering, pool, work, *items):
    """Have a first work under way, and these items wait behind it."""
    first = pool.submit(gathering.do, "first", work)
    assert work.begun.acquire(timeout=30)
    behind = [pool.submit(gathering.do, item, work) for item in items]
    until(lambda: len(gathering._waiting) == len(items))
    return [first, *behind]


def test_who_comes_alone_waits_for_nothing(work):
    work.may_end.set()
    gathering = Gathering()
    gathering.do("a", work)
    gathering.do("b", work)
    assert work.done == [["a"], ["b"]]


def test_what_comes_meanwhile_goes_together(pool, work):
    gathering = Gathering()
    calls = begin(gathering, pool, work, "a", "b", "c")
    work.may_end.set()
    for call in calls:
        call.result(30)
    gathering.do("later", work)
    assert work.done == [["first"], ["a", "b", "c"], ["later"]]


def test_what_fails_together_is_done_apart(pool, work):
    gathering = Gathering()
    _, good, bad, other = begin(gathering, pool, work, "good", "bad", "other")
    work.bad = {"bad"}
    work.may_end.set()
    assert (good.result(30), other.result(30)) == (None, None)
    with pytest.raises(OSError, match=r"not \['bad'\]"):
        bad.result(30)
    assert work.done[1] == ["bad", "good", "other"]
    assert sorted(work.done[2:]) == [["bad"], ["good"], ["other"]]


def test_what_fails_alone_hinders_nobody(pool, work):
    gathering = Gathering()
    work.bad = {"first"}
    first, after = begin(gathering, pool, work, "after")
    work.may_end.set()
    with pytest.raises(OSError, match="first"):
        first.result(30)
    assert after.result(30) is None
    assert work.done == [["first"], ["after"]]


def test_who_leads_and_ends_hinders_nobody(pool, work):
    gathering = Gathering()
    work.bad, work.error = {"leads"}, SystemExit
    _, leads, other = begin(gathering, pool, work, "leads", "other")
    work.may_end.set()
    with pytest.raises(SystemExit):
        leads.result(30)
    assert other.result(30) is None
    gathering.do("later", work)
    assert work.done[1:] == [["leads", "other"], ["other"], ["later"]]


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("leads", [False, True])
def test_who_is_interrupted_while_it_waits_keeps_nobody_waiting(pool, work, leads):
    gathering = Gathering()

    def interrupt(*_):
        if leads:
            work.may_end.set()
            until(lambda: gathering._waiting[0].fate is _Fate.LEADS)
        raise Interrupted

    def come_behind():
        until(lambda: len(gathering._waiting) == 1)
        behind = pool.submit(gathering.do, "behind", work)
        until(lambda: len(gathering._waiting) == 2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        return behind

    (first,) = begin(gathering, pool, work)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        coming = pool.submit(come_behind)
        with pytest.raises(Interrupted):
            gathering.do("mine", work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    work.may_end.set()
    for call in (first, coming.result(30)):
        call.result(30)
    assert work.done == [["first"], ["behind"]]


@contextmanager
def first_commit_waits(store):
    """Let the first transaction stand before its commit until it may go on; gives that, and the commits so far."""
    may_commit, commits = threading.Event(), []

    def commit(_):
        commits.append(1)
        assert len(commits) > 1 or may_commit.wait(30)

    event.listen(store._database.engine, "commit", commit)
    yield may_commit, commits
    event.remove(store._database.engine, "commit", commit)


def settle_behind(store, pool, settled):
    """Settle the first, and all others while it is being committed."""
    with first_commit_waits(store) as (may_commit, commits):
        calls = [pool.submit(store.settle, **settled[0])]
        until(lambda: commits)
        calls += [pool.submit(store.settle, **one) for one in settled[1:]]
        until(lambda: len(store._database._gathering._waiting) == len(calls) - 1)
        may_commit.set()
        errors = [call.exception(30) for call in calls]
    return errors, len(commits)


def test_what_several_threads_decided_is_one_transaction(store, make, pool):
    messages = [make.message() for _ in range(6)]
    settled = [
        {"records": [make.record(message.id)], "held": [make.held(message)], "dead": [make.dead(message)]} for message in messages
    ]
    assert settle_behind(store, pool, settled) == ([None] * 6, 2)
    for message in messages:
        assert [record.message_id for record in store.history(message.id)] == [message.id]
        assert [letter.message for letter in store.dead_letter(message.id)] == [message]
    assert sum(store.held_counts().values()) == 6


def test_several_decisions_about_one_message_at_once_are_as_one_after_the_other(store, make, pool):
    message_id, first = new_id(), new_id()
    later = make.record(message_id, Outcome.DELIVERED, attempt=2)
    settled = [{"records": [one]} for one in (make.record(first), later, make.record(message_id), make.record(message_id))]
    assert settle_behind(store, pool, settled) == ([None] * 4, 2)
    assert store.history(message_id) == [later]


def test_what_cannot_be_written_takes_nothing_else_along(store, make, pool):
    good, bad = make.record(new_id()), make.record(new_id(), attempt=None)
    errors, _ = settle_behind(store, pool, [{"records": [make.record(new_id())]}, {"records": [good]}, {"records": [bad]}])
    assert errors[:2] == [None, None]
    assert "null" in str(errors[2]).lower()
    assert store.history(good.message_id) == [good]
    assert store.history(bad.message_id) == []


def test_a_forked_child_does_not_wait_for_its_parents_transactions(store, make, pool):
    gathering, work = store._database._gathering, Work()
    calls = begin(gathering, pool, work, "behind")
    if (child := os.fork()) == 0:
        store._database._gathering.do("child", lambda _: os._exit(0))
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    work.may_end.set()
    for call in calls:
        call.result(30)
    store.settle(records=[make.record(new_id())])
