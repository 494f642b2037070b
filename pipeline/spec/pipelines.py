"""Reads one pipeline's file into its spec: the list of steps of each kind, and a label for each."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from pipeline.plugin import PollingProducer
from pipeline.registry import Kind, suggestion
from pipeline.schedule import read_schedule
from pipeline.spec.lint import lint
from pipeline.spec.model import ConsumerStep, FilterStep, Keep, PipelineSpec, ProducerStep, Retry
from pipeline.spec.options import validate
from pipeline.spec.problems import Place, Problems
from pipeline.spec.siblings import NAME, NAME_RULE, ConsumerSiblings, FilterSiblings, PipelineKeys, ProducerSiblings
from pipeline.spec.steps import Declared, StepReader
from pipeline.spec.tree import Entry, Items, Mapping, Node, Scalar

KEYS: Final = ("name", "description", "keep", "producers", "filters", "consumers")


class Labelled(NamedTuple):
    """A step with its label."""

    label: str
    step: Declared


def read_pipeline(root: Mapping, reader: StepReader, problems: Problems) -> tuple[PipelineSpec, Place] | None:
    """Make a pipeline's spec and give the place of its name; None where no name can be told.

    Where steps are wrong they are left out of the spec, after their problems were told.
    """
    for key, entry in root.entries.items():
        if key not in KEYS:
            problems.error(entry.key, f"a pipeline has no key '{key}'", suggestion(key, KEYS, none=""))
    first = next((entry.key for entry in root.entries.values()), root.place)
    name, place = _name(root, first, problems)
    description = _text(root, "description", problems)
    keep = _keep(root, problems)
    lists = {kind: _steps(kind, root, reader, problems) for kind in ("producer", "filter", "consumer")}
    if name is None:
        return None
    for kind, entry_name in (("producer", "producers"), ("consumer", "consumers")):
        if not _declares(root, entry_name):
            where = root.entries[entry_name].key if entry_name in root.entries else first
            problems.error(where, f"pipeline '{name}' has no {kind}s")
    lint(name, lists["producer"], lists["filter"], lists["consumer"], problems)
    producers = _labelled(lists["producer"], problems)
    filters, consumers = _labelled_after(lists["filter"], lists["consumer"], problems)
    spec = PipelineSpec(
        name=name,
        description=description,
        producers=tuple(_producer(item) for item in producers if item.step.siblings.active),
        filters=tuple(_filter(item) for item in filters if item.step.siblings.active),
        consumers=tuple(_consumer(item) for item in consumers if item.step.siblings.active),
        keep=keep,
        revision=_revision(root, reader),
        position=place.position,
    )
    return spec, place


def _name(root: Mapping, first: Place, problems: Problems) -> tuple[str | None, Place]:
    entry = root.entries.get("name")
    if entry is None:
        stem = first.source.path.stem
        if not NAME.fullmatch(stem):
            problems.error(first, f"the file's name '{stem}' cannot be the pipeline's", "give it a name: in lower-case letters")
            return None, first
        return stem, first
    place = entry.value.place
    name = _text(root, "name", problems)
    if not name:
        return None, place
    if not NAME.fullmatch(name):
        problems.error(place, f"name: {NAME_RULE}")
        return None, place
    return name, place


def _text(root: Mapping, key: str, problems: Problems) -> str:
    entry = root.entries.get(key)
    if entry is None or entry.value.broken:
        return ""
    value = entry.value.plain()
    if not isinstance(value, str):
        problems.error(
            entry.value.place, f"{key}: a text is expected", "put it in quotes" if isinstance(entry.value, Scalar) else ""
        )
        return ""
    return value


def _keep(root: Mapping, problems: Problems) -> Keep | None:
    entry = root.entries.get("keep")
    if entry is None:
        return None
    if isinstance(entry.value, Scalar) and entry.value.value is None:
        problems.error(entry.key, "keep: a value is missing", "such as 'keep: 24h'")
        return None
    keys = validate(PipelineKeys, Mapping(root.place, entries={"keep": entry}), entry.key, "", problems)
    return Keep(keys.keep.lasting, keys.keep.most) if keys and keys.keep else None


def _declares(root: Mapping, key: str) -> bool:
    entry = root.entries.get(key)
    return entry is not None and not (isinstance(entry.value, Scalar) and entry.value.value is None) and bool(entry.value.plain())


def _steps(kind: Kind, root: Mapping, reader: StepReader, problems: Problems) -> list[Declared]:
    entry = root.entries.get(f"{kind}s")
    if entry is None or (isinstance(entry.value, Scalar) and entry.value.value is None):
        return []
    if not isinstance(entry.value, Items):
        hint = "begin each step with '- '"
        problems.error(entry.value.place, f"{kind}s: a list of steps is expected", hint)
        return []
    found = (reader.read(kind, node) for node in entry.value.items)
    return [step for step in found if step is not None]


def _labelled(steps: list[Declared], problems: Problems) -> list[Labelled]:
    """Give each step its label; the same one twice is an error."""
    taken: dict[str, Declared] = {}
    return [item for step in steps if (item := _fixed(step, taken, problems)) is not None]


def _labelled_after(
    filters: list[Declared], consumers: list[Declared], problems: Problems
) -> tuple[list[Labelled], list[Labelled]]:
    """Give filters and consumers their labels: those of consumers and of `as:` stand, the other filters' are numbered."""
    taken: dict[str, Declared] = {}
    named = [item for step in consumers if (item := _fixed(step, taken, problems)) is not None]
    explicit = {id(step): _fixed(step, taken, problems) for step in filters if step.siblings.label is not None}
    labelled: list[Labelled] = []
    for step in filters:
        if step.siblings.label is None:
            found = _numbered(step, taken) if _can_be_label(step.usual_label, step, problems) else None
        else:
            found = explicit[id(step)]
        if found is not None:
            labelled.append(found)
    return labelled, named


def _fixed(step: Declared, taken: dict[str, Declared], problems: Problems) -> Labelled | None:
    label = step.siblings.label or step.usual_label
    if not _can_be_label(label, step, problems):
        return None
    if label in taken:
        other = taken[label]
        what = f"two {step.kind}s are" if other.kind == step.kind else f"a {other.kind} is also"
        problems.error(
            step.place, f"{what} called '{label}'", f"give one of them 'as:'; the other stands in line {other.place.line}"
        )
        return None
    taken[label] = step
    return Labelled(label, step)


def _can_be_label(label: str, step: Declared, problems: Problems) -> bool:
    if not NAME.fullmatch(label):
        problems.error(step.place, f"'{label}' cannot be the step's label", "give it one with 'as:'")
        return False
    return True


def _numbered(step: Declared, taken: dict[str, Declared]) -> Labelled:
    label, number = step.usual_label, 1
    while label in taken:
        number += 1
        label = f"{step.usual_label}-{number}"
    taken[label] = step
    return Labelled(label, step)


def _common(item: Labelled) -> dict[str, Any]:
    step = item.step
    return {
        "kind": step.kind,
        "plugin": step.plugin,
        "type": step.type,
        "label": item.label,
        "config": step.config,
        "position": step.place.position,
        "networks": step.networks,
        "shared": step.shared,
    }


def _producer(item: Labelled) -> ProducerStep:
    siblings = item.step.siblings
    assert isinstance(siblings, ProducerSiblings)
    usual = item.step.type.usual_schedule if issubclass(item.step.type, PollingProducer) else None
    text = siblings.schedule or usual
    schedule = read_schedule(text, ZoneInfo(siblings.timezone or "UTC")) if text else None
    return ProducerStep(**_common(item), schedule=schedule)


def _filter(item: Labelled) -> FilterStep:
    siblings = item.step.siblings
    assert isinstance(siblings, FilterSiblings)
    return FilterStep(**_common(item), when=siblings.when, queue=siblings.queue)


def _consumer(item: Labelled) -> ConsumerStep:
    siblings = item.step.siblings
    assert isinstance(siblings, ConsumerSiblings)
    return ConsumerStep(
        **_common(item),
        when=siblings.when,
        queue=siblings.queue or item.step.shared or item.label,
        concurrency=siblings.concurrency,
        retry=Retry(siblings.retry.lasting, siblings.retry.first, siblings.retry.longest) if siblings.retry else Retry(),
        rate=siblings.rate,
        ordered=siblings.ordered,
        render=siblings.render,
    )


def _revision(root: Mapping, reader: StepReader) -> str:
    """Hash what is declared, as it was written before interpolation, with the shared steps that it uses."""
    shared = {
        f"{kind} {name}": reader.shared[kind][name].node.raw()
        for kind in reader.shared
        for name in _used(root.entries.get(f"{kind}s"))
        if name in reader.shared[kind]
    }
    declared = json.dumps([root.raw(), shared], sort_keys=True)
    return hashlib.sha256(declared.encode()).hexdigest()[:12]


def _used(entry: Entry | None) -> list[str]:
    items: list[Node] = entry.value.items if entry is not None and isinstance(entry.value, Items) else []
    steps = [item.plain() for item in items if isinstance(item, Mapping)]
    return [step["use"] for step in steps if isinstance(step.get("use"), str)]
