"""Whose turn it is: shares, parked batches, batches that come twice, and connections that end."""

from __future__ import annotations

import itertools

import pytest

from pipeline.queue import turns as module
from pipeline.queue.turns import ENOUGH, FULL, QUICK, WIDE, YOUNG, Turns


class Toy:
    """A batch that notes what becomes of it."""

    size = ENOUGH

    def __init__(self, turns, queue, name, started):
        self.turns, self.queue, self.id, self.acknowledged, self.begun = turns, queue, name, False, True
        self._started, self._kind = started, name.rpartition("-")[0]
        self.kind = self._kind or None
        self.company = []
        self.full = None

    def take_along(self, other, full):
        self.full = full
        if self._kind and self._kind == other._kind:
            self.company.append(other.id)
            return True
        return False

    def come(self):
        self.turns.came(self, lambda: self._started.append(self.id))
        return self

    def acknowledge(self):
        self.acknowledged = True
        self.turns.went(self, done=True)

    def go_back(self):
        self.turns.went(self, done=False)


@pytest.fixture
def toys():
    started, flows = [], []

    def make(places, filters=(), deliveries=("a", "b"), prefetch=2, later=lambda _: None):
        turns = Turns(places, filters, deliveries, prefetch, flow=lambda: flows.append(1), later=later)
        turns.open()
        return turns, started, flows, lambda queue, name: Toy(turns, queue, name, started).come()

    return make


def test_one_queue_has_half_of_the_places_and_the_others_find_one(toys):
    _, started, _, come = toys(8)
    first = [come("a", f"a{n}") for n in range(20)]
    assert started == ["a0", "a1", "a2", "a3"]
    come("b", "b0")
    assert started[4:] == ["b0"]
    first[1].acknowledge()
    assert started[5:] == ["a4"]


def test_each_of_many_queues_has_a_place_as_long_as_half_of_the_places_suffices(toys):
    _, started, _, come = toys(8, deliveries=[str(n) for n in range(5)])
    for queue in range(5):
        for n in range(20):
            come(str(queue), f"{queue}.{n}")
    assert {name[0] for name in started} == set("01234")


def test_filters_have_all_places_and_deliveries_leave_them_one(toys):
    _, started, _, come = toys(2, filters=["in"])
    hanging = [come("a", f"a{n}") for n in range(3)]
    filtered = come("in", "i0")
    come("in", "i1")
    assert started == ["a0", "i0"]
    filtered.acknowledge()
    assert started[2:] == ["i1"]
    hanging[0].acknowledge()
    assert started[3:] == ["a1"]


def test_a_single_place_serves_all_in_turn(toys):
    _, started, _, come = toys(1, filters=["in"])
    only = come("a", "a0")
    come("b", "b0")
    assert started == ["a0"]
    only.acknowledge()
    assert started == ["a0", "b0"]


def test_a_batch_that_comes_again_while_it_is_under_way_is_not_run_twice(toys):
    turns, started, _, come = toys(8)
    first, again = come("a", "x"), come("a", "x")
    assert started == ["x"]
    first.acknowledge()
    assert (started, again.acknowledged) == (["x"], True)
    assert come("a", "x").acknowledged, "what is done is known when it comes again later, too"
    assert started == ["x"]
    assert turns.idle()


def test_a_batch_that_comes_again_runs_when_the_first_run_came_to_nothing(toys):
    _, started, _, come = toys(8)
    first, again = come("a", "x"), come("a", "x")
    first.go_back()
    assert (started, again.acknowledged) == (["x", "x"], False)


def test_two_of_a_kind_that_wait_run_one_after_the_other(toys):
    _, started, _, come = toys(2, deliveries=["a"])
    busy = come("a", "y")
    waiting, twin = come("a", "x"), come("a", "x")
    busy.acknowledge()
    assert started == ["y", "x"]
    waiting.acknowledge()
    assert twin.acknowledged
    assert started == ["y", "x"]


def test_what_waited_is_forgotten_with_its_connection_and_what_ran_keeps_its_place(toys):
    turns, started, _, come = toys(2, deliveries=["a"])
    old = come("a", "x")
    come("a", "y")
    turns.close()
    turns.open()
    again, other = come("a", "x"), come("a", "y")
    assert started == ["x"]
    old.acknowledge()
    assert again.acknowledged
    assert started == ["x", "y"]
    other.acknowledge()
    assert turns.idle()
    turns.close()
    come("a", "z")
    assert started == ["x", "y"], "nothing starts while the worker stops"


def test_what_waits_is_started_with_its_like_when_a_place_becomes_free(toys):
    turns, started, _, come = toys(1, filters=["in"], deliveries=())
    first, *waiting = [come("in", name) for name in ["x-0", "x-1", "y-0", "x-2", "y-1", "plain", "plain too"]]
    assert (started, first.company) == (["x-0"], []), "nobody waits for others to come"
    first.acknowledge()
    assert started[1:] == ["x-1"]
    assert waiting[0].company == ["x-2"]
    again = come("in", "x-2")
    waiting[0].acknowledge()
    assert started[2:] == ["y-0"]
    assert not again.acknowledged, "it is still under way"
    waiting[2].acknowledge()
    assert again.acknowledged
    for turn in (waiting[1], waiting[3], waiting[4], waiting[5]):
        turn.acknowledge()
    assert started[3:] == ["plain", "plain too"]
    assert turns.idle()


def test_no_more_than_so_many_are_started_together_and_they_leave_room_for_further_ones(toys):
    turns, started, _, come = toys(1, filters=["in"], deliveries=(), prefetch=10)
    first, second, *_ = [come("in", f"x-{n}") for n in range(20)]
    assert turns.paused() == {"in"}
    first.acknowledge()
    assert (started, len(second.company)) == (["x-0", "x-1"], module.TOGETHER - 1)
    assert turns.paused() == set(), "what waits behind them is to come as well"


def test_what_goes_back_by_itself_after_it_was_started_with_others_is_started_anew(toys):
    turns, started, _, come = toys(1, filters=["in"], deliveries=())
    first, leader, other = (come("in", f"x-{n}") for n in range(3))
    first.acknowledge()
    assert leader.company == ["x-2"]
    leader.go_back()
    other.go_back()
    assert turns.idle()
    again = come("in", "x-2")
    assert started == ["x-0", "x-1", "x-2"]
    again.acknowledge()
    assert turns.idle()


def test_a_queue_that_has_enough_here_is_paused_until_half_of_what_waits_is_gone(toys):
    turns, _, flows, come = toys(8, prefetch=2)
    many = [come("a", str(n)) for n in range(8)]
    assert (turns.paused(), len(flows)) == ({"a"}, 1)
    many[0].acknowledge()
    assert turns.paused() == {"a"}
    many[1].acknowledge()
    assert (turns.paused(), len(flows)) == (set(), 2)
    assert turns.window == 2 * (8 + module.AT_ONCE) + 8 * module.TOGETHER
    assert turns.largest == 8


def test_many_places_have_little_more_in_advance_than_few(toys):
    """What waits in one worker, others cannot do."""
    few, many = toys(2, prefetch=4)[0], toys(32, prefetch=4)[0]
    assert few.largest == 4
    assert many.largest == 16 + 8


def test_a_queue_that_no_pipeline_names_is_served(toys):
    _, started, _, come = toys(2)
    come("other", "x")
    assert started == ["x"]


def test_only_so_many_are_remembered(toys, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 1)
    _, started, _, come = toys(8)
    come("a", "x").acknowledge()
    come("a", "y").acknowledge()
    come("a", "x")
    assert started == ["x", "y", "x"]


def test_what_the_pool_had_not_begun_when_the_connection_ended_is_started_when_it_comes_again(toys):
    turns, started, _, come = toys(2, filters=["in"], deliveries=[])
    begun, dropped = come("in", "begun"), come("in", "dropped")
    dropped.begun = False
    turns.close()
    turns.open()
    come("in", "begun")
    come("in", "dropped")
    come("in", "next")
    assert started == ["begun", "dropped", "dropped"]
    begun.acknowledge()
    assert started == ["begun", "dropped", "dropped", "next"]


def test_what_came_by_a_connection_that_ended_takes_no_room_and_gives_none_when_it_is_done(toys):
    turns, _, _, come = toys(2, filters=["in"], deliveries=[], prefetch=1)
    old = [come("in", f"old {n}") for n in range(3)]
    assert turns.paused() == {"in"}
    old[1].begun = False
    turns.close()
    turns.open()
    assert turns.paused() == set()
    new = [come("in", f"new {n}") for n in range(3)]
    assert turns.paused() == {"in"}
    for one in old:
        one.acknowledge()
    assert turns.paused() == {"in"}
    new[0].acknowledge()
    assert turns.paused() == set()


def test_with_a_thousand_queues_the_window_is_one_that_brokers_know_and_no_queue_has_more_of_it(toys):
    turns, *_ = toys(3016, deliveries=[str(n) for n in range(3000)], prefetch=4)
    assert turns.window == 65_535
    assert turns.largest == toys(32, prefetch=4)[0].largest


def test_of_a_thousand_queues_one_has_no_more_under_way_than_of_two(toys):
    _, started, _, come = toys(1016, deliveries=[str(n) for n in range(1000)])
    for n in range(100):
        come("7", f"a{n}")
    assert len(started) == 16
    for n in range(1000):
        come(str(n), f"b{n}")
    assert len(started) == 16 + 999


def test_what_is_under_way_counts_until_it_ends_however_often_it_comes(toys):
    turns, started, _, come = toys(4, deliveries=["a", "b", "c"])
    first = come("a", "a0")
    again = come("a", "a0")
    come("a", "a1")
    first.go_back()
    assert started == ["a0", "a1", "a0"]
    turns.close()
    turns.open()
    again.begun = False
    for name in "abc":
        come(name, f"{name}9")
    assert started[3:] == ["b9", "c9"]


@pytest.fixture
def small(toys, monkeypatch):
    """Turns of batches that are worth no start of their own, a clock, and after how long they want to be asked again."""
    clock, expected = [100.0], []
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Toy, "size", ENOUGH // 4)
    turns, started, _, come = toys(8, filters=["in"], later=expected.append)
    return turns, started, come, clock, expected


def test_what_is_small_waits_for_the_end_of_the_one_before_and_is_started_as_one(small):
    _, started, come, _, expected = small
    first = come("a", "a0")
    waiting = [come("a", f"x-{n}") for n in range(3)]
    assert started == ["a0"]
    assert expected == [pytest.approx(YOUNG)]
    first.acknowledge()
    assert started == ["a0", "x-0"]
    assert waiting[0].company == ["x-1", "x-2"]


def test_what_is_small_waits_no_longer_than_the_one_before_is_young(small):
    turns, started, come, clock, expected = small
    come("a", "a0")
    clock[0] += YOUNG / 2
    come("a", "a1")
    assert expected == [pytest.approx(YOUNG / 2)]
    turns.again()  # too soon: it is wanted again
    assert started == ["a0"]
    assert len(expected) == 2
    clock[0] += YOUNG
    turns.again()
    assert started == ["a0", "a1"]
    clock[0] += YOUNG
    come("a", "a2")
    assert started == ["a0", "a1", "a2"]


def test_what_is_enough_together_waits_for_nobody(small):
    _, started, come, _, _ = small
    come("a", "a0")
    waiting = [come("a", f"x-{n}") for n in range(4)]
    assert started == ["a0", "x-0"]
    assert waiting[0].company == ["x-1", "x-2", "x-3"]


def test_nobody_waits_for_another_queue_and_filters_for_none(small):
    _, started, come, _, _ = small
    for name in ("a", "b", "in", "in"):
        come(name, f"{name}{len(started)}")
    assert started == ["a0", "b1", "in2", "in3"]


def test_a_wait_that_ended_with_its_connection_is_wanted_anew(small):
    turns, _, come, _, expected = small
    come("a", "a0")
    come("a", "a1")
    turns.close()
    turns.open()
    come("a", "a1")
    assert expected == [pytest.approx(YOUNG)] * 2


def test_where_filters_are_quick_several_full_batches_of_their_kind_are_started_as_one(small, monkeypatch):
    _, _, come, clock, _ = small
    monkeypatch.setattr(Toy, "size", FULL)
    number = itertools.count()

    def full_after(queue, seconds, kind="x", then="x"):
        """Have one batch of a kind take so long, and give how much the next, of one kind or the other, may take along."""
        first = come(queue, f"{kind}-{next(number)}")
        clock[0] += seconds
        first.acknowledge()
        places = [come(queue, f"place {next(number)}") for _ in range(8)]
        waiting = [come(queue, f"{then}-{next(number)}") for _ in range(2)]
        for one in [*places, *waiting]:
            one.acknowledge()
        return waiting[0].full

    assert full_after("in", QUICK * 0.9) == WIDE
    assert full_after("in", QUICK * 0.9, then="y") == 1
    assert full_after("in", QUICK * 1.1) == 1
    assert full_after("a", QUICK * 0.1) == 1
    monkeypatch.setattr(Toy, "size", FULL - 1)
    assert full_after("in", QUICK * 0.1, "z", "z") == 1


def test_what_cannot_be_started_together_waits_no_longer_for_that(small):
    """So it is where many pipelines share a queue."""
    turns, started, come, clock, _ = small
    for name in ("one", "two", "three"):
        come("a", name)
    clock[0] += YOUNG
    turns.again()
    assert started == ["one", "two", "three"]
