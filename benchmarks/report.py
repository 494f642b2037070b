"""What a run came to: `results.json`, the table for people, and the guard that compares with what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Row

RESULTS: Final = Path("benchmarks/results.json")
PAGE: Final = Path("docs/benchmarks.md")
BEGIN: Final = "<!-- table: made by make bench -->"
END: Final = "<!-- end of table -->"
GUARDED: Final = 0.7
"""The share of a recorded ratio below which `bench-short` fails."""


def table(rows: Iterable[Row]) -> str:
    """Give the outcomes as a Markdown table."""
    lines = [
        "| measure | yardstick | Siftbell | yardstick | ratio | lowest to highest | at least | aim | |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for row in rows:
        target = row.target
        figures = (number(value) for value in (row.ours, row.yardstick, row.ratio))
        spread = f"{number(row.low)} to {number(row.high)}"
        bounds = (number(target.at_least), number(target.aim))
        cells = [target.measure, target.yardstick, *figures, spread, *bounds, "met" if row.met else "**missed**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Give what `results.json` holds."""
    return [
        {
            "measure": row.target.measure,
            "ratio": float(f"{row.ratio:.4g}"),
            "low": float(f"{row.low:.4g}"),
            "high": float(f"{row.high:.4g}"),
            "at_least": row.target.at_least,
            "aim": row.target.aim,
        }
        for row in rows
    ]


def write_results(path: Path, rows: Sequence[Row]) -> None:
    """Put outcomes into `results.json`; measures that were not taken this time keep theirs."""
    known = {entry["measure"]: entry for entry in (json.loads(path.read_text()) if path.exists() else [])}
    known |= {entry["measure"]: entry for entry in as_json(rows)}
    path.write_text(json.dumps(list(known.values()), indent=2) + "\n")


def write_page(path: Path, rows: Sequence[Row], how: str) -> None:
    """Put the table into its section of a page, with a line that says how it was made."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{how}\n\n{table(rows)}\n{END}{after}")


def fallen(rows: Iterable[Row], recorded: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give a line for each measure whose ratio is below 70 % of the recorded one, or that has none on record."""
    ratios = {entry["measure"]: entry["ratio"] for entry in recorded}
    found = []
    for row in rows:
        name = row.target.measure
        if name not in ratios:
            found.append(f"{name}: no ratio is on record; `make bench` writes it")
        elif row.ratio < GUARDED * ratios[name]:
            found.append(f"{name}: {number(row.ratio)} is below 70 % of the recorded {number(ratios[name])}")
    return found
