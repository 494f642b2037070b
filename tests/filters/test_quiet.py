"""What `deduplicate`, `throttle` and `sample` promise together: as many pass on eight workers as on one, and nothing gets lost.

In the simulation workers die, batches come twice and in any order, clocks differ, and the memory is lost.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Message, PermanentError, foreign_id
from pipeline.engine.simulation import Simulation
from pipeline.spec.loader import load
from pipeline.spec.model import PipelineSpec
from pipeline.store import Outcome

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
WHERE = ("filtering", "settled", "worked", "delivering", "claimed", "releasing")
MOST_SKEW = 5


@cache
def pipeline_of(filters: str) -> PipelineSpec:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "quiet.yaml"
        file.write_text(f"name: quiet\nproducers:\n  - http\nfilters:\n{indent(filters, '  ')}\nconsumers:\n  - log\n")
        return load([file]).pipelines["quiet"]


@dataclass(frozen=True)
class Sent:
    """A message, or what goes wrong before it is sent."""

    after: int
    key: str
    severity: str = "warning"
    status: str = "firing"
    trouble: str = ""


def timelines(*, states: bool = False, troubles: bool = False, longest: int = 200) -> st.SearchStrategy[list[Sent]]:
    state = st.sampled_from([("warning", "firing"), ("critical", "firing"), ("warning", "resolved")])
    made = st.builds(
        lambda after, key, state, trouble: Sent(after, key, *state, trouble),
        st.sampled_from([0, 0, 1, 4, 29, 30, 60, longest]),
        st.sampled_from("ab"),
        state if states else st.just(("warning", "firing")),
        st.sampled_from(["", "", "", "forget", "restart", *WHERE]) if troubles else st.just(""),
    )
    return st.lists(made, min_size=1, max_size=12)


class Play:
    """A timeline that was played to its end."""

    def __init__(self, filters: str, sent: list[Sent], *, workers=1, skew=(), chaos=None, outage=None):
        self.sent: dict[str, tuple[datetime, Message]] = {}
        self.forgotten: list[datetime] = []
        skews = [seconds * SECOND for seconds in skew][:workers]
        with Simulation(pipeline_of(filters), start=START, workers=workers, skew=skews) as simulation:
            simulation.chaos(chaos)
            if outage is not None:
                simulation.fail("log", PermanentError("no such address"), for_=outage)
            for number, one in enumerate(sent):
                self.send(simulation, number, one)
            assert simulation.run_until_idle()
            self.told = [(at, message) for at, message in simulation.deliveries["log"]]
            self.ids = {message.id for _, message in self.told}
            self.records = {
                message_id: {record.step: record for record in simulation.records(message_id)} for message_id in self.sent
            }
            self.became = {  # what waited did so under an id of its own
                message_id: {one for waits in record.became for last in simulation.records(waits) for one in last.became}
                for message_id, records in self.records.items()
                for record in records.values()
                if record.outcome is Outcome.REPLACED
            }
            self.letters = {letter.message.id: letter for letter in simulation.dead_letters()}

    def send(self, simulation: Simulation, number: int, one: Sent) -> None:
        simulation.run_until(simulation.now + one.after * SECOND)
        if one.trouble == "forget":
            simulation.forget()
            self.forgotten.append(simulation.now)
        elif one.trouble == "restart":
            simulation.restart()
        elif one.trouble:
            simulation.kill_next(one.trouble)
        message = Message(
            id=foreign_id(simulation.now, str(number)),
            source="test",
            time=simulation.now,
            title=f"about {one.key}",
            key=one.key,
            severity=one.severity,
            status=one.status,
        )
        self.sent[message.id] = (simulation.now, message)
        simulation.accept([message])

    def dropped(self, step: str) -> dict[str, str]:
        """Give by message id why it was dropped, of those that nobody was told of."""
        found = {message_id: records.get(step) for message_id, records in self.records.items() if message_id not in self.ids}
        return {message_id: record.reason for message_id, record in found.items() if record and record.outcome is Outcome.DROPPED}


SKEWS = st.lists(st.integers(-MOST_SKEW, MOST_SKEW), max_size=3)
MANY = st.sampled_from([2, 8])
SEEDS = st.one_of(st.none(), st.integers(0, 99))
ONCE = "- deduplicate: {within: 1m}"


@given(timelines(states=True), MANY)
@settings(max_examples=10, deadline=None)
def test_many_workers_deduplicate_as_one(sent, workers):
    one, many = Play(ONCE, sent), Play(ONCE, sent, workers=workers)
    assert many.told == one.told
    assert many.dropped("deduplicate") == one.dropped("deduplicate")
    told: dict[str, tuple[datetime, tuple[str, str]]] = {}
    expected = []
    for message_id, (at, message) in one.sent.items():
        state = (message.severity, message.status)
        before = told.get(message.key)
        if before is None or at >= before[0] + MINUTE or before[1] != state:
            told[message.key] = (at, state)
            expected.append(message_id)
    assert [message.id for _, message in one.told] == expected


REPEAT = re.compile(r"by deduplicate: repeat \d+ of (\S+) since ")


@given(timelines(states=True, troubles=True), st.integers(1, 3), SKEWS, SEEDS)
@settings(max_examples=30, deadline=None)
def test_whatever_happens_each_message_is_told_or_a_repeat_of_one_that_was(sent, workers, skew, chaos):
    play = Play(ONCE, sent, workers=workers, skew=skew, chaos=chaos)
    dropped = play.dropped("deduplicate")
    assert play.ids | set(dropped) == set(play.sent)
    for message_id, reason in dropped.items():
        at, message = play.sent[message_id]
        of = REPEAT.match(reason)
        assert of, reason
        assert of[1] in play.ids, "it was silenced by one that was told"
        since, told = play.sent[of[1]]
        assert (told.key, told.severity, told.status) == (message.key, message.severity, message.status)
        assert abs(at - since) <= MINUTE + 2 * MOST_SKEW * SECOND


@given(timelines(troubles=True), st.integers(1, 3), SKEWS, SEEDS)
@settings(max_examples=15, deadline=None)
def test_at_most_one_passes_in_a_window_but_for_what_was_forgotten(sent, workers, skew, chaos):
    play = Play(ONCE, sent, workers=workers, skew=skew, chaos=chaos)
    window = 60 - 2 * MOST_SKEW
    for key in "ab":
        times = [at for message_id, (at, message) in play.sent.items() if message.key == key]
        told = [message_id for message_id in play.ids if play.sent[message_id][1].key == key]
        if times:
            assert 1 <= len(told) <= 1 + (times[-1] - times[0]) // (window * SECOND) + len(play.forgotten)


@given(timelines(longest=90), st.integers(1, 3), SEEDS, st.integers(0, 300))
@settings(max_examples=15, deadline=None)
def test_what_reached_nobody_silences_nobody_for_longer_than_a_second(sent, workers, chaos, outage):
    play = Play("- deduplicate: {within: 1h}", sent, workers=workers, chaos=chaos, outage=outage * SECOND)
    for message_id, reason in play.dropped("deduplicate").items():
        told = REPEAT.match(reason)[1]
        assert told in play.ids or play.letters[told].at > play.sent[message_id][0] - SECOND
    for key in "ab":
        late = [at for at, message in play.sent.values() if message.key == key and at > START + (outage + 1) * SECOND]
        assert not late or any(message.key == key for _, message in play.told)


@pytest.mark.parametrize("most", [1, 3])
@given(sent=timelines(), workers=MANY)
@settings(max_examples=6, deadline=None)
def test_many_workers_throttle_as_one(most, sent, workers):
    filters = f"- throttle: {{by: key, most: {most}, within: 1m}}"
    one, many = Play(filters, sent), Play(filters, sent, workers=workers)
    assert [(at, message.title) for at, message in many.told] == [(at, message.title) for at, message in one.told]
    windows: dict[str, datetime] = {}
    passed: Counter[str] = Counter()
    expected, suppressed = [], Counter()
    for message_id, (at, message) in one.sent.items():
        key = message.key
        if key not in windows or at >= windows[key] + MINUTE:
            windows[key], passed[key] = at, 0
        passed[key] += 1
        if passed[key] <= most:
            expected.append(message_id)
        else:
            suppressed[windows[key], key] += 1
    summaries = [(at, message) for at, message in one.told if message.type == "summary"]
    assert [message.id for _, message in one.told if message.type != "summary"] == expected
    assert {(at - MINUTE, message.key): message.data["suppressed"] for at, message in summaries} == {
        (at, f'throttle ["{key}"]'): number for (at, key), number in suppressed.items()
    }


@given(timelines(troubles=True), st.integers(1, 3), SKEWS, SEEDS, st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_whatever_happens_each_message_passes_or_is_told_of(sent, workers, skew, chaos, most):
    play = Play(f"- throttle: {{by: key, most: {most}, within: 1m}}", sent, workers=workers, skew=skew, chaos=chaos)
    summaries = {message.id: message for _, message in play.told if message.type == "summary"}
    dropped = play.dropped("throttle")
    carriers = play.became
    assert play.ids - set(summaries) | set(dropped) | set(carriers) == set(play.sent)
    for became in carriers.values():
        assert became <= set(summaries)
        assert became
    for message_id, reason in dropped.items():
        assert reason.startswith(f"by throttle: more than {most} since ")
        at, message = play.sent[message_id]
        near = [one for one in summaries.values() if one.key == f'throttle ["{message.key}"]']
        assert any(at - 2 * MOST_SKEW * SECOND <= one.time <= at + MINUTE + 2 * MOST_SKEW * SECOND for one in near)
    if not play.forgotten:
        assert sum(one.data["suppressed"] for one in summaries.values()) >= len(dropped) + len(carriers)
    for key in "ab":
        times = [at for at, message in play.sent.values() if message.key == key]
        passed = [message_id for message_id in play.ids - set(summaries) if play.sent[message_id][1].key == key]
        if times:
            windows = 1 + (times[-1] - times[0]) // ((60 - 2 * MOST_SKEW) * SECOND) + len(play.forgotten)
            assert min(most, len(times)) <= len(passed) <= most * windows


@given(timelines(), MANY, st.integers(2, 4))
@settings(max_examples=8, deadline=None)
def test_many_workers_sample_as_one(sent, workers, every):
    play = Play(f"- sample: {{every: {every}, by: key}}", sent, workers=workers)
    for key in "ab":
        of_key = [message_id for message_id, (_, message) in play.sent.items() if message.key == key]
        assert [message.id for _, message in play.told if message.key == key] == of_key[::every]


@given(timelines(troubles=True), st.integers(1, 3), SKEWS, SEEDS)
@settings(max_examples=12, deadline=None)
def test_whatever_happens_a_sample_is_large_enough(sent, workers, skew, chaos):
    play = Play("- sample: {every: 3, by: key}", sent, workers=workers, skew=skew, chaos=chaos)
    assert play.ids | set(play.dropped("sample")) == set(play.sent)
    for key in "ab":
        count = sum(message.key == key for _, message in play.sent.values())
        assert sum(message.key == key for _, message in play.told) >= math.ceil(count / 3)


@given(timelines(troubles=True), st.integers(1, 3), SKEWS, SEEDS)
@settings(max_examples=6, deadline=None)
def test_whatever_happens_a_share_is_the_same_share(sent, workers, skew, chaos):
    filters = "- sample: 0.5"
    play, calm = Play(filters, sent, workers=workers, skew=skew, chaos=chaos), Play(filters, sent)
    assert play.ids == calm.ids
