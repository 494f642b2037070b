"""The command line: one module per group of verbs. What the root's help says is there ready-made, so that it comes at once."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in `pipeline`
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with one of the codes of `pipeline.cli.failures.Exit`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given in (["--help"], ["-h"]):
        from pipeline.cli.help import tell

        tell()
    from pipeline.cli.app import main as run

    run(given)
