"""The table of what became of the messages, for a terminal and for docs/faults.md."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cell import Result

HEADERS = ("fault", "accepted", "delivered", "buried", "lost", "duplicates (at most)", "longest stall", "recovery")


def row(result: Result) -> tuple[str, ...]:
    """Give the cells of one line."""
    name = " + ".join(result.faults)
    if result.skipped:
        return (name, f"not run: {result.skipped}", *[""] * (len(HEADERS) - 2))
    recovery = "-" if result.recovery is None else f"{result.recovery:.1f} s"
    return (
        name,
        f"{result.accepted:,}",
        f"{result.delivered:,}",
        f"{result.buried:,}",
        f"{result.lost:,}",
        f"{result.duplicates:,} ({result.bound:,})",
        f"{result.stall:.1f} s",
        recovery,
    )


def total(results: Sequence[Result]) -> tuple[str, ...]:
    """Give the line below a combination's."""
    run = [result for result in results if not result.skipped]
    sums = [sum(getattr(result, name) for result in run) for name in ("accepted", "delivered", "buried", "lost", "duplicates")]
    worst = max((result.stall for result in run), default=0.0)
    return ("together", *(f"{number:,}" for number in sums), f"{worst:.1f} s", "")


def markdown(results: Sequence[Result]) -> str:
    """Give a table for each combination, in the order of the results."""
    parts = []
    for name in dict.fromkeys(result.combination for result in results):
        own = [result for result in results if result.combination == name]
        lines = [f"### {name}", "", _line(HEADERS), _line(["---"] + ["--:"] * (len(HEADERS) - 1))]
        lines += [_line(row(result)) for result in own]
        lines.append(_line([f"**{text}**" if text else "" for text in total(own)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def line(result: Result) -> str:
    """Give one line for a terminal."""
    cells = row(result)
    state = "skipped" if result.skipped else "FAILED" if result.problems else "ok"
    if result.skipped:
        return f"{state:8} {result.combination:15} {cells[0]}: {result.skipped}"
    figures = (
        f"{cells[1]:>7} accepted {cells[3]:>3} buried {cells[4]:>3} lost {cells[5]:>14} duplicates"
        f"  stall {cells[6]:>7}  back after {cells[7]:>7}  {result.seconds:5.1f} s"
    )
    return f"{state:8} {result.combination:15} {cells[0]:44} {figures}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
