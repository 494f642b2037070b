"""Drops what was told a short while ago, and lets through what is new about it.

Messages that agree in what `by` names are repeats of one another: their `key`, unless you say otherwise. The first one
passes; those that come within `within` of it are dropped, with a reason that names it. What differs from the one that was told
last in a field of `changes` passes at once: an escalation, a resolve, and a firing after a resolve. After that time the next one
passes as a new first one. With `sliding: true` each repeat lets that time begin anew: nothing passes until `within` went by
without any.

What is sent again under its own id is no repeat, and passes; no consumer is told of an id twice. Prometheus does so each minute:
`within` is no reminder of an alert that still fires, `repeat` of `group` is.

A message that reached no consumer silences nobody: where the one that passed was dropped by a later filter, or given up, the
next one passes. Where what is remembered gets lost, the next one passes as well.

Of a message without a key, source, title and text must be the same. `label` names a label in which the next one that passes
says how many were dropped since the last one.

```yaml
name: once
producers:
  - prometheus
filters:
  - deduplicate: {by: [labels.alertname, labels.instance], within: 10m, label: repeats}
  - render: "{{ text }}{% if labels.repeats is defined %} (and {{ labels.repeats }} more){% endif %}"
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import ClassVar, Final

import msgspec
from pydantic import Field

from pipeline import By, Config, Dropped, Duration, Memory, Message, RememberingFilter, TemporaryError, format_duration, now

KEY: Final = By("key")
WITHOUT_KEY: Final = By("source", "title", "text")
TRIES: Final = 1000
"""Each try that fails means that another worker has counted a repeat."""


class DeduplicateConfig(Config):
    """The options of `deduplicate`."""

    shorthand: ClassVar[str | None] = "within"

    by: By | None = Field(
        default=None,
        description="Fields in which repeats agree, such as [labels.alertname, labels.instance]. Default: the key; of messages"
        " without one, source, title and text.",
    )
    within: Duration = Field(default=timedelta(minutes=10), gt=timedelta(), description="How long repeats are dropped.")
    changes: By = Field(
        default=By("severity", "status"), description="Fields of which a change passes at once; [] lets none pass for a change."
    )
    sliding: bool = Field(default=False, description="Let `within` begin anew with each repeat.")
    label: str = Field(
        default="", description="The label in which a message that passes says how many repeats were dropped since the last one."
    )


class _Told(msgspec.Struct, frozen=True, array_like=True):
    """What was told last of a key."""

    id: str
    state: list[str]
    """Its values of the fields in `changes`."""
    since: datetime
    until: datetime
    repeats: int = 0
    """How many were dropped for it."""
    before: int = 0
    """How many had been dropped before it: what its label says."""


_decoder: Final = msgspec.json.Decoder(_Told)


class Deduplicate(RememberingFilter[DeduplicateConfig]):
    """Drops what was told a short while ago, and lets through what is new about it."""

    def filter(self, message: Message, memory: Memory) -> Iterable[Message | Dropped]:
        """Pass or drop the message. One that comes again, as its worker died, is no repeat of itself."""
        config, moment = self.config, now()
        key = (config.by or (KEY if message.key else WITHOUT_KEY)).key(message)
        for _ in range(TRIES):
            known = memory.recall(key)
            told = _read(known)
            if told is not None and told.id == message.id:
                yield self._labelled(message, told)
                return
            after = self._after(message, told, moment)
            lasting = after.until - moment + (config.within if config.label else timedelta())
            if memory.swap(key, known, msgspec.json.encode(after).decode(), max(lasting, timedelta(seconds=1))):
                yield self._labelled(message, after) if after.id == message.id else self._dropped(after)
                return
        raise TemporaryError("too many repeats at once: none could be counted")

    def _after(self, message: Message, told: _Told | None, moment: datetime) -> _Told:
        """Give what is to be remembered: this message where it passes, or the one that was told with one more repeat."""
        config = self.config
        state = [*config.changes.values(message).values()]
        until = moment + config.within
        if told is None:
            return _Told(message.id, state, moment, until)
        lost = self.lost(told.id)
        if lost or moment >= told.until or state != told.state:
            before = told.repeats + (told.before if lost else 0)
            return _Told(message.id, state, moment, until, before=before)
        return msgspec.structs.replace(told, repeats=told.repeats + 1, until=until if config.sliding else told.until)

    def _labelled(self, message: Message, told: _Told) -> Message:
        if not self.config.label or not told.before:
            return message
        return message.replace(labels={**message.labels, self.config.label: str(told.before)})

    def _dropped(self, told: _Told) -> Dropped:
        since = f"{told.since:%Y-%m-%d %H:%M:%S} UTC"
        return Dropped(f"repeat {told.repeats} of {told.id} since {since}, within {format_duration(self.config.within)}")


def _read(known: str | None) -> _Told | None:
    """Give what was told last; None where nothing is known, or another version wrote it otherwise."""
    try:
        return None if known is None else _decoder.decode(known)
    except msgspec.DecodeError:
        return None
