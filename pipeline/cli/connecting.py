"""`siftbell check --connect`: what the targets of the steps answer, in the words and places of all other errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.output import clean, say

if TYPE_CHECKING:
    from pipeline.engine.asking import Finding, Target
    from pipeline.spec.problems import Place, Report, SpecProblem

UNASKED: Final = "there is nothing to ask"


def ask_targets(report: Report, style: str, within: float) -> None:
    """Ask the target of every step, and print the report and what each said; fails where one does not answer, or refuses."""
    from pipeline.engine.asking import ask, targets

    asked = targets(report.configuration.pipelines.values())
    if sys.stderr.isatty():
        say(f"asking {_count(len(asked))}, each for {within:g} s at most")
    findings = ask(asked, within)
    failed = [finding for finding in findings if finding.error]
    if text := {"json": _json, "github": _github}.get(style, _text)(report, findings):
        print(clean(text))
    summary = _summary(findings)
    if style == "text":
        print(summary)
    else:
        say(summary)
    if failed:
        raise Failure("", Exit.UNREACHABLE)


def _text(report: Report, findings: Sequence[Finding]) -> str:
    from pipeline.spec.problems import render_problem, render_text

    lines = [f"{one.target.step.position}: {_state(one)}: {_told(one)}" for one in findings if not one.error]
    return "\n".join([render_text(report), *lines, *map(render_problem, _problems(report, findings))])


def _json(report: Report, findings: Sequence[Finding]) -> str:
    from pipeline.spec.problems import as_object

    found = [*map(as_object, report.problems), *map(_object, findings)]
    return json.dumps(found, indent=2, ensure_ascii=False)


def _github(report: Report, findings: Sequence[Finding]) -> str:
    from pipeline.spec.problems import github_command

    return "\n".join(map(github_command, (*report.problems, *_problems(report, findings))))


def _object(finding: Finding) -> dict[str, Any]:
    position = finding.target.step.position
    return {
        "file": str(position.file),
        "line": position.line,
        "column": position.column,
        "severity": _state(finding),
        "text": _told(finding),
        "hint": finding.hint,
    }


def _problems(report: Report, findings: Sequence[Finding]) -> tuple[SpecProblem, ...]:
    from pipeline.spec.problems import Problems

    problems = Problems()
    for finding in findings:
        if finding.error:
            problems.error(_place(report, finding.target), _told(finding), finding.hint)
    return problems.sorted(report.files)


def _place(report: Report, target: Target) -> Place:
    """Give the place of the step's name in its file."""
    from pipeline.spec.problems import Place, Source

    position = target.step.position
    source = next((one for one in report.sources if one.path == position.file), Source(position.file))
    return Place(source, position.line, position.column, len(target.step.shared or target.step.plugin))


def _state(finding: Finding) -> str:
    return "error" if finding.error else "fine" if finding.text else "unasked"


def _told(finding: Finding) -> str:
    target = finding.target
    name = target.step.label if target.step.label == target.step.plugin else f"{target.step.label} ({target.step.plugin})"
    shared = f", used {target.uses} times" if target.uses > 1 else ""
    return f"{target.step.kind} {name}{shared}: {finding.error or finding.text or UNASKED}"


def _summary(findings: Sequence[Finding]) -> str:
    failed = sum(bool(finding.error) for finding in findings)
    answered = sum(bool(finding.text) for finding in findings)
    if not failed + answered:
        return "no step has a target that can be asked"
    silent = f", {failed} {'does' if failed == 1 else 'do'} not" if failed else ""
    return f"{answered} of {_count(answered + failed)} {'answers' if answered == 1 else 'answer'}{silent}"


def _count(number: int) -> str:
    return f"{number} target{'' if number == 1 else 's'}"
