"""`siftbell dead-letters`: the messages that were given up, and why."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.editing import edit
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.moving import drop, redrive
from pipeline.cli.options import DataOption, OutputOption, open_store
from pipeline.cli.output import Output, cell, clean, console, print_data, print_rows, say, table
from pipeline.cli.selecting import (
    ErrorOption,
    GroupIdOption,
    PipelineOption,
    SinceOption,
    StepOption,
    UntilOption,
    plural,
    select,
)

if TYPE_CHECKING:
    from rich.text import Text

    from pipeline.store.rows import DeadLetter
    from pipeline.store.selection import LetterGroup, Selection
    from pipeline.store.store import Store

letters = typer.Typer(no_args_is_help=True, help="Look at the messages that were given up, and have them tried again.")

WIDE: Final = 150
"""Columns from which on a letter has room on one line."""
WIDE_GROUP: Final = 110


@letters.command("list")
def list_letters(  # noqa: PLR0913 - a verb takes its options as arguments
    *,
    pipeline: PipelineOption = None,
    step: StepOption = None,
    error: ErrorOption = None,
    group_id: GroupIdOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    group: Annotated[bool, typer.Option("--group", "-g", help="One line for all that failed in the same way.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List them, the newest first; with --group, one line for each kind of error, the most frequent first."""
    selection = select(pipeline=pipeline, step=step, error=error, group=group_id, since=since, until=until)
    with open_store(data) as store:
        if group:
            _list_groups(store, selection, limit, output)
        else:
            _list_letters(store, selection, limit, output)


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


letters.command()(edit)
letters.command()(redrive)
letters.command()(drop)


def _list_letters(store: Store, selection: Selection, limit: int, output: Output) -> None:
    found = store.dead_letters(selection, limit=limit)
    total = store.count_letters(selection) if len(found) == limit else len(found)
    rows = [_row(letter) for letter in found]
    if output is not Output.TABLE or not rows or console().width >= WIDE:
        _one_line_each(rows, ("at", "pipeline", "step", "id", "title", "error"), output, whole=4)
    else:
        for row in rows:
            head = cell(f"{row['at']}  {_where(row)}  {row['id']}", "bold")
            _print_block(head, row["title"], row["error"])
    if total > len(found) and output is Output.TABLE:
        say(f"the newest {len(found):,} of {total:,}")


def _list_groups(store: Store, selection: Selection, limit: int, output: Output) -> None:
    groups, total = store.letter_groups(selection, limit=limit)
    rows = [_group_row(group) for group in groups]
    if output is not Output.TABLE or not rows or console().width >= WIDE_GROUP:
        shown = [row | {"count": f"{row['count']:,}"} for row in rows] if output is Output.TABLE else rows
        _one_line_each(shown, ("count", "first", "last", "pipeline", "step", "group", "error"), output, whole=6)
    else:
        for row in rows:
            head = cell(f"{row['count']:,} of {_where(row)}  group {row['group']}", "bold")
            _print_block(head, row["error"], f"{row['first'][:16]} to {row['last'][:16]}, {row['example']}")
    if output is Output.TABLE and rows:
        more = f"the largest {len(rows):,} of {total:,} groups; " if total > len(rows) else ""
        say(f"{more}`list`, `redrive` and `drop` take one of them as --group-id GROUP")


def _one_line_each(rows: list[dict[str, Any]], columns: tuple[str, ...], output: Output, *, whole: int) -> None:
    """Print rows; on a terminal each on one line, on which the columns behind the first `whole` are cut as need be."""
    if output is not Output.TABLE or not rows:
        print_rows(rows, columns, output, empty="no dead letters")
        return
    where, shown = console(), table(*columns)
    leading = [max(len(name), *(cell(row[name]).cell_len for row in rows)) for name in columns[:whole]]
    rest = max(8, (where.width - sum(leading) - 2 * len(columns)) // (len(columns) - whole))
    for column, width in zip(shown.columns, [*leading, *[rest] * (len(columns) - whole)], strict=True):
        column.width, column.ratio, column.no_wrap = (width, None, True) if where.is_terminal else (None, column.ratio, False)
        column.justify = "right" if column.header == "COUNT" else "left"
    for row in rows:
        cells = [cell(_first_line(str(row[column]))) for column in columns]
        for text in cells[whole:]:
            text.truncate(rest, overflow="ellipsis")
        shown.add_row(*cells)
    where.print(shown)


def _print_block(head: Text, *lines: str) -> None:
    where = console()
    where.print(head, no_wrap=True, overflow="ignore", crop=False)
    for line in lines:
        if line:
            where.print(cell(f"  {_first_line(line)}"), no_wrap=True, overflow="ellipsis")


def _first_line(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{first} …" if rest else first


def _where(row: dict[str, Any]) -> str:
    return clean(f"{row['pipeline'] or '-'}/{row['step'] or '-'}")


def _group_row(group: LetterGroup) -> dict[str, Any]:
    return {
        "group": group.id,
        "pipeline": group.pipeline,
        "step": group.step,
        "count": group.count,
        "first": _time(group.first),
        "last": _time(group.last),
        "error": group.error,
        "example": group.example,
    }


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "at": _time(letter.at),
        "attempts": letter.attempts,
        "edited": _time(letter.edited) if letter.edited else None,
        "title": letter.message.title,
        "error": letter.error,
    }


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _whole(letter: DeadLetter) -> dict[str, Any]:
    return _row(letter) | {"traceback": letter.traceback, "message": letter.message.plain()}


def _print(letter: DeadLetter) -> None:
    few = ("without an attempt", "at the first attempt")
    attempts = few[letter.attempts] if letter.attempts < len(few) else f"after {plural(letter.attempts, 'attempt')}"
    lines = [
        f"{letter.message.id}  {letter.message.title}",
        f"given up by {letter.step or 'the intake'} of {letter.pipeline} {attempts}, {letter.at:%Y-%m-%d %H:%M:%S} UTC",
        *([f"edited {letter.edited:%Y-%m-%d %H:%M:%S} UTC"] if letter.edited else []),
        f"error: {letter.error}",
        *([letter.traceback.rstrip()] if letter.traceback else []),
        json.dumps(letter.message.plain(), indent=2, ensure_ascii=False),
        "",
    ]
    where = console()
    for line in lines:
        where.print(clean(line))
