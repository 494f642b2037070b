"""`siftbell try`: the dry run of one payload through a pipeline."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.completing import PipelineArgument
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, OutputOption, log_to_stderr, settings_for
from pipeline.cli.output import Output, console, print_data, say

if TYPE_CHECKING:
    from pipeline.spec.model import Configuration, PipelineSpec, ProducerStep


def try_payload(
    pipeline: PipelineArgument,
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="A payload; - reads it from stdin. May be repeated.")
    ] = None,
    *,
    producer: Annotated[str | None, typer.Option(help="Where the pipeline has several that take payloads.")] = None,
    content_type: Annotated[str, typer.Option(help="The payload's media type.")] = "application/json",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="'Name: value'; may be repeated.")] = None,
    now: Annotated[str | None, typer.Option(help="The time to pretend, such as 2026-03-29T01:59:00+01:00.")] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take payloads through a pipeline and tell what every step did to them, and why; nothing is sent or stored."""
    from pipeline.cli.trace import print_traces
    from pipeline.engine.dryrun import dry_runs, plain
    from pipeline.request import Request

    headers = {"content-type": content_type} | dict(map(_header, header or []))
    moment = _moment(now)
    spec = find_pipeline(pipeline, config)
    step = taking_payloads(spec, producer)
    path = f"/in/{spec.name}/{step.label}"
    payloads = [read_payload(one) for one in file] if file else [read_payload(None)]
    requests = [Request(body=body, headers=headers, path=path) for body in payloads]
    traces = dry_runs(spec, step, requests, now=moment)
    if output is Output.TABLE:
        print_traces(traces, [str(one) for one in file or ()], console())
        say("nothing was sent or stored")
    else:
        print_data(plain(traces[0] if len(traces) == 1 else traces), output)
    if any(trace.failed for trace in traces):
        raise Failure("", Exit.FAILED)


def find_pipeline(name: str, config: list[Path] | None) -> PipelineSpec:
    """Load the configuration and give a pipeline of it."""
    from pipeline.spec import load

    settings = settings_for(config)
    log_to_stderr(settings)
    return pipeline_of(load(settings.config, secrets=settings.secrets, networks=settings.networks), name)


def pipeline_of(configuration: Configuration, name: str) -> PipelineSpec:
    """Give a pipeline of a configuration."""
    from pipeline.registry import did_you_mean

    pipelines = configuration.pipelines
    if name not in pipelines:
        hint = did_you_mean(name, pipelines) or (f"there are {', '.join(sorted(pipelines))}" if pipelines else "there is none")
        raise Failure(f"no pipeline is called '{name}': {hint}", Exit.NOT_FOUND)
    return pipelines[name]


def taking_payloads(spec: PipelineSpec, label: str | None) -> ProducerStep:
    """Give the producer of that label, or the only one that takes payloads."""
    from pipeline.plugin import WebhookProducer

    takers = {step.label: step for step in spec.producers if issubclass(step.type, WebhookProducer)}
    there = f"there are {', '.join(takers)}" if takers else "there is none"
    if label is not None:
        if label not in takers:
            raise Failure(f"pipeline '{spec.name}' has no producer '{label}' that takes payloads: {there}", Exit.NOT_FOUND)
        return takers[label]
    if len(takers) != 1:
        text = f"pipeline '{spec.name}' needs --producer: {there}" if takers else f"no producer of '{spec.name}' takes payloads"
        raise Failure(text, Exit.USAGE)
    return next(iter(takers.values()))


def read_payload(file: Path | None) -> bytes:
    """Read a file, or stdin where it is `-` or something is piped in."""
    if file is not None and str(file) != "-":
        try:
            return file.read_bytes()
        except OSError as error:
            raise Failure(f"{file}: {error.strerror}", Exit.USAGE) from error
    if file is None and sys.stdin.isatty():
        raise Failure("a payload is needed: -f FILE, or - for stdin", Exit.USAGE)
    return sys.stdin.buffer.read()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Failure("--header: 'Name: value' is expected", Exit.USAGE)
    return name.strip().lower(), value.strip()


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Failure("--now: a time such as 2026-03-29T01:59:00+01:00 is expected", Exit.USAGE) from None
    return moment if moment.tzinfo else moment.astimezone()
