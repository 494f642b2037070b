"""The dry run: takes one payload through a pipeline and tells what every step did; nothing is sent, stored or published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast

import msgspec

from pipeline.engine.parts import apart
from pipeline.errors import PermanentError, PipelineError, Problem, RequestError, TemporaryError
from pipeline.message import FIELDS, Message, derived_id
from pipeline.plugin import (
    AnyConsumer,
    AnyFilter,
    Buried,
    Dropped,
    Memory,
    Note,
    Opened,
    Plugin,
    RememberingFilter,
    Stay,
    WebhookProducer,
    Window,
    WindowFilter,
)
from pipeline.registry import place_of
from pipeline.request import Request
from pipeline.secrecy import masker, secrets_in
from pipeline.spec.model import ConsumerStep, FilterStep, PipelineSpec, ProducerStep, Step

_ANSWERS: Final = {PermanentError: 422, TemporaryError: 503}

Did = Literal["passed", "changed", "dropped", "split", "held", "left out", "failed"]


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a message, or one of its labels, that a filter changed; None where there was or is no such label."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What a filter did with a message. `left out`: its `when:` does not hold, so the message passed it by."""

    step: str
    plugin: str
    place: str
    did: Did
    reason: str = ""
    changes: tuple[Change, ...] = ()
    parts: tuple[Journey, ...] = ()
    """Where the message was split: each part with the rest of its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a consumer would do with a message: `preview` is what it would send."""

    step: str
    plugin: str
    place: str
    did: Literal["would send", "left out", "failed"]
    reason: str = ""
    preview: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A message as it came, and its way: filters, then consumers; these are empty where it did not come so far."""

    message: Message
    changes: tuple[Change, ...] = ()
    """How a part of a split message differs from the whole."""
    visits: tuple[Visit, ...] = ()
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the producer did not take the payload. `status` is what its sender would be answered."""

    status: int
    reason: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The outcome of a dry run."""

    pipeline: str
    producer: str
    refused: Refusal | None = None
    journeys: tuple[Journey, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the payload was refused, or a filter or a consumer raised."""
        return self.refused is not None or any(map(_failed, self.journeys))


class ThrowawayMemory:
    """A memory in which time stands still; it ends with the dry run."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._texts: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}

    def first(self, key: str, within: timedelta) -> bool:  # noqa: ARG002 - the protocol's; no time passes
        """Say whether this is the first call for `key`."""
        return self.count(key, timedelta()) == 1

    def count(self, key: str, within: timedelta) -> int:  # noqa: ARG002 - the protocol's; no time passes
        """Count this call for `key`."""
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]

    def remember(self, key: str, value: str, within: timedelta) -> None:  # noqa: ARG002 - the protocol's; no time passes
        """Keep a text under `key`."""
        self._texts[key] = value

    def recall(self, key: str) -> str | None:
        """Give the text that is kept under `key`, or None."""
        return self._texts.get(key)

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:  # noqa: ARG002 - the protocol's; no time passes
        """Keep `new` under `key` where `old` is kept there now."""
        if self._texts.get(key) != old:
            return False
        self._texts[key] = new
        return True

    def forget(self, key: str) -> None:
        """Forget what is known of `key`."""
        self._counts.pop(key, None)
        self._texts.pop(key, None)
        self._members.pop(key, None)

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:  # noqa: ARG002 - the protocol's; no time passes
        """Make a text a member of `key`, and give all."""
        self._members.setdefault(key, set()).add(member)
        return self.members(key)

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""
        self._members.get(key, set()).discard(member)

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`."""
        return sorted(self._members.get(key, ()))


def dry_run(spec: PipelineSpec, producer: ProducerStep, request: Request, *, now: datetime) -> Trace:
    """Take a request through a pipeline. Plugin errors are part of the trace.

    Filters and the producer are opened and closed; consumers are only asked for a preview. A message that a window
    filter holds goes on as if it were due at once, alone. Secrets in the options are masked in all that is told.
    """
    with ExitStack() as opened:
        return _DryRun(spec, now, opened).run(producer, request)


class _DryRun:
    """One dry run: the plugins it opened, and the memories of its filters."""

    def __init__(self, spec: PipelineSpec, now: datetime, opened: ExitStack) -> None:
        self._spec = spec
        self._now = now
        self._opened = opened
        self._plugins: dict[tuple[str, str], Plugin[Any]] = {}
        self._memories: dict[str, Memory] = {}
        self._buried: dict[str, str] = {}
        """By the ids of parts of messages: why they are buried."""
        steps: tuple[Step, ...] = (*spec.producers, *spec.filters, *spec.consumers)
        self._mask = masker(secret for step in steps for secret in secrets_in(step.config))

    def run(self, step: ProducerStep, request: Request) -> Trace:
        """Let the producer make messages, and follow each."""
        trace = Trace(pipeline=self._spec.name, producer=step.label)
        producer = self._plugin(step)
        if not isinstance(producer, WebhookProducer):
            raise PermanentError(f"producer '{step.label}' of pipeline '{self._spec.name}' takes no payloads")
        try:
            messages = _checked((one for one in producer.receive(request) if not isinstance(one, Note)), step.label)
        except RequestError as error:
            problems = tuple(Problem(problem.where, self._mask(problem.text)) for problem in error.problems)
            return replace(trace, refused=Refusal(status=error.status, reason=self._words(error), problems=problems))
        except Exception as error:  # noqa: BLE001 - a bug in a producer is what a dry run is there to show
            status = next((code for kind, code in _ANSWERS.items() if isinstance(error, kind)), 500)
            return replace(trace, refused=Refusal(status=status, reason=self._words(error)))
        return replace(trace, journeys=tuple(self._journey(message, self._spec.filters) for message in messages))

    def _journey(self, message: Message, filters: Sequence[FilterStep], changes: tuple[Change, ...] = ()) -> Journey:
        visits: list[Visit] = []
        current = message
        for index, step in enumerate(filters):
            visit, left = self._visit(step, current)
            if len(left) > 1:
                rest = filters[index + 1 :]
                parts = tuple(self._part(step, current, part, rest) for part in left)
                visit = replace(visit, parts=parts)
            visits.append(visit)
            if len(left) != 1:
                return Journey(message=message, changes=changes, visits=tuple(visits))
            current = left[0]
        deliveries = tuple(self._delivery(step, current) for step in self._spec.consumers)
        return Journey(message=message, changes=changes, visits=tuple(visits), deliveries=deliveries)

    def _part(self, step: FilterStep, whole: Message, part: Message, rest: Sequence[FilterStep]) -> Journey:
        changes = self._changes(whole, part)
        if (why := self._buried.get(part.id)) is None:
            return self._journey(part, rest, changes)
        buried = Visit(step=step.label, plugin=step.plugin, place=str(step.position), did="failed", reason=self._mask(why))
        return Journey(message=part, changes=changes, visits=(buried,))

    def _visit(self, step: FilterStep, message: Message) -> tuple[Visit, list[Message]]:
        visit = Visit(step=step.label, plugin=step.plugin, place=str(step.position), did="passed")
        if step.when is not None and not step.when.matches(message):
            return replace(visit, did="left out", reason=f"when: {step.when.text}"), [message]
        try:
            held, why, left = self._filter(step, message)
        except Exception as error:  # noqa: BLE001 - whatever a filter raises is what a dry run is there to show
            return replace(visit, did="failed", reason=self._words(error)), []
        changes = self._changes(message, left[0]) if len(left) == 1 else ()
        if held:
            return replace(visit, did="held", reason=self._mask(held), changes=changes), left
        if len(left) > 1:
            return replace(visit, did="split", reason=f"into {len(left)}"), left
        if not left:
            return replace(visit, did="dropped", reason=self._mask(why)), left
        return replace(visit, did="changed" if changes else "passed", changes=changes), left

    def _filter(self, step: FilterStep, message: Message) -> tuple[str, str, list[Message]]:
        """Give why the message is held, empty where it is not, why it is dropped if it is, and what leaves the filter."""
        plugin = cast("AnyFilter", self._plugin(step))
        memory = self._memories.setdefault(step.label, ThrowawayMemory())
        if isinstance(plugin, WindowFilter):
            return self._wait(step, plugin, message, memory)
        out = plugin.filter(message, memory) if isinstance(plugin, RememberingFilter) else plugin.filter(message)
        return "", *self._sorted(step, message, out)

    def _wait(
        self, step: FilterStep, plugin: WindowFilter[Any], message: Message, memory: Memory
    ) -> tuple[str, str, list[Message]]:
        window = plugin.window(message, self._now, memory)
        if not isinstance(window, Window):
            return "", *self._sorted(step, message, [message if window is None else window])
        waits = message if window.message is None else window.message
        opened = Opened(
            key=window.key, messages=[waits], kept=None, due=window.due, now=max(self._now, window.due), memory=memory
        )
        out = list(plugin.release(opened))
        why, left = self._sorted(step, message, [one for one in out if isinstance(one, Message | Dropped)])
        key = f" with the others of key '{window.key}'" if window.key else ""
        onward = "; goes on here as if alone" if left else "; waits on" if any(isinstance(one, Stay) for one in out) else ""
        return f"until {window.due:%Y-%m-%d %H:%M:%S %Z}{key}{onward}{f'; then {why}' if why else ''}", why, left

    def _sorted(self, step: FilterStep, parent: Message, out: Iterable[Message | Dropped | Buried]) -> tuple[str, list[Message]]:
        """Give why a message is dropped, if it is, and what goes on."""
        given = list(out)
        why = next((one.reason for one in given if isinstance(one, Dropped)), "")
        parts, reasons = apart(given)
        left = _named(step, parent, _checked(parts, step.label))
        self._buried |= {left[index].id: reason for index, reason in reasons.items()}
        return why, left

    def _delivery(self, step: ConsumerStep, message: Message) -> Delivery:
        delivery = Delivery(step=step.label, plugin=step.plugin, place=str(step.position), did="would send")
        if step.when is not None and not step.when.matches(message):
            return replace(delivery, did="left out", reason=f"when: {step.when.text}")
        try:
            preview = cast("AnyConsumer", step.build()).preview(step.written(message))
        except Exception as error:  # noqa: BLE001 - whatever a consumer raises is what a dry run is there to show
            return replace(delivery, did="failed", reason=self._words(error))
        return replace(delivery, preview=self._masked(plain(preview)))

    def _plugin(self, step: Step) -> Plugin[Any]:
        place = (step.kind, step.label)
        if place not in self._plugins:
            plugin = step.build()
            plugin.open()
            self._opened.callback(plugin.close)
            self._plugins[place] = plugin
        return self._plugins[place]

    def _changes(self, before: Message, after: Message) -> tuple[Change, ...]:
        return tuple(
            Change(change.field, self._masked(change.before), self._masked(change.after)) for change in changes(before, after)
        )

    def _words(self, error: Exception) -> str:
        if isinstance(error, PipelineError):
            return self._mask(str(error))
        return self._mask(f"{type(error).__name__}: {error} ({place_of(error)})")

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._mask(value)
        if isinstance(value, dict):
            return {self._mask(str(name)): self._masked(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._masked(inner) for inner in value]
        return value


def changes(before: Message, after: Message) -> list[Change]:
    """Give the fields in which two messages differ, each label by itself; the id is not among them."""
    found = []
    for name in FIELDS:
        old, new = getattr(before, name), getattr(after, name)
        if name == "labels":
            labels = [*old, *(label for label in new if label not in old)]
            found += [Change(f"labels.{label}", old.get(label), new.get(label)) for label in labels]
        elif name != "id":
            found.append(Change(name, plain(old), plain(new)))
    return [change for change in found if change.before != change.after]


def plain(value: object) -> Any:
    """Give a value as JSON can hold it; what JSON has no form for is written as text."""
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def _checked(out: Iterable[Message], label: str) -> list[Message]:
    messages = list(out)
    for message in messages:
        if not isinstance(message, Message):
            raise PermanentError(f"'{label}' yielded {type(message).__name__}, not a message")
    return messages


def _named(step: FilterStep, parent: Message, messages: Sequence[Message]) -> list[Message]:
    """Give what a filter made of a message its ids, as the engine does."""
    if len(messages) == 1:
        return [messages[0].replace(id=parent.id)]
    return [part.replace(id=derived_id(parent.id, step.label, index)) for index, part in enumerate(messages)]


def _failed(journey: Journey) -> bool:
    visits = any(visit.did == "failed" or any(map(_failed, visit.parts)) for visit in journey.visits)
    return visits or any(delivery.did == "failed" for delivery in journey.deliveries)
