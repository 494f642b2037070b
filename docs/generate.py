"""Writes what the documentation takes from the code: plugin pages, the settings tables, the metrics and the JSON Schema.

`python docs/generate.py` writes; `--check` writes nothing and exits 1 when something on disk is not what it would write.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from pipeline import telemetry
from pipeline.condition import Condition
from pipeline.plugin import Plugin
from pipeline.registry import KINDS, Registry
from pipeline.settings import Settings
from pipeline.spec.schema import make_schema
from pipeline.spec.siblings import SIBLINGS
from pipeline.template import Template
from pipeline.units import format_duration, parse_size

ROOT: Final = Path(__file__).parents[1]
MADE: Final = "<!-- Made by `make docs` from the code: change it there. -->"
WORDS: Final[dict[Any, str]] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    timedelta: "duration",
    Path: "path",
    Condition: "condition",
    Template: "template",
    Any: "anything",
    type(None): "nothing",
}


def is_size(field: FieldInfo) -> bool:
    """Say whether an option is a number of bytes."""
    return any(getattr(part, "func", None) is parse_size for part in field.metadata)


def type_words(annotation: Any) -> str:
    """Say in plain words what an option takes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None:
        model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return "a map, see below" if model else WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())
    if origin is Annotated:
        return type_words(inner[0])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(part) for part in inner if part is not type(None)))
    return f"map of {type_words(inner[1])}" if issubclass(origin, Mapping) else f"list of {type_words(inner[0])}"


def size_words(number: int) -> str:
    """Write a number of bytes as pipelines write it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


def default_words(field: FieldInfo) -> str:
    """Write an option's default as it stands in YAML or in the environment."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in (None, "", (), [], {}) or isinstance(value, BaseModel):
        return ""
    if is_size(field):
        return f"`{size_words(value)}`"
    if isinstance(value, tuple | list):
        return f"`{':'.join(map(str, value))}`"
    written = getattr(value, "text", format_duration(value) if isinstance(value, timedelta) else value)
    return f"`{json.dumps(written)}`" if isinstance(written, dict) else f"`{written}`"


def rows(config: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Give the lines of a table of options; those of a nested model follow their parent."""
    for name, field in config.model_fields.items():
        shown = f"{prefix}{field.alias or name}"
        cells = (
            f"`{shown}`",
            "size" if is_size(field) else type_words(field.annotation),
            default_words(field),
            field.description or "",
        )
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from rows(part, f"{shown}.")


def options(config: type[BaseModel]) -> str:
    """Give a model's fields as a table."""
    if not config.model_fields:
        return "It has no options."
    return "\n".join(("| option | takes | default | |", "|---|---|---|---|", *rows(config)))


def plugin_page(kind: str, name: str, plugin: type[Plugin[Any]]) -> str:
    """Give a plugin's page: its docstring is the manual, its config class the table."""
    text = inspect.getdoc(plugin) or ""
    module = inspect.getdoc(sys.modules[plugin.__module__]) or ""
    parts = [MADE, f"# {kind} `{name}`", text]
    if module and module != text:
        parts.append(module)
    parts += ["## Options", options(plugin.config_type)]
    if plugin.config_type.shorthand:
        parts.append(f"`{name}: VALUE` is short for `{name}: {{{plugin.config_type.shorthand}: VALUE}}`.")
    return "\n\n".join(parts) + "\n"


def plugin_pages() -> Iterator[tuple[Path, str]]:
    """Give all plugin pages and their index."""
    registry = Registry()
    index = [MADE, "", "# Plugins", ""]
    for kind in KINDS:
        index += [f"## {kind.capitalize()}s", ""]
        for name in registry.names(kind):
            plugin = registry.find(kind, name)
            if plugin.__module__.partition(".")[0] not in ("producers", "filters", "consumers"):
                continue
            path = Path("docs", "plugins", f"{kind}-{name}.md")
            first = (inspect.getdoc(plugin) or "").partition("\n\n")[0].replace("\n", " ")
            index.append(f"- [`{name}`]({path.name}): {first}")
            yield path, plugin_page(kind, name, plugin)
        index.append("")
    yield Path("docs", "plugins", "README.md"), "\n".join(index)


def settings_table() -> str:
    """Give the settings as a table, in the order of the class."""
    lines = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `SIFTBELL_{name.upper()}` | {default_words(field)} | {field.description} |")
    return "\n".join(lines)


def metrics_table() -> str:
    """Give the metrics as a table."""
    lines = ["| metric | labels | |", "|---|---|---|"]
    for metric in vars(telemetry).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - the library has no other way to ask
            lines.append(f"| `{name}` | {labels} | {family.documentation} |")
    return "\n".join(lines)


def with_tables(path: Path) -> tuple[Path, str]:
    """Give a page with what it takes from the code: tables between `<!-- table: NAME -->` and `<!-- end -->`, and files.

    A fence that begins with ` ```python file=PATH` holds that file.
    """
    tables: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": metrics_table}
    tables |= {kind: partial(options, model) for kind, model in SIBLINGS.items()}
    text = re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{tables[found[2]]()}\n{found[3]}",
        (ROOT / path).read_text(),
        flags=re.DOTALL,
    )
    return path, re.sub(
        r"(```\w+ file=(\S+)\n).*?(```\n)",
        lambda found: f"{found[1]}{((ROOT / path).parent / found[2]).read_text()}{found[3]}",
        text,
        flags=re.DOTALL,
    )


def everything() -> Iterator[tuple[Path, str]]:
    """Give every file that is made, relative to the repository, with its text."""
    yield from plugin_pages()
    for page in (Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))):
        yield with_tables(page)
    yield Path("docs", "siftbell.schema.json"), json.dumps(make_schema(Registry()), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write, or check; gives the exit code."""
    stale = False
    for path, text in everything():
        target = ROOT / path
        found = target.read_text() if target.exists() else ""
        if found == text:
            continue
        if "--check" not in sys.argv:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            print(f"wrote {path}")
            continue
        stale = True
        print(f"{path} is not what the code says; `make docs` writes it:")
        print(
            "\n".join(
                [*difflib.unified_diff(found.splitlines(), text.splitlines(), "on disk", "from the code", lineterm="", n=1)][:20]
            )
        )
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
