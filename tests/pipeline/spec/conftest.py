from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.spec import Report, check

HERE = Path(__file__).parent

PRODUCERS = "producers: [spec_toys:Hook]\n"
CONSUMERS = "consumers: [spec_toys:Batch]\n"

CheckText = Callable[..., Report]


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `spec_toys:Class` be found."""
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def check_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckText:
    """Check one file's text, or several files by name; paths in the report are relative to their directory."""
    monkeypatch.chdir(tmp_path)

    def checked(text: str | bytes = "", *, environ=None, secrets=None, **files: str) -> Report:
        named = {f"{name}.yaml": content for name, content in files.items()} or {"p.yaml": text}
        for name, content in named.items():
            Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        paths = [Path()] if files else [Path("p.yaml")]
        return check(paths, environ=environ or {}, secrets=secrets)

    return checked


def lines(report: Report) -> list[str]:
    """The problems, one line each: place, text, hint."""
    return [
        f"{problem.position.line}:{problem.position.column} {problem.text}" + (f" | {problem.hint}" if problem.hint else "")
        for problem in report.problems
    ]
