"""The data directory of a process tree: made for its owner only, and used by one tree at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.errors import PipelineError


class InUseError(PipelineError):
    """Another process tree holds the directory."""


class DataDirectory:
    """One data directory, held by this process until it ends or `close` is called. Makes it where it is missing (0700)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise InUseError(f"{path} is in use by another siftbell (process {holder}); stop it, or use --data") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def fresh(self, name: str) -> Path:
        """Make an empty directory of that name."""
        path = self.path / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        return path

    def close(self) -> None:
        """Let another process tree have the directory."""
        os.close(self._lock)


def read_text(path: Path) -> str:
    """Give the text of a file, empty where there is none."""
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    return ""


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
