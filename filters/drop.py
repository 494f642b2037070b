"""Drops the messages that fulfil a condition, and passes the others: the opposite of `match`, with the same options.

What they mean is told in the manual of `match`: `condition` (CEL; a bare value is the condition), `labels` (Alertmanager's
matchers), `keywords`, `min` (this severity and those above it) and `types`. A message is dropped where all holds that is
given; two steps drop what fulfils the one or the other.

What cannot be told drops nothing: a condition does not hold for a message that lacks what it reads, and `min` holds for none
whose severity is not one of debug, info, warning, error and critical.

```yaml
name: without-the-noise
producers:
  - prometheus
filters:
  - drop: severity == "debug" || labels.environment == "test"
  - drop: {labels: ['alertname="Watchdog"']}
  - drop: {keywords: [backup, maintenance], types: [event]}
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pipeline import Dropped, Filter, Message, Selection


class DropConfig(Selection):
    """The options of `drop`."""

    passes_what_holds: ClassVar[bool] = False


class Drop(Filter[DropConfig]):
    """Drops the messages for which all holds that is asked for, and passes the others."""

    @classmethod
    def is_light(cls, config: DropConfig) -> bool:
        """Say whether its condition has no comprehension."""
        return config.is_light

    def __init__(self, config: DropConfig) -> None:
        super().__init__(config)
        self._checks = config.checks(unsure=False)

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Pass the message, or drop it and say what holds."""
        if all(check.holds(message) for check in self._checks):
            yield Dropped("; ".join(check.told(message, True) for check in self._checks))
        else:
            yield message
