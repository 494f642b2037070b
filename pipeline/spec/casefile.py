"""Reads a `NAME.test.yaml`: every problem with its place, before anything is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pipeline.message import FIELDS
from pipeline.registry import did_you_mean, suggestion
from pipeline.schedule import read_zone
from pipeline.spec.casekeys import AnswerKeys, CaseKeys, FailKeys, FileKeys, MessageKeys, PayloadKeys, SpanKeys, StepKeys
from pipeline.spec.cases import (
    Answered,
    Broken,
    Case,
    CaseFile,
    Expected,
    Happening,
    Moment,
    Payload,
    Sending,
    Timed,
    Wanted,
    pipeline_of,
)
from pipeline.spec.document import read
from pipeline.spec.matching import refuse_unusable
from pipeline.spec.options import validate
from pipeline.spec.problems import Place, Problems
from pipeline.spec.tree import Entry, Items, Mapping, Node, Scalar
from pipeline.units import parse_duration

START: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""When a test begins that does not say: on a Monday at noon."""
_BODIES: Final = ("file", "json", "text", "form", "message", "messages")
_STEP_KEYS: Final = tuple(StepKeys.model_fields)
_ALONE: Final = ("wait", "restart", "forget")
_TIME: Final = "a time such as 2026-03-29T01:59, or +10m for so long after the test began, is expected"
_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "expect": (*FIELDS, "at", "sent"),
    "dropped": ("reason", "at", "id", "title"),
    "dead_letters": (*FIELDS, "at", "error"),
}
_DEEP: Final = ("labels", "data", "sent")
"""What is no text: something may be expected of a part of it."""
_KINDS: Final = {"expect": "consumer", "dropped": "step", "dead_letters": "step"}
_LONGEST_FILE: Final = 64 * 2**20


def read_cases(path: Path, problems: Problems) -> CaseFile | None:
    """Read a file of tests; None where it is none at all. Each test with a problem is left out."""
    root = read(path, problems)
    if root is None:
        return None
    if not isinstance(root, Mapping):
        problems.error(root.place, "a mapping is expected", "a file of tests begins with 'tests:'")
        return None
    first = next((entry.key for entry in root.entries.values()), root.place)
    found = validate(FileKeys, root, first, "file", problems)
    if found is None:
        return None
    items = root.entries["tests"].value
    assert isinstance(items, Items)
    cases: list[Case] = []
    for index, item in enumerate(items.items):
        case = _CaseReader(path, found, problems).read(index, item)
        if case is None:
            continue
        if twin := next((other for other in cases if other.name == case.name), None):
            problems.error(case.place, f"another test is called '{case.name}'", f"the first stands in line {twin.place.line}")
        cases.append(case)
    return CaseFile(path, pipeline_of(path), tuple(cases))


class _CaseReader:
    """Reads one test."""

    def __init__(self, path: Path, file: FileKeys, problems: Problems) -> None:
        self._path = path
        self._file = file
        self._problems = problems
        self._zone: ZoneInfo = read_zone(file.timezone)
        self._labels: dict[str, list[tuple[str, Place]]] = {}

    def read(self, index: int, node: Node) -> Case | None:
        before = len(self._problems)
        if not isinstance(node, Mapping):
            self._problems.error(node.place, "a test is a mapping", "such as '- name: …'")
            return None
        keys = validate(CaseKeys, node, node.place, "test", self._problems)
        zone = node.entries.get("timezone")
        if zone is not None and keys is not None:
            self._zone = read_zone(keys.timezone)
        start = self._start(node)
        steps = tuple(self._steps(node.entries.get("send")))
        broken = dict(self._broken(node.entries.get("fail")))
        expected = {part: self._expected(part, node.entries.get(part)) for part in _KINDS}
        if keys is None or len(self._problems) > before:
            return None
        return Case(
            name=keys.name,
            place=node.entries["name"].value.place,
            index=index,
            start=start,
            steps=steps,
            broken=broken,
            environment=self._file.environment | keys.environment,
            held=keys.held,
            only=keys.only,
            until=keys.until,
            labels=self._labels,
            **expected,
        )

    def _start(self, node: Mapping) -> datetime:
        if "at" not in node.entries:
            return START
        moment = self._moment(node.entries["at"].value)
        if moment is not None and moment.absolute is None:
            self._problems.error(node.entries["at"].value.place, "at: a time such as 2026-03-29T01:59 is expected")
        return moment.of(START) if moment else START

    def _broken(self, entry: Entry | None) -> Iterator[tuple[str, Sequence[Broken]]]:
        if entry is None or not isinstance(entry.value, Mapping):
            return
        self._name_all("consumer", entry.value)
        for label, its in entry.value.entries.items():
            found = []
            for node in its.value.items if isinstance(its.value, Items) else [its.value]:
                if not isinstance(node, Mapping):
                    self._problems.error(node.place, f"fail {label}: a mapping is expected", "such as '{for: 1h}'")
                elif (keys := validate(FailKeys, node, its.key, f"fail {label}", self._problems)) is not None:
                    found.append(Broken(keys.how, keys.after or timedelta(), keys.lasting))
            yield label, tuple(found)

    def _steps(self, entry: Entry | None) -> Iterator[Timed]:
        if entry is not None and isinstance(entry.value, Items):
            for item in entry.value.items:
                if not isinstance(item, Mapping):
                    self._problems.error(item.place, "a step is a mapping", "such as '- http: {json: …}', or '- wait: 1h'")
                elif (step := self._step(item)) is not None:
                    yield step

    def _step(self, node: Mapping) -> Timed | None:
        own = {key: entry for key, entry in node.entries.items() if key in _STEP_KEYS}
        named = {key: entry for key, entry in node.entries.items() if key not in _STEP_KEYS}
        keys = validate(StepKeys, Mapping(node.place, entries=own), node.place, "step", self._problems)
        if keys is None:
            return None
        at = self._moment(own["at"].value) if "at" in own else None
        if at is not None and keys.after is not None:
            self._problems.error(own["at"].key, "a step has 'after' or 'at', not both")
        if alone := [key for key in _ALONE if key in own]:
            return self._alone(node, keys, alone, named, at)
        if len(named) != 1:
            self._problems.error(node.place, *_one_producer(named))
            return None
        (label,) = named
        self._labels.setdefault("producer", []).append((label, named[label].key))
        sending = self._sending(label, named[label], keys)
        return None if sending is None else Timed(sending, keys.after or timedelta(), at)

    def _alone(
        self, node: Mapping, keys: StepKeys, alone: Sequence[str], named: dict[str, Entry], at: Moment | None
    ) -> Timed | None:
        if named or len(alone) > 1:
            self._problems.error(node.place, f"'{alone[0]}' is a step of its own", "begin each step with '- '")
            return None
        if alone == ["wait"]:
            return Timed(Happening(None), (keys.wait or timedelta()) + (keys.after or timedelta()), at)
        return Timed(Happening("restart" if keys.restart else "forget"), keys.after or timedelta(), at)

    def _sending(self, label: str, entry: Entry, keys: StepKeys) -> Sending | None:
        node = entry.value
        if isinstance(node, Scalar) and node.value is None:
            node = Mapping(node.place)
        if not isinstance(node, Mapping):
            self._problems.error(node.place, f"send {label}: a payload is expected", f"such as '{label}: {{json: …}}'")
            return None
        found = validate(PayloadKeys, node, entry.key, f"send {label}", self._problems)
        bodies = [key for key in _BODIES if key in node.entries]
        if len(bodies) > 1:
            self._problems.error(node.entries[bodies[1]].key, f"send {label}: {' and '.join(bodies)} exclude each other")
            return None
        if found is None or (keys.every is not None and keys.repeat is None):
            if found is not None:
                self._problems.error(entry.key, f"send {label}: 'every' needs 'repeat'")
            return None
        messages = [found.message] if found.message else found.messages or []
        return Sending(
            place=entry.key,
            producer=label,
            payload=None if messages else self._payload(found, bodies, node),
            messages=[self._message(one, place) for one, place in zip(messages, _places(node), strict=True)],
            repeat=keys.repeat,
            every=keys.every or timedelta(),
            answer=_answered(keys.answer),
        )

    def _payload(self, keys: PayloadKeys, bodies: Sequence[str], node: Mapping) -> Payload:
        shared: dict[str, Any] = {name: getattr(keys, name) for name in ("headers", "query", "method", "path", "content_type")}
        if bodies == ["file"]:
            return Payload(body=self._read(node.entries["file"].value, str(keys.file)), kind="json", **shared)
        if bodies == ["json"]:
            return Payload(kind="json", value=keys.json_, **shared)
        if bodies == ["text"]:
            return Payload(kind="text", value=keys.text, **shared)
        if bodies == ["form"]:
            return Payload(kind="form", value=keys.form, **shared)
        return Payload(body=b"", **shared)

    def _read(self, node: Node, name: str) -> bytes:
        try:
            with (self._path.parent / name).open("rb") as file:
                return file.read(_LONGEST_FILE)
        except OSError as error:
            self._problems.error(node.place, f"file: cannot be read: {error.strerror}", f"looked for beside {self._path.name}")
            return b""

    def _message(self, keys: MessageKeys, place: Place) -> dict[str, Any]:
        fields = {name: value for name in keys.model_fields_set if (value := getattr(keys, name)) is not None}
        if "time" in fields and "{{" not in fields["time"]:
            try:
                fields["time"] = _zoned(datetime.fromisoformat(fields["time"]), self._zone).isoformat()
            except ValueError:
                self._problems.error(place, "time: a time such as 2026-03-29T01:59 is expected")
        if "id" in fields:
            try:
                UUID(fields["id"])
            except ValueError:
                self._problems.error(place, "id: a UUID is expected")
        return fields

    def _expected(self, part: str, entry: Entry | None) -> dict[str, Expected]:
        if entry is None or not isinstance(entry.value, Mapping):
            return {}
        self._name_all(_KINDS[part], entry.value)
        found: dict[str, Expected] = {}
        for label, its in entry.value.entries.items():
            if isinstance(its.value, Items):
                found[label] = [one for item in its.value.items if (one := self._wanted(part, item)) is not None]
                continue
            value = its.value.plain()
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                self._problems.error(its.value.place, f"{part} {label}: a list, or a number from 0 on, is expected")
                continue
            found[label] = value
        return found

    def _wanted(self, part: str, node: Node) -> Wanted | None:
        if isinstance(node, Scalar):
            return Wanted(
                fields={"reason" if part == "dropped" else "error" if part == "dead_letters" else "title": node.plain()}
            )
        if not isinstance(node, Mapping):
            self._problems.error(node.place, f"{part}: fields and their values are expected", "such as '{title: disk full}'")
            return None
        known = _KNOWN[part]
        for key, entry in node.entries.items():
            if (name := re.split(r"[.\[]", key, maxsplit=1)[0]) not in known:
                what = {"expect": "delivery", "dropped": "dropped message", "dead_letters": "dead letter"}[part]
                self._problems.error(entry.key, f"a {what} has no field '{name}'", suggestion(name, known, none=""))
            elif key != "at" and (
                text := refuse_unusable(entry.value.plain(), of_text=name not in _DEEP or key.startswith("labels."))
            ):
                self._problems.error(entry.value.place, f"{key}: {text}")
        earliest, latest = self._span(node.entries["at"]) if "at" in node.entries else (None, None)
        fields = {key: entry.value.plain() for key, entry in node.entries.items() if key != "at"}
        return Wanted(fields=fields, earliest=earliest, latest=latest)

    def _span(self, entry: Entry) -> tuple[Moment | None, Moment | None]:
        node = entry.value
        if not isinstance(node, Mapping):
            moment = self._moment(node)
            return moment, moment
        if validate(SpanKeys, node, entry.key, "at", self._problems) is None:
            return None, None
        ends = [self._moment(node.entries[key].value) if key in node.entries else None for key in ("from", "to")]
        return ends[0], ends[1]

    def _moment(self, node: Node) -> Moment | None:
        text = str(node.plain())
        try:
            if text.startswith("+"):
                return Moment(since_start=parse_duration(text[1:]))
            return Moment(absolute=_zoned(datetime.fromisoformat(text), self._zone))
        except ValueError:
            self._problems.error(node.place, f"at: {_TIME}")
            return None

    def _name_all(self, kind: str, node: Node) -> None:
        if isinstance(node, Mapping):
            self._labels.setdefault(kind, []).extend((label, entry.key) for label, entry in node.entries.items())


def _places(node: Mapping) -> list[Place]:
    """Give the places of a step's messages."""
    if "message" in node.entries:
        return [node.entries["message"].key]
    value = node.entries["messages"].value if "messages" in node.entries else None
    return [item.place for item in value.items] if isinstance(value, Items) else []


def _one_producer(named: dict[str, Entry]) -> tuple[str, str]:
    if not named:
        return "this step says nothing", "such as '- http: {json: {title: disk full}}', or '- wait: 1h'"
    meant = [hint for key in named if (hint := did_you_mean(key, _STEP_KEYS))]
    return f"several producers in one step: {' and '.join(named)}", meant[0] if meant else "begin each step with '- '"


def _answered(keys: int | AnswerKeys | None) -> Answered | None:
    if keys is None:
        return None
    return Answered(keys) if isinstance(keys, int) else Answered(keys.status, keys.reason)


def _zoned(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)
