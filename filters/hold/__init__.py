"""Tells what lasts: a firing message passes when it has fired for some time, and what is over by then is not told.

```yaml
name: what-lasts
producers:
  - prometheus
filters:
  - hold: {for: 5m, pass: severity == "critical"}
consumers:
  - log
```

`by` says which messages are about the same, else their `key` does; one in which all of that is empty passes at once. The first
firing message begins the time, and its own `time` counts: what its sender knows since half an hour has lasted for five minutes.
Later ones take its place, so that the newest is told. A resolve within the time ends it, and neither is told: the record of both
says how long it lasted. Afterwards repeats pass at once, and so does the resolve. `pass` lets through at once what cannot wait,
such as a severity that rises to critical; from then on it is told. `tell: text` adds a line about how long it has lasted to what
passes, `tell: data` puts it as `lasted` into the payload, where that is an object.

`time` decides what is newer, so that it does not matter in which order messages come: what is older than what is known already is
dropped with that reason, and what is resolved at the time at which it fires is over. A firing message that comes more than a
minute after the newest counts in any case, or a sender whose clock is put back would be silenced. A time in the future counts as
a minute from now.

A resolve of something of which nothing is known passes, rather than that an end is never told; one of what was over without
having been told is dropped, for as long as that is known: `for`, an hour at least. That something was told is known for
`remember` after its last message. All that is in the store, so a lost memory changes nothing, and neither does the number of
workers: a clock decides about all messages of a key, one after the other, within the quarter of a second in which it looks. One
message and some 280 bytes wait for each key.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from filters.hold.case import Case
from filters.hold.options import HoldConfig
from pipeline import Memory, Message, Opened, Released, Window, WindowFilter, in_time


class Hold(WindowFilter[HoldConfig]):
    """Passes a firing message when it has fired for some time, and drops what is over by then."""

    def window(self, message: Message, now: datetime, memory: Memory) -> Window | None:  # noqa: ARG002 - the store knows it all
        """Have the message looked at together with what is known of its key."""
        if not any(self.config.by.values(message).values()):
            return None
        return Window(self.config.by.key(message), now)

    def release(self, opened: Opened) -> Iterable[Released]:
        """Go through what has come, in order of its time, and say what leaves, waits on or ends here."""
        case = Case(self.config, opened)
        for message in in_time(opened.messages):
            yield from case.take(message)
        yield from case.end()
