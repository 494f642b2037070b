"""The root's help as `make docs` has rendered it into `help.txt`: to show it takes nothing but a Python start."""

from __future__ import annotations

import os
import sys

WIDTH = 80
"""Columns that it was rendered for."""


def tell() -> None:
    """Print the help and exit, in colours on a terminal; returns where the terminal is narrower, or cannot show the frames."""
    if "utf" not in sys.stdout.encoding.lower():
        return
    terminal = sys.stdout.isatty()
    if terminal and os.get_terminal_size(sys.stdout.fileno()).columns < WIDTH:
        return
    with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as file:  # noqa: PTH118, PTH120, PTH123 - pathlib takes as long as all the rest
        text = file.read()
    sys.stdout.write(text if terminal and not os.environ.get("NO_COLOR") else plain(text))
    sys.stdout.flush()
    sys.exit(0)


def plain(text: str) -> str:
    """Give a text without the sequences that set colours."""
    first, *rest = text.split("\x1b[")
    return first + "".join(part.partition("m")[2] for part in rest)
