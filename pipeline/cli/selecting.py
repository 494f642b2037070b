"""Which dead letters a verb is about: the options that say so, alike for every verb, and the question before many of them go."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.failures import Exit, Failure

if TYPE_CHECKING:
    from pipeline.store import Store
    from pipeline.store.selection import Selection

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only the messages of these ids.")]
PipelineOption = Annotated[str | None, typer.Option("--pipeline", "-p", help="Only this pipeline's.")]
StepOption = Annotated[str | None, typer.Option("--step", "-s", help="Only those given up at this consumer or filter.")]
ErrorOption = Annotated[str | None, typer.Option("--error", "-e", help="Only those with this in their error, in whatever case.")]
GroupIdOption = Annotated[
    str | None, typer.Option("--group-id", metavar="GROUP", help="Only those of a group of `list --group`.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only those given up since: 2h ago, or 2026-11-21T08:30 (UTC).")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those given up before.")]
AllOption = Annotated[bool, typer.Option("--all", help="Really all there are, where nothing else says which.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def select(
    *,
    ids: list[str] | None = None,
    pipeline: str | None,
    step: str | None,
    error: str | None,
    group: str | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """Give the selection that the options describe."""
    from pipeline.store.selection import Selection

    now = datetime.now(UTC)
    return Selection(
        pipeline=pipeline,
        step=step,
        error=error,
        group=group,
        since=moment("--since", since, now),
        until=moment("--until", until, now),
        ids=tuple(ids or ()),
    )


def counted(store: Store, selection: Selection, verb: str, *, every: bool) -> int:
    """Give how many letters a verb is about; fails where nothing says which, and where there is none."""
    if not selection and not every:
        raise Failure(
            f"say which to {verb}: ids, --pipeline, --step, --error, --group-id, --since, --until, or --all", Exit.USAGE
        )
    if selection and every:
        raise Failure("--all is for those that nothing else describes: leave it out", Exit.USAGE)
    count = store.count_letters(selection)
    if not count:
        raise Failure("no such dead letters" if selection else "no dead letters", Exit.NOT_FOUND)
    return count


def agree(question: str, *, yes: bool) -> None:
    """Ask a person on a terminal, and end the verb where the answer is no; elsewhere --yes is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{question} Nobody can be asked here: say --yes", Exit.USAGE)
    if not typer.confirm(question, err=True):
        raise Failure("nothing was done")


def plural(count: int, word: str = "message") -> str:
    """Write a number of things."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def moment(option: str, text: str | None, now: datetime) -> datetime | None:
    """Read the time that an option gives, if it does; fails with the option's name where it is none."""
    if text is None:
        return None
    from pipeline.units import parse_moment

    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise Failure(f"{option}: {error}", Exit.USAGE) from None
