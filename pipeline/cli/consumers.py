"""`siftbell consumers`: whether the consumers work, what waits for those that do not, and a test of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, open_store, settings_for
from pipeline.cli.output import Output, cell, console, print_rows, say, table
from pipeline.cli.rehearsing import send_test

if TYPE_CHECKING:
    from pipeline.engine.consumers import ConsumerStatus

consumers = typer.Typer(no_args_is_help=True, help="See which consumers work, what waits for the others; test them.")
consumers.command("test")(send_test)

WIDE = 150
"""Columns from which on a consumer's condition and error have room on its line."""


@consumers.command("list")
def list_consumers(*, config: ConfigOption = None, data: DataOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the consumers of all pipelines with their circuits."""
    from pipeline.engine.assembly import load_configuration
    from pipeline.engine.consumers import statuses

    configuration = load_configuration(settings_for(config, data))
    with open_store(data) as store:
        found = statuses(configuration.pipelines.values(), store)
    write = _ago_or_ahead(datetime.now(UTC)) if output is Output.TABLE else _moment
    rows = [_row(status, write) for status in found]
    if output is Output.TABLE and rows and console().width < WIDE:
        _print_narrow(rows)
        return
    columns = ("pipeline", "consumer", "plugin", "circuit", "since", "failures", "next_try", "held", "rate", "when", "error")
    print_rows(rows, columns, output, empty="no pipeline has a consumer")


def _print_narrow(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows without what takes much room, and the errors below."""
    columns = ("circuit", "since", "failures", "next_try", "held", "rate")
    shown = table("consumer", *(column.replace("_", " ") for column in columns))
    for row in rows:
        shown.add_row(cell(_name(row)), *(cell(row[column]) for column in columns))
    where = console()
    where.print(shown)
    for row in rows:
        if row["error"]:
            where.print(cell(f"\n{_name(row)}: {row['error']}"))


def _name(row: Mapping[str, Any]) -> str:
    name = f"{row['pipeline']}/{row['consumer']}"
    return name if row["plugin"] == row["consumer"] else f"{name} ({row['plugin']})"


@consumers.command()
def close(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    label: Annotated[str, typer.Argument(help="The consumer's label.")],
    *,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Close a circuit at once, without waiting for the next try: what waits for the consumer comes back."""
    from pipeline.cli.trying import pipeline_of
    from pipeline.engine.assembly import load_configuration
    from pipeline.engine.consumers import close_circuit

    labels = [step.label for step in pipeline_of(load_configuration(settings_for(config, data)), pipeline).consumers]
    if label not in labels:
        there = f"there are {', '.join(labels)}" if labels else "it has none"
        raise Failure(f"pipeline '{pipeline}' has no consumer '{label}': {there}", Exit.NOT_FOUND)
    with open_store(data) as store:
        was_open = close_circuit(store, pipeline, label)
    say(f"the circuit of {label} is closed" if was_open else f"the circuit of {label} was closed before")


def _moment(time: datetime | None) -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None


def _ago_or_ahead(now: datetime) -> Callable[[datetime | None], str | None]:
    """Give what writes a time as a person says it: a date in two columns leaves no room for the error on 80."""
    from pipeline.engine.explanation import span

    def write(time: datetime | None) -> str | None:
        if time is None:
            return None
        return f"in {span(time - now)}" if time > now else f"{span(now - time)} ago"

    return write


def _row(status: ConsumerStatus, moment: Callable[[datetime | None], str | None]) -> dict[str, Any]:
    return {
        "pipeline": status.pipeline,
        "consumer": status.consumer,
        "plugin": status.plugin,
        "when": status.when,
        "circuit": status.circuit.value,
        "since": moment(status.since),
        "failures": status.failures,
        "error": status.error,
        "next_try": moment(status.next_try),
        "held": status.held,
        "rate": status.rate,
    }
