"""The shipped pipelines: each starts as it is, also with all that the environment can switch on, and does what its tests say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.cli.verdicts import as_text
from pipeline.engine.simulation.playing import play
from pipeline.spec.caseload import Ready, load_cases, stand_in
from pipeline.spec.loader import check
from pipeline.spec.problems import render_text

CONFIGS = Path(__file__).parents[1] / "configs"
PIPELINES = sorted(file for file in CONFIGS.glob("*.yaml") if not file.name.endswith(".test.yaml") and file.stem != "siftbell")
LOADED = load_cases([CONFIGS])


def test_they_start_as_they_are() -> None:
    report = check([CONFIGS], environ={})
    assert not report.problems, render_text(report)


def test_they_start_with_all_that_can_be_switched_on() -> None:
    names = {name for file in PIPELINES for name in re.findall(r"\$\{(\w+_ACTIVE)", file.read_text())}
    assert len(names) >= 5
    report = check([CONFIGS], environ=dict.fromkeys(names, "true"), stand_in=stand_in)
    assert not report.problems, render_text(report)


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_each_has_tests_and_says_what_it_is_for(file: Path) -> None:
    assert file.with_suffix(".test.yaml").exists()
    assert re.search(r"^description: .+", file.read_text(), re.MULTILINE)


def test_their_tests_can_be_read() -> None:
    assert not LOADED.problems, render_text(LOADED.report)


@pytest.mark.parametrize("ready", LOADED.ready, ids=lambda ready: f"{ready.file.stem}: {ready.case.name}")
def test_each_does_what_its_tests_say(ready: Ready) -> None:
    verdict = play(ready.case, ready.spec)
    assert verdict.passed, as_text(verdict)
