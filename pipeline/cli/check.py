"""`siftbell check` and `siftbell schema`: what a configuration says, judged without running it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.failures import Failure
from pipeline.cli.options import ConfigOption, log_to_stderr, settings_for


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and directories. [SIFTBELL_CONFIG, else configs]")] = None,
    *,
    style: Annotated[Format, typer.Option("--format", help="For people, for programs, or for GitHub.")] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail too.")] = False,
    connect: Annotated[
        bool, typer.Option("--connect", help="Ask the steps' targets whether they answer; nothing is sent.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, show_default="10", help="How long --connect waits for each target.")
    ] = 10.0,
) -> None:
    """Say what is wrong with the configuration: all of it at once, each with its place."""
    from pipeline.cli.connecting import ask_targets
    from pipeline.cli.output import say
    from pipeline.spec.caseload import load_cases, with_tests
    from pipeline.spec.loader import check as check_files
    from pipeline.spec.problems import RENDERERS, summary

    settings = settings_for(paths)
    pipelines = check_files(settings.config, secrets=settings.secrets, networks=settings.networks)
    report = with_tests(pipelines, load_cases(settings.config, networks=settings.networks))
    failed = bool(report.errors or (strict and report.warnings))
    if connect and not failed:
        log_to_stderr(settings)
        ask_targets(pipelines, style, timeout)
        return
    if text := RENDERERS[style](report):
        print(text)
    if style is not Format.TEXT:
        say(summary(report))
    if failed:
        raise Failure("")


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    *,
    config: ConfigOption = None,
) -> None:
    """Print the JSON Schema of pipeline files, for editors and other checkers."""
    import json

    from pipeline.cli.plugins import registry_for
    from pipeline.spec.schema import make_schema

    text = json.dumps(make_schema(registry_for(settings_for(config))), indent=2, ensure_ascii=False)
    if output is None:
        print(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")
