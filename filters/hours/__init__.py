"""Lets messages through while somebody is there; outside of these hours they wait, go to a deputy, or are dropped.

`open` has the hours of a week, by the wall clock of `timezone`: `MON-FRI 08:00-18:00`, `SAT,SUN 10:00-14:00`, or `08:00-18:00`
for every day. A night shift (`MON-FRI 22:00-06:00`) belongs to the day on which it begins: on Saturday morning it is still on,
on Monday morning it is not. No shift begins on one of the `holidays`. In the night in which the clocks change a time that they
skip is when they have moved on, and one that comes twice is the first of the two.

```yaml
name: office
producers:
  - prometheus
filters:
  - hours:
      timezone: Europe/Berlin
      open: ["MON-FRI 08:00-18:00", "SAT 10:00-14:00"]
      holidays: [2026-12-24, 2026-12-25..2026-12-26]
      pass: severity == "critical"
      people:
        ann: {leave: [2026-12-20..2027-01-03], deputy: bob}
        bob: {timezone: America/New_York, open: ["MON-FRI 09:00-17:00"]}
consumers:
  - log
```

What comes outside of the hours waits until they begin, and leaves in the order of its time. `fold: true` lets only the newest
message of each `key` leave. `cancel: true` drops what began and was resolved while it waited, the resolve with it; a resolve of
what was told before is told as well. For that the store keeps what is told, some 120 bytes for each key that fires, and all
messages take the quarter of a second that it takes to open a window. `otherwise: drop` drops what comes outside of the hours.
What `pass` holds for passes at any time.

The label that `by` names says for whom a message is. `people` has the hours of each: what a person does not say is as above, and
so is who is not named. `leave` are days on which none of a person's shifts begins. While somebody is away, `deputy` gets the
message, if there (one who is not among `people` always is), or else that one's deputy: the label is changed to the deputy's
name, and `labels.deputy_for` says whose message it was. Where no deputy is there, it waits for the first of them. A resolve goes
to the deputy who was told of the firing. That is remembered for seven days, and where it is lost the resolve goes the usual way.

Messages that come in the moment in which the hours begin may overtake those that waited; with `cancel: true` not those of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

import msgspec

from filters.hours.options import HoursConfig
from filters.hours.staff import Staff
from pipeline import Dropped, Keep, Memory, Message, Opened, Released, Stay, Window, WindowFilter, in_time

_TOLD_KNOWN: Final = timedelta(days=366)
"""How long it is kept that something was told and is not over, where nothing more is heard of it."""


class Hours(WindowFilter[HoursConfig]):
    """Lets messages through while somebody is there; outside of these hours they wait, go to a deputy, or are dropped."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | Message | Dropped | None:
        """Let the message pass, as it is or for a deputy, or say when the hours begin."""
        config = self.config
        if config.pass_ is not None and config.pass_.matches(message):
            return None
        found = self._staff.find(message, now, memory)
        if isinstance(found, Message) and not (config.cancel and message.key):
            return None if found is message else found
        if isinstance(found, datetime) and config.otherwise == "drop":
            return Dropped(f"outside of the hours: {self._staff.hours(message)}")
        names = [self._staff.receiver(message), *([message.key] if config.cancel else [])]
        return Window(msgspec.json.encode(names).decode(), found if isinstance(found, datetime) else now)

    def release(self, opened: Opened) -> Iterable[Released]:
        """Let go what waited, as far as somebody is there now."""
        there: dict[str, Message] = {}
        ready: list[Message] = []
        for message in in_time(opened.messages):
            found = self._staff.find(message, opened.now, opened.memory)
            if isinstance(found, datetime):
                yield Stay(message, found)
            else:
                ready.append(message)
                there[message.id] = found
        told = opened.kept is not None
        over: dict[str, str] = {}
        if self.config.cancel and (ready and ready[0].key):
            over, told = self._over(ready, told=told)
        if self.config.fold:
            over |= _folded([message for message in ready if message.id not in over])
        for message in ready:
            yield Dropped(over[message.id], message) if message.id in over else there[message.id]
        if told and (opened.messages or opened.now < opened.due):
            yield Keep("told", opened.now + _TOLD_KNOWN)

    @cached_property
    def _staff(self) -> Staff:
        return Staff(self.config)

    def _over(self, messages: Sequence[Message], *, told: bool) -> tuple[dict[str, str], bool]:
        """Say by id why those of a key are not told that were over before anybody was there, and whether it is told afterwards.

        What began within the hours is told in any case: it may be the repeat of something that passed before this was looked at.
        """
        waiting: list[Message] = []
        over: dict[str, str] = {}
        for message in messages:
            if message.status == "firing":
                waiting.append(message)
                continue
            unheard = not told and not any(one.time in self._staff.hours(one) for one in waiting)
            if unheard and (waiting or over):
                reason = f"over at {message.time:%Y-%m-%d %H:%M:%S %Z}, before the hours began"
                over |= {one.id: reason for one in (*waiting, message)}
            else:
                told = False
            waiting = []
        return over, told or bool(waiting)


def _folded(messages: Sequence[Message]) -> dict[str, str]:
    """Say by id why all but the newest of each key do not leave."""
    newest = {message.key: message.id for message in messages if message.key}
    return {
        message.id: f"of what waited of its key only the newest leaves, {newest[message.key]}"
        for message in messages
        if message.key and newest[message.key] != message.id
    }
