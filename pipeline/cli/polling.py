"""`siftbell run-now`: asks a pipeline's polling producers once, out of schedule."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.completing import PipelineArgument
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, log_to_stderr, settings_for
from pipeline.cli.output import Output, print_rows

if TYPE_CHECKING:
    from pipeline.engine.runner import Runner
    from pipeline.spec.model import PipelineSpec


def run_now(
    pipeline: PipelineArgument,
    producer: Annotated[str | None, typer.Argument(help="One of its polling producers; none: all of them.")] = None,
    *,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask a pipeline's polling producers once, now, and put what is new on the queue."""
    from pipeline.cli.trying import pipeline_of
    from pipeline.engine.assembly import load_configuration, make_runner
    from pipeline.queue.publishing import CeleryQueue

    settings = settings_for(config, data)
    log_to_stderr(settings)
    configuration = load_configuration(settings)
    labels = _wanted(pipeline_of(configuration, pipeline), producer)
    with ExitStack() as opened:
        queue = opened.enter_context(closing(CeleryQueue.from_settings(settings)))
        runner = make_runner(settings, configuration, queue)
        opened.enter_context(closing(runner.store))
        opened.enter_context(closing(runner.pipelines))
        rows = [{"producer": label, "messages": _poll(runner, pipeline, label)} for label in labels]
    print_rows(rows, ("producer", "messages"), output)


def _wanted(spec: PipelineSpec, producer: str | None) -> list[str]:
    labels = [step.label for step in spec.producers if step.polls]
    if producer is None and labels:
        return labels
    if producer is not None and producer in labels:
        return [producer]
    what = f"no polling producer '{producer}'" if producer else "no polling producer"
    there = f"there are {', '.join(labels)}" if labels else "none of its producers polls"
    raise Failure(f"pipeline '{spec.name}' has {what}: {there}", Exit.NOT_FOUND)


def _poll(runner: Runner, pipeline: str, label: str) -> int:
    """Ask one producer, where no clock is at it: two at once would each give the same messages."""
    from pipeline.engine.polls import LEASE, poll_claimed

    now, owner = datetime.now(UTC), f"run-now {os.getpid()}"
    if not runner.store.claim_occurrence(pipeline, label, now, owner, LEASE, now=now):
        raise Failure(f"producer '{label}' of pipeline '{pipeline}' is being polled right now")
    return poll_claimed(runner, runner.pipelines[pipeline], label, now, owner)
