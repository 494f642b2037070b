"""Circuits on each of the databases: of several changes to one version one is made, and what waits is moved as a whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.store import Store
from pipeline.store.circuits import PARKED
from pipeline.store.rows import Circuit, CircuitState

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def circuit(make):
    return Circuit(pipeline="p", step="s", since=make.now, until=make.now, version=1)


@pytest.fixture
def claim(store, make):
    """Gives what is due at a time, as one clock's."""
    return lambda at: store.claim_due(at, owner="clock", lease=MINUTE, limit=10_000)


def due(claims):
    return [claim.held.due for claim in sorted(claims, key=lambda claim: claim.held.message.id)]


def test_a_circuit_comes_back_as_it_was_written(store, circuit, make):
    assert store.circuit("p", "s") is None
    opened = replace(circuit, state=CircuitState.OPEN, failures=5, openings=2, until=make.now + MINUTE, error="a\0b")
    assert store.change_circuit(opened)
    assert store.circuit("p", "s") == replace(opened, error="a\N{REPLACEMENT CHARACTER}b")
    assert store.circuits() == [store.circuit("p", "s")]


def test_a_change_is_made_over_the_version_that_was_read(store, circuit):
    assert store.change_circuit(circuit)
    assert not store.change_circuit(replace(circuit, failures=9)), "somebody made version 1 before"
    assert store.change_circuit(replace(circuit, version=2, failures=1))
    assert not store.change_circuit(replace(circuit, version=2, failures=2))
    assert store.circuit("p", "s").failures == 1


def test_of_many_changes_at_once_one_is_made(store, url, circuit):
    with ExitStack() as opened:
        stores = [Store(url) for _ in range(6)]
        for one in stores:
            opened.callback(one.close)
        for version in range(1, 21):
            new = [replace(circuit, version=version, failures=number) for number in range(6)]
            with ThreadPoolExecutor(6) as pool:
                done = list(pool.map(lambda one, change: one.change_circuit(change), stores, new))
            assert sum(done) == 1
            assert store.circuit("p", "s").failures == done.index(True)


def test_what_waits_is_postponed_the_claimed_and_the_unclaimed(store, make, claim):
    rows = [make.held(due=make.now + number * MINUTE) for number in range(6)]
    store.settle(held=[*rows, make.held(step="t", due=make.now + MINUTE), make.held(pipeline="q", due=make.now + MINUTE)])
    claims = [one for one in claim(make.now + MINUTE) if (one.held.pipeline, one.held.step) == ("p", "s")]
    assert len(claims) == 2
    store.postpone(claims, make.now + 4 * MINUTE, gone=make.now - HOUR)
    assert claim(make.now + 2 * MINUTE - SECOND) == []
    found = claim(make.now + 4 * MINUTE)
    assert due(one for one in found if (one.held.pipeline, one.held.step) == ("p", "s")) == [make.now + 4 * MINUTE] * 5
    others = [one.held.due for one in claim(make.now + HOUR) if (one.held.pipeline, one.held.step) != ("p", "s")]
    assert others == [make.now + MINUTE] * 2, "what waits for others is not touched"


def test_what_was_postponed_is_not_released(store, make, claim):
    store.settle(held=[make.held()])
    claims = claim(make.now)
    store.postpone(claims, make.now + MINUTE, gone=make.now - HOUR)
    store.release(claims)
    assert len(claim(make.now + MINUTE)) == 1


def test_what_another_clock_has_claimed_is_not_postponed(store, make, claim):
    store.settle(held=[make.held()])
    theirs = store.claim_due(make.now, owner="other", lease=MINUTE, limit=10)
    store.settle(held=[make.held()])
    mine = claim(make.now)
    store.postpone(mine, make.now + HOUR, gone=make.now - HOUR)
    store.release(theirs)
    assert sum(store.held_counts().values()) == 1


def test_what_has_failed_for_too_long_is_not_postponed(store, make, claim):
    old, young, new = make.message(), make.message(), make.message()
    since = {old.id: make.now - 2 * HOUR, young.id: make.now - MINUTE, new.id: None}
    store.settle(
        records=[make.record(message_id, since=at) for message_id, at in since.items()],
        held=[make.held(one) for one in (old, young, new)],
    )
    claims = claim(make.now)
    store.postpone(claims, make.now + MINUTE, gone=make.now - HOUR)
    store.release(claims)
    assert sorted(one.held.message.id for one in claim(make.now + HOUR)) == sorted([young.id, new.id]), "the old one was released"


def test_what_waited_comes_back_the_oldest_first_slowly_at_first(store, make, circuit, claim):
    rows = [make.held(due=make.now + MINUTE, key=PARKED) for _ in range(1500)]
    own_reason = make.held(due=make.now + MINUTE + SECOND)
    store.settle(held=[*reversed(rows), own_reason])
    assert store.change_circuit(circuit, recall=make.now)
    claims = claim(make.now + HOUR)
    assert [one.held.message.id for one in claims] == [*sorted(row.message.id for row in rows), own_reason.message.id]
    times = [(one.held.due - make.now).total_seconds() for one in claims]
    assert (times[0], times[99], times[999], times[1499], times[1500]) == (0.01, 1.0, 10.0, 10.5, 61.0)


def test_the_oldest_is_woken_and_no_other(store, make, claim):
    rows = [make.held(due=make.now + HOUR, key=PARKED) for _ in range(3)]
    store.settle(held=[*reversed(rows), make.held(due=make.now + MINUTE), make.held(step="t", due=make.now + HOUR, key=PARKED)])
    store.wake("p", "s", make.now)
    store.wake("p", "s", make.now - SECOND)
    assert [one.held.message for one in claim(make.now)] == [min((row.message for row in rows), key=lambda one: one.id)]


def test_nothing_comes_back_where_somebody_was_faster(store, make, circuit, claim):
    store.settle(held=[make.held(due=make.now + HOUR, key=PARKED)])
    store.change_circuit(circuit)
    assert not store.change_circuit(circuit, recall=make.now)
    assert claim(make.now + MINUTE) == []


def test_recalls_and_holds_at_once_end(store, url, make, circuit):
    """Each locks many of the same rows; none waits for ever, none is refused."""
    messages = [make.message() for _ in range(300)]
    store.settle(held=[make.held(one, due=make.now + MINUTE, key=PARKED) for one in messages])
    with ExitStack() as opened:
        stores = [Store(url) for _ in range(3)]
        for one in stores:
            opened.callback(one.close)

        def recall(_):
            for number in range(10):
                stores[0].recall("p", "s", make.now + number * SECOND)

        def hold(_):
            for attempt in range(2, 12):
                stores[1].settle(held=[make.held(one, due=make.now, attempt=attempt, key=PARKED) for one in reversed(messages)])

        def postpone(_):
            for _ in range(10):
                if claims := stores[2].claim_due(make.now + MINUTE, owner="clock", lease=MINUTE, limit=100):
                    stores[2].postpone(claims, make.now + MINUTE, gone=make.now - HOUR)

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(work, None) for work in (recall, hold, postpone)]:
                done.result(60)
    assert sum(store.held_counts().values()) == 300


PROBES = """
from pipeline.engine.circuit import Circuits
won = Circuits(store, lambda: now).probe("p", "s")
print("won" if won else "lost", flush=True)
sys.stdin.readline()
"""


def test_of_two_processes_one_tries_and_when_it_is_killed_another_does(store, url, make, circuit, spawned):
    from pipeline.engine.circuit import PROBE_LEASE, Circuits

    opened = replace(circuit, state=CircuitState.OPEN, failures=5, openings=1, error="503")
    assert store.change_circuit(opened)
    told = {}
    with spawned(PROBES, url, make.now.isoformat()) as one, spawned(PROBES, url, make.now.isoformat()) as other:
        for process in (one, other):
            process.stdin.write("\n")
            process.stdin.flush()
        for process in (one, other):
            told[process.stdout.readline().strip()] = process
        assert set(told) == {"won", "lost"}
        told["won"].kill()
        told["won"].wait()
    before = Circuits(store, lambda: make.now + PROBE_LEASE - SECOND)
    assert not before.probe("p", "s")
    assert Circuits(store, lambda: make.now + PROBE_LEASE).probe("p", "s")
