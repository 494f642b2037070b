"""How verbs print: data on stdout as a table, JSON or YAML, words on stderr; what comes from outside cannot steer a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

UNBOUNDED: Final = 10_000
"""Columns where nobody looks: a line that goes to a file or a program is not broken."""
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def console() -> Console:
    """Give a console on stdout: as wide as the terminal, or without bounds where there is none; NO_COLOR is heeded."""
    from rich.console import Console

    found = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not found.is_terminal:
        found.width = UNBOUNDED
    return found


def say(text: str) -> None:
    """Print words for people."""
    print(clean(text), file=sys.stderr)


def clean(text: str) -> str:
    """Give a text with its control characters made visible, but for line ends and tabs."""
    return text.translate(_CONTROLS)


def near(text: str) -> str:
    """Give a text with files named from the working directory on: what a server records has their whole paths."""
    return text.replace(f"{Path.cwd()}/", "")


def cell(value: object, style: str = "") -> Text:
    """Give what stands in a table for a value."""
    from rich.text import Text

    return Text(clean("" if value is None else str(value)), style=style)


def print_data(value: Any, output: Output) -> None:
    """Print a value that JSON can hold, as JSON or YAML."""
    if output is Output.YAML:
        from pipeline.spec.writing import to_yaml

        sys.stdout.write(to_yaml(value))
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: Output, *, empty: str = "") -> None:
    """Print rows: all of their fields as data, or `columns` as a table; `empty` is said where there are none."""
    if output is not Output.TABLE:
        print_data([dict(row) for row in rows], output)
        return
    if not rows:
        say(empty)
        return
    shown = table(*columns)
    for row in rows:
        shown.add_row(*(cell(row.get(column)) for column in columns))
    console().print(shown)


def table(*columns: str) -> Table:
    """Make an empty table; the last column takes the room that is left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column.upper(), overflow="fold", no_wrap=False, ratio=None if index < len(columns) - 1 else 1)
    return made
