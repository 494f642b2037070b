"""Files that options name: relative to the directory of the file in which they are named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo

DIRECTORY: Final = "directory"
"""What a validation's context says of where the options stand."""


def _beside(path: Path, info: ValidationInfo) -> Path:
    directory: Path = (info.context or {}).get(DIRECTORY, Path())
    return directory / path


FileBeside = Annotated[Path, AfterValidator(_beside)]
"""A file as an option: an absolute path, or one that begins where the file stands in which it is written."""
