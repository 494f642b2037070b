"""Thin first form: appends each message as a JSON line to a file.

```yaml
name: to-a-file
producers:
  - http
consumers:
  - file: {path: messages.jsonl}
```
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
from pydantic import Field

from pipeline import BatchConsumer, Config, Message, PermanentError, TemporaryError


class FileConfig(Config):
    """The options of `file`."""

    shorthand: ClassVar[str | None] = "path"

    path: Path = Field(description="The file to append to.")


class File(BatchConsumer[FileConfig]):
    """Appends each message to a file, as one line of JSON, fsynced."""

    def consume_many(self, messages: Sequence[Message]) -> Mapping[str, TemporaryError | PermanentError]:
        """Append the lines in one write, then fsync."""
        self.config.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = b"".join(msgspec.json.encode(message) + b"\n" for message in messages)
        descriptor = os.open(self.config.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, lines)
            os.fsync(descriptor)
        except OSError as error:
            raise TemporaryError(f"{self.config.path}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        return {}
