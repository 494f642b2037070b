"""`siftbell explain`: what became of a message, from the intake to each consumer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, open_store, settings_for
from pipeline.cli.output import Output, cell, clean, console, near, print_data, say

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.engine.explanation import Entry, Explanation
    from pipeline.settings import Settings
    from pipeline.spec.model import PipelineSpec
    from pipeline.store import Store

STYLES: Final = {
    "delivered": "green",
    "dropped": "yellow",
    "replaced": "cyan",
    "passed": "cyan",
    "held": "magenta",
    "waiting": "magenta",
    "buried": "bold red",
    "nothing yet": "dim",
}
_MARKS: Final = {None: "under way", True: "arrived", False: "did not arrive"}
MOST_IDS: Final = 10
"""Ids named where a prefix is not enough."""
STEP: Final = 2
"""Columns by which the story of a message that came in place of another one stands further right."""


def explain(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The message's id, or how it begins.")],
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell what became of a message: accepted when, dropped where, delivered to whom, tried again when, buried why."""
    from pipeline.engine.explain import explain as find

    settings = settings_for(config, data)
    specs = _specs(settings)
    now = datetime.now(UTC)
    with open_store(data) as store:
        found = find(store, specs, message_id, now)
        if found is None:
            found = find(store, specs, _only_one(store, message_id, settings, now), now)
    if found is None:
        raise Failure(_unknown(message_id, settings, now), Exit.NOT_FOUND)
    if output is Output.TABLE:
        print_explanation(found, console(), now)
    else:
        import msgspec

        print_data(msgspec.to_builtins(found), output)


def print_explanation(found: Explanation, where: Console, now: datetime, zone: tzinfo | None = None) -> None:
    """Print what became of a message, with times of the zone (none: the machine's)."""
    from rich.padding import Padding

    where.print(cell(" ".join(part for part in (found.id, found.title) if part), "bold"))
    where.print(cell(found.answer))
    where.print()
    for indent, line in _story(found, now, zone):
        where.print(Padding(line, (0, 0, 0, indent), expand=False))
    if hints := _hints(found):
        where.print()
        for hint in hints:
            where.print(cell(hint), soft_wrap=True)  # in one piece, to be copied


def _specs(settings: Settings) -> list[PipelineSpec]:
    """Give the pipelines; where the configuration does not load, what is recorded is told without them."""
    from pipeline.engine.assembly import load_configuration
    from pipeline.errors import ConfigError

    try:
        return list(load_configuration(settings).pipelines.values())
    except ConfigError as error:
        reason = str(error).partition("\n")[0]
        say(f"without the configuration, which does not load ({reason}): consumers without a record are not shown")
        return []


def _only_one(store: Store, prefix: str, settings: Settings, now: datetime) -> str:
    from pipeline.engine.explain import ids_like

    ids = ids_like(store, prefix, MOST_IDS + 1)
    if not ids:
        raise Failure(_unknown(prefix, settings, now), Exit.NOT_FOUND)
    if len(ids) > 1:
        more = "\n  …" if len(ids) > MOST_IDS else ""
        named = "".join(f"\n  {clean(one)}" for one in ids[:MOST_IDS])
        raise Failure(f"several messages begin with '{clean(prefix)}': give more of the id{named}{more}", Exit.USAGE)
    return ids[0]


def _unknown(message_id: str, settings: Settings, now: datetime) -> str:
    """Say what it can mean that nothing is known of a message, from the time in its id."""
    from pipeline.engine.explain import accepted_at
    from pipeline.engine.explanation import span
    from pipeline.units import format_duration

    text = f"nothing is known of message '{clean(message_id)}': "
    accepted = accepted_at(message_id)
    elsewhere = "it was accepted by another installation (--data, SIFTBELL_STORE), or never"
    if accepted is None:
        kept = format_duration(settings.retention)
        return f"{text}it waits on the queue, its records are older than {kept} (SIFTBELL_RETENTION) and gone, or {elsewhere}"
    age = now - accepted
    if age > settings.retention:
        kept = format_duration(settings.retention)
        return f"{text}its id is {span(age)} old, and records are kept for {kept} (SIFTBELL_RETENTION); or {elsewhere}"
    return f"{text}it waits on the queue since {span(age)} (is a worker running?), or {elsewhere}"


def _story(found: Explanation, now: datetime, zone: tzinfo | None, indent: int = 0) -> Iterator[tuple[int, Any]]:
    from rich.table import Table

    day = (found.accepted or now).astimezone(zone).date()
    table = Table.grid(padding=(0, 2, 0, 0))
    for ratio in (None, None, None, 1):
        table.add_column(ratio=ratio, overflow="fold")
    if not indent:
        accepted = found.accepted
        table.add_row(cell(_clock(accepted, day, zone)), cell("intake"), cell("accepted", "green"), cell(_accepted(found, zone)))
        for origin in found.origins[:MOST_IDS]:
            text = f"{origin.message_id}: {origin.reason}"
            table.add_row(cell(_clock(origin.at, day, zone)), cell(origin.step), cell("came of", "cyan"), cell(text))
    for entry in found.entries:
        state = entry.state.value
        table.add_row(
            cell(_clock(entry.at, day, zone)), cell(_name(entry)), cell(state, STYLES[state]), cell(told(entry, now, day, zone))
        )
    yield indent, table
    for part in found.became:
        yield indent, cell(" ")
        yield indent + STEP, cell(f"{part.id} {part.title}".rstrip(), "bold")
        yield indent + STEP, cell(part.answer)
        yield from _story(part, now, zone, indent + STEP)


def _hints(found: Explanation) -> list[str]:
    own = [entry.hint for entry in found.entries if entry.hint]
    return list(dict.fromkeys([*own, *(hint for part in found.became for hint in _hints(part))]))


def _accepted(found: Explanation, zone: tzinfo | None) -> str:
    """Say where it came from and went to, and on which day and in which zone all times are."""
    pipelines = " and ".join(sorted({entry.pipeline for entry in found.entries}))
    way = " ".join(part for part in (found.source and f"from {found.source}", f"into {pipelines}") if part)
    if found.accepted is None:
        return f"{way}; when is not to be seen from its id"
    day = found.accepted.astimezone(zone)
    return f"{way} on {day:%Y-%m-%d}, times of UTC{day.isoformat()[-6:]}"


def _name(entry: Entry) -> str:
    name = entry.step or "intake"
    return name if entry.plugin in ("", entry.step) else f"{name} ({entry.plugin})"


def told(entry: Entry, now: datetime, day: Any, zone: tzinfo | None) -> str:
    """Say how often, until when and why, in lines; times of another day than `day` bear their date."""
    lines = []
    tries = {0: "", 1: "tried once", 2: "tried twice"}.get(entry.attempts, f"tried {entry.attempts} times")
    since = f"first failure at {_clock(entry.since, day, zone)}" if entry.since and entry.attempts > 1 else ""
    if entry.state == "delivered":
        tries = "at the first attempt" if entry.attempts <= 1 else f"after {entry.attempts} attempts"
    due = _due(entry, now, day, zone)
    tried = ", ".join(part for part in (tries, since) if part)
    lines.append("; ".join(part for part in (tried, due) if part))
    label = "last error: " if entry.state == "held" else ""
    lines.append(f"{label}{entry.reason}" if entry.reason else "")
    for result in entry.results:
        told = "; ".join(part for part in (result.text, result.note) if part)
        lines.append(f"{_MARKS[result.arrived]}: {told} ({result.reference}, {_clock(result.at, day, zone)})")
    if entry.kind == "gone":
        lines.append("the configuration has no such step any more")
    return near("\n".join(line for line in lines if line))


def _due(entry: Entry, now: datetime, day: Any, zone: tzinfo | None) -> str:
    from pipeline.engine.explanation import span

    if entry.due is None:
        return ""
    word = "until"
    if entry.open_since is not None:
        word = f"its circuit is open since {_clock(entry.open_since, day, zone)}, next try"
    elif entry.state == "held":
        word = "next"
    left = f"in {span(entry.due - now)}" if entry.due > now else "due now"
    return f"{word} at {_clock(entry.due, day, zone)} ({left})".replace("until at", "until")


def _clock(time: datetime | None, day: Any, zone: tzinfo | None) -> str:
    """Write a time of day, with its date where that is another one than the message's."""
    if time is None:
        return ""
    there = time.astimezone(zone)
    return f"{there:%H:%M:%S}" if there.date() == day else f"{there:%m-%d %H:%M:%S}"
