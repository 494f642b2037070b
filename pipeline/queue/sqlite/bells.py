"""Wakes who waits for messages of a queue file: each has a named pipe beside the file, and who publishes writes to it.

Nothing depends on it: a message for which nobody was woken is found by the next poll.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from uuid import uuid4
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

_HIDDEN = "."
"""What the name of a pipe begins with that is not open yet."""


class Bell:
    """The pipe of one connection that waits; `descriptor` can be read when somebody has published."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._pid = os.getpid()
        self.descriptor = descriptor

    @classmethod
    def hung(cls, queue: Path) -> Self | None:
        """Make a pipe; None where the file's directory can have none."""
        directory = _directory(queue)
        name = uuid4().hex
        hidden = directory / f"{_HIDDEN}{name}"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            os.mkfifo(hidden, 0o600)
            # Open for writing as well, so that it has no end when the last one who rang closes it.
            descriptor = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            hidden.rename(directory / name)
        except (OSError, AttributeError):  # no such thing on this file system, or on this system
            return None
        return cls(directory / name, descriptor)

    def heard(self, queues: Iterable[str]) -> bool:
        """Say whether it has rung for one of these queues since it was asked last; it may ring in vain, never too seldom."""
        rung = b""
        with suppress(BlockingIOError):
            while read := os.read(self.descriptor, 65536):
                rung += read
        return not set(rung).isdisjoint(map(_tone, queues))

    def close(self) -> None:
        """Take it down; a child that inherited it only lets go of it."""
        if self._pid == os.getpid():
            self._path.unlink(missing_ok=True)
        os.close(self.descriptor)


def ring(queue: Path, names: Collection[str]) -> None:
    """Wake who waits for the queues of these names. Never fails, never waits; removes the pipes of those who are gone."""
    tones = bytes({_tone(name) for name in names})
    with suppress(OSError):
        for path in _directory(queue).iterdir():
            if not path.name.startswith(_HIDDEN):
                _write(path, tones)


def _write(path: Path, tones: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody reads it: whoever did was killed
        path.unlink(missing_ok=True)
        return
    try:
        with suppress(BlockingIOError):  # full of what was not heard yet: it will look
            os.write(descriptor, tones)
    finally:
        os.close(descriptor)


def _tone(name: str) -> int:
    return crc32(name.encode()) & 0xFF


def _directory(queue: Path) -> Path:
    return queue.with_name(f"{queue.name}-bells")
