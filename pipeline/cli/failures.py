"""How a verb fails: one line on stderr and an exit code, for every exception there is, in one place."""

from __future__ import annotations

import os
import sys
import traceback
from enum import IntEnum
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, PipelineError, TemporaryError

if TYPE_CHECKING:
    from pydantic import ValidationError


class Exit(IntEnum):
    """What the process tells the shell."""

    OK = 0
    FAILED = 1
    """What was asked for failed."""
    USAGE = 2
    UNREACHABLE = 3
    """Something is not reachable, or does not allow it."""
    NOT_FOUND = 4
    CONFIG = 78
    """The configuration does not let it start."""


class Failure(Exception):  # noqa: N818 - it ends a verb as a person expects; it is no error of the program
    """Ends a verb: `text` goes to stderr (nothing where it is empty), `code` to the shell."""

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.code = code


def report(error: Exception) -> int:
    """Say on stderr what went wrong, in a line, and give the exit code; with SIFTBELL_LOG_LEVEL=debug the traceback too."""
    if os.environ.get("SIFTBELL_LOG_LEVEL", "").lower() == "debug" and not isinstance(error, Failure):
        traceback.print_exception(error)
    text, code = explain(error)
    if text:
        print(f"siftbell: {text}", file=sys.stderr)
    return int(code)


def explain(error: Exception) -> tuple[str, Exit]:
    """Give the words and the exit code for an exception."""
    if isinstance(error, Failure):
        return str(error), error.code
    if isinstance(error, PipelineError):
        codes = {ConfigError: Exit.CONFIG, TemporaryError: Exit.UNREACHABLE}
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), Exit.FAILED)
        # A report of problems begins on a line of its own, so that each of its lines begins with a place.
        return f"the configuration does not let it start\n{error}" if "\n" in str(error) else str(error), code
    if isinstance(error, OSError):
        return _system(error), Exit.FAILED
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return _settings(error), Exit.CONFIG
    return f"this is a bug: {type(error).__name__}: {error} (SIFTBELL_LOG_LEVEL=debug shows where)", Exit.FAILED


def _settings(error: ValidationError) -> str:
    found = [
        f"SIFTBELL_{'_'.join(map(str, one['loc'])).upper()}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors(include_input=False)
    ]
    return "; ".join(found)


def _system(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
