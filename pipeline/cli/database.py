"""`siftbell db`: the store's tables."""

from __future__ import annotations

import typer

from pipeline.cli.options import DataOption, open_store
from pipeline.cli.output import say

database = typer.Typer(no_args_is_help=True, help="Look after the store's tables.")


@database.callback()
def _database() -> None:
    """Look after the store's tables."""


@database.command()
def upgrade(*, data: DataOption = None) -> None:
    """Make the store's tables, or bring them to what this version knows; several may do so at once."""
    with open_store(data) as store:
        store.migrate()
    say("the store's tables are up to date")
