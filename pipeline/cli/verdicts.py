"""How the verdicts about tests are told: line by line for people, as data, and as JUnit writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli.output import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from pipeline.engine.simulation.judging import Difference
    from pipeline.engine.simulation.playing import Verdict
    from pipeline.spec.caseload import Ready

STYLES: Final = {"-": "red", "+": "green", " ": "dim"}
LONGEST: Final = 300
"""Characters of a line of a difference that a person is shown; `-o json` has all of it."""
MOST_ROWS: Final = 40
"""Lines of a difference that a person is shown."""


def print_verdicts(where: Console, *, quiet: bool) -> Callable[[Ready, Verdict], None]:
    """Give what prints verdicts, one after the other."""
    from rich.padding import Padding
    from rich.text import Text

    last: list[Path] = []
    marks = ("✓", "✗") if "utf" in where.encoding.lower() else ("ok", "FAILED")

    def show(ready: Ready, verdict: Verdict) -> None:
        if quiet and verdict.passed:
            return
        if last != [ready.file]:
            where.print(Text(clean(str(ready.file)), style="bold"))
            last[:] = [ready.file]
        mark = (marks[0], "green") if verdict.passed else (marks[1], "bold red")
        line = Text.assemble("  ", mark, " ", clean(ready.case.name))
        if not verdict.passed:
            line.append(f"  {clean(str(ready.case.position))}", "dim")
        where.print(line)
        for one in verdict.differences:
            for indent, row in _difference(one):
                where.print(Padding(row, (0, 0, 0, indent), expand=False))

    return show


def _difference(difference: Difference) -> Iterator[tuple[int, Text]]:
    from rich.text import Text

    yield 6, Text(clean(difference.subject))
    width = max((len(row.when) for row in difference.rows), default=0)
    rows = list(difference.rows)
    for row in rows[:MOST_ROWS]:
        when = f"{row.when:<{width}}  " if width else ""
        text = row.text if len(row.text) <= LONGEST else f"{row.text[:LONGEST]}…"
        yield 8, Text(clean(f"{row.sign} {when}{text}"), STYLES[row.sign])
    if len(rows) > MOST_ROWS:
        yield 8, Text(f"… {len(rows) - MOST_ROWS} lines more: -o json has them", "dim")
    for reason in difference.reasons:
        yield 8, Text(clean(reason), "yellow")


def as_object(ready: Ready, verdict: Verdict) -> dict[str, Any]:
    """Give a verdict as what JSON can hold."""
    position = ready.case.position
    return {
        "file": str(position.file),
        "line": position.line,
        "pipeline": ready.spec.name,
        "name": ready.case.name,
        "passed": verdict.passed,
        "milliseconds": round(verdict.seconds * 1000),
        "differences": [
            {
                "subject": one.subject,
                "rows": [{"sign": row.sign, "when": row.when, "text": row.text} for row in one.rows],
                "reasons": list(one.reasons),
            }
            for one in verdict.differences
        ],
    }


def write_junit(path: Path, played: Sequence[tuple[Ready, Verdict]]) -> None:
    """Write verdicts as CI servers read them: a suite for each file."""
    from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

    root = Element("testsuites", name="siftbell")
    suites: dict[Path, Any] = {}
    for ready, verdict in played:
        if ready.file not in suites:
            suites[ready.file] = SubElement(root, "testsuite", name=str(ready.file))
        case = SubElement(suites[ready.file], "testcase", classname=ready.spec.name, name=_xml(ready.case.name))
        case.set("time", f"{verdict.seconds:.3f}")
        case.set("file", str(ready.case.position.file))
        case.set("line", str(ready.case.position.line))
        if not verdict.passed:
            subjects = ", ".join(one.subject for one in verdict.differences)
            SubElement(case, "failure", message=_xml(subjects)).text = _xml(as_text(verdict))
    for suite in suites.values():
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("time", f"{sum(float(case.get('time')) for case in suite):.3f}")
    indent(root)
    ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def as_text(verdict: Verdict) -> str:
    """Give the differences as lines of text."""
    lines: list[str] = []
    for one in verdict.differences:
        lines.append(one.subject)
        lines += [" ".join(filter(None, (f"  {row.sign}", row.when, row.text))) for row in one.rows]
        lines += [f"    {reason}" for reason in one.reasons]
    return "\n".join(lines)


def _xml(text: str) -> str:
    """Give a text with what XML cannot hold made visible."""
    return "".join(
        character
        if character in "\n\t" or (character >= " " and not "\ud800" <= character <= "\udfff")
        else json.dumps(character)[1:-1]
        for character in text
        if character not in "\ufffe\uffff"
    )
