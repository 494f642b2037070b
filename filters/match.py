"""Passes the messages that fulfil a condition, and drops the others.

`condition` is CEL over the message's fields: `severity in ["critical", "error"] && labels.team == "db"`. A message that
lacks what the condition reads does not fulfil it; `has(labels.team)` asks first. A bare value is the condition.

`labels` takes label matchers as Alertmanager writes them (`=`, `!=`, `=~`, `!~`); a label that a message lacks counts as `""`
there, and regular expressions (RE2) must match the whole value.

`keywords` is a list of words of which one must be in title or text. They are whole words (`disk` is not in `diskette`, but is in
`disk-1`), in capital or small letters; between two words of one keyword may be any white space. The long form says more:
`keywords: {any: […], all: […], in: [title, labels.summary, data.note], case: true}`.

`min` is the least severity, in the order debug, info, warning, error, critical: `min: warning` passes warning, error and
critical. A severity that is none of these, or empty, cannot be compared: such a message passes, as nobody knows what would be
missed. `condition: severity in ["warning", "error", "critical"]` drops it.

`types` lists the types of which the message has one, such as `alert`.

All that is given must hold. `siftbell explain` tells what did not hold for a message that was dropped.

```yaml
name: the-database-at-night
producers:
  - prometheus
filters:
  - match: severity == "critical" || severity == "error"
  - match:
      labels: ['team="db", environment=~"prod.*"', 'instance!="test-1"']
      keywords: [disk, "out of memory"]
  - match: {min: warning, types: [alert]}
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import Dropped, Filter, Message, Selection


class MatchConfig(Selection):
    """The options of `match`."""


class Match(Filter[MatchConfig]):
    """Passes the messages for which all holds that is asked for, and drops the others."""

    @classmethod
    def is_light(cls, config: MatchConfig) -> bool:
        """Say whether its condition has no comprehension."""
        return config.is_light

    def __init__(self, config: MatchConfig) -> None:
        super().__init__(config)
        self._checks = config.checks(unsure=True)

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Pass the message, or drop it and say what does not hold."""
        for check in self._checks:
            if not check.holds(message):
                yield Dropped(check.told(message, False))
                return
        yield message
