"""Which queues a claim asks when there are more than one command should name."""

from __future__ import annotations

from pipeline.queue.redis.rota import AT_ONCE, OTHERS, Rota

BELL = "bell:"
FEW = [f"few{number}" for number in range(AT_ONCE)]
MANY = [f"many{number:04d}" for number in range(1000)]


def test_few_queues_are_all_asked_and_each_comes_first_in_turn() -> None:
    rota = Rota(BELL)
    rota.heard(BELL + FEW[3])
    rounds = [rota.choose(FEW) for _ in FEW]
    assert all(sorted(asked) == sorted(FEW) for asked in rounds)
    assert {asked[0] for asked in rounds} == set(FEW)
    assert not rota.waiting


def test_one_that_rang_is_asked_first() -> None:
    rota = Rota(BELL)
    rota.heard(BELL + MANY[700])
    assert rota.choose(MANY)[0] == MANY[700]


def test_no_command_names_more_queues_than_that_and_all_come_in_turn() -> None:
    rota = Rota(BELL)
    for name in MANY:
        rota.heard(BELL + name)
    seen: set[str] = set()
    for _ in range(len(MANY) // OTHERS + 1):
        asked = rota.choose(MANY)
        assert len(asked) <= AT_ONCE
        assert len(set(asked)) == len(asked)
        seen.update(asked)
    assert seen == set(MANY)


def test_who_never_rings_is_asked_although_others_always_have_something() -> None:
    rota = Rota(BELL)
    for name in MANY[:500]:
        rota.heard(BELL + name)
    rounds = 0
    while MANY[999] not in (asked := rota.choose(MANY)):
        rota.asked(asked, asked[:4], all_of_it=False)
        rounds += 1
    assert rounds <= len(MANY) // OTHERS + 1


def test_those_that_had_more_come_again_after_the_others() -> None:
    rota = Rota(BELL)
    for name in MANY[:100]:
        rota.heard(BELL + name)
    asked = rota.choose(MANY)
    rota.asked(asked, asked[:4], all_of_it=False)
    assert rota.choose(MANY)[0] == asked[4]
    served: set[str] = set(asked[:4])
    while not served >= set(MANY[:100]):
        asked = rota.choose(MANY)
        served.update(asked[:4])
        rota.asked(asked, asked[:4], all_of_it=False)


def test_nothing_waits_when_all_that_rang_is_empty() -> None:
    rota = Rota(BELL)
    for name in MANY[:100]:
        rota.heard(BELL + name)
    while rota.waiting:
        rota.asked(rota.choose(MANY), (), all_of_it=True)
    assert not rota.waiting


def test_a_queue_that_is_consumed_no_more_is_forgotten() -> None:
    rota = Rota(BELL)
    rota.heard(BELL + "gone")
    assert "gone" not in rota.choose(MANY)
    assert not rota.waiting


def test_a_channel_that_is_no_bell_names_no_queue() -> None:
    rota = Rota(BELL)
    rota.heard("fanout:many0700")
    assert not rota.waiting


def test_queues_that_others_have_emptied_keep_none_of_those_behind_them_waiting() -> None:
    rota = Rota(BELL)
    for name in MANY:
        rota.heard(BELL + name)
    full = {name for number, name in enumerate(MANY) if number % 10}
    served: set[str] = set()
    for _ in range(4 * len(MANY)):
        asked = rota.choose(MANY)
        found = [name for name in asked if name in full][:4]
        rota.asked(asked, found, all_of_it=len(found) < 4)
        served.update(found)
    assert served == full
