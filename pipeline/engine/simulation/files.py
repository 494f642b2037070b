"""Where a simulation keeps its store and its memory: real files, copied from one that is made once for each process."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.memory import MemoryBackend, SqlMemory
from pipeline.store import Store

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
_STORE: Final = "store.db"
_MEMORY: Final = "memory.db"

Now = Callable[[], datetime]


class Files:
    """A store, and the same memory as each of several clocks sees it.

    What was opened once is kept for the next simulation of this process: a database takes longer to get ready than most
    simulations last.
    """

    def __init__(self, directory: Path, clocks: int) -> None:
        self._directory = directory
        self._clocks: list[Now] = []
        self._template = prepare()
        self.store = Store(f"sqlite:///{directory / _STORE}")
        self._memories = [SqlMemory(f"sqlite:///{directory / _MEMORY}", now=self._clock(index)) for index in range(clocks)]

    def begin(self, clocks: list[Now]) -> None:
        """Make the files, as empty as new ones; `clocks` are those that the memories go by."""
        self._clocks = clocks
        self._write(_STORE)
        self._write(_MEMORY)

    def memory(self, index: int) -> MemoryBackend:
        """Give the memory as it is seen by one of the clocks."""
        return self._memories[index]

    def forget(self) -> None:
        """Make the memory empty."""
        for memory in self._memories:
            memory.close()
        self._write(_MEMORY)

    def close(self) -> None:
        """Close the files; what is used next opens them again."""
        self.store.close()
        for memory in self._memories:
            memory.close()

    def _clock(self, index: int) -> Now:
        def now() -> datetime:  # they are others in each simulation
            return self._clocks[index]()

        return now

    def _write(self, name: str) -> None:
        for ending in ("-wal", "-shm"):
            (self._directory / f"{name}{ending}").unlink(missing_ok=True)
        file = self._directory / name
        file.write_bytes(self._template)
        file.chmod(0o600)


_free: dict[int, list[Files]] = {}


def take(clocks: int, directory: Path | None) -> Files:
    """Give files for so many clocks: in this directory, or in one that ends with the process."""
    if directory is not None:
        return Files(directory, clocks)
    waiting = _free.setdefault(clocks, [])
    return waiting.pop() if waiting else Files(Path(tempfile.mkdtemp(dir=_root())), clocks)


def give_back(files: Files, clocks: int, directory: Path | None) -> None:
    """Close files; those of no directory of their own are another simulation's next."""
    files.close()
    if directory is None:
        _free.setdefault(clocks, []).append(files)


@cache
def _root() -> Path:
    made = Path(tempfile.mkdtemp(prefix="siftbell-simulation-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@cache
def prepare() -> bytes:
    """Make what all simulations of this process, and of those forked from it, begin with: takes most of a second, once.

    Gives the bytes of an empty store; the memory's tables are among its own.
    """
    file = _root() / "template.db"
    store = Store(f"sqlite:///{file}")
    store.migrate()
    store.close()
    return file.read_bytes()


os.register_at_fork(after_in_child=_free.clear)  # those are the parent's; the directory goes with the parent
