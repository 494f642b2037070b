"""`siftbell test`: plays the tests of pipelines, and says what is not as they expect it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.completing import names_of_tests
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import OutputOption, settings_for
from pipeline.cli.output import Output, console, print_data, say

if TYPE_CHECKING:
    from pipeline.engine.simulation.playing import Verdict
    from pipeline.spec.caseload import Loaded, Ready

MANY = 50
"""From so many tests on several processes share them, where nobody says how many."""


def run_tests(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and directories of pipelines or tests. [SIFTBELL_CONFIG, else configs]")
    ] = None,
    *,
    only: Annotated[
        str | None, typer.Option("-k", metavar="WORDS", help="Only tests whose names have this.", autocompletion=names_of_tests)
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write what was seen into the tests, for you to review.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only what fails.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a report as JUnit does.")] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="How many processes. [as many as there are CPUs]")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run the tests of pipelines (NAME.test.yaml beside NAME.yaml): hours pass in milliseconds, and nothing is sent."""
    from pipeline.cli.verdicts import as_object, print_verdicts, write_junit
    from pipeline.spec.caseload import load_cases
    from pipeline.telemetry import configure_logging

    settings = settings_for(paths)
    configure_logging("critical", settings.log_format)
    began = perf_counter()
    loaded = load_cases(settings.config, networks=settings.networks)
    _refuse_broken(loaded)
    chosen = [ready for ready in loaded.ready if only is None or only.casefold() in ready.case.name.casefold()]
    _refuse_none(loaded, chosen, settings.config, only, given=bool(paths))
    played: list[tuple[Ready, Verdict]] = []
    shown = print_verdicts(console(), quiet=quiet) if output is Output.TABLE else None
    for pair in zip(chosen, _play_all(chosen, jobs), strict=True):
        played.append(pair)
        if shown is not None:
            shown(*pair)
    seconds = perf_counter() - began
    if output is not Output.TABLE:
        print_data([as_object(*pair) for pair in played], output)
    if junit is not None:
        write_junit(junit, played)
    failed = [pair for pair in played if not pair[1].passed]
    say(_summary(len(played), len(failed), seconds))
    if update and failed:
        failed = _update(failed)
    if failed:
        raise Failure("")


def _refuse_broken(loaded: Loaded) -> None:
    from pipeline.spec.problems import SpecError

    if loaded.problems:
        raise SpecError(loaded.report)


def _refuse_none(loaded: Loaded, chosen: Sequence[Ready], paths: Sequence[Path], only: str | None, *, given: bool) -> None:
    """Say that there is nothing to run: a person who sees no failure should not think that something was tested."""
    if chosen:
        return
    if only is not None and loaded.ready:
        raise Failure(f"no test's name has '{only}'", Exit.NOT_FOUND)
    if missing := [path for path in paths if not path.exists()]:
        more = "" if given else "; name the files and directories to test, such as `siftbell test .`"
        raise Failure(f"{missing[0]}: there is no such file{more}", Exit.NOT_FOUND)
    places = ", ".join(map(str, paths))
    raise Failure(f"no tests in {places}: those of NAME.yaml stand beside it in NAME.test.yaml", Exit.NOT_FOUND)


def _play_all(chosen: Sequence[Ready], jobs: int | None) -> Iterator[Verdict]:
    """Play the tests, in several processes where there are many; verdicts come in the order of the tests."""
    import multiprocessing

    from pipeline.engine.simulation.files import prepare
    from pipeline.engine.simulation.playing import play

    wanted = jobs if jobs is not None else (len(os.sched_getaffinity(0)) if len(chosen) >= MANY else 1)
    if wanted == 1 or "fork" not in multiprocessing.get_all_start_methods():
        for ready in chosen:
            yield play(ready.case, ready.spec)
        return
    prepare()
    _forked[:] = chosen
    with multiprocessing.get_context("fork").Pool(wanted) as pool:
        yield from pool.imap(_play_one, range(len(chosen)), chunksize=max(1, min(20, len(chosen) // (4 * wanted))))


_forked: list[Ready] = []
"""What forked processes play: they have it from their parent, as a pipeline cannot be sent to them."""


def _play_one(index: int) -> Verdict:
    from pipeline.engine.simulation.playing import play

    return play(_forked[index].case, _forked[index].spec)


def _update(failed: Sequence[tuple[Ready, Verdict]]) -> list[tuple[Ready, Verdict]]:
    """Write what was seen into the files; give the tests that are still wrong."""
    from pipeline.spec.caseupdate import update

    changes: dict[Path, dict[int, list[tuple[tuple[str, ...], object]]]] = {}
    for ready, verdict in failed:
        for one in verdict.differences:
            if one.place:
                changes.setdefault(ready.file, {}).setdefault(ready.case.index, []).append((one.place, one.seen))
    for path, values in changes.items():
        update(path, values)
        say(f"{path}: {len(values)} test{'' if len(values) == 1 else 's'} changed; read the difference before you keep it")
    return [pair for pair in failed if any(not one.place for one in pair[1].differences)]


def _summary(count: int, failed: int, seconds: float) -> str:
    tests = f"{count} test{'' if count == 1 else 's'}"
    return f"{tests}, {f'{failed} failed' if failed else 'all passed'}, in {seconds:.1f} s"
