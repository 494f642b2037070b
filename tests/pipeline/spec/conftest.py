from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.spec import Report, check

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `spec_toys:Class` be found."""
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def check_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Check one file's text (`p.yaml`), or a directory of several by name."""
    monkeypatch.chdir(tmp_path)

    def checked(text: str | bytes = "", *, environ=None, secrets=None, **files: str) -> Report:
        named = files or {"p": text}
        for name, content in named.items():
            Path(f"{name}.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
        paths = [Path()] if files else [Path("p.yaml")]
        return check(paths, environ=environ or {}, secrets=secrets)

    return checked


@pytest.fixture
def told(check_text: Callable[..., Report]) -> Callable[..., list[str]]:
    """Check, and give the problems, one line each: place, text, hint."""

    def problems(*args, **kwargs) -> list[str]:
        return [
            f"{one.position.line}:{one.position.column} {one.text}" + (f" | {one.hint}" if one.hint else "")
            for one in check_text(*args, **kwargs).problems
        ]

    return problems


@pytest.fixture
def spec(check_text: Callable[..., Report]):
    """Check one file without problems, and give its pipeline."""

    def made(*args, **kwargs):
        report = check_text(*args, **kwargs)
        assert report.problems == ()
        (pipeline,) = report.configuration.pipelines.values()
        return pipeline

    return made
