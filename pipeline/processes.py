"""A process and its parent, so that nothing goes on running when what started it is gone; its name and memory. For Linux only."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT: Final = 4 * 2**20
"""Bytes of free memory that a heap keeps at its end; less, and the buffers of each batch would be taken from the system anew."""
_LARGE: Final = 2**20
"""Pieces from this size on stand outside of the heap, and go back when they are freed."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of those of its descendants whose own parent has ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show for this process, and for those that it forks; 15 characters of it are kept."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def give_memory_back() -> None:
    """Have what this process and its threads free go back to the system, but for a little that is used again and again.

    glibc gives each thread a heap of its own, and keeps up to 64 MB of what is freed: the more, the larger the pieces were.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl's allocator gives back what is freed, and has nothing to set
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def _prctl(option: int, value: object) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value)
