"""Sample: a share that everybody chooses alike, or the first and then every so many."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.sample import Sample, SampleConfig
from pipeline import Dropped, Message, TemporaryError, foreign_id
from pipeline.testing import Recollection, RememberingFilterContract


class TestShare(RememberingFilterContract):
    plugin = Sample
    options = {"share": 0.5, "by": ["key"]}


class TestEvery(RememberingFilterContract):
    plugin = Sample
    options = {"every": 2, "by": ["key"], "within": "1h"}


def made(**options):
    return Sample(SampleConfig.model_validate(options))


def decide(sample, message, memory=None):
    (out,) = sample.filter(message, memory or Recollection(away=["recall", "swap"]))
    return out.reason if isinstance(out, Dropped) else "passed"


def numbered(number, **fields):
    return Message(**{"id": foreign_id(None, str(number)), "source": "test"} | fields)


def test_a_share_passes_about_so_many_and_asks_no_memory():
    sample = made(share=0.1)
    decisions = [decide(sample, numbered(number)) for number in range(2000)]
    assert decisions.count("passed") == 214, "of 2000, by the hashes of these ids"
    assert set(decisions) == {"passed", "not in the sample of 0.1"}


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.text())
def test_what_is_in_a_share_is_in_every_larger_one(one, other, name):
    smaller, larger = sorted((one, other))
    message = Message(id=foreign_id(None, name), source="test")
    if decide(made(share=smaller), message) == "passed":
        assert decide(made(share=larger), message) == "passed"


def test_of_a_key_all_or_none_are_in_a_share():
    sample = made(share=0.5, by="key")
    keys = {key: {decide(sample, numbered(f"{key} {number}", key=key)) for number in range(5)} for key in "abcdefghijklmnop"}
    assert {len(decisions) for decisions in keys.values()} == {1}
    assert len({decision for decisions in keys.values() for decision in decisions}) == 2


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(2, 7))
@settings(max_examples=50)
def test_the_first_of_a_key_passes_and_then_every_so_many(keys, every):
    sample, memory, seen = made(every=every, by="key"), Recollection(), dict.fromkeys("abc", 0)
    for number, key in enumerate(keys):
        place = seen[key] % every
        expected = f"number {place + 1} of {every}, of which the first passes" if place else "passed"
        assert decide(sample, numbered(number, key=key), memory) == expected
        seen[key] += 1


def test_without_by_all_are_of_one_key():
    sample, memory = made(every=3), Recollection()
    decisions = [decide(sample, numbered(number, key=str(number)), memory) for number in range(6)]
    assert [decision == "passed" for decision in decisions] == [True, False, False] * 2


@given(st.lists(st.integers(0, 40), max_size=120))
@settings(max_examples=50)
def test_one_that_passed_passes_again_however_often_it_comes(numbers):
    """The last ten are known: a batch comes again before so many others have passed, or what passes is another one."""
    sample, memory = made(every=4), Recollection()
    passed: list[int] = []
    for number in numbers:
        decision = decide(sample, numbered(number), memory)
        if number in passed[-10:]:
            assert decision == "passed"
        elif decision == "passed":
            passed.append(number)
    assert len(passed) <= len(numbers) // 4 + 1


def test_what_is_remembered_has_a_bound():
    sample, memory = made(every=2), Recollection()
    for number in range(200):
        decide(sample, numbered(number), memory)
    assert len(memory.recall("")) < 200


def test_after_a_while_without_any_it_begins_anew():
    sample, memory = made(every=10, within="1h"), Recollection()
    assert decide(sample, numbered(1), memory) == "passed"
    memory.now += timedelta(minutes=59)
    assert decide(sample, numbered(2), memory) != "passed"
    memory.now += timedelta(minutes=59)
    assert decide(sample, numbered(3), memory) == "number 3 of 10, of which the first passes"
    memory.now += timedelta(minutes=60)
    assert decide(sample, numbered(4), memory) == "passed"


@pytest.mark.parametrize("text", ["", "{}", '["many"]'])
def test_what_another_version_remembered_otherwise_lets_it_begin_anew(text):
    sample, memory = made(every=2), Recollection()
    memory.remember("", text, timedelta(hours=1))
    assert [decide(sample, numbered(number), memory) == "passed" for number in range(3)] == [True, False, True]


class Busy(Recollection):
    """A memory in which somebody else is always faster."""

    def swap(self, key, old, new, within):
        return False


def test_a_memory_that_cannot_be_told_decides_nothing():
    with pytest.raises(TemporaryError, match="none could be counted"):
        decide(made(every=2), numbered(1), Busy())
    with pytest.raises(TemporaryError):
        decide(made(every=2), numbered(1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"share": 0.5, "every": 2},
        {"share": 0},
        {"share": 1},
        {"every": 1},
        {"every": 2, "within": "0s"},
        {"share": 0.5, "within": "1h"},
    ],
)
def test_options_that_are_none(options):
    with pytest.raises(ValidationError):
        SampleConfig.model_validate(options)
