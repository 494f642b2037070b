"""`siftbell replay`: what a changed pipeline would have done with recorded messages, against what was done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.completing import PipelineArgument
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, log_to_stderr, open_store, settings_for
from pipeline.cli.output import Output, cell, console, near, print_data, say
from pipeline.cli.selecting import moment, plural
from pipeline.cli.trying import pipeline_of

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.engine.ends import End
    from pipeline.engine.replay import Replay, Replayed
    from pipeline.spec.model import PipelineSpec
    from pipeline.store import Store
    from pipeline.store.rows import Accepted

MOST_LINES: Final = 100
"""Messages that a person is shown; `-o json` has all of them."""
WIDEST_TITLE: Final = 40
WIDE: Final = 150
"""Columns from which on a line has room for the message's id."""


def replay(
    pipeline: PipelineArgument,
    *,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Messages since then: 24h is so long ago; or 2026-11-21T08:30 (UTC)."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Messages before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many, the newest of them.")] = 10_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing. Needed: there is no other way yet.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run recorded messages through a pipeline as it is configured now, and compare with what was done; nothing is sent."""
    if not dry_run:
        raise Failure(
            "say --dry-run: a replay only compares. What failed is sent again by `siftbell dead-letters redrive`", Exit.USAGE
        )
    from pipeline.engine.assembly import load_configuration

    settings = settings_for(config, data)
    log_to_stderr(settings)
    spec = pipeline_of(load_configuration(settings), pipeline)
    now = datetime.now(UTC)
    first, last = moment("--since", since, now), moment("--until", until, now)
    with open_store(data) as store:
        accepted = _recorded(store, spec, first, last, limit)
        found = _replayed(spec, accepted, store, now)
        more = _count(store, spec, first, last) - len(accepted) if len(accepted) == limit else 0
    if output is Output.TABLE:
        print_replay(found, more)
        say("nothing was sent")
    else:
        print_data(as_data(found, more), output)


def _recorded(store: Store, spec: PipelineSpec, since: datetime | None, until: datetime | None, limit: int) -> list[Accepted]:
    found = list(store.accepted.between(spec.name, since=since, until=until, newest=limit))
    if not found:
        raise Failure(_nothing(store, spec), Exit.NOT_FOUND)
    return found


def _nothing(store: Store, spec: PipelineSpec) -> str:
    """Say why there is no message to run."""
    from pipeline.units import format_duration

    if span := store.accepted.span(spec.name):
        times = f"{span.oldest:%Y-%m-%d %H:%M:%S} to {span.newest:%Y-%m-%d %H:%M:%S} UTC"
        return f"pipeline '{spec.name}' kept no message in that time: it has {plural(span.count)}, from {times}"
    if spec.keep is None:
        return f"pipeline '{spec.name}' keeps no messages: with 'keep: 24h' beside its name it does, from then on"
    kept = format_duration(spec.keep.lasting)
    return f"pipeline '{spec.name}' has kept no message yet: with 'keep: {kept}' it does so from when the workers know it"


def _count(store: Store, spec: PipelineSpec, since: datetime | None, until: datetime | None) -> int:
    span = store.accepted.span(spec.name, since=since, until=until)
    return span.count if span else 0


def _replayed(spec: PipelineSpec, accepted: list[Accepted], store: Store, now: datetime) -> Replay:
    from pipeline.engine.replay import replay as run

    with _quiet(), _progress(len(accepted)) as tell:
        return run(spec, accepted, store, now=now, progress=tell)


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing: what a simulation buries lies in no store."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Give what shows on a terminal how far it is, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield bool
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def print_replay(found: Replay, more: int) -> None:
    """Print a replay: what would change, how many notifications there would be, and the messages it is about."""
    where = console()
    day = f"{found.since:%Y-%m-%d %H:%M:%S} to {found.until:%Y-%m-%d %H:%M:%S} UTC"
    where.print(cell(f"{found.pipeline}: {plural(len(found.messages))}, {day}", "bold"))
    if more:
        where.print(cell(f"{plural(more)} of that time that came before were left out: --limit", "dim"))
    for line in _summary(found):
        where.print(line)
    different = [one for one in found.messages if one.different]
    if not different:
        return
    where.print()
    where.print(_lines(different[:MOST_LINES], found, where))
    if len(different) > MOST_LINES:
        where.print(cell(f"… {len(different) - MOST_LINES:,} more: -o json has them"))


def _summary(found: Replay) -> Iterator[Any]:
    from rich.table import Table

    known = len(found.messages) - found.unknown
    would = f"{plural(found.different)} would be told differently" if found.different else "nothing would be told differently"
    yield cell(would if known else "nothing can be compared")
    changes = Table.grid(padding=(0, 2, 0, 0))
    changes.add_column(justify="right")
    for change in found.changes:
        changes.add_row(f"  {change.count:,}", cell(f"{', '.join(change.consumers)}: {near(f'{change.then} → {change.now}')}"))
    if found.changes:
        yield changes
    told = (f"{one.consumer} {_then_now(one.then, one.now)}" for one in found.notifications)
    yield cell(f"notifications: {', '.join(told)}")
    if found.unknown:
        yield cell(
            f"{plural(found.unknown)} without a record of what was done, compared with nothing: on a queue, or purged", "dim"
        )
    if found.failed:
        yield cell(f"{plural(found.failed)} that a consumer failed with then; here none fails", "dim")


def _then_now(then: int, now: int) -> str:
    return f"{then:,} as then" if then == now else f"{then:,} → {now:,}"


def _lines(messages: list[Replayed], found: Replay, where: Console) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    wide = where.width >= WIDE
    one_day = found.since.date() == found.until.date()
    table.add_column(no_wrap=True)
    if wide:
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=WIDEST_TITLE if where.is_terminal else None, overflow="ellipsis")
    table.add_column(ratio=1, overflow="fold")
    for one in messages:
        at = f"{one.at:%H:%M:%S}" if one_day else f"{one.at:%m-%d %H:%M:%S}"
        table.add_row(cell(at), *([cell(one.id, "dim")] if wide else []), cell(one.title), cell(told(one)))
    return table


def told(message: Replayed) -> str:
    """Say how the ends of a message differ; consumers at which it is the same stand together."""
    found: dict[str, list[str]] = {}
    for one in message.ends:
        if one.different:
            found.setdefault(f"{said(one.then)} → {said(one.now)}", []).append(one.consumer)
    return "\n".join(f"{', '.join(consumers)}: {near(text)}" for text, consumers in found.items())


def said(end: End) -> str:
    """Say an end with its reason."""
    if end.others:
        return f"delivered with {plural(end.others, 'other')}"
    if end.state == "no record":
        return end.reason or end.state.value
    told_already = end.reason.startswith("by ")
    by = f" at {end.step}" if end.step and not told_already and end.state in ("waiting", "buried", "failed") else ""
    reason = f" {end.reason}" if told_already else f": {end.reason}" if end.reason else ""
    return f"{end.state.value}{by}{reason}"


def as_data(found: Replay, more: int) -> dict[str, Any]:
    """Give a replay as what JSON can hold, all of its messages with all of their ends."""
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(found)
    for shown, message in zip(data["messages"], found.messages, strict=True):
        shown["different"] = message.different
        for end, one in zip(shown["ends"], message.ends, strict=True):
            end["different"] = one.different
    return {name: value for name, value in data.items() if name != "messages"} | {"left_out": more, "messages": data["messages"]}
