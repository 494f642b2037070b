"""`siftbell dead-letters redrive` and `drop`: many letters move, a bounded number at a time, and a person sees how far it is."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, log_to_stderr, open_store, settings_for
from pipeline.cli.output import Output, print_data, print_rows, say
from pipeline.cli.selecting import (
    AllOption,
    ErrorOption,
    GroupIdOption,
    IdsArgument,
    PipelineOption,
    SinceOption,
    StepOption,
    UntilOption,
    YesOption,
    agree,
    counted,
    plural,
    select,
)
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.store import Store
    from pipeline.store.selection import Moved, Refused
    from pipeline.units import Rate

TELL_EVERY: Final = 5.0
"""Seconds between two lines of progress where there is no terminal."""
PATIENCE: Final = 2.0
"""Seconds within which a clock that runs has taken up what is due."""
EXAMPLES: Final = 3


@dataclass
class Tally:
    """What moved and what stays, so far."""

    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    stays: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    """Message ids by pipeline, step and reason."""

    def add(self, moved: Moved) -> int:
        """Count one go, and give the number of letters it looked at."""
        self.left.update(moved.left)
        for one in moved.refused:
            self._refuse(one)
        return sum(moved.left.values()) + len(moved.refused)

    def _refuse(self, one: Refused) -> None:
        self.stays.setdefault((one.pipeline, one.step, one.reason), []).append(one.message_id)

    @property
    def gone(self) -> int:
        """The number of letters that left."""
        return self.left.total()

    @property
    def staying(self) -> int:
        """The number of letters that stay."""
        return sum(map(len, self.stays.values()))


def redrive(  # noqa: PLR0913 - a verb takes its options as arguments
    ids: IdsArgument = None,
    *,
    pipeline: PipelineOption = None,
    step: StepOption = None,
    error: ErrorOption = None,
    group_id: GroupIdOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: AllOption = False,
    rate: Annotated[str | None, typer.Option(metavar="RATE", help="No more than so many, such as 50/s; unset: at once.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would move.")] = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have messages tried again by the consumer or filter that gave them up, and by no other.

    A running clock brings them there. What fails again is a dead letter again; `retry: {for: …}` counts anew.
    """
    from pipeline.engine.assembly import load_configuration
    from pipeline.engine.pipeline import Pipelines
    from pipeline.engine.redrive import Redrive

    pace = _rate(rate)
    selection = select(ids=ids, pipeline=pipeline, step=step, error=error, group=group_id, since=since, until=until)
    settings = settings_for(config, data)
    log_to_stderr(settings)
    with open_store(data) as store:
        count = counted(store, selection, "redrive", every=every)
        pipelines = Pipelines(load_configuration(settings))
        if not dry_run:
            agree(f"Redrive {plural(count)}?", yes=yes)
        work = Redrive(pipelines, store, rate=pace)
        tally = _move(work.run(selection, dry=dry_run), count, "would move" if dry_run else "redriven")
        taken_up = dry_run or not tally.gone or output is not Output.TABLE or is_taken_up(store)
    _report(tally, output, "would be redriven" if dry_run else "redriven")
    if output is Output.TABLE and not dry_run and tally.gone:
        say(_outlook(taken_up=taken_up, last=work.due if pace else None))
    if tally.stays:
        raise Failure("", Exit.FAILED)


def drop(  # noqa: PLR0913 - a verb takes its options as arguments
    ids: IdsArgument = None,
    *,
    pipeline: PipelineOption = None,
    step: StepOption = None,
    error: ErrorOption = None,
    group_id: GroupIdOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    every: AllOption = False,
    yes: YesOption = False,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete messages from the dead letters for good; what is recorded of them says so."""
    from pipeline.engine.redrive import drop as drop_all

    selection = select(ids=ids, pipeline=pipeline, step=step, error=error, group=group_id, since=since, until=until)
    with open_store(data) as store:
        count = counted(store, selection, "drop", every=every)
        agree(f"Delete {plural(count)} for good?", yes=yes)
        tally = _move(drop_all(store, selection), count, "dropped")
    _report(tally, output, "dropped")


def is_taken_up(store: Store) -> bool:
    """Say whether a clock takes up what is due: within moments, something else is the next."""
    first = store.next_due()
    end = time.monotonic() + PATIENCE
    while first is not None and first <= datetime.now(UTC):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
        if store.next_due() != first:
            return True
    return True


def _move(goes: Iterator[Moved], count: int, done: str) -> Tally:
    tally = Tally()
    try:
        for _ in _progress((tally.add(moved) for moved in goes), count):
            pass
    except PipelineError as error:
        text = f"{error}\n{plural(tally.gone)} {done} before that; the others lie where they were: call it again"
        raise Failure(text, Exit.UNREACHABLE) from error
    return tally


def _progress(steps: Iterable[int], total: int) -> Iterator[int]:
    """Show how far it is, on stderr: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        yield from _bar(steps, total)
        return
    done, told = 0, time.monotonic()
    for step in steps:
        done += step
        if time.monotonic() - told >= TELL_EVERY:
            say(f"{done:,} of {total:,}")
            told = time.monotonic()
        yield step


def _bar(steps: Iterable[int], total: int) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=40), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for step in steps:
            progress.advance(task, step)
            yield step


def _rate(text: str | None) -> Rate | None:
    from pipeline.units import parse_rate

    try:
        return parse_rate(text) if text is not None else None
    except ValueError as error:
        raise Failure(f"--rate: {error}", Exit.USAGE) from None


def _outlook(*, taken_up: bool, last: datetime | None) -> str:
    if not taken_up:
        return "nothing takes them up yet: they wait for `siftbell run` or `siftbell clock`, and for the broker"
    if last is None or last <= datetime.now(UTC):
        return "a clock brings them to where they failed"
    return f"a clock brings them to where they failed, the last one at {last:%Y-%m-%d %H:%M:%S} UTC"


def _report(tally: Tally, output: Output, done: str) -> None:
    steps = [{"pipeline": p, "step": s, "messages": n} for (p, s), n in sorted(tally.left.items())]
    refused: list[dict[str, Any]] = [
        {"pipeline": p, "step": s, "reason": reason, "messages": len(ids), "examples": ids[:EXAMPLES]}
        for (p, s, reason), ids in tally.stays.items()
    ]
    if output is not Output.TABLE:
        found: dict[str, Any] = {"messages": tally.gone, "steps": steps, "refused": refused}
        print_data(found, output)
        return
    if steps:
        print_rows([row | {"messages": f"{row['messages']:,}"} for row in steps], ("messages", "pipeline", "step"), output)
    say(f"{plural(tally.gone)} {done}" + (f", {tally.staying:,} not:" if refused else ""))
    for row in refused:
        examples = ", ".join(row["examples"]) + (", …" if row["messages"] > EXAMPLES else "")
        say(f"  {row['messages']:,} of {row['pipeline'] or '-'}/{row['step'] or '-'}: {row['reason']} ({examples})")
