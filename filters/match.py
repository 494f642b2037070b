"""Thin first form: passes messages for which a condition holds.

```yaml
name: critical-only
producers:
  - http
filters:
  - match: severity == "critical"
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from pipeline import Condition, Config, Filter, Message


class MatchConfig(Config):
    """The options of `match`."""

    shorthand: ClassVar[str | None] = "condition"

    condition: Condition = Field(description="The condition that a message must fulfil to pass.")


class Match(Filter[MatchConfig]):
    """Passes the messages for which a condition holds, and drops the others."""

    def filter(self, message: Message) -> Iterable[Message]:
        """Pass or drop the message."""
        if self.config.condition.matches(message):
            yield message
