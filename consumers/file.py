"""Appends each message to a file, as one line of JSON: an archive, or what another program reads.

A batch is one write, on the disk (fsync) before it counts as delivered. Several processes may write the same file. The
file is made with mode 0600, missing directories with 0700. After a crash in the middle of a write the torn line stays as
it is, and the next begins on a line of its own; where the disk is full nothing of the batch is left in the file, and the
batch is tried again. It never rotates; move the file away (logrotate without `copytruncate`), and a new one is begun.

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
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import msgspec
from pydantic import Field

from pipeline import BatchConsumer, Config, Message, PermanentError, TemporaryError


class FileConfig(Config):
    """The options of `file`."""

    shorthand: ClassVar[str | None] = "path"

    path: Path = Field(description="The file to append to; relative to the directory that Siftbell was started in.")


class File(BatchConsumer[FileConfig]):
    """Appends each message to a file, as one line of JSON, fsynced."""

    def consume_many(self, messages: Sequence[Message]) -> Mapping[str, TemporaryError | PermanentError]:
        """Append the lines in one write; all or none of them. Raises `TemporaryError` where the file cannot be written."""
        lines: list[bytes] = []
        failures: dict[str, TemporaryError | PermanentError] = {}
        for message in messages:
            try:
                lines.append(msgspec.json.encode(message) + b"\n")
            except (TypeError, UnicodeEncodeError, msgspec.MsgspecError) as error:
                failures[message.id] = PermanentError(f"the message is not JSON: {error}")
        try:
            self._append(b"".join(lines))
        except OSError as error:
            raise TemporaryError(f"{self.config.path}: {error.strerror or error}") from error
        return failures

    def probe(self) -> str:
        """Look whether the file can be appended to, or made; it is not."""
        path = self.config.path
        missing = not path.exists()
        place = next(one for one in (path.parent, *path.absolute().parents) if one.exists()) if missing else path
        if not os.access(place, os.W_OK | (os.X_OK if missing else 0)) or place.is_dir() != missing:
            raise TemporaryError(f"{path}: {place} cannot be written to")
        return f"{path} {'can be made' if missing else 'can be written to'}"

    def preview(self, message: Message) -> object:
        """Give the line, as an object."""
        return message.plain()

    def _append(self, lines: bytes) -> None:
        path = self.config.path
        _make_directories(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            try:
                _write(descriptor, lines)
            except OSError:
                with suppress(OSError):  # what cannot be cut off (a device) stays; the next line begins on its own
                    os.ftruncate(descriptor, size)
                raise
            if not size:
                _sync_directory(path.parent)
        finally:
            os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, and have it on the disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _make_directories(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _sync_directory(directory: Path) -> None:
    """Have the new file's name on the disk as well."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
