"""CEL's extension: loaded without the package's command line, and once for whoever imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    """Run a program in a Python of its own, and give what it prints."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_condition_leaves_the_packages_command_line_alone() -> None:
    program = "import sys; from pipeline import Condition; Condition('true'); print('cel.cli' in sys.modules)"
    assert run(program) == "False"


@pytest.mark.parametrize(
    "first", ["import cel; from pipeline.cel import _extension", "from pipeline.cel import _extension; import cel"]
)
def test_who_imports_the_package_gets_the_same_extension(first: str) -> None:
    assert run(f"{first}; print(cel.compile is _extension.compile, cel.evaluate('1 + 1'))") == "True 2"
