"""Errors are the interface: what `siftbell check` prints for each file of tests/configs/bad, to the letter.

`SIFTBELL_UPDATE_GOLDEN=1 pytest tests/pipeline/spec/test_golden.py` writes the texts anew; read the difference before you
commit it.
"""

import os
from pathlib import Path

import pytest

from pipeline.spec import check, render_text

ROOT = Path(__file__).parents[3]
BAD = Path("tests/configs/bad")
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / BAD).glob("*.yaml"))
FOLDERS = sorted(path.parent.relative_to(ROOT) for path in (ROOT / BAD).glob("*/one.yaml"))


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SIFTBELL_SCRIPTS", raising=False)


def told(path: Path) -> str:
    return render_text(check([path], environ={}, secrets=Path("tests/configs/secrets"))) + "\n"


@pytest.mark.parametrize("path", [*FILES, *FOLDERS], ids=lambda path: path.stem)
def test_the_text_is_the_golden_one(path: Path) -> None:
    golden = path.with_suffix(".txt")
    text = told(path)
    if os.environ.get("SIFTBELL_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    assert "a-literal" not in text


def test_the_whole_directory_at_once_gives_all_of_them() -> None:
    golden = [path.with_suffix(".txt").read_text().splitlines() for path in FILES]
    *lines, summary = told(BAD).splitlines()
    assert lines == [line for text in golden for line in text[:-1]]
    assert summary.endswith(f"in {len(FILES)} of {len(FILES)} files")


def test_there_are_goldens_for_nothing_else() -> None:
    expected = {path.with_suffix(".txt") for path in (*FILES, *FOLDERS)} | {BAD / "beyond-a-schema.txt"}
    assert set(BAD.glob("*.txt")) == expected
