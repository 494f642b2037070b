"""The rules of the house that no linter knows: names, reasons, and one word per plugin."""

from __future__ import annotations

import re
import subprocess
import tokenize
import tomllib
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parents[1]
PLUGIN_FOLDERS = ("producers", "filters", "consumers")
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "core", "misc"}


def tracked(suffix: str) -> list[Path]:
    """The repository's own files of a kind; what git ignores is nobody's."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"*{suffix}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def comments(path: Path) -> list[tuple[int, str]]:
    with tokenize.open(path) as source:
        return [
            (token.start[0], token.string)
            for token in tokenize.generate_tokens(source.readline)
            if token.type == tokenize.COMMENT
        ]


SOURCES = tracked(".py")


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [path.relative_to(ROOT) for path in SOURCES if path.stem in VAGUE or VAGUE & set(path.relative_to(ROOT).parent.parts)]
    assert vague == []


def test_every_exception_from_a_rule_names_the_rule_and_the_reason() -> None:
    unexplained = []
    for path in SOURCES:
        for line, text in comments(path):
            if re.search(r"#\s*noqa", text) and not re.search(r"# noqa: [A-Z]+\d+(, ?[A-Z]+\d+)* (-|--|—) \S", text):
                unexplained.append(f"{path.relative_to(ROOT)}:{line}: {text}")
            if re.search(r"#\s*type:\s*ignore", text) and not re.search(r"# type: ignore\[[a-z, -]+\]\s+# \S", text):
                unexplained.append(f"{path.relative_to(ROOT)}:{line}: {text}")
            if "pragma: no cover" in text and not re.search(r"pragma: no cover - \S", text):
                unexplained.append(f"{path.relative_to(ROOT)}:{line}: {text}")
    assert unexplained == []


def test_nothing_is_left_to_be_done() -> None:
    later = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
    found = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line, text in comments(path) if later.search(text)]
    assert found == []


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_a_plugin_has_one_name_as_module_as_entry_point_and_as_class(folder: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][f"siftbell.{folder}"]
    packages = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    modules = {path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__"} | packages
    assert modules == set(declared)
    for name, target in declared.items():
        module, _, class_name = target.partition(":")
        assert module == f"{folder}.{name}"
        assert class_name.partition(" ")[0].lower() == name


def test_the_api_offers_what_it_names() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)
