"""The store's tables are made before a role begins, by a process that ends when they are there."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.cli.forkserver import FORKS
from pipeline.cli.roles import _edges
from pipeline.errors import ConfigError
from pipeline.settings import Settings


@pytest.mark.skipif(not FORKS, reason="nothing is forked here")
def test_a_role_does_not_keep_what_is_imported_for_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "alembic"]:
        monkeypatch.delitem(sys.modules, name)
    with _edges(Settings(data=tmp_path / "data")) as (store, _):
        assert store.keys() == []
    assert "alembic" not in sys.modules


def test_tables_that_are_newer_are_told_and_nothing_begins(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    with _edges(settings):
        pass
    with closing(sqlite3.connect(settings.data / "store.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer"), _edges(settings):
        pytest.fail("it began")
