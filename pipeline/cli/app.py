"""The command line's root: which verbs there are. What a verb needs is imported when it is called, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Final

import typer

from pipeline.cli.check import check, schema
from pipeline.cli.consumers import consumers
from pipeline.cli.database import database
from pipeline.cli.demo import demo
from pipeline.cli.doctor import doctor
from pipeline.cli.explain import explain
from pipeline.cli.failures import report
from pipeline.cli.keys import keys
from pipeline.cli.letters import letters
from pipeline.cli.plugins import plugins
from pipeline.cli.polling import run_now
from pipeline.cli.replaying import replay
from pipeline.cli.roles import clock, serve, worker
from pipeline.cli.run import run
from pipeline.cli.sending import send
from pipeline.cli.testing import run_tests
from pipeline.cli.trying import try_payload

PROGRAM: Final = "siftbell"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def siftbell(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A pipeline of producers, filters and consumers for the people who are on call."""


RUNNING: Final = "Run"
app.command(rich_help_panel=RUNNING)(run)
app.command(rich_help_panel=RUNNING)(demo)
app.command(rich_help_panel=RUNNING)(serve)
app.command(rich_help_panel=RUNNING)(worker)
app.command(rich_help_panel=RUNNING)(clock)

WRITING: Final = "Write pipelines"
app.command(rich_help_panel=WRITING)(check)
app.command("try", rich_help_panel=WRITING)(try_payload)
app.command("test", rich_help_panel=WRITING)(run_tests)
app.command(rich_help_panel=WRITING)(replay)
app.add_typer(plugins, name="plugins", rich_help_panel=WRITING)
app.command(rich_help_panel=WRITING)(schema)

LIVING: Final = "Live with them"
app.command(rich_help_panel=LIVING)(send)
app.command("run-now", rich_help_panel=LIVING)(run_now)
app.command(rich_help_panel=LIVING)(explain)
app.add_typer(consumers, name="consumers", rich_help_panel=LIVING)
app.add_typer(letters, name="dead-letters", rich_help_panel=LIVING)

CARING: Final = "Care for the installation"
app.add_typer(keys, name="keys", rich_help_panel=CARING)
app.add_typer(database, name="db", rich_help_panel=CARING)
app.command(rich_help_panel=CARING)(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with one of the codes of `pipeline.cli.failures.Exit`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal cannot show is no reason to fail
    try:
        app(None if arguments is None else list(arguments), prog_name=PROGRAM)
    except Exception as error:  # noqa: BLE001 - the end of every exception: a line and an exit code
        sys.exit(report(error))
