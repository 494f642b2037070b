"""Whatever stands in a file: it is told, never a traceback, never a secret."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.spec import RENDERERS, check

SECRET = "hunter2-abc"
TEXT = """
name: alerts
description: "a ${NAME} b"
producers:
  - spec_toys:Hook: {}
    as: in
  - spec_toys:Poll: {url: 'http://localhost'}
    schedule: "*/5 8-18 * * MON-FRI"
    timezone: Europe/Berlin
filters:
  - spec_toys:Only: severity == "critical"
  - spec_toys:Once: &once {within: 10m, by: [key]}
    when: severity != ""
  - spec_toys:Wait: *once
consumers:
  - spec_toys:ChatRoom: {token: "${SECRET}", chat_id: -100123, headers: {x: "${SECRET}"}, rules: [{field: a}]}
    retry: {for: 6h}
    concurrency: 5
  - spec_toys:Batch
"""
PIECES = st.sampled_from(
    [*list("{}[]:,-#&*!|>'\"%@`\n\t \\$?~\x00\x85\u2028é日"), "${", "$$", "<<: ", "- ", ": ", "null", "0", "[]", "as: "]
)
EDITS = st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 6), PIECES), min_size=1, max_size=6)


def edited(edits: list[tuple[int, int, str]]) -> str:
    text = TEXT
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    return text


def test_the_text_itself_is_sound(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(TEXT)
    assert check([tmp_path], environ={"NAME": "x", "SECRET": SECRET}).problems == ()


@pytest.mark.parametrize("name", ["p.yaml", "siftbell.yaml"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(edits=EDITS)
def test_edited_files_are_judged(tmp_path: Path, name: str, edits: list[tuple[int, int, str]]) -> None:
    (tmp_path / name).write_text(edited(edits), newline="")
    report = check([tmp_path], environ={"NAME": "x", "SECRET": SECRET})
    for render in RENDERERS.values():
        assert "hunter2" not in render(report)
    for problem in report.problems:
        assert problem.text
        assert problem.position.line <= len(edited(edits).splitlines()) + 1
    for spec in report.configuration.pipelines.values():
        assert spec.name


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_judged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.yaml").write_bytes(data)
    assert check([tmp_path], environ={}).errors
