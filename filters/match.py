"""Passes the messages that fulfil a condition, and drops the others.

`condition` is CEL over the message's fields: `severity in ["critical", "error"] && labels.team == "db"`. A message that
lacks what the condition reads does not fulfil it; `has(labels.team)` asks first. `labels` takes label matchers as
Alertmanager writes them (`=`, `!=`, `=~`, `!~`); a label that a message lacks counts as `""` there, and regular
expressions (RE2) must match the whole value. Where both are given, both must hold. A bare value is the condition.

```yaml
name: the-database-at-night
producers:
  - prometheus
filters:
  - match: severity == "critical" || severity == "error"
  - match:
      labels: ['team="db", environment=~"prod.*"', 'instance!="test-1"']
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pipeline import Condition, Config, Filter, Matchers, Message


class MatchConfig(Config):
    """The options of `match`."""

    shorthand: ClassVar[str | None] = "condition"

    condition: Condition | None = Field(default=None, description="The condition (CEL) that a message must fulfil to pass.")
    labels: tuple[Matchers, ...] = Field(default=(), description='Label matchers that must all match, such as team="db".')

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.condition is None and not self.labels:
            raise ValueError("condition or labels is required")
        return self


class Match(Filter[MatchConfig]):
    """Passes the messages for which a condition and label matchers hold, and drops the others."""

    def filter(self, message: Message) -> Iterable[Message]:
        """Pass or drop the message."""
        config = self.config
        if config.condition is not None and not config.condition.matches(message):
            return
        for matchers in config.labels:
            if not matchers.match(message.labels):
                return
        yield message
