"""`siftbell check` and `siftbell schema`: what a configuration says, judged without running it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and directories; none: the configured ones.")] = None,
    *,
    output: Annotated[Format, typer.Option("--format", help="For people, programs, or GitHub's annotations.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
) -> None:
    """Say what is wrong with the configuration, all of it at once, each with its place."""


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
) -> None:
    """Print the JSON Schema of pipeline files, for editors."""
