"""The dry run: takes one payload through a pipeline and tells what every step did; nothing is sent, stored or published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, Final, cast

import msgspec
import uuid_utils

from pipeline.engine.journey import Change, Delivery, Journey, Refusal, Trace, Visit
from pipeline.engine.parts import apart
from pipeline.engine.throwaway import ThrowawayMemory
from pipeline.engine.walk import Released, Waiting, Walk, others
from pipeline.errors import PermanentError, PipelineError, Problem, RequestError, TemporaryError
from pipeline.message import FIELDS, Message, derived_id
from pipeline.plugin import (
    AnyConsumer,
    AnyFilter,
    Buried,
    Dropped,
    Keep,
    Note,
    Opened,
    Plugin,
    RememberingFilter,
    Stay,
    WebhookProducer,
    Window,
    WindowFilter,
)
from pipeline.present import Pretence, pretending
from pipeline.registry import place_of
from pipeline.request import Request
from pipeline.secrecy import masker, secrets_in
from pipeline.spec.model import ConsumerStep, FilterStep, PipelineSpec, ProducerStep, Step

_ANSWERS: Final = {PermanentError: 422, TemporaryError: 503}

_REMEMBERS: Final = "remembers only what is tried here"


def dry_run(spec: PipelineSpec, producer: ProducerStep, request: Request, *, now: datetime) -> Trace:
    """Take one request through a pipeline."""
    (trace,) = dry_runs(spec, producer, [request], now=now)
    return trace


def dry_runs(spec: PipelineSpec, producer: ProducerStep, requests: Sequence[Request], *, now: datetime) -> list[Trace]:
    """Take requests through a pipeline, as if they came at one moment; give what became of each. Plugin errors are part of it.

    Filters and the producer are opened and closed; consumers are only asked for a preview. What a window filter holds goes on
    as if it were due at once: with the others of its key, as far as they are of these requests. Secrets in the options are
    masked in all that is told.
    """
    with ExitStack() as opened:
        opened.enter_context(pretending(Pretence(lambda: now, lambda: str(uuid_utils.uuid7()), lambda low, _high: low)))
        return _DryRun(spec, now, opened).run(producer, requests)


class _DryRun:
    """One dry run: the plugins it opened, and the memories of its filters."""

    def __init__(self, spec: PipelineSpec, now: datetime, opened: ExitStack) -> None:
        self._spec = spec
        self._now = now
        self._opened = opened
        self._plugins: dict[tuple[str, str], Plugin[Any]] = {}
        self._memories: dict[str, ThrowawayMemory] = {}
        self._buried: dict[str, str] = {}
        """By the ids of parts of messages: why they are buried."""
        steps: tuple[Step, ...] = (*spec.producers, *spec.filters, *spec.consumers)
        self._mask = masker(secret for step in steps for secret in secrets_in(step.config))

    def run(self, step: ProducerStep, requests: Sequence[Request]) -> list[Trace]:
        """Let the producer make messages of each request, and follow all of them."""
        producer = self._plugin(step)
        if not isinstance(producer, WebhookProducer):
            raise PermanentError(f"producer '{step.label}' of pipeline '{self._spec.name}' takes no payloads")
        made = [self._made(producer, step.label, request) for request in requests]
        taken = [one for one in made if isinstance(one, list)]
        journeys = iter(self._follow([Walk(message, message) for some in taken for message in some], self._spec.filters))
        trace = Trace(pipeline=self._spec.name, producer=step.label)
        return [
            replace(trace, journeys=tuple(islice(journeys, len(one)))) if isinstance(one, list) else replace(trace, refused=one)
            for one in made
        ]

    def _made(self, producer: WebhookProducer[Any], label: str, request: Request) -> list[Message] | Refusal:
        """Give the messages of a request, or why it is refused."""
        try:
            return _checked((one for one in producer.receive(request) if not isinstance(one, Note)), label)
        except RequestError as error:
            problems = tuple(Problem(problem.where, self._mask(problem.text)) for problem in error.problems)
            return Refusal(status=error.status, reason=self._words(error), problems=problems)
        except Exception as error:  # noqa: BLE001 - a bug in a producer is what a dry run is there to show
            status = next((code for kind, code in _ANSWERS.items() if isinstance(error, kind)), 500)
            return Refusal(status=status, reason=self._words(error))

    def _follow(self, walks: Sequence[Walk], filters: Sequence[FilterStep]) -> list[Journey]:
        """Take messages through filters, each step with all of them, and to the consumers."""
        for index, step in enumerate(filters):
            waiting: dict[str, list[Waiting]] = {}
            for walk in walks:
                if walk.current is not None and (waits := self._visit(step, walk, walk.current, filters[index + 1 :])):
                    waiting.setdefault(waits.window.key, []).append(waits)
            for together in waiting.values():
                self._open(step, together, filters[index + 1 :])
        return [
            Journey(
                message=walk.message,
                changes=walk.changes,
                visits=tuple(walk.visits),
                deliveries=tuple(self._delivery(step, walk.current) for step in self._spec.consumers) if walk.current else (),
            )
            for walk in walks
        ]

    def _visit(self, step: FilterStep, walk: Walk, message: Message, rest: Sequence[FilterStep]) -> Waiting | None:
        """Take a message through a filter; give how it waits there, if it does."""
        visit = Visit(step=step.label, plugin=step.plugin, place=str(step.position), did="passed")
        if step.when is not None and not step.when.matches(message):
            walk.visits.append(replace(visit, did="left out", reason=f"when: {step.when.text} does not hold"))
            return None
        memory = self._memories.setdefault(step.label, ThrowawayMemory())
        memory.asked = False
        try:
            plugin = cast("AnyFilter", self._plugin(step))
            if isinstance(plugin, WindowFilter):
                window = plugin.window(message, self._now, memory)
                if isinstance(window, Window):
                    return Waiting(walk, visit, window, window.message or message)
                out: Iterable[Message | Dropped | Buried] = [message if window is None else window]
            else:
                out = plugin.filter(message, memory) if isinstance(plugin, RememberingFilter) else plugin.filter(message)
            self._go_on(step, walk, visit, self._sorted(step, message, out), rest, note=_REMEMBERS if memory.asked else "")
        except Exception as error:  # noqa: BLE001 - whatever a filter raises is what a dry run is there to show
            walk.end(replace(visit, did="failed", reason=self._words(error)))
        return None

    def _go_on(
        self,
        step: FilterStep,
        walk: Walk,
        visit: Visit,
        given: tuple[str, list[Message]],
        rest: Sequence[FilterStep],
        *,
        note: str = "",
    ) -> None:
        """Note what a filter gave in place of a message; a `held` visit says so already."""
        why, left = given
        assert walk.current is not None
        held = visit.did == "held"
        if not left:
            walk.end(visit if held else replace(visit, did="dropped", reason=self._mask(why)))
        elif len(left) == 1:
            changed = self._changes(walk.current, left[0])
            visit = replace(visit, changes=changed) if held else replace(visit, reason=note, changes=changed)
            walk.visits.append(visit if held or not changed else replace(visit, did="changed"))
            walk.current = left[0]
        else:
            parts = [Walk(part, part, self._changes(walk.current, part)) for part in left]
            for part in parts:
                if (reason := self._buried.get(part.message.id)) is not None:
                    place = Visit(step=step.label, plugin=step.plugin, place=visit.place, did="failed", reason=self._mask(reason))
                    part.end(place)
            split = visit if held else replace(visit, did="split", reason=f"into {len(left)}")
            walk.end(replace(split, parts=tuple(self._follow(parts, rest))))

    def _open(self, step: FilterStep, together: Sequence[Waiting], rest: Sequence[FilterStep]) -> None:
        """Open a window for all that wait in it: what leaves as itself goes on, what is made of them goes on with one of them."""
        due, key = min(one.window.due for one in together), together[0].window.key
        messages = [one.message for one in together]
        now, memory = max(self._now, due), self._memories[step.label]
        opened = Opened(key=key, messages=messages, kept=None, due=due, now=now, memory=memory)
        try:
            out = list(cast("WindowFilter[Any]", self._plugin(step)).release(opened))
            left = _checked((one for one in out if not isinstance(one, Dropped | Stay | Keep)), step.label)
        except Exception as error:  # noqa: BLE001 - as above
            for one in together:
                one.walk.end(replace(one.visit, did="failed", reason=self._words(error)))
            return
        released = Released(together, left, out)
        until = f"until {due:%Y-%m-%d %H:%M:%S %Z}{others(key, len(together))}"
        for one in together:
            visit = replace(one.visit, did="held", reason=self._mask(f"{until}{released.told(one)}"))
            self._go_on(step, one.walk, visit, ("", _named(step, one.message, released.instead_of(one))), rest)

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
            return replace(delivery, did="left out", reason=f"when: {step.when.text} does not hold")
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
