"""The ledger itself: it must report what is missing, what came twice, and what came in the wrong order."""

from __future__ import annotations

from harness.ledger import Ledger, Sent


def ledger() -> Ledger:
    return Ledger(("alpha", "beta"), ordered=("beta",))


def accept(book: Ledger, *ids: str, wanted: bool = True) -> None:
    book.accept(ids, [Sent("key", number, wanted=wanted) for number, _ in enumerate(ids)])


def arrive_everywhere(book: Ledger, *ids: str) -> None:
    for number, message in enumerate(ids):
        book.arrive("alpha", message, "key", number)
        book.arrive("beta", message, "key", number)


def test_all_is_well_where_everything_arrived_everywhere() -> None:
    book = ledger()
    accept(book, "a", "b")
    arrive_everywhere(book, "a", "b")
    verdict = book.verdict()
    assert (verdict.accepted, verdict.delivered, verdict.buried, verdict.lost, verdict.lost_count) == (2, 2, 0, {}, 0)
    assert (verdict.duplicates, verdict.dropped_seen, verdict.inversions) == ({"alpha": 0, "beta": 0}, {}, {"beta": 0})


def test_a_message_that_is_missing_at_one_consumer_is_lost_by_name() -> None:
    book = ledger()
    accept(book, "a", "b")
    arrive_everywhere(book, "a")
    book.arrive("alpha", "b")
    verdict = book.verdict()
    assert (book.outstanding, verdict.lost, verdict.lost_count, verdict.delivered) == (1, {"beta": ["b"]}, 1, 1)


def test_what_arrived_before_its_answer_is_not_waited_for() -> None:
    book = ledger()
    arrive_everywhere(book, "a")
    accept(book, "a")
    assert (book.outstanding, book.verdict().lost) == (0, {})


def test_a_dead_letter_of_a_consumer_accounts_for_that_consumer_only() -> None:
    book = ledger()
    accept(book, "a")
    book.bury([("a", "alpha")])
    verdict = book.verdict()
    assert (verdict.lost, verdict.buried, verdict.delivered) == ({"beta": ["a"]}, 1, 0)


def test_a_dead_letter_of_a_filter_accounts_for_all_consumers() -> None:
    book = ledger()
    accept(book, "a")
    book.bury([("a", "match"), ("unknown", "match")])
    verdict = book.verdict()
    assert (book.outstanding, verdict.lost, verdict.buried) == (0, {}, 1)


def test_repeats_are_duplicates_but_not_those_whose_answer_broke_off_or_that_nobody_was_told_of() -> None:
    book = ledger()
    accept(book, "a", "b")
    arrive_everywhere(book, "a", "b", "unanswered")
    book.arrive("alpha", "a")
    book.arrive("alpha", "a")
    book.arrive("beta", "b", sure=False)
    book.arrive("beta", "unanswered")
    assert book.verdict().duplicates == {"alpha": 2, "beta": 0}


def test_a_message_whose_answer_broke_off_has_arrived() -> None:
    book = ledger()
    accept(book, "a")
    book.arrive("alpha", "a", sure=False)
    book.arrive("beta", "a", sure=False)
    assert book.verdict().lost == {}


def test_what_a_filter_drops_is_not_waited_for_and_must_not_arrive() -> None:
    book = ledger()
    accept(book, "a", "b", wanted=False)
    assert book.outstanding == 0
    book.arrive("beta", "b")
    assert book.verdict().dropped_seen == {"beta": ["b"]}


def test_order_counts_within_a_key_and_for_first_arrivals() -> None:
    book = ledger()
    accept(book, "a", "b", "c")
    for message, number in (("a", 0), ("c", 2), ("b", 1), ("a", 0)):
        book.arrive("beta", message, "key", number)
        book.arrive("alpha", message, "key", number)
    book.arrive("beta", "other", "another key", 0)
    assert book.verdict().inversions == {"beta": 1}


def test_recovery_ends_when_what_was_waited_for_at_the_mark_has_arrived() -> None:
    book = ledger()
    accept(book, "a")
    book.mark()
    accept(book, "b")
    first = book.verdict().recovery
    arrive_everywhere(book, "a")
    second = book.verdict().recovery
    assert first is not None
    assert second is not None
    assert second == book.verdict().recovery, "it stands still from then on, though b is outstanding"


def test_nothing_to_recover_where_nothing_was_waited_for() -> None:
    book = ledger()
    book.mark()
    accept(book, "a")
    assert book.verdict().recovery is None


def test_the_stall_of_a_consumer_that_the_fault_itself_held_up_is_left_out() -> None:
    book = ledger()
    accept(book, "a")
    book.arrive("alpha", "a")
    held_up = book.verdict(apart_from={"beta"})
    assert book.verdict().stall > held_up.stall
