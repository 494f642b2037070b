"""Rules by which alerts silence others, and which alerts do so now: what fires is noted in a step's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.matchers import Matchers
from pipeline.message import Message
from pipeline.plugin import Config, Memory
from pipeline.spells import Spell

_REMEMBERED: Final = timedelta(minutes=10)
"""For how long it is known that a source is over: what overtakes it or comes twice is known by then."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _some(matchers: tuple[Matchers, ...]) -> tuple[Matchers, ...]:
    if not any(one.matchers for one in matchers):
        raise ValueError('label matchers such as severity="critical" are expected')
    return matchers


MatcherList = Annotated[
    tuple[Matchers, ...],
    BeforeValidator(_listed, json_schema_input_type=Matchers | list[Matchers]),
    AfterValidator(_some),
]


class InhibitionRule(Config):
    """While an alert fires that `source` matches, those that `target` matches are silenced, where the `equal` labels agree."""

    source: MatcherList = Field(description="Label matchers of the alerts that silence others; all must match.")
    target: MatcherList = Field(description="Label matchers of the alerts that are silenced; all must match.")
    equal: tuple[str, ...] = Field(
        default=(), description="Labels in which both agree; one that is missing counts as empty, on both sides."
    )

    def is_source(self, labels: Mapping[str, str]) -> bool:
        """Say whether an alert with these labels silences others."""
        return all(matchers.match(labels) for matchers in self.source)

    def is_target(self, labels: Mapping[str, str]) -> bool:
        """Say whether an alert with these labels may be silenced."""
        return all(matchers.match(labels) for matchers in self.target)

    def agreeing(self, labels: Mapping[str, str]) -> str:
        """Give a text that is the same for alerts that agree in the `equal` labels, and for no others."""
        return msgspec.json.encode([labels.get(name, "") for name in self.equal]).decode()

    def __str__(self) -> str:
        return ", ".join(str(matchers).strip("{}") for matchers in self.source)


class Inhibition:
    """Inhibition rules, as Alertmanager has them: an alert that matches both sides is silenced by none that does so as well.

    Which sources fire is in the memory of the step that asks. What is lost there silences nothing until the source is heard
    of again; a source that is not ends with its spell.
    """

    def __init__(self, rules: Sequence[InhibitionRule]) -> None:
        self.rules = tuple(rules)
        self._names = [_digest(rule.model_dump_json()) for rule in self.rules]

    def note(self, message: Message, spell: Spell, now: datetime, memory: Memory) -> bool:
        """Note of a message that a source fires, or no longer does; say whether it is a source at all."""
        found = [(name, rule) for name, rule in zip(self._names, self.rules, strict=True) if rule.is_source(message.labels)]
        if not found:
            return False
        fires = not spell.over and spell.ends > now
        if spell.over:
            memory.remember(f"over {spell.identity}", spell.ends.isoformat(), _REMEMBERED)
        elif fires and (ended := memory.recall(f"over {spell.identity}")) is not None:
            fires = spell.starts > datetime.fromisoformat(ended)
        for name, rule in found:
            key = _key(name, rule, message.labels, both=rule.is_target(message.labels))
            if fires:
                memory.add(key, spell.identity, spell.ends - now)
            else:
                memory.remove(key, spell.identity)
        return True

    def is_target(self, labels: Mapping[str, str]) -> bool:
        """Say whether any rule may silence an alert with these labels."""
        return any(rule.is_target(labels) for rule in self.rules)

    def by(self, labels: Mapping[str, str], memory: Memory, asked: dict[str, Sequence[str]] | None = None) -> str:
        """Say in a few words what silences an alert with these labels now; empty: nothing.

        Who asks for many alerts at one moment hands over the same `asked`, in which the memory's answers are kept.
        """
        asked = {} if asked is None else asked
        for name, rule in zip(self._names, self.rules, strict=True):
            if not rule.is_target(labels):
                continue
            for key in _keys(name, rule, labels):
                if key not in asked:
                    asked[key] = memory.members(key)
                if asked[key]:
                    return f"inhibited by {asked[key][0]} ({rule})"
        return ""


def _keys(name: str, rule: InhibitionRule, labels: Mapping[str, str]) -> Iterator[str]:
    """Give the keys of those sources that may silence a target with these labels."""
    yield _key(name, rule, labels, both=False)
    if not rule.is_source(labels):
        yield _key(name, rule, labels, both=True)


def _key(name: str, rule: InhibitionRule, labels: Mapping[str, str], *, both: bool) -> str:
    return f"sources {name} {'both' if both else 'one'} {rule.agreeing(labels)}"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()
