"""`siftbell dead-letters`: the messages that were given up, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import DataOption, OutputOption, settings_for
from pipeline.cli.output import Output, clean, console, print_data, print_rows, say

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.store.rows import DeadLetter
    from pipeline.store.store import Store

letters = typer.Typer(no_args_is_help=True, help="Look at the messages that were given up.")


@contextmanager
def open_store(data: Path | None) -> Iterator[Store]:
    """Give the settings' store, and close it in the end."""
    from pipeline.store.store import Store

    with closing(Store(settings_for(data=data).store_url)) as store:
        yield store


@letters.command("list")
def list_letters(
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline's.")] = None,
    step: Annotated[str | None, typer.Option(help="Only those given up at this step.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    *,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List them, the newest first."""
    with open_store(data) as store:
        found = store.dead_letters(Selection(pipeline=pipeline, step=step), limit=limit)
        total = sum(store.count_dead().values()) if len(found) == limit else len(found)
    rows = [_row(letter) for letter in found]
    print_rows(rows, ("at", "pipeline", "step", "id", "title", "error"), output, empty="no dead letters")
    if total > len(found) and output is Output.TABLE:
        say(f"the newest {len(found)} of {total}")


@letters.command()
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    *,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one message with its error, once for each step that gave it up."""
    with open_store(data) as store:
        found = store.dead_letter(message_id)
    if not found:
        raise Failure(f"message '{message_id}' is not among the dead letters", Exit.NOT_FOUND)
    if output is not Output.TABLE:
        print_data([_whole(letter) for letter in found], output)
        return
    for letter in found:
        _print(letter)


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "at": f"{letter.at:%Y-%m-%dT%H:%M:%SZ}",
        "attempts": letter.attempts,
        "title": letter.message.title,
        "error": letter.error,
    }


def _whole(letter: DeadLetter) -> dict[str, Any]:
    import msgspec

    return _row(letter) | {"traceback": letter.traceback, "message": msgspec.to_builtins(letter.message)}


def _print(letter: DeadLetter) -> None:
    import json

    import msgspec

    attempts = f"after {letter.attempts} attempts" if letter.attempts > 1 else "at the first attempt"
    lines = [
        f"{letter.message.id}  {letter.message.title}",
        f"given up by {letter.step or 'the intake'} of {letter.pipeline} {attempts}, {letter.at:%Y-%m-%d %H:%M:%S} UTC",
        f"error: {letter.error}",
        *([letter.traceback.rstrip()] if letter.traceback else []),
        json.dumps(msgspec.to_builtins(letter.message), indent=2, ensure_ascii=False),
        "",
    ]
    where = console()
    for line in lines:
        where.print(clean(line))
