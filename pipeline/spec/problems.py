"""What is wrong with a configuration: collected with its places, and written for people, programs and GitHub."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.errors import ConfigError
from pipeline.spec.model import Configuration, Position

Severity = Literal["error", "warning"]

_MARGIN: Final = 60
"""How many characters of a long source line are shown on each side of the place."""
_SECRET_KEY: Final = re.compile(
    r"(?i)([\w-]*(?:token|secret|passw|api[_-]?key|auth|credential|private|bearer|signing)[\w-]*[\"']?\s*:\s+)"
    r"(\$\{[^}]*\}|\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s,}\]][^,}\]]*)"
)
_SECRET_URL: Final = re.compile(r"(://[^/\s:@\"']*:)([^@\s\"']+)(?=@)")
_INTERPOLATED: Final = re.compile(r"[\"']?\$\{(?:\w+|\w+:\?[^}]*|\w+:-|file:[^}]*)\}[\"']?\s*")


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text, and the spans of its lines that bear secrets: (line, first column, last column), from 1."""

    path: Path
    lines: tuple[str, ...] = ()
    secrets: set[tuple[int, int, int]] = field(default_factory=set, compare=False)

    def line(self, number: int) -> str:
        """Give a line with its secrets masked, character by character, so that columns stay where they are."""
        if not 1 <= number <= len(self.lines):
            return ""
        text = self.lines[number - 1]
        for _, start, end in (span for span in self.secrets if span[0] == number):
            if not _INTERPOLATED.fullmatch(text[start - 1 : end]):
                text = text[: start - 1] + "*" * (min(end, len(text)) - start + 1) + text[end:]
        for pattern in (_SECRET_KEY, _SECRET_URL):
            text = pattern.sub(_mask, text)
        return text.rstrip()


@dataclass(frozen=True, slots=True)
class Place:
    """`width` characters of a file; line and column count from 1, line 0 is the file as a whole."""

    source: Source
    line: int = 0
    column: int = 0
    width: int = 1

    @property
    def position(self) -> Position:
        """The place's beginning."""
        return Position(self.source.path, self.line, self.column)

    def __str__(self) -> str:
        return f"{self.source.path}:{self.line}:{self.column}" if self.line else str(self.source.path)


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """One thing that is wrong with a configuration.

    `source` is the line with its secrets masked, `width` is how many of its characters are meant.
    """

    position: Position
    severity: Severity
    text: str
    hint: str = ""
    source: str = ""
    width: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of reading a configuration: all problems in the order of the files, and the pipelines that are sound."""

    problems: tuple[SpecProblem, ...]
    files: tuple[Path, ...]
    configuration: Configuration
    sources: tuple[Source, ...] = ()
    """What stands in the files that could be read, for what is found out about their steps later."""

    @property
    def errors(self) -> int:
        """How many of the problems keep it from starting."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        """How many of the problems do not."""
        return len(self.problems) - self.errors


class SpecError(ConfigError):
    """The configuration does not let it start; the text is that of `render_text`."""

    def __init__(self, report: Report) -> None:
        super().__init__(render_text(report))
        self.report = report
        self.problems = report.problems


class Problems:
    """Collects problems while a configuration is read."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], tuple[Severity, str]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def error(self, place: Place, text: str, hint: str = "") -> None:
        """Add what keeps the configuration from starting; the same text at the same place counts once."""
        self._found.setdefault((place, text), ("error", hint))

    def warning(self, place: Place, text: str, hint: str = "") -> None:
        """Add what is probably not meant."""
        self._found.setdefault((place, text), ("warning", hint))

    def sorted(self, files: Sequence[Path]) -> tuple[SpecProblem, ...]:
        """Give all of them, in the order of `files` and of their lines."""
        order = {file: number for number, file in enumerate(files)}

        def key(item: tuple[tuple[Place, str], tuple[Severity, str]]) -> tuple[int, int, int]:
            place = item[0][0]
            return order.get(place.source.path, -1), place.line, place.column

        return tuple(
            SpecProblem(place.position, severity, text, hint, place.source.line(place.line), max(1, place.width))
            for (place, text), (severity, hint) in sorted(self._found.items(), key=key)
        )


def render_text(report: Report) -> str:
    """Write a report for people: each problem with its line and carets, then a summary."""
    blocks = [render_problem(problem) for problem in report.problems]
    return "\n".join([*blocks, summary(report)])


def render_json(report: Report) -> str:
    """Write a report as a JSON list of objects: file, line, column, severity, text, hint."""
    return json.dumps([as_object(problem) for problem in report.problems], indent=2, ensure_ascii=False)


def as_object(problem: SpecProblem) -> dict[str, Any]:
    """Give a problem as what JSON can hold."""
    return {
        "file": str(problem.position.file),
        "line": problem.position.line,
        "column": problem.position.column,
        "severity": problem.severity,
        "text": problem.text,
        "hint": problem.hint,
    }


def render_github(report: Report) -> str:
    """Write a report as GitHub's workflow commands, one line per problem; empty where there is none."""
    return "\n".join(github_command(problem) for problem in report.problems)


def summary(report: Report) -> str:
    """Give the last line of a report: `3 errors in 1 of 4 files`."""
    total = len(report.files)
    files = _count(total, "file")
    if not report.problems:
        return f"{files}, no problems"
    counts = [_count(report.errors, "error")] if report.errors else []
    counts += [_count(report.warnings, "warning")] if report.warnings else []
    touched = len({problem.position.file for problem in report.problems})
    return f"{' and '.join(counts)} in {touched} of {files}" if total else " and ".join(counts)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def render_problem(problem: SpecProblem) -> str:
    """Write a problem for people: where and what, the line, and carets below what is meant."""
    position = problem.position
    where = str(position) if position.line else str(position.file)
    head = f"{where}: {problem.severity}: {problem.text}"
    if not problem.source:
        return f"{head}\n      | {problem.hint}" if problem.hint else head
    source, column = _cropped(problem.source, position.column)
    shown = source[column - 1 : column - 1 + problem.width]
    indent = "".join(_blank(character) for character in source[: column - 1].ljust(column - 1))
    carets = "^" * max(1, sum(len(_blank(character)) for character in shown))
    return f"{head}\n{position.line:5d} | {source}\n      | {indent}{carets} {problem.hint}".rstrip()


def _blank(character: str) -> str:
    if character == "\t":
        return character
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "


def _cropped(source: str, column: int) -> tuple[str, int]:
    start, end = max(0, column - 1 - _MARGIN), column - 1 + _MARGIN
    if len(source) <= 2 * _MARGIN:
        return source, column
    head = "…" if start else ""
    return f"{head}{source[start:end]}{'…' if end < len(source) else ''}", column - start + len(head)


def _mask(found: re.Match[str]) -> str:
    return found[0] if _INTERPOLATED.fullmatch(found[2]) else found[1] + "*" * len(found[2])


def github_command(problem: SpecProblem) -> str:
    """Write a problem as GitHub's workflow command."""
    position = problem.position
    places = {"file": str(position.file)} | ({"line": position.line, "col": position.column} if position.line else {})
    properties = ",".join(f"{name}={_escape(str(value), ',:')}" for name, value in places.items())
    text = f"{problem.text} ({problem.hint})" if problem.hint else problem.text
    return f"::{problem.severity} {properties}::{_escape(text, '')}"


def _escape(text: str, more: str) -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


RENDERERS: Final[dict[str, Callable[[Report], str]]] = {"text": render_text, "json": render_json, "github": render_github}
"""How a report may be written, by the name of the format."""
