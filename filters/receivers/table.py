"""A table of people: a line for each, with their names by channel and the groups they are in."""

from __future__ import annotations

import csv
import re
from io import StringIO
from pathlib import Path
from typing import NamedTuple

_NAME, _GROUPS = "name", "groups"


class Table(NamedTuple):
    """Users and groups, as the options of `receivers` have them."""

    users: dict[str, dict[str, str]]
    groups: dict[str, list[str]]


def read_table(file: Path) -> Table:
    """Read a table in CSV, UTF-8, whose first line names its columns; raises ValueError that says what is wrong with it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"its table of users cannot be read: {told}") from None
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    rows = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
    found = Table({}, {})
    try:
        columns = [column.strip() for column in rows.fieldnames or ()]
        if _NAME not in columns or len(columns) != len({*columns}):
            raise ValueError(f"its table of users needs a first line with the column `{_NAME}`, and each column once")
        for row in rows:
            _add(found, {column.strip(): (text or "").strip() for column, text in row.items() if column}, rows.line_num)
    except csv.Error as error:
        raise ValueError(f"its table of users cannot be read: {error}") from None
    return found


def _add(table: Table, row: dict[str, str], line: int) -> None:
    name, groups = row.pop(_NAME), row.pop(_GROUPS, "")
    if not any((name, groups, *row.values())):
        return
    if not name or name in table.users:
        raise ValueError(f"line {line} of its table of users {'has no name' if not name else 'has a name that was there before'}")
    table.users[name] = {channel: text for channel, text in row.items() if text}
    for group in filter(None, re.split(r"[,;\s]+", groups)):
        table.groups.setdefault(group, []).append(name)
