"""Writes what the documentation takes from the code: plugin pages, tables of options, settings and metrics, the schema, the help.

`python docs/generate.py` writes; `--check` writes nothing and exits 1 when something on disk is not what it would write.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel

from pipeline import telemetry
from pipeline.cli.help import WIDTH
from pipeline.cli.manual import manual, options
from pipeline.registry import KINDS, Registry
from pipeline.settings import Settings
from pipeline.spec.schema import make_schema
from pipeline.spec.siblings import SIBLINGS

ROOT: Final = Path(__file__).parents[1]
MADE: Final = "<!-- Made by `make docs` from the code: change it there. -->"
SHIPPED: Final = ("producers", "filters", "consumers")
TESTED: Final = ROOT / "docs" / "plugins" / "tested.json"
MAPPED: Final = """\
[What messages are made of](../mapping.md) says how each source's severity, status, labels, key, times and texts become a \
message's."""
TRIED: Final = """\
What a plugin was tried against is written down by the tests that passed (`make test ARGS=--matrix`); CI fails where it is no
longer so. An empty field means that there is nobody to try it against: it works on messages, or on what any client sends."""
NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """Give a table in Markdown; `head` names its columns, separated by `|`."""
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def default(option: dict[str, Any]) -> str:
    """Write an option's default as it stands in YAML or in the environment."""
    value = option["default"]
    if option["required"]:
        return "required"
    if value in NOTHING:
        return ""
    if option["type"] == "size":
        return next(
            (f"`{value // size}{unit}`" for unit, size in (("MiB", 2**20), ("KiB", 2**10)) if value % size == 0), f"`{value}`"
        )
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def options_table(config: type[BaseModel]) -> str:
    """Give a model's fields as a table."""
    there = list(options(config))
    long = {found["name"]: found["default"] for found in there if isinstance(found["default"], str) and "\n" in found["default"]}
    rows = [
        (f"`{found['name']}`", found["type"], "below" if found["name"] in long else default(found), found["description"])
        for found in there
    ]
    blocks = [f"`{name}` by default:\n\n```jinja\n{text.rstrip()}\n```" for name, text in long.items()]
    return "\n\n".join([table("option | takes | default | ", rows), *blocks]) if rows else "It has no options."


def settings_table() -> str:
    """Give the settings as a table, in the order of the class."""
    rows = []
    for found in options(Settings):
        if found["name"] == "config":
            found["default"] = "configs"
        rows.append((f"`SIFTBELL_{found['name'].upper()}`", default(found), found["description"]))
    return table("variable | default | ", rows)


def metrics_table() -> str:
    """Give the metrics as a table."""
    rows = []
    for metric in vars(telemetry).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - the library has no other way to ask
            rows.append((f"`{name}`", labels, family.documentation))
    return table("metric | labels | ", rows)


def counterparts() -> dict[str, list[str]]:
    """Give what each plugin was tried against, from what `make test ARGS=--matrix` wrote."""
    found: dict[str, list[str]] = {}
    for plugin, counterpart in json.loads(TESTED.read_text(encoding="utf-8")):
        found.setdefault(plugin, []).append(counterpart)
    return found


def plugin_pages() -> Iterator[tuple[Path, str]]:
    """Give the page of each plugin that is shipped, and their index with what each was tried against."""
    registry, tried = Registry(), counterparts()
    index = [MADE, "", "# Plugins", "", MAPPED, "", TRIED, ""]
    for kind in KINDS:
        rows = []
        for name in registry.names(kind):
            plugin = registry.find(kind, name)
            if plugin.__module__.partition(".")[0] not in SHIPPED:
                continue
            page = manual(name, kind, plugin)
            path = Path("docs", "plugins", f"{kind}-{name}.md")
            against = "; ".join(tried.pop(f"{kind} {name}", []))
            rows.append((f"[`{name}`]({path.name})", page["summary"], against))
            parts = [MADE, f"# {kind.capitalize()} `{name}`", page["manual"], "## Options", options_table(plugin.config_type)]
            if page["shorthand"]:
                parts.append(f"`{name}: VALUE` is short for `{name}: {{{page['shorthand']}: VALUE}}`.")
            yield path, "\n\n".join(parts) + "\n"
        index += [f"## {kind.capitalize()}s", "", table("name | what it does | tried against", rows), ""]
    if tried:
        raise SystemExit(f"{TESTED.relative_to(ROOT)} tells of plugins that are not shipped: {', '.join(tried)}")
    yield Path("docs", "plugins", "README.md"), "\n".join(index)


def filled(path: Path) -> tuple[Path, str]:
    """Give a page with what it takes from the code: tables between `<!-- table: NAME -->` and `<!-- end -->`, and files.

    A fence that begins with ` ```python file=PATH` holds that file.
    """
    tables: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": metrics_table}
    tables |= {kind: partial(options_table, model) for kind, model in SIBLINGS.items()}
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


def root_help() -> str:
    """Give what `siftbell --help` prints on a terminal of 80 columns, with its colours."""
    environment = {"COLUMNS": str(WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", "from pipeline.cli.app import main; main(['--help'])"]
    return subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8").stdout  # noqa: S603 - our own command


def everything() -> Iterator[tuple[Path, str]]:
    """Give every file that is made, relative to the repository, with its text."""
    yield from plugin_pages()
    for page in (Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))):
        yield filled(page)
    yield Path("pipeline", "cli", "help.txt"), root_help()
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
        difference = difflib.unified_diff(found.splitlines(), text.splitlines(), "on disk", "from the code", lineterm="", n=1)
        print(f"{path} is not what the code says; `make docs` writes it:", *list(difference)[:20], sep="\n")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
