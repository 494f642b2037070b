"""`siftbell consumers test`: a test message on the way of all others, and what the other side said to it."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.completing import names_to_test
from pipeline.cli.explain import STYLES, told
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, log_to_stderr, settings_for
from pipeline.cli.output import Output, cell, console, print_data, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.engine.rehearsal import Outcome, Part
    from pipeline.spec.model import Configuration

UNANSWERED: Final = "no answer"


def send_test(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="PIPELINE/LABEL, a label, or a shared consumer's name.", autocompletion=names_to_test
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every consumer; a shared one once.")] = False,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Only this pipeline's.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="NAME=VALUE", help="A label of the message; may be repeated.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, show_default="30", help="How long to wait for what becomes of it.")
    ] = 30.0,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send consumers a test message on the real way, and tell what the other side said.

    It goes to the consumer's own queue, and a running worker delivers it: filters and `when:` do not see it.

    Its title says that it is a test, its severity is info, and it has the label siftbell_test.
    """
    from pipeline.engine.assembly import load_configuration, make_runner
    from pipeline.engine.rehearsal import rehearse
    from pipeline.queue.publishing import CeleryQueue

    labels = _labels(label or [])
    settings = settings_for(config, data)
    log_to_stderr(settings)
    configuration = load_configuration(settings)
    parts = choose(configuration, name, pipeline, every=every)
    with ExitStack() as opened:
        queue = opened.enter_context(closing(CeleryQueue.from_settings(settings)))
        runner = make_runner(settings, configuration, queue)
        opened.enter_context(closing(runner.store))
        runner.store.circuits()  # nothing is sent where nobody could tell what became of it
        if sys.stderr.isatty():
            say(f"sending {len(parts)} test message{'' if len(parts) == 1 else 's'}, waiting {timeout:g} s at most")
        outcomes = rehearse(runner, parts, timeout, labels)
    _print(outcomes, timeout, output)
    if any(outcome.entry is not None and not outcome.delivered for outcome in outcomes):
        raise Failure("")
    if not all(outcome.delivered for outcome in outcomes):
        raise Failure("", Exit.UNREACHABLE)


def choose(configuration: Configuration, name: str | None, pipeline: str | None, *, every: bool) -> list[Part]:
    """Give the consumers that are meant; fails where that is none, or not clear."""
    from pipeline.cli.trying import pipeline_of
    from pipeline.engine.rehearsal import Part

    if every == (name is not None):
        raise Failure("say which consumer to test: PIPELINE/LABEL, a shared consumer's name, or --all", Exit.USAGE)
    specs = [pipeline_of(configuration, pipeline)] if pipeline is not None else list(configuration.pipelines.values())
    parts = [Part(spec, step) for spec in specs for step in spec.consumers]
    if name is None:
        if not parts:
            raise Failure("there is no consumer to test", Exit.NOT_FOUND)
        return _once(parts)
    for named in ([part for part in parts if part.name == name], [part for part in parts if part.step.shared == name]):
        if named:
            return named[:1]
    labelled = [part for part in parts if part.step.label == name]
    if len(labelled) > 1:
        raise Failure(f"several consumers are called '{name}': say {_or([part.name for part in labelled])}", Exit.USAGE)
    if not labelled:
        raise _unknown(name, parts)
    return labelled


def _once(parts: Sequence[Part]) -> list[Part]:
    """Leave out shared consumers that come again."""
    found: dict[str, Part] = {}
    for part in parts:
        found.setdefault(part.step.shared or part.name, part)
    return list(found.values())


def _unknown(name: str, parts: Sequence[Part]) -> Failure:
    from pipeline.registry import suggestion

    known = dict.fromkeys(known for part in parts for known in (part.name, part.step.shared) if known)
    return Failure(f"no consumer is called '{name}': {suggestion(name, known, none='there is none')}", Exit.NOT_FOUND)


def _labels(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure("--label: NAME=VALUE is expected, such as team=db", Exit.USAGE)
        found[name] = value
    return found


def _print(outcomes: Sequence[Outcome], timeout: float, output: Output) -> None:
    if output is not Output.TABLE:
        print_data([_object(outcome, timeout) for outcome in outcomes], output)
        return
    shown = table("consumer", "plugin", "outcome", "")
    for outcome in outcomes:
        state = _state(outcome)
        step = outcome.part.step
        shown.add_row(
            cell(outcome.part.name), cell(step.plugin), cell(state, STYLES.get(state, "red")), cell(_words(outcome, timeout))
        )
    console().print(shown)
    for hint in _hints(outcomes):
        say(hint)


def _object(outcome: Outcome, timeout: float) -> dict[str, Any]:
    entry, step = outcome.entry, outcome.part.step
    return {
        "pipeline": outcome.part.spec.name,
        "consumer": step.label,
        "plugin": step.plugin,
        "id": outcome.message_id,
        "outcome": _state(outcome),
        "milliseconds": None if outcome.seconds is None else round(outcome.seconds * 1000),
        "reason": entry.reason if entry else _words(outcome, timeout),
        "next_try": f"{entry.due:%Y-%m-%dT%H:%M:%SZ}" if entry and entry.due else None,
    }


def _state(outcome: Outcome) -> str:
    return outcome.entry.state.value if outcome.entry else UNANSWERED


def _words(outcome: Outcome, timeout: float) -> str:
    from pipeline.engine.rehearsal import queue_of

    if outcome.entry is None:
        return f"nobody took it from the queue {queue_of(outcome.part)} within {timeout:g} s: is a worker running?"
    if outcome.delivered and outcome.seconds is not None:
        return f"in {outcome.seconds * 1000:.0f} ms"
    now = datetime.now(UTC)
    return told(outcome.entry, now, now.astimezone().date(), None)


def _hints(outcomes: Sequence[Outcome]) -> list[str]:
    """Say what a person should know of what was left behind."""
    buried = [outcome.message_id for outcome in outcomes if outcome.entry and outcome.entry.state == "buried"]
    left = [outcome.message_id for outcome in outcomes if not outcome.delivered and outcome.message_id not in buried]
    hints = []
    if conditional := [outcome.part.name for outcome in outcomes if outcome.part.step.when is not None]:
        hints.append(f"the condition (`when:`) of {_or(conditional, 'and')} was not asked: a test goes past it")
    if left:
        hints.append("what is not delivered stays where it is, and is delivered later, as any message; how it goes on, tells")
        hints += [f"  siftbell explain {one}" for one in left]
    if buried:
        hints.append("what was buried lies in the dead letters; to have it gone:")
        hints.append(f"  siftbell dead-letters drop {' '.join(buried)}")
    return hints


def _or(names: Sequence[str], word: str = "or") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
