"""What is valid and yet probably not meant: conditions that never hold, the same thing sent to the same place."""

from __future__ import annotations

from itertools import combinations
from typing import Final

from pipeline.condition import Condition
from pipeline.message import Message
from pipeline.plugin import PollingProducer
from pipeline.selection import Selection
from pipeline.spec.problems import Problems
from pipeline.spec.siblings import ConsumerSiblings, FilterSiblings, ProducerSiblings
from pipeline.spec.steps import Declared

_ANY: Final = Message(source="")


def lint(name: str, producers: list[Declared], filters: list[Declared], consumers: list[Declared], problems: Problems) -> None:
    """Tell what is suspicious about a pipeline's steps."""
    for step in producers:
        _never_asked(step, problems)
    for number, step in enumerate(filters):
        _never(step, problems)
        if step.siblings.active and _always(step) and (text := _passes_nothing(step)):
            rest = len(filters) - number - 1 + len(consumers)
            hint = f"nothing reaches the {rest} step{'s' * (rest != 1)} after it"
            problems.warning(step.place, f"filter {step.plugin}: {text}", hint)
    for step in consumers:
        _never(step, problems)
    if consumers and not any(step.siblings.active for step in consumers):
        problems.warning(consumers[0].place, f"no consumer of pipeline '{name}' is active")
    for first, second in combinations((step for step in consumers if step.siblings.active), 2):
        if _same(first, second):
            text = f"consumer {second.plugin} sends the same to the same place as the one in line {first.place.line}"
            problems.warning(second.place, text, "remove one of them, or give both a 'when:'")


def never_holds(condition: Condition) -> bool:
    """Say whether a condition reads nothing of a message and is false."""
    return not condition.names and not condition.matches(_ANY)


def _passes_nothing(step: Declared) -> str:
    """Say why a filter passes nothing, where it does so whatever the message."""
    field, config = step.type.config_type.shorthand, step.config
    condition = getattr(config, field, None) if field else None
    if not isinstance(condition, Condition) or condition.names:
        return ""
    holds = condition.matches(_ANY)
    if isinstance(config, Selection) and not config.passes_what_holds:
        return "this condition always holds" if holds and config.model_fields_set == {field} else ""
    return "" if holds else "this condition never holds"


def _never_asked(step: Declared, problems: Problems) -> None:
    """Tell of a producer that has something to ask and no schedule, where it may have meant to be posted to only."""
    if not issubclass(step.type, PollingProducer) or (option := step.type.asks_for) is None or not step.type.asks(step.config):
        return
    if isinstance(step.siblings, ProducerSiblings) and step.siblings.schedule is None:
        entry = step.options.entries.get(option)
        text = f"producer {step.plugin} asks nobody: '{option}' is for a 'schedule'"
        problems.warning(entry.key if entry else step.place, text, "add 'schedule: 1m' beside the producer's name")


def _always(step: Declared) -> bool:
    return isinstance(step.siblings, FilterSiblings) and step.siblings.when is None


def _never(step: Declared, problems: Problems) -> None:
    siblings = step.siblings
    if isinstance(siblings, FilterSiblings | ConsumerSiblings) and siblings.when is not None and never_holds(siblings.when):
        problems.warning(step.place, f"{step.kind} {step.plugin}: its 'when' never holds", "'active: false' says so more clearly")


def _same(first: Declared, second: Declared) -> bool:
    if first.type is not second.type:
        return False
    if first.config != second.config and first.options.plain() != second.options.plain():
        return False
    siblings = [step.siblings for step in (first, second) if isinstance(step.siblings, ConsumerSiblings)]
    if any(one.render != siblings[0].render for one in siblings):
        return False
    conditions = [one.when for one in siblings]
    texts = {condition.text for condition in conditions if condition is not None}
    return None in conditions or len(texts) == 1
