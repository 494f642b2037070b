"""The dry run: what it tells of each step, what it never does, and what it never shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, SecretBytes, SecretStr

from pipeline import (
    Condition,
    Config,
    Consumer,
    Dropped,
    Filter,
    Keep,
    Memory,
    Message,
    NoOptions,
    Opened,
    PermanentError,
    PollingProducer,
    Problem,
    RememberingFilter,
    Request,
    RequestError,
    Stay,
    TemporaryError,
    WebhookProducer,
    Window,
    WindowFilter,
    present,
)
from pipeline.engine.dryrun import changes, dry_run, dry_runs, plain
from pipeline.engine.journey import Change, Trace
from pipeline.engine.throwaway import ThrowawayMemory
from pipeline.plugin import Plugin, Released
from pipeline.secrecy import MASK, masker, secrets_in
from pipeline.spec.model import ConsumerStep, FilterStep, PipelineSpec, Position, ProducerStep

NOW = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)
HERE = Position(Path("configs/alerts.yaml"), 7, 5)
KEY = "s3cr3t-key"


class Inner(Config):
    password: SecretBytes = SecretBytes(b"bytes-secret")


class Keyed(Config):
    key: SecretStr = SecretStr(KEY)
    more: dict[str, SecretStr] = Field(default_factory=dict)
    inner: Inner = Inner()
    what: str = ""


class Take(WebhookProducer[Keyed]):
    """Makes messages of a JSON list."""

    life: ClassVar[list[str]] = []

    def open(self) -> None:
        self.life.append("open")

    def close(self) -> None:
        self.life.append("close")

    def receive(self, request: Request) -> Iterable[Message]:
        for index, entry in enumerate(request.json()):
            if entry == "refuse":
                where = f"[{index}]"
                raise RequestError("not all entries", status=422, problems=[Problem(where, f"refused with {KEY}")])
            if entry == "permanent":
                raise PermanentError("never")
            if entry == "bug":
                raise ValueError(f"with {KEY}")
            if entry == "temporary":
                raise TemporaryError("not now")
            if entry == "rubbish":
                yield entry
                continue
            yield Message(source="test", **entry)


class Poll(PollingProducer[NoOptions]):
    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        return []


class Do(Filter[Keyed]):
    """Does what its option says."""

    def filter(self, message: Message) -> Iterable[Message]:
        match self.config.what:
            case "drop":
                return
            case "upper":
                yield message.replace(
                    title=message.title.upper(), labels={**message.labels, "team": "db", "host": "b"}, id="other"
                )
            case "split":
                yield message.replace(title="one")
                yield message.replace(title="two")
            case "bug":
                raise ValueError(f"broken by {KEY}")
            case "permanent":
                raise PermanentError("will not do")
            case "rubbish":
                yield 7  # type: ignore[misc]  # what a filter must not do
            case _:
                yield message


class Once(RememberingFilter[NoOptions]):
    def filter(self, message: Message, memory: Memory) -> Iterable[Message]:
        if memory.first(message.key, timedelta(minutes=10)):
            yield message


class Forgetful(RememberingFilter[NoOptions]):
    def filter(self, message: Message, memory: Memory) -> Iterable[Message]:
        before = memory.count("all", timedelta(minutes=10))
        memory.forget("all")
        yield message.replace(title=str(before))


class Wait(WindowFilter[Keyed]):
    def window(self, message: Message, now: datetime, memory: Memory) -> Window | None:
        return Window(message.key, now + timedelta(seconds=30)) if message.severity else None

    def release(self, opened: Opened) -> Iterable[Message]:
        key, messages = opened.key, opened.messages
        if self.config.what != "nothing":
            yield messages[0].replace(title=f"{len(messages)} of {key or 'all'}")


class Night(WindowFilter[Keyed]):
    """Lets all wait until the morning; then each by itself, but what is said to be dropped, or to stay."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | Dropped | None:
        if message.title == "now":
            return None
        return (
            Dropped("never at night") if message.title == "never" else Window("", now + timedelta(hours=int(message.text or 8)))
        )

    def release(self, opened: Opened) -> Iterable[Released]:
        for message in opened.messages:
            if message.title == "bug":
                raise ValueError(f"broken by {KEY}")
            if message.title == "stay":
                yield Stay(message, opened.now + timedelta(hours=1))
            elif message.title == "drop":
                yield Dropped("it is old by now", message)
            elif message.title != "end":
                yield message
        yield Keep({"n": 1}, opened.now + timedelta(days=1))


class Clocked(Filter[NoOptions]):
    def filter(self, message: Message) -> Iterable[Message]:
        yield message.replace(title=f"{present.now():%H:%M}")


class Tell(Consumer[Keyed]):
    def open(self) -> None:
        raise AssertionError("a dry run opens no consumer")

    def consume(self, message: Message) -> None:
        raise AssertionError("a dry run sends nothing")

    def preview(self, message: Message) -> object:
        if self.config.what == "bug":
            raise KeyError(KEY)
        return {"to": {1, 2}, "key": self.config.key.get_secret_value(), KEY: [f"x{KEY}x", 1, None], "title": message.title}


def fil(what: str = "", kind: type[Plugin[Any]] = Do, when: str | None = None, label: str = "") -> FilterStep:
    config = Keyed(what=what) if kind.config_type is Keyed else NoOptions()
    condition = Condition(when) if when else None
    label = label or what or kind.__name__.lower()
    return FilterStep(kind="filter", plugin="do", type=kind, label=label, config=config, position=HERE, when=condition)


def con(what: str = "", when: str | None = None, label: str = "tell") -> ConsumerStep:
    condition = Condition(when) if when else None
    config = Keyed(what=what, more={"x": SecretStr("another-secret")})
    return ConsumerStep(
        kind="consumer", plugin="tell", type=Tell, label=label, config=config, position=HERE, when=condition, queue="tell"
    )


def take(kind: type[Plugin[Any]] = Take) -> ProducerStep:
    config = Keyed() if kind is Take else NoOptions()
    return ProducerStep(kind="producer", plugin="take", type=kind, label="take", config=config, position=HERE)


def run(entries: Any, *steps: FilterStep | ConsumerStep, producer: ProducerStep | None = None) -> Trace:
    (trace,) = run_all([entries], *steps, producer=producer)
    return trace


def run_all(payloads: list[Any], *steps: FilterStep | ConsumerStep, producer: ProducerStep | None = None) -> list[Trace]:
    producer = producer or take()
    spec = PipelineSpec(
        name="alerts",
        producers=(producer,),
        filters=tuple(step for step in steps if isinstance(step, FilterStep)),
        consumers=tuple(step for step in steps if isinstance(step, ConsumerStep)),
        position=HERE,
    )
    bodies = [entries if isinstance(entries, bytes) else json.dumps(entries).encode() for entries in payloads]
    return dry_runs(spec, producer, [Request(body) for body in bodies], now=NOW)


def test_a_message_goes_through_the_filters_to_each_consumer() -> None:
    trace = run([{"title": "disk full"}], fil("pass"), con(), con(label="second"))
    (journey,) = trace.journeys
    assert [visit.did for visit in journey.visits] == ["passed"]
    assert [(delivery.step, delivery.did) for delivery in journey.deliveries] == [
        ("tell", "would send"),
        ("second", "would send"),
    ]
    assert not trace.failed
    assert (trace.pipeline, trace.producer) == ("alerts", "take")


def test_a_change_is_told_field_by_field_and_the_id_stays() -> None:
    trace = run([{"title": "disk full", "labels": {"host": "a"}}], fil("upper"), con())
    (journey,) = trace.journeys
    assert journey.visits[0].did == "changed"
    assert journey.visits[0].changes == (
        Change("title", "disk full", "DISK FULL"),
        Change("labels.host", "a", "b"),
        Change("labels.team", None, "db"),
    )
    assert journey.deliveries[0].preview["title"] == "DISK FULL"


def test_a_dropped_message_ends_there_and_the_place_is_told() -> None:
    (journey,) = run([{"title": "noise"}], fil("drop"), fil("upper"), con()).journeys
    assert [(visit.did, visit.place) for visit in journey.visits] == [("dropped", "configs/alerts.yaml:7:5")]
    assert journey.deliveries == ()


def test_each_part_of_a_split_message_goes_on_by_itself_under_an_id_that_a_repeat_has_too() -> None:
    entry = {"title": "both", "id": "0193a5d2-0000-7000-8000-000000000001"}
    first, again = (run([entry], fil("split"), fil("upper"), con()).journeys[0] for _ in range(2))
    (visit,) = first.visits
    assert (visit.did, visit.reason) == ("split", "into 2")
    assert first.deliveries == ()
    assert [part.changes for part in visit.parts] == [(Change("title", "both", "one"),), (Change("title", "both", "two"),)]
    assert [part.deliveries[0].preview["title"] for part in visit.parts] == ["ONE", "TWO"]
    ids = [part.message.id for part in visit.parts]
    assert len(set(ids)) == 2
    assert ids == [part.message.id for part in again.visits[0].parts]


@pytest.mark.parametrize(("severity", "did"), [("critical", "changed"), ("info", "left out")])
def test_a_filter_applies_where_its_when_holds(severity: str, did: str) -> None:
    (journey,) = run([{"title": "x", "severity": severity}], fil("upper", when='severity == "critical"')).journeys
    assert journey.visits[0].did == did
    assert journey.visits[0].reason == ("" if did == "changed" else 'when: severity == "critical" does not hold')


def test_a_consumer_gets_only_what_its_when_lets_through() -> None:
    (journey,) = run([{"title": "x"}], con(when='severity == "critical"')).journeys
    assert [(d.did, d.reason, d.preview) for d in journey.deliveries] == [
        ("left out", 'when: severity == "critical" does not hold', None)
    ]


def test_a_remembering_filter_sees_the_earlier_messages_of_the_payload_only() -> None:
    entries = [{"key": "a"}, {"key": "a"}, {"key": "b"}]
    for _ in range(2):
        trace = run(entries, fil(kind=Once))
        assert [journey.visits[0].did for journey in trace.journeys] == ["passed", "dropped", "passed"]


def test_two_steps_of_one_plugin_have_memories_of_their_own_that_can_forget() -> None:
    trace = run([{"key": "a"}, {"key": "b"}], fil(kind=Once, label="x"), fil(kind=Once, label="y"), fil(kind=Forgetful))
    assert [[visit.did for visit in journey.visits] for journey in trace.journeys] == [["passed", "passed", "changed"]] * 2


def test_a_held_message_says_until_when_and_goes_on_as_if_alone() -> None:
    (journey,) = run([{"key": "k", "severity": "info"}], fil(kind=Wait), fil("upper"), con()).journeys
    held = journey.visits[0]
    assert held.did == "held"
    assert held.reason == "until 2026-03-29 00:59:30 UTC with the others of key 'k'; goes on here as if alone"
    assert held.changes == (Change("title", "", "1 of k"),)
    assert journey.deliveries[0].preview["title"] == "1 OF K"


def test_a_window_may_let_a_message_pass_or_let_nothing_leave() -> None:
    passing, empty = run([{}, {"severity": "info"}], fil("nothing", kind=Wait), con()).journeys
    assert [visit.did for visit in passing.visits] == ["passed"]
    assert passing.deliveries
    assert [(visit.did, visit.reason) for visit in empty.visits] == [("held", "until 2026-03-29 00:59:30 UTC")]
    assert empty.deliveries == ()


def test_messages_of_one_key_leave_their_window_together() -> None:
    entries = [{"key": "k", "severity": "info", "title": title} for title in ("one", "two")]
    other = {"key": "other", "severity": "info"}
    first, second, third = run([*entries, other], fil(kind=Wait), fil("upper"), con()).journeys
    assert first.visits[0].reason == "until 2026-03-29 00:59:30 UTC with 1 more of key 'k'; goes on here"
    assert first.deliveries[0].preview["title"] == "2 OF K"
    assert [visit.reason for visit in second.visits] == ["until 2026-03-29 00:59:30 UTC with 1 more of key 'k'; goes on in 'one'"]
    assert second.deliveries == ()
    assert third.deliveries[0].preview["title"] == "1 OF OTHER"


def test_what_becomes_of_each_message_in_a_window_is_told() -> None:
    titles = ("now", "never", "stay", "drop", "end", "early")
    entries = [{"title": title, "text": "2" if title == "early" else ""} for title in titles]
    trace = run(entries, fil(kind=Night), con())
    told = {journey.message.title: (journey.visits[0].did, journey.visits[0].reason) for journey in trace.journeys}
    until = "until 2026-03-29 02:59:00 UTC with 3 more"
    assert told == {
        "now": ("passed", ""),
        "never": ("dropped", "never at night"),
        "stay": ("held", f"{until}; waits on"),
        "drop": ("held", f"{until}; then it is old by now"),
        "end": ("held", until),
        "early": ("held", f"{until}; goes on here"),
    }
    assert {journey.message.title for journey in trace.journeys if journey.deliveries} == {"now", "early"}
    assert not trace.failed


def test_a_window_that_fails_fails_all_that_wait_in_it() -> None:
    bug, other, passing = run([{"title": "bug"}, {"title": "x"}, {"title": "now"}], fil(kind=Night), con()).journeys
    for journey in (bug, other):
        assert [visit.did for visit in journey.visits] == ["failed"]
        assert journey.visits[0].reason.startswith(f"ValueError: broken by {MASK} (")
    assert passing.deliveries


def test_several_payloads_share_what_is_remembered_and_the_windows() -> None:
    payloads = [[{"key": "a"}, {"key": "b"}], ["refuse"], [{"key": "a"}]]
    first, refused, second = run_all(payloads, fil(kind=Once), con())
    assert [journey.visits[0].did for journey in (*first.journeys, *second.journeys)] == ["passed", "passed", "dropped"]
    assert refused.refused is not None
    assert [trace.failed for trace in (first, refused, second)] == [False, True, False]
    waits = [[{"key": "k", "severity": "info", "title": "one"}], [{"key": "k", "severity": "info", "title": "two"}]]
    one, two = run_all(waits, fil(kind=Wait), con())
    assert one.journeys[0].deliveries[0].preview["title"] == "2 of k"
    assert two.journeys[0].deliveries == ()


def test_it_is_told_where_a_filter_asked_its_memory() -> None:
    (journey,) = run([{"key": "a"}], fil(kind=Once), fil("pass"), fil(kind=Wait)).journeys
    assert [visit.reason for visit in journey.visits] == ["remembers only what is tried here", "", ""]


def test_plugins_are_told_the_time_that_is_pretended() -> None:
    (journey,) = run([{}], fil(kind=Clocked), con()).journeys
    assert journey.deliveries[0].preview["title"] == "00:59"


def test_one_payload_alone() -> None:
    spec = PipelineSpec(name="alerts", producers=(take(),), consumers=(con(),), position=HERE)
    assert len(dry_run(spec, spec.producers[0], Request(b"[{}, {}]"), now=NOW).journeys) == 2


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("bug", f"ValueError: broken by {MASK} ({__file__}:"),
        ("permanent", "will not do"),
        ("rubbish", "'rubbish' yielded int, not a message"),
    ],
)
def test_a_filter_that_raises_fails_its_message_alone(what: str, text: str) -> None:
    bad = fil(what, when='severity == "error"', label=what)
    trace = run([{"severity": "error"}, {"severity": "info"}], bad, con())
    failed, fine = trace.journeys
    assert failed.visits[0].did == "failed"
    assert failed.visits[0].reason.startswith(text)
    assert failed.deliveries == ()
    assert fine.deliveries[0].did == "would send"
    assert trace.failed


def test_a_failure_in_a_part_fails_the_whole() -> None:
    assert run([{}], fil("split"), fil("bug")).failed
    assert not run([{}], fil("split"), fil("upper")).failed


def test_a_consumer_that_cannot_tell_what_it_would_send_fails() -> None:
    trace = run([{}], con("bug"))
    (delivery,) = trace.journeys[0].deliveries
    assert delivery.did == "failed"
    assert delivery.reason.startswith(f"KeyError: '{MASK}'")
    assert trace.failed


@pytest.mark.parametrize(
    ("entries", "status", "reason"),
    [
        (["refuse"], 422, "not all entries"),
        (["permanent"], 422, "never"),
        (["temporary"], 503, "not now"),
        (["bug"], 500, f"ValueError: with {MASK} "),
        (["rubbish"], 422, "'take' yielded str, not a message"),
        (b"\xff", 400, "the body is not JSON"),
    ],
)
def test_a_refused_payload_says_what_its_sender_would_be_answered(entries: Any, status: int, reason: str) -> None:
    trace = run(entries if isinstance(entries, bytes) else [{}, *entries], con())
    assert trace.failed
    assert trace.journeys == ()
    assert trace.refused is not None
    assert trace.refused.status == status
    assert trace.refused.reason.startswith(reason)


def test_the_problems_of_a_refusal_are_told_without_secrets() -> None:
    refused = run([{}, "refuse"]).refused
    assert refused is not None
    assert refused.problems == (Problem("[1]", f"refused with {MASK}"),)


def test_a_producer_that_polls_takes_no_payload() -> None:
    with pytest.raises(PermanentError, match="takes no payloads"):
        run([], producer=take(Poll))


def test_plugins_are_opened_and_closed_once_each() -> None:
    Take.life.clear()
    run([{}, {}])
    assert Take.life == ["open", "close"]


def test_no_secret_shows_anywhere() -> None:
    trace = run([{"title": "x"}], fil("bug", when='title == "y"'), con())
    told = json.dumps(plain(trace))
    assert KEY not in told
    assert trace.journeys[0].deliveries[0].preview == {
        "to": [1, 2],
        "key": MASK,
        MASK: [f"x{MASK}x", 1, None],
        "title": "x",
    }


def test_all_secrets_of_options_are_found() -> None:
    config = Keyed(more={"a": SecretStr("one"), "b": SecretStr("two")})
    assert list(secrets_in(config)) == [KEY, "one", "two", "bytes-secret"]
    assert list(secrets_in([(SecretStr("three"),), "plain", 4])) == ["three"]


def test_a_short_secret_is_masked_only_where_it_is_the_whole_text() -> None:
    mask = masker(["abc", "", "long-secret", "long-secret-more"])
    assert mask("abc") == MASK
    assert mask("abcd") == "abcd"
    assert mask("a long-secret-more, a long-secret") == f"a {MASK}, a {MASK}"
    assert masker([])("text") == "text"


def test_changes_tell_of_labels_that_went_and_of_data() -> None:
    before = Message(source="a", labels={"x": "1"}, data={"n": 1}, time=NOW)
    after = before.replace(labels={}, data=None, id="new", time=NOW + timedelta(hours=1))
    assert changes(before, after) == [
        Change("time", "2026-03-29T00:59:00Z", "2026-03-29T01:59:00Z"),
        Change("labels.x", "1", None),
        Change("data", {"n": 1}, None),
    ]


def test_what_json_has_no_form_for_is_told_as_text() -> None:
    assert plain({"path": Path("/x"), 1: {2}}) == {"path": "/x", "1": [2]}


def test_the_memory_of_a_dry_run_is_one_until_it_ends_and_knows_whether_it_was_asked() -> None:
    memory, day = ThrowawayMemory(), timedelta(days=1)
    memory.remember("k", "a text", day)
    memory.remove("k", "nobody")
    assert not memory.asked
    assert (memory.first("k", day), memory.count("k", day), memory.recall("k")) == (True, 2, "a text")
    assert memory.asked
    assert not memory.swap("k", None, "other", day)
    assert memory.swap("k", "a text", "other", day)
    assert [*memory.add("k", "b", day), *memory.add("k", "a", day)] == ["b", "a", "b"]
    memory.remove("k", "b")
    assert memory.members("k") == ["a"]
    memory.forget("k")
    assert (memory.first("k", day), memory.recall("k"), memory.members("k")) == (True, None, [])
