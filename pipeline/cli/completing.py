"""What a shell is told for completion: names out of the configuration, and nothing where it does not load."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import settings_for


def names_to_test(context: typer.Context, incomplete: str) -> list[str]:
    """Give the consumers that `consumers test` takes: PIPELINE/LABEL, and the names of shared ones."""
    from pydantic import ValidationError

    from pipeline.engine.assembly import load_configuration
    from pipeline.errors import ConfigError

    try:
        pipelines = load_configuration(settings_for(context.params.get("config"))).pipelines.values()
    except (ConfigError, ValidationError):
        return []
    names = [name for spec in pipelines for step in spec.consumers for name in (f"{spec.name}/{step.label}", step.shared) if name]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def names_of_tests(context: typer.Context, incomplete: str) -> list[str]:
    """Give the names of tests that `test -k` takes."""
    from pydantic import ValidationError

    from pipeline.spec.caseload import load_cases

    try:
        names = [ready.case.name for ready in load_cases(settings_for(context.params.get("paths")).config).ready]
    except ValidationError:
        return []
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def names_of_pipelines(context: typer.Context, incomplete: str) -> list[str]:
    """Give the pipelines that a verb takes as its argument."""
    from pydantic import ValidationError

    from pipeline.engine.assembly import load_configuration
    from pipeline.errors import ConfigError

    try:
        names = load_configuration(settings_for(context.params.get("config"))).pipelines
    except (ConfigError, ValidationError):
        return []
    return [name for name in names if name.startswith(incomplete)]


PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", autocompletion=names_of_pipelines)]


def names_of_plugins(context: typer.Context, incomplete: str) -> list[str]:
    """Give the plugins that `plugins show` takes."""
    from pydantic import ValidationError

    from pipeline.cli.plugins import registry_for
    from pipeline.registry import KINDS

    try:
        registry = registry_for(settings_for(context.params.get("config")))
    except ValidationError:
        return []
    names = (name for kind in KINDS for name in registry.names(kind))
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
