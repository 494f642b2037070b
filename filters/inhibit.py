"""Holds alerts back while another one fires that explains them.

While an alert fires that a rule's `source` matches, those that its `target` matches wait in the store, where both agree in the
labels of `equal`; a label that is missing counts as empty. An alert that matches both sides is held back by none that does so
as well. When the source is over, what waited passes, of each alert the newest message; what was resolved meanwhile ends here
together with its resolution, as nobody had heard of it. What had passed before is told as resolved, whatever fires by then.

```yaml
name: the-cause-alone
producers:
  - prometheus
filters:
  - inhibit:
      rules:
        - {source: alertname="ClusterDown", target: severity=~"warning|error", equal: [cluster]}
        - source: ['alertname="NodeDown"', 'severity="critical"']
          target: 'alertname!="NodeDown"'
          equal: [instance]
consumers:
  - log
```

A bare value is the list of rules. What waits is looked at when a source that agrees with it by the same labels is over, and each
`check` in any case: another rule may hold it, and a source may end without a word, when the `endsAt` has passed that Prometheus
gives its alerts, or after `resolve_after` where there is none. Which sources fire is in the memory; where that is lost an
alert may pass that should have waited, until its source is heard of again. The filter `group` has rules of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import ClassVar, Final

import msgspec
from pydantic import Field, field_validator

from pipeline import (
    SLACK,
    Config,
    Dropped,
    Duration,
    Inhibition,
    InhibitionRule,
    Memory,
    Message,
    Opened,
    Released,
    Spell,
    Stay,
    Window,
    WindowFilter,
    identity_of,
    spell_of,
)

_KNOWN: Final = timedelta(days=30)
"""For how long it is remembered that an alert passed."""
_FOR_EVER: Final = timedelta(days=36_500)
_SINCE: Final = "since"
"""The memory's key for when it began: what passed before that, it does not know."""


class InhibitConfig(Config):
    """The options of `inhibit`."""

    shorthand: ClassVar[str | None] = "rules"

    rules: tuple[InhibitionRule, ...] = Field(description="Which alerts hold back others.")
    check: Duration = Field(default=timedelta(minutes=1), description="How often what waits is looked at.")
    resolve_after: Duration = Field(
        default=timedelta(days=1), description="For how long an alert fires of which nothing is heard, and that names no end."
    )

    @field_validator("rules")
    @classmethod
    def _some(cls, rules: tuple[InhibitionRule, ...]) -> tuple[InhibitionRule, ...]:
        if not rules:
            raise ValueError("at least one rule is expected")
        return rules


class Inhibit(WindowFilter[InhibitConfig]):
    """Holds alerts back while another one fires that explains them."""

    @cached_property
    def _inhibition(self) -> Inhibition:
        return Inhibition(self.config.rules)

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | None:
        """Let a target wait that is held back, and let what is over open the window of the targets that it may concern."""
        spell = spell_of(message, now, self.config.resolve_after)
        is_source = self._inhibition.note(message, spell, now, memory)
        is_target = self._inhibition.is_target(message.labels)
        if not (is_source or is_target):
            return None
        if memory.recall(_SINCE) is None:
            memory.remember(_SINCE, now.isoformat(), _FOR_EVER)
        if message.status == "resolved":
            memory.remember(f"ending {spell.identity}", now.isoformat(), SLACK)
            return Window(self._key(message), now)
        if is_target and self._inhibition.by(message.labels, memory):
            return Window(self._key(message), now + self.config.check)
        if memory.recall(f"ending {spell.identity}") is not None:
            return Window(self._key(message), now)  # or it would overtake the end that came before it
        _pass(spell, memory)
        return None

    def release(self, opened: Opened) -> Iterable[Released]:
        """Let pass what nothing holds back any more, and end what is over."""
        ends: dict[str, list[Message]] = {}
        firing: dict[str, list[Message]] = {}
        for message in opened.messages:
            (ends if message.status == "resolved" else firing).setdefault(identity_of(message), []).append(message)
        for identity in {**ends, **firing}:
            yield from self._decide(firing.get(identity, []), ends.get(identity, []), opened)

    def _decide(self, firing: list[Message], ends: list[Message], opened: Opened) -> Iterator[Released]:
        """Decide about the messages of one alert."""
        over = max((self._spell(end, opened).ends for end in ends), default=None)
        held = [message for message in firing if over is None or self._spell(message, opened).starts > over]
        held.sort(key=lambda message: (message.time, message.id))
        ended = [message for message in firing if message not in held]
        passed = any(self._may_have_passed(message, opened) for message in ended)
        for message in ended:
            yield Dropped("it is over, and was told before" if passed else "it was over while it was held back", message)
        for end in ends:
            if ended and not passed:
                yield Dropped("it was over while it was held back: nobody had heard of it", end)
            else:
                _end(self._spell(end, opened), opened.memory)
                yield end
        why = self._inhibition.by(firing[0].labels, opened.memory) if held else ""
        for message in held[:-1]:
            yield Dropped(f"{held[-1].id} is newer, and {'waits' if why else 'passes'} in its place", message)
        for message in held[-1:]:
            if why:
                yield Stay(message, opened.now + self.config.check)
            else:
                _pass(self._spell(message, opened), opened.memory)
                yield message

    def _key(self, message: Message) -> str:
        """Give the window of a message: for a target that of the first rule that may hold it, where its sources' ends come to."""
        rules = self._inhibition.rules
        sides = [
            [rule for rule in rules if rule.is_target(message.labels)],
            [rule for rule in rules if rule.is_source(message.labels)],
        ]
        rule = [*sides[0], *sides[1]][0]
        return msgspec.json.encode([*rule.equal, rule.agreeing(message.labels)]).decode()

    def _spell(self, message: Message, opened: Opened) -> Spell:
        return spell_of(message, opened.now, self.config.resolve_after)

    def _may_have_passed(self, message: Message, opened: Opened) -> bool:
        """Say whether somebody was told that an alert fires, and not that it is over, before this message was held back.

        The memory may have been lost: what began before it did may have passed.
        """
        spell, memory = self._spell(message, opened), opened.memory
        since = _moment(memory.recall(_SINCE))
        if since is None or since + SLACK > spell.starts:
            return True
        passed, ended = _moment(memory.recall(f"passed {spell.identity}")), _moment(memory.recall(f"ended {spell.identity}"))
        return passed is not None and not (ended is not None and passed <= ended < spell.starts)


def _pass(spell: Spell, memory: Memory) -> None:
    """Remember that an alert passed."""
    memory.remember(f"passed {spell.identity}", spell.starts.isoformat(), _KNOWN)


def _end(spell: Spell, memory: Memory) -> None:
    """Remember that the end of an alert passed."""
    memory.remember(f"ended {spell.identity}", spell.ends.isoformat(), _KNOWN)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
