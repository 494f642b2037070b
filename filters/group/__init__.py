"""Puts alerts that belong together into one message, as Alertmanager does, and tells when something about them changes.

Alerts that agree in `by` are a group. The first one makes it; after `wait` the group is told, as one message of type `alert`.
From then on it is looked at each `interval`, and told again where an alert fires that was not told, where one is over that was
told (`resolved`), or where nothing changed for `repeat`. An alert that has been firing for longer than `wait` when it makes its
group is told at once. When nothing fires in a group any more, and that was told, the group is gone.

The message of a group has the same `key` each time, so that a consumer that knows its messages by key changes the one it sent;
the status is firing while any of the alerts fires, the severity is the highest of those that do, and labels are those that all
alerts share. `data` is what Alertmanager's webhook would post: `alerts`, `groupLabels`, `commonLabels`, `commonAnnotations`;
`counts.firing`, `counts.resolved` and, with each alert, its `title`, `text`, `severity` and `ownLabels` beside it.

An alert is known by its `key`, else by its labels. It fires until a message with the status resolved comes, or until the
`endsAt` in its `data` has passed without another message, as Prometheus writes it; where there is none, for `resolve_after`.

`inhibit` has rules as Alertmanager's: while an alert that matches `source` fires, those that match `target` are not told, where
both agree in the labels of `equal`. The filter `inhibit` does that without groups.

```yaml
name: grouped
producers:
  - prometheus
filters:
  - group:
      by: [labels.alertname, labels.cluster]
      wait: 30s
      interval: 5m
      repeat: 4h
      inhibit:
        - {source: severity="critical", target: severity="warning", equal: [cluster]}
consumers:
  - log
```

A group holds `most` alerts; what comes beyond waits in the store until there is room, and the message says how many do. What is
known of a group is in the store, and survives whatever dies; which sources fire is in the memory: where that is lost, a
message too many may be the price, never one too few.

How it compares with the real Alertmanager is told in docs/filters/group.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, Self

import msgspec
from pydantic import Field, model_validator

from filters.group.alerts import Alert, alert_of, merged
from filters.group.notification import TEXT, TITLE, notification, written
from filters.group.state import State
from pipeline import (
    By,
    Config,
    Dropped,
    Duration,
    Inhibition,
    InhibitionRule,
    Keep,
    Memory,
    Message,
    Opened,
    Released,
    Stay,
    Template,
    Window,
    WindowFilter,
    derived_id,
    spell_of,
)

_ALERT: Final = "group.alert"
"""Where an alert stands in the payload of a message that waits."""


class GroupConfig(Config):
    """The options of `group`."""

    by: By = Field(
        default=By(), description="What alerts of a group agree in; without it all are one group, by '...' each is one."
    )
    wait: Duration = Field(default=timedelta(seconds=30), description="For how long a new group waits for further alerts.")
    interval: Duration = Field(default=timedelta(minutes=5), description="How often a group that was told is looked at.")
    repeat: Duration = Field(default=timedelta(hours=4), description="After this time it is told again though nothing changed.")
    resolved: bool = Field(default=True, description="Whether it is told that alerts are over.")
    resolve_after: Duration = Field(
        default=timedelta(days=1), description="For how long an alert fires of which nothing is heard, and that names no end."
    )
    inhibit: tuple[InhibitionRule, ...] = Field(default=(), description="Which alerts silence others.")
    most: int = Field(default=500, ge=1, le=5000, description="How many alerts a group holds.")
    title: Template = Field(default=TITLE, description="The title of a group's message.")
    text: Template = Field(default=TEXT, description="The text of a group's message.")

    @model_validator(mode="after")
    def _times(self) -> Self:
        if min(self.interval, self.repeat, self.resolve_after) <= timedelta(0):
            raise ValueError("interval, repeat and resolve_after: a duration above zero is expected")
        return self


class Group(WindowFilter[GroupConfig]):
    """Puts alerts that belong together into one message, and tells when something about them changes."""

    @cached_property
    def _inhibition(self) -> Inhibition:
        return Inhibition(self.config.inhibit)

    def window(self, message: Message, now: datetime, memory: Memory) -> Window:
        """Let the alert wait with its group: until that is looked at next, or where it is new for as long as `wait`."""
        known, waits = _noted(message), message
        if known is None:
            spell = spell_of(message, now, self.config.resolve_after)
            if self._inhibition.rules:
                self._inhibition.note(message, spell, now, memory)
            known = alert_of(message, spell, now)
            waits = message.replace(
                id=derived_id(message.id, *("over", now.isoformat()) if known.over else (known.ends.isoformat(),)),
                data={_ALERT: msgspec.to_builtins(known)},
            )
        key = self.config.by.key(message)
        looked_at = memory.recall(_due(key))
        if looked_at is not None:
            due = max(now, datetime.fromisoformat(looked_at))
        else:
            due = now if known.starts + self.config.wait < now else now + self.config.wait
        return Window(key, due, waits)

    def release(self, opened: Opened) -> Iterable[Released]:
        """Take what came, and where it is time look at the group: tell what is new, and forget what is over."""
        state = self._state(opened)
        full: dict[str, tuple[Alert, Message]] = {}
        for message, alert in self._in_order(opened):
            why = state.take(alert, self.config.most)
            if why == "full":
                yield from _gathered(full, message, alert)
            elif why:
                yield Dropped(why, message)
        if opened.kept is None or max(opened.now, opened.due) >= state.due:
            yield from self._look(state, opened, waiting=sum(alert.fires(state.due) for alert, _ in full.values()))
        if state.is_over(opened.now, max(opened.now, opened.due)):
            opened.memory.forget(_due(opened.key))
        else:
            yield Keep(state.write(), min(state.due, state.empty or state.due))
        if not state.alerts:
            yield Dropped("its alerts are over, and there was nothing to tell")
        for alert, message in full.values():
            if alert.fires(opened.now):
                yield Stay(message, state.due)
            else:
                yield Dropped("it was over before there was room in its group", message)

    def _state(self, opened: Opened) -> State:
        if opened.kept is not None:
            return State.read(opened.kept)
        return State(due=opened.due, labels=self.config.by.values(opened.messages[0]) if opened.messages else {})

    def _in_order(self, opened: Opened) -> list[tuple[Message, Alert]]:
        """Give the messages with their alerts in the order in which they were heard, those of one batch by their times."""
        found = [(message, _noted(message) or self._alert(message, opened.now)) for message in opened.messages]
        return sorted(found, key=lambda pair: (pair[1].heard, pair[1].changed, pair[1].over, pair[1].identity, pair[0].id))

    def _alert(self, message: Message, now: datetime) -> Alert:
        return alert_of(message, spell_of(message, now, self.config.resolve_after), now)

    def _look(self, state: State, opened: Opened, *, waiting: int) -> Iterator[Message]:
        """Tell what is new, if anything is, and say when the group is looked at next.

        What fired when it was to be looked at is told, also where all clocks were down until its time had passed.
        """
        config, now, moment = self.config, opened.now, state.due
        on_time = moment if now < moment + config.interval else now
        asked: dict[str, Sequence[str]] = {}
        seen = state.seen(moment, lambda alert: self._inhibition.by(alert.labels, opened.memory, asked))
        if state.has_news(seen, on_time, repeat=config.repeat, with_resolved=config.resolved):
            state.note(seen, on_time)
            told = seen if config.resolved else type(seen)(seen.firing, ())
            if told.firing or told.resolved:
                yield written(notification(state.labels, told, moment, waiting=waiting), config.title, config.text)
        state.forget_resolved(moment)
        state.due = on_time + config.interval
        if state.due > now:
            opened.memory.remember(_due(opened.key), state.due.isoformat(), state.due - now)


def _due(key: str) -> str:
    """Give the memory's key for when a group is looked at next: what comes until then need not open it."""
    return f"due {key}"


def _noted(message: Message) -> Alert | None:
    """Give the alert of a message that has waited before; None where it has not."""
    if isinstance(message.data, dict) and message.data.keys() == {_ALERT}:
        return msgspec.convert(message.data[_ALERT], Alert)
    return None


def _gathered(full: dict[str, tuple[Alert, Message]], message: Message, alert: Alert) -> Iterator[Dropped]:
    """Keep one message of each alert for which there is no room: the last that counts."""
    if alert.identity in full:
        old, earlier = full[alert.identity]
        if merged(old, alert) is None:
            message, earlier, alert = earlier, message, old
        yield Dropped("the alert was heard of again", earlier)
    full[alert.identity] = alert, message
