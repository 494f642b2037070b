"""Tells which owners of claims are alive: each holds a lock on one byte of a file beside the queue until its process ends.

The kernel frees the byte when the process ends, however it ends. So a pid given to another process, a clock that jumps
and a container's own pid numbers cannot mislead, and SQLite itself relies on the same kind of lock.
"""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.queue.sqlite.file import make_private

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class _Held:
    descriptor: int
    numbers: set[int] = field(default_factory=set)


_held: dict[Path, _Held] = {}
_lock = threading.Lock()


def hold(queue: Path, number: int) -> None:
    """Mark owner `number` of the queue as alive until `let_go` or the end of this process. Raises OSError."""
    with _lock:
        held = _open(queue)
        fcntl.lockf(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        held.numbers.add(number)


def let_go(queue: Path, number: int) -> None:
    """Mark an owner held by this process as gone."""
    with _lock:
        held = _held.get(queue)
        if held is not None and number in held.numbers:
            held.numbers.remove(number)
            fcntl.lockf(held.descriptor, fcntl.LOCK_UN, 1, number)
            _close_idle(queue)


def is_alive(queue: Path, number: int) -> bool:
    """Say whether any process, this one included, holds the owner. Raises OSError."""
    with _lock:
        held = _open(queue)
        if number in held.numbers:
            return True
        try:
            fcntl.lockf(held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # POSIX allows either for a lock held by another process
            return True
        else:
            fcntl.lockf(held.descriptor, fcntl.LOCK_UN, 1, number)
            return False
        finally:
            _close_idle(queue)


def _open(queue: Path) -> _Held:
    """Return the one descriptor of this process: closing any other one on the file would free the locks of all."""
    if queue not in _held:
        path = queue.with_name(f"{queue.name}-owners")
        make_private(path)
        _held[queue] = _Held(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    return _held[queue]


def _close_idle(queue: Path) -> None:
    if not _held[queue].numbers:
        os.close(_held.pop(queue).descriptor)


def _forget() -> None:
    """Drop what a child inherited: the locks stayed with the parent."""
    global _lock  # noqa: PLW0603 - a lock held by another thread of the parent would never be freed here
    _lock = threading.Lock()
    for held in _held.values():
        os.close(held.descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
