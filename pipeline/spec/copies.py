"""A copy of the files that a configuration consists of: what runs stays what was checked, whatever happens to the files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_ORIGIN: Final = ".origin"
"""The file in a copied directory that holds the path of the directory it was copied from."""
SHARED_FILE: Final = "siftbell.yaml"
TESTS: Final = ".test.yaml"
"""How files of tests end: what runs does not change with them."""
PLUGINS: Final = "plugins"
"""The directory of plugins beside the files."""


def copy(paths: Sequence[Path], into: Path) -> tuple[Path, ...]:
    """Copy files and directories of pipelines, with the plugins beside them, and give the paths to load instead.

    Errors and records of what is loaded from there name the files it was copied from. Raises OSError.
    """
    copied = []
    for index, path in enumerate(paths):
        directory = path if path.is_dir() else path.parent
        place = into / str(index)
        place.mkdir(mode=0o700, parents=True)
        (place / _ORIGIN).write_text(str(directory), encoding="utf-8")
        for file in _files(path):
            if file.is_file():
                shutil.copyfile(file, place / file.name)
        if (directory / PLUGINS).is_dir():
            shutil.copytree(directory / PLUGINS, place / PLUGINS, ignore=shutil.ignore_patterns("__pycache__"))
        copied.append(place if path.is_dir() else place / path.name)
    return tuple(copied)


def origin_of(path: Path) -> Path:
    """Give the file or directory that this one was copied from; what was given where it is no copy."""
    for directory, name in ((path, ""), (path.parent, path.name)):
        try:
            return Path((directory / _ORIGIN).read_text(encoding="utf-8")) / name
        except OSError:
            continue
    return path


def fingerprint(paths: Sequence[Path]) -> str:
    """Give a text that changes when what `copy` would copy has changed."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        directory = path if path.is_dir() else path.parent
        for file in [*_files(path), *sorted((directory / PLUGINS).rglob("*.py"))]:
            try:
                digest.update(f"{file}\0".encode() + hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
            except OSError as error:
                digest.update(f"{file}\0{error.errno}\0".encode())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path, path.parent / SHARED_FILE]
    return sorted(file for file in path.glob("*.y*ml") if not file.name.startswith(".") and not file.name.endswith(TESTS))
