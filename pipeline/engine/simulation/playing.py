"""Plays a test of a pipeline in a simulation, and tells what is not as the test expects it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode

from pipeline.engine.dryrun import plain
from pipeline.engine.simulation import LONGEST, Answer, Simulation
from pipeline.engine.simulation.judging import Difference, Judge, Row, Seen, fields_of
from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.message import Message
from pipeline.request import Request
from pipeline.spec.cases import Case, Expected, Failure, Happening, Payload, Sending
from pipeline.spec.matching import fits
from pipeline.spec.model import PipelineSpec
from pipeline.store import Outcome
from pipeline.units import format_duration, parse_duration

_FILLED: Final = re.compile(r"\{\{\s*(?:(n)|now\s*(?:([+-])\s*([0-9a-z.]+))?)\s*\}\}")
_TYPES: Final = {"json": "application/json", "text": "text/plain", "form": "application/x-www-form-urlencoded", "none": ""}
_ERRORS: Final[dict[Failure, type[Exception]]] = {
    "temporary": TemporaryError,
    "permanent": PermanentError,
    "crash": RuntimeError,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a test: it passed where there is no difference."""

    differences: Sequence[Difference]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.differences


def play(case: Case, spec: PipelineSpec) -> Verdict:
    """Play a test. Whatever goes wrong in it is a difference; what raises is a bug of the engine."""
    began = perf_counter()
    with Simulation(spec, start=case.start) as simulation:
        found = list(_Play(case, simulation).play())
    return Verdict(tuple(found), perf_counter() - began)


class _Play:
    def __init__(self, case: Case, simulation: Simulation) -> None:
        self._case = case
        self._simulation = simulation
        self._judge = Judge(case.start, simulation)

    def play(self) -> Iterator[Difference]:
        simulation, case = self._simulation, self._case
        for label, times in case.broken.items():
            for broken in times:
                error = _ERRORS[broken.how](f"the test lets {label} fail")
                simulation.fail(label, error, for_=broken.lasting, after=broken.after)
        moment = case.start
        for number, timed in enumerate(case.steps, 1):
            moment = timed.at.of(case.start) if timed.at else moment + timed.after
            if moment < simulation.now:
                text = f"{self._judge.since(moment)} is before the step before it, at {self._judge.since(simulation.now)}"
                yield Difference(subject=f"step {number}", rows=[Row("+", "", text)])
                return
            simulation.run_until(moment)
            if isinstance(timed.step, Happening):
                self._happen(timed.step)
                continue
            for count in range(timed.step.repeat or 1):
                if count and timed.step.every:
                    moment += timed.step.every
                    simulation.run_until(moment)
                if (difference := self._send(timed.step, number, count + 1)) is not None:
                    yield difference
                    return
        yield from self._end(moment)
        yield from self._judged()

    def _end(self, moment: datetime) -> Iterator[Difference]:
        if self._case.until is not None:
            self._simulation.run_until(moment + self._case.until)
        elif not self._simulation.run_until_idle() and self._case.held is None:
            text = f"{self._simulation.held} still wait after {format_duration(LONGEST)}; 'until:' says when to look"
            yield Difference(subject="the end", rows=[Row("+", self._judge.since(self._simulation.now), text)])

    def _happen(self, step: Happening) -> None:
        if step.what == "restart":
            self._simulation.restart()
        elif step.what == "forget":
            self._simulation.forget()

    def _send(self, step: Sending, number: int, count: int) -> Difference | None:
        subject = f"step {number}: {step.producer}"
        try:
            if step.payload is None:
                self._give(step, count)
                return None
            answer = self._simulation.send(step.producer, self._request(step, step.payload, count))
        except PipelineError as error:
            return Difference(subject=subject, rows=[Row("+", self._judge.since(self._simulation.now), str(error))])
        except ValueError as error:
            return Difference(subject=subject, rows=[Row("+", "", f"this makes no message: {error}")])
        return self._answered(subject, step, answer)

    def _answered(self, subject: str, step: Sending, answer: Answer) -> Difference | None:
        wanted = step.answer
        same_text = wanted is None or wanted.reason is None or fits(wanted.reason, answer.reason)
        if same_text and (answer.status == wanted.status if wanted else answer.status < 300):
            return None
        told = [
            f"{answer.status} {answer.reason}".strip(),
            *(f"{one.where or 'the body'}: {one.text}" for one in answer.problems),
        ]
        when = self._judge.since(self._simulation.now)
        expected = f"{wanted.status} {wanted.reason or ''}".strip() if wanted else "2xx"
        return Difference(subject=f"{subject}, answer", rows=[Row("-", when, expected), *(Row("+", when, text) for text in told)])

    def _give(self, step: Sending, count: int) -> None:
        """Give a producer messages: one that is asked has them when it is."""
        simulation = self._simulation
        messages = [self._message(step.producer, self._filled(one, count)) for one in step.messages]
        declared = next(one for one in simulation.spec.producers if one.label == step.producer)
        if declared.polls:
            simulation.provide(step.producer, messages)
        else:
            simulation.accept(messages, step.producer)

    def _message(self, producer: str, fields: Mapping[str, Any]) -> Message:
        known = {"source": producer, **fields}
        if "time" in known:
            known["time"] = datetime.fromisoformat(known["time"])
        return self._simulation.message(**known)

    def _request(self, step: Sending, payload: Payload, count: int) -> Request:
        below = self._filled(payload.path, count)
        slash = "/" if below and not below.startswith("/") else ""
        value, body = self._filled(payload.value, count), payload.body
        if body is None:
            body = _WRITTEN[payload.kind](value)
        content_type = payload.content_type or _TYPES[payload.kind]
        headers = {"content-type": content_type} if content_type else {}
        return Request(
            body=body,
            headers=headers | {name.lower(): self._filled(text, count) for name, text in payload.headers.items()},
            query=payload.query,
            method=payload.method,
            path=f"/in/{self._simulation.spec.name}/{step.producer}{slash}{below}",
        )

    def _filled(self, value: Any, count: int) -> Any:
        """Give a value with `{{ n }}` and `{{ now + 5m }}` filled in, in all its texts."""
        if isinstance(value, str):
            return _FILLED.sub(lambda found: self._fill(found, count), value) if "{{" in value else value
        if isinstance(value, Mapping):
            return {self._filled(name, count): self._filled(inner, count) for name, inner in value.items()}
        return [self._filled(inner, count) for inner in value] if isinstance(value, list) else value

    def _fill(self, found: re.Match[str], count: int) -> str:
        if found[1]:
            return str(count)
        by = parse_duration(found[3]) if found[3] else timedelta()
        moment = self._simulation.now + (-by if found[2] == "-" else by)
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def _judged(self) -> Iterator[Difference]:
        case = self._case
        for label, told in self._failures().items():
            yield Difference(subject=f"asking {label}", rows=[Row("+", when, text) for when, text in told])
        for label in self._consumers():
            yield from self._consumer(label)
        if case.dropped:
            dropped = self._dropped()
            for label, wanted in case.dropped.items():
                yield from self._compare(f"dropped by {label}", ("dropped", label), wanted, dropped.get(label, []))
        buried = self._buried()
        for label in dict.fromkeys((*case.dead_letters, *buried)):
            wanted = case.dead_letters.get(label, [])
            yield from self._compare(f"dead letters at {label}", ("dead_letters", label), wanted, buried.get(label, []))
        if case.held is not None and case.held != self._simulation.held:
            rows = [Row("-", "", str(case.held)), Row("+", "", str(self._simulation.held))]
            yield Difference(subject="held", rows=rows, place=("held",), seen=self._simulation.held)

    def _failures(self) -> dict[str, list[tuple[str, str]]]:
        """Give by producer how asking it failed, each text when it was heard first."""
        found: dict[str, dict[str, str]] = {}
        for at, label, text in self._simulation.failures:
            found.setdefault(label, {}).setdefault(text, self._judge.since(at))
        return {label: [(when, text) for text, when in told.items()] for label, told in found.items()}

    def _consumers(self) -> list[str]:
        """Give the consumers to be looked at; in a test without any expectation all, so that it says what there is."""
        case = self._case
        says_nothing = not (case.expect or case.dropped or case.dead_letters or case.held is not None or self._expects_answers())
        everyone = [step.label for step in self._simulation.spec.consumers]
        return everyone if case.only or says_nothing else [label for label in everyone if label in case.expect]

    def _expects_answers(self) -> bool:
        return any(isinstance(timed.step, Sending) and timed.step.answer for timed in self._case.steps)

    def _consumer(self, label: str) -> Iterator[Difference]:
        deliveries = [
            Seen(at, fields_of(message), {"sent": partial(self._sent, label, message)})
            for at, message in self._simulation.deliveries[label]
        ]
        for found in self._compare(label, ("expect", label), self._case.expect.get(label, []), deliveries):
            missing = [row for row in found.rows if row.sign == "-"]
            yield found if not missing else _with_reasons(found, self._judge.reasons(label))

    def _sent(self, label: str, message: Message) -> Any:
        """Give what the consumer would have sent, without secrets; where it cannot say, why."""
        try:
            return _masked(plain(self._simulation.sent(label, message)), self._simulation.mask)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is the test's business
            return f"{type(error).__name__}: {error}"

    def _compare(self, subject: str, place: tuple[str, ...], wanted: Expected, seen: Sequence[Seen]) -> Iterator[Difference]:
        if (found := self._judge.compare(subject, place, wanted, seen)) is not None:
            yield found

    def _dropped(self) -> dict[str, list[Seen]]:
        """Give what each step dropped, in order of time."""
        found: dict[str, list[Seen]] = {}
        waiting = [(message.id, message.title) for _, _, message in self._simulation.accepted]
        known = {message_id for message_id, _ in waiting}
        for message_id, title in waiting:
            for record in self._simulation.records(message_id):
                if record.outcome is Outcome.DROPPED:
                    fields = {"reason": record.reason, "id": message_id, "title": title}
                    found.setdefault(record.step, []).append(Seen(record.at, fields))
                waiting += [(other, title) for other in record.became if other not in known]
                known.update(record.became)
        return {label: sorted(dropped, key=lambda one: one.at) for label, dropped in found.items()}

    def _buried(self) -> dict[str, list[Seen]]:
        found: dict[str, list[Seen]] = {}
        for letter in self._simulation.dead_letters():
            fields = fields_of(letter.message) | {"error": letter.error}
            found.setdefault(letter.step, []).append(Seen(letter.at, fields))
        return found


def _with_reasons(difference: Difference, reasons: Sequence[str]) -> Difference:
    return replace(difference, reasons=reasons)


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {name: _masked(inner, mask) for name, inner in value.items()}
    return [_masked(inner, mask) for inner in value] if isinstance(value, list) else value


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _form(value: Mapping[str, str]) -> bytes:
    return urlencode(value).encode()


def _text(value: str) -> bytes:
    return value.encode()


_WRITTEN: Final[dict[str, Callable[[Any], bytes]]] = {"json": _json, "text": _text, "form": _form, "none": lambda _: b""}
