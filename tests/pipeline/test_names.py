"""The plugin API, whose names are imported when they are asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pipeline


def test_every_name_is_there_and_is_the_one_that_type_checkers_see(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse(Path(pipeline.__file__).read_text())
    seen = {
        name.name: (node.module or "").removeprefix("pipeline.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline.")
        for name in node.names
    }
    assert seen == pipeline._MODULE_OF
    assert sorted(seen) == sorted(pipeline.__all__) == sorted(dir(pipeline))
    for name in pipeline.__all__:
        monkeypatch.delitem(vars(pipeline), name, raising=False)  # a test may have asked for it before, and taken its module away
        assert getattr(pipeline, name) is getattr(import_module(f"pipeline.{seen[name]}"), name)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'Nothing'"):
        _ = pipeline.Nothing
    with pytest.raises(ImportError):
        from pipeline import Nothing  # noqa: F401 - that is the point


def test_the_package_alone_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import pipeline; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['pipeline']\n"
