"""What was found, kept on disk: results as lines of JSON that a later run goes on from, and sections of docs/faults.md."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from harness.cell import Result


class Journal:
    """Results in a file, one a line; without a file they are only remembered."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.results: list[Result] = []
        if path is not None and path.exists():
            self.results = [Result(**json.loads(line)) for line in path.read_text().splitlines() if line.strip()]

    def add(self, result: Result) -> None:
        """Note a result."""
        self.results.append(result)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")

    def holds(self, combination: str, seed: str) -> Result | None:
        """Give the result of a seed that had no problem; what failed is tried again."""
        found = [one for one in self.results if (one.combination, one.seed) == (combination, seed) and not one.problems]
        return found[-1] if found else None


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between a page's marks of that name; raises ValueError where they are missing."""
    begin, end = f"<!-- {name}: made by the harness -->", f"<!-- end of {name} -->"
    found = page.read_text()
    if begin not in found or end not in found:
        raise ValueError(f"{page} lacks the lines {begin} and {end}")
    whole = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    page.write_text(whole.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", found))
