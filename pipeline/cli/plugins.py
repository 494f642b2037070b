"""`siftbell plugins`: which plugins there are, how each is used, and the beginning of a new one."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.completing import names_of_plugins
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, OutputOption, settings_for
from pipeline.cli.output import Output, cell, clean, console, print_data, print_rows, say, table

if TYPE_CHECKING:
    from pipeline.plugin import Plugin
    from pipeline.registry import Registry
    from pipeline.settings import Settings

plugins = typer.Typer(no_args_is_help=True, help="List plugins, read their manuals, begin a new one.")


WIDEST: Final = 100
"""Columns of a manual: longer lines are hard to read."""


class PluginKind(StrEnum):
    """The kinds of plugin."""

    PRODUCER = "producer"
    FILTER = "filter"
    CONSUMER = "consumer"


KindOption = Annotated[PluginKind | None, typer.Option("--kind", "-k", help="Only this kind.")]


def registry_for(settings: Settings) -> Registry:
    """Give the registry of the installed plugins and of those in `plugins/` beside the configured pipelines."""
    from pipeline.registry import Registry

    directories = [path if path.is_dir() else path.parent for path in settings.config]
    return Registry([found for path in dict.fromkeys(directories) if (found := path / "plugins").is_dir()])


@plugins.command("list")
def list_plugins(*, kind: KindOption = None, config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List all plugins, installed ones and those beside the pipelines."""
    from pipeline.registry import KINDS

    registry = registry_for(settings_for(config))
    kinds = [one for one in KINDS if kind is None or one == kind]
    rows = [_row(registry, one, name) for one in kinds for name in registry.names(one)]
    print_rows(rows, ("kind", "name", "what it does"), output, empty="no plugins are installed")
    for error in registry.broken():
        say(f"cannot be used: {error}")


def _row(registry: Registry, kind: Any, name: str) -> dict[str, Any]:
    from pipeline.cli.manual import summary
    from pipeline.registry import PluginError

    try:
        found = registry.find(kind, name)
    except PluginError as error:
        return {"kind": kind, "name": name, "usable": False, "what it does": f"cannot be used: {error}"}
    return {"kind": kind, "name": name, "usable": True, "what it does": summary(found)}


@plugins.command()
def show(
    name: Annotated[str, typer.Argument(help="The plugin's name, or module:Class.", autocompletion=names_of_plugins)],
    *,
    kind: KindOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a plugin's manual, its options, and a line that uses it."""
    from pipeline.cli.manual import manual

    found = _find(registry_for(settings_for(config)), name, kind)
    pages = [manual(name, one, plugin) for one, plugin in found.items()]
    if output is not Output.TABLE:
        print_data(pages if len(pages) > 1 else pages[0], output)
        return
    for page in pages:
        _print(page)


def _find(registry: Registry, name: str, kind: PluginKind | None) -> dict[str, type[Plugin[Any]]]:
    """Give the plugins of that name by kind: a producer and a consumer may share one."""
    from pipeline.registry import KINDS, UnknownPluginError, WrongKindError, did_you_mean

    kinds = [one for one in KINDS if kind is None or one == kind]
    found: dict[str, type[Plugin[Any]]] = {}
    errors = []
    for one in kinds:
        try:
            found[one] = registry.find(one, name)
        except (UnknownPluginError, WrongKindError) as error:
            errors.append(error)
    if found:
        return found
    if kind is not None:
        raise Failure(str(errors[0]), Exit.NOT_FOUND)
    hint = did_you_mean(name, {other for one in kinds for other in registry.names(one)}) or "`siftbell plugins list` names all"
    raise Failure(f"no plugin is called '{name}': {hint}", Exit.NOT_FOUND)


def _print(page: dict[str, Any]) -> None:
    from pipeline.cli.manual import paragraphs

    where = console()
    where.width = min(where.width, WIDEST)
    where.print(cell(f"{page['kind']} {page['name']}", "bold"))
    where.print()
    for paragraph in paragraphs(page["manual"]):
        where.print(clean(paragraph), soft_wrap=paragraph.startswith(" "))  # a line of YAML that is broken is another one
        where.print()
    if page["options"]:
        where.print(_options(page["options"]))
        for name, written in _long(page["options"]).items():
            where.print(f"\n`{name}` by default:\n")
            where.print(clean(indent(written, "    ")), soft_wrap=True)
    else:
        where.print("It has no options.")
    if page["shorthand"]:
        where.print(f"\n`{page['name']}: VALUE` is short for `{page['name']}: {{{page['shorthand']}: VALUE}}`.")
    if page["example"] not in page["manual"]:
        where.print("\nIn a pipeline:\n")
        where.print(clean(page["example"]))


def _long(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Give the defaults that have several lines, for which a table has no room."""
    return {row["name"]: row["default"] for row in rows if isinstance(row["default"], str) and "\n" in row["default"]}


def _options(rows: list[dict[str, Any]]) -> Any:
    shown = table("option", "takes", "default", "description")
    long = _long(rows)
    for row in rows:
        default = row["default"]
        written = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        short = "below" if row["name"] in long else "" if default in (None, "", [], {}) else written
        default_cell = cell("required", "bold") if row["required"] else cell(short)
        shown.add_row(cell(row["name"]), cell(row["type"]), default_cell, cell(row["description"]))
    return shown


@plugins.command()
def new(
    kind: Annotated[PluginKind, typer.Argument(help="What it is to be.")],
    name: Annotated[str, typer.Argument(help="Its name in pipelines: lower-case letters, digits and _.")],
    *,
    directory: Annotated[Path | None, typer.Option(help="Where to write it. [default: plugins/ beside the pipelines]")] = None,
    config: ConfigOption = None,
) -> None:
    """Write a plugin and its test: a working beginning that passes at once."""
    from pipeline.cli.scaffold import check_name, write_plugin

    settings = settings_for(config)
    check_name(registry_for(settings), kind.value, name)
    beside = settings.config[0] if settings.config[0].suffix != ".yaml" else settings.config[0].parent
    plugin, test = write_plugin(kind.value, name, directory or beside / "plugins")
    print(plugin)
    print(test)
    say(f"run its test with: python -m pytest {test}")
