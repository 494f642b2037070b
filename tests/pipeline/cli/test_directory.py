"""The data directory: for its owner only, and for one process tree at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cli.directory import DataDirectory, InUseError, read_text, write_private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_directory_and_what_is_written_are_for_the_owner_only(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "a" / "data")
    written = data.path / "api-key"
    write_private(written, "sb_old")
    write_private(written, "sb_secret")
    assert (mode(data.path), mode(written), mode(data.path / "lock")) == (0o700, 0o600, 0o600)
    assert (read_text(written), read_text(data.path / "nothing")) == ("sb_secret", "")
    assert sorted(path.name for path in data.path.iterdir()) == ["api-key", "lock"]
    data.close()


def test_a_second_one_is_refused_with_the_holder_s_pid_until_the_first_lets_go(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    with pytest.raises(InUseError, match=f"in use by another siftbell .process {os.getpid()}."):
        DataDirectory(tmp_path)
    first.close()
    DataDirectory(tmp_path).close()


def test_a_fresh_directory_is_empty(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    (data.fresh("metrics") / "counter_1.db").write_text("old")
    assert list(data.fresh("metrics").iterdir()) == []
    data.close()
