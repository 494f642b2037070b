"""Tells once that something flaps, is quiet until it is stable, and then says how it ended.

```yaml
name: quiet-where-it-flaps
producers:
  - prometheus
filters:
  - flap: {changes: 4, within: 10m, stable: 10m}
consumers:
  - log
```

`by` says which messages are about the same, else their `key` does; one in which all of that is empty passes at once. A change is
a message whose status is another one than that before it. As long as there are few, messages pass. The one that makes it
`changes` of them `within` the time is told as "… is flapping (4 changes in 1m20s)", firing whatever it was. From then on all are
dropped but the newest, which waits. When the status has not changed for `stable`, it is told as "… is stable again after 30
changes in 9m40s: resolved", with its own text and the status that holds then. What becomes graver meanwhile is told at once, as
"… is flapping, and critical now". `labels.flapping` is `began`, `ended` and `worse` in these, for conditions and templates.

A resolve that comes sooner than `settle` after its firing message waits until that time is over since it came: what fires again
at once was not over, and neither is told, but counted. So what changes every 20 seconds is told in three messages, the first that
fires, that it flaps, and how it ended. `settle: 0s` lets every resolve pass at once; the story has a message more then.

`time` decides in which order messages were said. What is older than what is known already is dropped with that reason, and the
changes that it tells of are counted as far as what lay around it is still kept. A firing message that comes more than a minute
after the newest counts in any case, or a sender whose clock is put back would be silenced: the changes are counted anew from
there. A time in the future counts as a minute from now.

All that is in the store, so a lost memory changes nothing, and neither does the number of workers: a clock decides about all
messages of a key, one after the other, within the quarter of a second in which it looks. What can differ is what comes in another
order and later than that: a firing message that is overtaken by its resolve is dropped as older. One message waits for each key,
and what is kept has some 210 bytes, 3 kB at most; it is forgotten when nothing has come for as long as `within`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from filters.flap.case import Case
from filters.flap.options import FlapConfig
from pipeline import Memory, Message, Opened, Released, Window, WindowFilter, in_time


class Flap(WindowFilter[FlapConfig]):
    """Tells once that something flaps, is quiet until it is stable, and then says how it ended."""

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
