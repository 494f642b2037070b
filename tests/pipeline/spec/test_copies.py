"""A copied configuration is the one that was copied, and speaks of the files it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.spec.copies import copy, fingerprint, origin_of
from pipeline.spec.loader import check

GOOD = """
producers: [{http: {}}]
consumers:
  - use: archive
"""
SHARED = """
consumers:
  archive: {log: {}}
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    place = tmp_path / "configs"
    place.mkdir()
    (place / "first.yaml").write_text(GOOD)
    (place / "siftbell.yaml").write_text(SHARED)
    (place / ".first.yaml.swp").write_text("an editor's")
    return place


def test_what_was_copied_loads_when_the_original_is_broken(configs: Path, tmp_path: Path) -> None:
    (copied,) = copy([configs], tmp_path / "copy")
    for file in configs.glob("*.yaml"):
        file.write_text("producers: [")
    report = check([copied])
    assert not report.errors
    assert list(report.configuration.pipelines) == ["first"]
    assert report.files == (configs / "siftbell.yaml", configs / "first.yaml")


def test_a_single_file_brings_what_it_shares_and_its_plugins(configs: Path, tmp_path: Path) -> None:
    (configs / "plugins").mkdir()
    (configs / "plugins" / "mine.py").write_text("x = 1\n")
    (copied,) = copy([configs / "first.yaml"], tmp_path / "copy")
    assert not check([copied]).errors
    assert (copied.parent / "plugins" / "mine.py").read_text() == "x = 1\n"


def test_places_are_those_of_the_original(configs: Path, tmp_path: Path) -> None:
    (configs / "second.yaml").write_text("producers: [{httb: {}}]\nconsumers: [{log: {}}]\n")
    (configs / "third.yaml").write_text("")
    (configs / "fourth.yml").write_text("")
    paths = [configs, configs / "missing.yaml"]
    report, original = check(copy(paths, tmp_path / "copy")), check(paths)
    assert report.errors
    assert [(str(one.position), one.text) for one in report.problems] == [
        (str(one.position), one.text) for one in original.problems
    ]


def test_an_empty_directory_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (problem,) = check(copy([tmp_path / "empty"], tmp_path / "copy")).problems
    assert problem.position.file == tmp_path / "empty"


def test_what_is_no_copy_is_its_own_origin(configs: Path) -> None:
    assert origin_of(configs / "first.yaml") == configs / "first.yaml"
    assert origin_of(configs) == configs


def test_the_fingerprint_changes_with_what_is_loaded_and_with_nothing_else(configs: Path) -> None:
    before = fingerprint([configs])
    (configs / ".first.yaml.swp").write_text("more")
    (configs / "notes.txt").write_text("more")
    assert fingerprint([configs]) == before
    seen = {before}
    for name in ("first.yaml", "siftbell.yaml", "new.yaml", "plugins/mine.py"):
        (configs / name).parent.mkdir(exist_ok=True)
        (configs / name).write_text("# changed")
        seen.add(fingerprint([configs]))
    (configs / "first.yaml").unlink()
    seen.add(fingerprint([configs]))
    assert len(seen) == 6
    assert fingerprint([configs / "siftbell.yaml"]) not in seen


def test_tests_are_no_part_of_what_runs(configs: Path, tmp_path: Path) -> None:
    before = fingerprint([configs])
    (configs / "first.test.yaml").write_text("tests: [")
    assert fingerprint([configs]) == before
    (copied,) = copy([configs], tmp_path / "copy")
    assert not (copied / "first.test.yaml").exists()
