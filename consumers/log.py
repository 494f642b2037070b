"""Writes each message to Siftbell's log: the first consumer to try, and a record of what went through.

A message is one line, whatever its title and text hold: line breaks and control characters become spaces, so that nobody
can forge a line or colour a terminal by what they send. The line's level follows the severity: `debug`, `info` and
`warning` as they are, everything else `error`; a resolved message is `info`.

```yaml
name: to-the-log
producers:
  - http
consumers:
  - log
```
"""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog

from pipeline import Consumer, Message, NoOptions

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "": logging.INFO, "warning": logging.WARNING}


class Log(Consumer[NoOptions]):
    """Writes each message to the log, as one line."""

    def consume(self, message: Message) -> None:
        """Write the line; it is done when the log has it."""
        level = logging.INFO if message.status == "resolved" else _LEVELS.get(message.severity, logging.ERROR)
        fields = self._fields(message)
        structlog.get_logger("message").log(level, fields.pop("title") or "a message without a title", **fields)

    def preview(self, message: Message) -> object:
        """Give the line's fields."""
        return self._fields(message)

    def _fields(self, message: Message) -> dict[str, Any]:
        names = ("title", "id", "source", "type", "severity", "status", "key", "url", "text")
        fields: dict[str, Any] = {name: _one_line(str(getattr(message, name))) for name in names}
        fields["labels"] = {_one_line(name): _one_line(value) for name, value in message.labels.items()}
        return {name: value for name, value in fields.items() if value or name == "title"}


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", " ", text).split())
