"""Lets at most so many messages through in a while, and says at its end how many more there were.

Of the messages that agree in what `by` names, the first `most` pass in each window, which begins with the first of them and
lasts `within`. The others are dropped, with a reason. At the window's end one message says how many they were, with the titles
and severities that came first, under a key that stays the same from window to window; its severity is the highest of theirs.
Without `by`, all messages share one window.

`summary: false` leaves that message out. What `pass` holds for always passes, and is not counted. Where what is remembered gets
lost, a new window begins: up to `most` more pass, and the summary counts too few.

```yaml
name: at-most-ten-an-hour
producers:
  - prometheus
filters:
  - throttle: {by: [labels.team], most: 10, within: 1h, pass: severity == "critical"}
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import ClassVar, Final

from pydantic import Field

from filters.throttle.counting import MOST_PASSED, Counter, Tally, waiting_id
from pipeline import By, Condition, Config, Dropped, Duration, Memory, Message, Opened, Window, WindowFilter, format_duration

MOST_IN_TITLE: Final = 3
"""So many of the titles that were dropped stand in that of the summary; its text has more."""


class ThrottleConfig(Config):
    """The options of `throttle`."""

    shorthand: ClassVar[str | None] = "most"

    by: By = Field(default=By(), description="Fields with a window of their own for each of their values, such as [labels.team].")
    most: int = Field(ge=1, le=MOST_PASSED, description="How many messages pass in a window.")
    within: Duration = Field(default=timedelta(hours=1), gt=timedelta(), description="How long a window lasts.")
    pass_: Condition | None = Field(
        default=None, alias="pass", description='What always passes, and is not counted, such as `severity == "critical"`.'
    )
    summary: bool = Field(default=True, description="Say at a window's end how many were dropped.")


class Throttle(WindowFilter[ThrottleConfig]):
    """Lets at most so many messages through in a while, and says at its end how many more there were."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | Dropped | None:
        """Let the message pass, or drop it; the first that is too many waits for the window's end, and becomes the summary."""
        config = self.config
        if config.pass_ is not None and config.pass_.matches(message):
            return None
        key = config.by.key(message)
        place = self._counter(memory).place(message, key, now)
        if place.where == "passes":
            return None
        if place.where == "waits":  # two windows of a key never open as one
            waits = message.replace(id=waiting_id(message.id, place.until))
            return Window(f"{self._about(message)}until {place.until:%Y-%m-%d %H:%M:%S.%f}", place.until, waits)
        since = f"{place.until - config.within:%Y-%m-%d %H:%M:%S} UTC"
        return Dropped(f"more than {config.most} since {since}, within {format_duration(config.within)}")

    def release(self, opened: Opened) -> Iterable[Message]:
        """Give the summary of what was dropped."""
        for carrier in opened.messages:
            yield self._summary(carrier, self._counter(opened.memory).close(carrier), opened.due)

    def _counter(self, memory: Memory) -> Counter:
        return Counter(memory, self.config.most, self.config.within, waiting=self.config.summary)

    def _about(self, message: Message) -> str:
        """Give what its window is about, where that is not all messages."""
        return f"{self.config.by.key(message)} " if self.config.by.names else ""

    def _summary(self, carrier: Message, tally: Tally, due: datetime) -> Message:
        values = self.config.by.values(carrier)
        kinds = sorted(tally.kinds, key=lambda kind: -kind.count)
        others = tally.number - sum(kind.count for kind in kinds)
        named = [f"{kind.title or 'no title'} ({kind.count})" for kind in kinds[:MOST_IN_TITLE]]
        named += ["…"] if others or len(kinds) > MOST_IN_TITLE else []
        about = ", ".join(f"{name.removeprefix('labels.')} {value}" for name, value in values.items() if value)
        lines = [
            f"At most {self.config.most} within {format_duration(self.config.within)} pass{f' of {about}' if about else ''}."
        ]
        lines += [f"{kind.title or 'no title'}{f' ({kind.severity})' * bool(kind.severity)}: {kind.count}" for kind in kinds]
        lines += [f"others: {others}"] if others else []
        return carrier.replace(
            type="summary",
            time=due,
            title=f"{tally.number} more suppressed: {', '.join(named)}",
            text="\n".join(lines),
            severity=tally.worst,
            status="firing",
            labels={name.removeprefix("labels."): value for name, value in values.items() if name.startswith("labels.")},
            key=f"throttle {self._about(carrier)}".rstrip(),
            url="",
            data={
                "suppressed": tally.number,
                "kinds": [{"severity": kind.severity, "title": kind.title, "count": kind.count} for kind in kinds],
            },
        )
