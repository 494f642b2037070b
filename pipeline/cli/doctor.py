"""`siftbell doctor`: looks at everything around the program that could keep it from working."""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from pipeline.cli.failures import Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, log_to_stderr, settings_for
from pipeline.cli.output import Output, cell, console, print_data, say, table
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.spec.model import Keep

PROGRAM: Final = "siftbell"
NAMES: Final = ("pipeline", "producers", "filters", "consumers")
"""The import names that belong to Siftbell alone."""
_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+).*extra == '(?P<extra>[^']+)'")
STYLES: Final = {"ok": "green", "note": "dim", "error": "bold red"}


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do where that is not well. `state`: ok, note or error."""

    what: str
    state: str
    text: str


def doctor(*, config: ConfigOption = None, data: DataOption = None, output: OutputOption = Output.TABLE) -> None:
    """Look at everything that could keep Siftbell from working: versions, extras, files, servers, configuration."""
    settings = settings_for(config, data)
    log_to_stderr(settings)
    findings = list(examine(settings))
    errors = sum(finding.state == "error" for finding in findings)
    if output is Output.TABLE:
        shown = table("what", "", "found")
        for finding in findings:
            shown.add_row(cell(finding.what), cell(finding.state, STYLES[finding.state]), cell(finding.text))
        console().print(shown)
        well = f"nothing stands in the way; `{PROGRAM} check --connect` asks the steps' targets whether they answer"
        say(f"{errors} error{'' if errors == 1 else 's'}" if errors else well)
    else:
        print_data([finding._asdict() for finding in findings], output)
    if errors:
        raise Failure("")


def examine(settings: Settings) -> Iterator[Finding]:
    """Give all findings, one by one."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from (Finding(name, "ok", version(name)) for name in (PROGRAM, "celery", "kombu"))
    yield from _extras()
    yield _names()
    yield _data(settings.data)
    yield _broker(settings)
    yield _store(settings)
    yield _memory(settings)
    yield from _configuration(settings)


def _extras() -> Iterator[Finding]:
    for extra, packages in extras().items():
        found = {package: _version(package) for package in packages}
        if missing := [package for package, there in found.items() if there is None]:
            yield Finding(f"extra {extra}", "note", f'without {", ".join(missing)}: pip install "{PROGRAM}[{extra}]"')
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{package} {there}" for package, there in found.items()))


def extras() -> dict[str, list[str]]:
    """Give the packages of each extra, as the distribution's metadata name them."""
    found: dict[str, list[str]] = {}
    for line in requires(PROGRAM) or []:
        if (match := _REQUIREMENT.match(line)) and match["extra"] != "all":
            found.setdefault(match["extra"], []).append(match["name"])
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _names() -> Finding:
    owners = packages_distributions()
    home = Path(__file__).resolve().parents[2]
    for name in NAMES:
        if others := sorted(set(owners.get(name, ())) - {PROGRAM}):
            text = f"the import name '{name}' also belongs to {', '.join(others)}: give {PROGRAM} a venv of its own"
            return Finding("import names", "error", text)
        spec = find_spec(name)
        places = {Path(place).resolve() for place in (spec.submodule_search_locations or ())} if spec else set()
        if elsewhere := sorted(str(place) for place in places - {home / name}):
            return Finding("import names", "error", f"'{name}' is also found in {', '.join(elsewhere)}: take it off PYTHONPATH")
    return Finding("import names", "ok", ", ".join(NAMES))


def _data(path: Path) -> Finding:
    where = path.absolute()
    try:
        mode = stat.S_IMODE(where.stat().st_mode)
    except FileNotFoundError:
        return Finding("data directory", "note", f"{where} is not there yet: `{PROGRAM} run` makes it")
    if not where.is_dir():
        return Finding("data directory", "error", f"{where} is not a directory")
    if mode & 0o077:
        return Finding("data directory", "error", f"{where} is open to others ({mode:04o}): chmod 700 {where}")
    if not os.access(where, os.W_OK | os.X_OK):
        return Finding("data directory", "error", f"{where} cannot be written to by this user")
    return Finding("data directory", "ok", str(where))


def _broker(settings: Settings) -> Finding:
    if settings.broker is None and not settings.data.exists():
        return Finding("broker", "note", f"embedded: `{PROGRAM} run` makes it")

    def ask() -> str:
        from pipeline.queue.publishing import CeleryQueue

        with closing(CeleryQueue.from_settings(settings)) as queue:
            queue.check()
        return "embedded" if settings.broker is None else place_of_url(settings.broker_url)

    return _asked("broker", ask)


def _store(settings: Settings) -> Finding:
    if settings.store is None and not (settings.data / "store.db").exists():
        return Finding("store", "note", f"embedded: `{PROGRAM} run` makes it")

    def ask() -> str:
        from pipeline.store.store import Store

        with closing(Store(settings.store_url)) as store:
            store.accepted.span("")  # a table of the newest migration's, so that missing tables are told of
        return "embedded" if settings.store is None else place_of_url(settings.store_url)

    return _asked("store", ask)


def _memory(settings: Settings) -> Finding:
    if settings.memory is None:
        return Finding("memory", "ok", "in the store")

    def ask() -> str:
        from pipeline.memory import open_memory

        with closing(open_memory(settings.memory_url)) as memory:
            memory.purge()
        return place_of_url(settings.memory_url)

    return _asked("memory", ask)


def _asked(what: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", ask())
    except PipelineError as error:
        return Finding(what, "error", str(error))


def place_of_url(url: str) -> str:
    """Give a URL's scheme, host and port, and nothing that may be secret."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def _configuration(settings: Settings) -> Iterator[Finding]:
    from pipeline.spec.loader import check
    from pipeline.spec.problems import summary

    report = check(settings.config, secrets=settings.secrets, networks=settings.networks)
    if report.errors:
        yield Finding("configuration", "error", f"{summary(report)}: `{PROGRAM} check` names them")
        return
    names = ", ".join(report.configuration.pipelines) or "no pipelines"
    yield Finding("configuration", "ok", f"{names} ({summary(report)})")
    keeping = {name: spec.keep for name, spec in report.configuration.pipelines.items() if spec.keep}
    if keeping:
        yield _kept(keeping, settings)


def _kept(keeping: Mapping[str, Keep], settings: Settings) -> Finding:
    """Tell which pipelines keep their messages, and where that is for longer than what was done with them is known."""
    from pipeline.units import format_duration

    told = ", ".join(f"{name} for {format_duration(keep.lasting)}" for name, keep in keeping.items())
    if longer := [name for name, keep in keeping.items() if keep.lasting > settings.retention]:
        records = f"what was done with them is known for {format_duration(settings.retention)} (SIFTBELL_RETENTION)"
        return Finding("kept messages", "note", f"{told}; {records}: {', '.join(longer)}")
    return Finding("kept messages", "ok", told)
