"""`siftbell check` and `siftbell schema`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("project")

BROKEN = """name: alerts
producers:
  - tak: {}
consumers:
  - tell: {token: "${TOKEN}"}
"""
TEXT = """configs/alerts.yaml:3:5: error: no producer is called 'tak'
    3 |   - tak: {}
      |     ^^^ did you mean 'take'?
1 error in 1 of 1 file
"""


def test_a_sound_configuration_is_0(process) -> None:
    done = process("check")
    assert (done.code, done.out, done.err) == (0, "1 file, no problems\n", "")


def test_errors_are_1_and_stand_on_stdout_as_the_report_writes_them(project: Path, process) -> None:
    (project / "configs" / "alerts.yaml").write_text(BROKEN)
    done = process("check", "configs/alerts.yaml")
    assert (done.code, done.out, done.err) == (1, TEXT, "")


def test_a_report_for_programs_leaves_the_summary_to_stderr(project: Path, siftbell) -> None:
    (project / "configs" / "alerts.yaml").write_text(BROKEN)
    done = siftbell("check", "--format", "json", "configs")
    assert done.code == 1
    assert [(problem["line"], problem["column"]) for problem in done.json] == [(3, 5)]
    assert done.err == "1 error in 1 of 1 file\n"
    github = siftbell("check", "--format", "github")
    assert github.code == 1
    assert github.out.startswith("::error file=configs/alerts.yaml,line=3,col=5::no producer is called 'tak'")


def test_nothing_is_printed_for_github_where_all_is_well(siftbell) -> None:
    done = siftbell("check", "--format", "github")
    assert (done.code, done.out) == (0, "")


def test_warnings_fail_only_where_they_are_to(project: Path, siftbell) -> None:
    (project / "configs" / "old.yml").write_text("")
    assert siftbell("check").code == 0
    assert siftbell("check", "--strict").code == 1


def test_paths_may_come_from_the_environment(project: Path, process) -> None:
    done = process("check", SIFTBELL_CONFIG="elsewhere")
    assert done.code == 1
    assert "elsewhere" in done.out


def test_the_schema_has_the_plugins_beside_the_pipelines(project: Path, siftbell) -> None:
    done = siftbell("schema")
    assert (done.code, done.err) == (0, "")
    assert done.json["$schema"].endswith("2020-12/schema")
    assert "What lets it in." in done.out
    assert siftbell("schema", "-o", "schema.json").out == ""
    assert json.loads((project / "schema.json").read_text()) == done.json


def test_a_schema_that_cannot_be_written_is_1(siftbell) -> None:
    done = siftbell("schema", "-o", "absent/schema.json")
    assert (done.code, done.err) == (1, "siftbell: absent/schema.json: No such file or directory\n")
