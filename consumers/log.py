"""Thin first form: writes each message to the log.

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

import structlog

from pipeline import Consumer, Message, NoOptions

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


class Log(Consumer[NoOptions]):
    """Writes each message to the log, as one line."""

    def consume(self, message: Message) -> None:
        """Write the line."""
        structlog.get_logger("message").log(
            _LEVELS.get(message.severity, logging.ERROR), message.title, id=message.id, severity=message.severity, text=message.text
        )
