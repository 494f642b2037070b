"""The files of a digest: its rows as CSV and HTML, its messages as text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Final
from zoneinfo import ZoneInfo

from filters.digest.rows import Cell, Entry, Table, clean, written
from pipeline import headline, shorten, shown_labels

_FORMULA: Final = re.compile(r"[\s\ufeff]*[=+\-@\t\r|%＝＋－＠]")  # noqa: RUF001 - the wide forms, which some spreadsheets read as well
_INNER: Final = re.compile(r"([;\t\n][\s\ufeff\"]*)(?=[=+\-@|%＝＋－＠])")  # noqa: RUF001 - as above
"""Where a cell begins for a spreadsheet that separates them otherwise, as Excel does where a comma is in numbers."""
_NUMBER: Final = re.compile(r"[+-]?\d+(?:[.,]\d+)*")
_STYLE: Final = (
    "body{font:14px/1.5 sans-serif;margin:16px}table{border-collapse:collapse}"
    "th,td{border:1px solid #ccd3da;padding:3px 8px;text-align:left;vertical-align:top;white-space:pre-wrap}"
    "th{background:#f1f4f7}"
)
_PAGE: Final = """\
<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
<table>
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body></html>
"""


def as_csv(table: Table) -> bytes:
    """Write RFC 4180 in UTF-8, with the mark by which Excel knows it; what a spreadsheet would compute has an apostrophe."""
    out = io.StringIO(newline="")
    rows = csv.writer(out)
    rows.writerow([_guarded(name) for name in table.headings])
    rows.writerows([_guarded(cell) for cell in row] for row in table.rows)
    return out.getvalue().encode("utf-8-sig")


def as_html(table: Table, title: str) -> bytes:
    """Write a page with a table of all rows."""
    headings = "".join(f"<th>{escape(name)}</th>" for name in table.headings)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in table.rows)
    return _PAGE.format(title=escape(clean(title)), style=_STYLE, headings=headings, rows=rows).encode()


def as_text(entries: Sequence[Entry], zone: ZoneInfo, longest: int) -> bytes:
    """Write each message in full, one below the other."""
    return "\n\n".join(shorten(_in_full(entry, zone), longest) for entry in entries).encode() + b"\n"


def _in_full(entry: Entry, zone: ZoneInfo) -> str:
    message = entry.message
    first = " · ".join(filter(None, (written(message.time, zone), message.severity, message.source)))
    times = f" ({entry.times} times)" if entry.times > 1 else ""
    labels = "\n".join(f"{name}: {value}" for name, value in shown_labels(message).items())
    parts = (headline(message) + times, first, message.text, labels, message.url)
    return "\n".join(clean(part).strip() for part in parts if part.strip())


def _guarded(cell: Cell) -> Cell:
    """Keep a spreadsheet from computing what somebody else sent: `=HYPERLINK(…)` would carry the other cells away."""
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return "'" * bool(_FORMULA.match(cell)) + _INNER.sub(r"\1'", cell)
