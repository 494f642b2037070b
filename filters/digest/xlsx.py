"""The file of a digest as XLSX: a sheet for each title, by XlsxWriter, which is an extra of its own."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from xlsxwriter import Workbook
from xlsxwriter.worksheet import Worksheet

from filters.digest.rows import Cell, Table, clean
from pipeline import shorten

_LONGEST: Final = 31
_MOST: Final = 50
"""Sheets of a file; the rows of further ones share the last."""
_REST: Final = "More"
_UNNAMED: Final = "Messages"
_FORBIDDEN: Final = re.compile(r"[\[\]:*?/\\]")
_WIDEST: Final = 60
"""Characters to which a column is widened."""


def as_xlsx(table: Table, sheets: Sequence[str], made: datetime) -> bytes:
    """Write the rows, each on the sheet that is named for it. The same rows give the same bytes."""
    out = io.BytesIO()
    book = Workbook(out, {"in_memory": True})
    book.set_properties({"created": made.replace(tzinfo=None)})
    bold, wrapped = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
    for name, rows in _by_sheet(table, sheets).items():
        sheet = book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        for column, heading in enumerate(table.headings):
            sheet.write_string(0, column, heading, bold)
            sheet.set_column(column, column, _width([heading, *(row[column] for row in rows)]), wrapped)
        for number, row in enumerate(rows, start=1):
            _write(sheet, number, row)
        sheet.autofilter(0, 0, len(rows), max(0, len(table.headings) - 1))
    book.close()
    return out.getvalue()


def sheet_names(wanted: Sequence[str]) -> dict[str, str]:
    """Give each of these the name of its sheet, as Excel takes one: 31 characters, some of them forbidden, no two the same."""
    names: dict[str, str] = {}
    taken = {"history", _REST.lower()}  # Excel keeps the first for itself
    for one in dict.fromkeys(wanted):
        if len(names) == _MOST - 1 and len({*wanted}) > _MOST:
            names |= dict.fromkeys([rest for rest in dict.fromkeys(wanted) if rest not in names], _REST)
            break
        names[one] = _free(_allowed(one), taken)
        taken.add(names[one].lower())
    return names


def _by_sheet(table: Table, sheets: Sequence[str]) -> Mapping[str, list[Sequence[Cell]]]:
    names = sheet_names(sheets)
    found: dict[str, list[Sequence[Cell]]] = {name: [] for name in names.values()}
    for sheet, row in zip(sheets, table.rows, strict=True):
        found[names[sheet]].append(row)
    return found or {_UNNAMED: []}


def _allowed(text: str) -> str:
    line = " ".join(_FORBIDDEN.sub(" ", clean(text)).split()).strip("'").strip()
    return shorten(line, _LONGEST, unit="utf-16").strip("'").strip() or _UNNAMED


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        mark = f" ({number})"
        free = shorten(name, _LONGEST - len(mark), unit="utf-16") + mark
    return free


def _write(sheet: Worksheet, number: int, row: Sequence[Cell]) -> None:
    """Write texts as texts: `write` would make formulas and links of some."""
    for column, cell in enumerate(row):
        if isinstance(cell, str):
            sheet.write_string(number, column, cell)
        else:
            sheet.write_number(number, column, cell)


def _width(cells: Sequence[Cell]) -> int:
    lines = (line for cell in cells for line in str(cell)[: 4 * _WIDEST].split("\n"))
    return min(_WIDEST, 2 + max(map(len, lines), default=0))
