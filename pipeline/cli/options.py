"""Options that several verbs share, and the settings they amend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import Output

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.store import Store

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", help="A pipeline file or a directory of them; may be repeated. [SIFTBELL_CONFIG, else configs]"
    ),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="The data directory. [SIFTBELL_DATA, else .siftbell]")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]


def settings_for(config: list[Path] | None = None, data: Path | None = None) -> Settings:
    """Give the process's settings, with what the command line says in their place; raises ValidationError."""
    from pipeline.settings import Settings

    said: dict[str, Any] = {}
    if config:
        said["config"] = tuple(config)
    if data is not None:
        said["data"] = data
    return Settings(**said)


@contextmanager
def open_store(data: Path | None) -> Iterator[Store]:
    """Give the settings' store, and close it in the end."""
    from pipeline.store import Store

    with closing(Store(settings_for(data=data).store_url)) as store:
        yield store


def log_to_stderr(settings: Settings) -> None:
    """Have what is logged in this process go to stderr, warnings and worse; all of it where the settings say debug."""
    from pipeline.telemetry import configure_logging

    configure_logging("debug" if settings.log_level == "debug" else "warning", settings.log_format)
