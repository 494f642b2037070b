"""From files and directories to a configuration, or to a report of everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Variables
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.networks import ANYWHERE, Networks
from pipeline.registry import Kind, Registry, did_you_mean
from pipeline.spec.copies import PLUGINS, SHARED_FILE, origin_of
from pipeline.spec.document import read
from pipeline.spec.interpolation import Interpolator
from pipeline.spec.model import Configuration, PipelineSpec
from pipeline.spec.pipelines import read_pipeline
from pipeline.spec.problems import Place, Problems, Report, Source, SpecError
from pipeline.spec.steps import StepReader, read_shared
from pipeline.spec.tree import Mapping, Node, Scalar

_SHARED_KINDS: Final[dict[str, Kind]] = {"producers": "producer", "filters": "filter", "consumers": "consumer"}


@dataclass(slots=True)
class Files:
    """The files that the given paths mean."""

    pipelines: list[Path] = field(default_factory=list)
    shared: list[Path] = field(default_factory=list)
    """Every `siftbell.yaml` among the pipelines' files, and those beside files that were named one by one."""
    directories: list[Path] = field(default_factory=list)
    """Where plugins lie: `plugins/` beside the files."""
    whole: bool = True
    """Whether all pipelines that may use the shared steps are there."""

    def all(self) -> list[Path]:
        """Give all files, shared ones first."""
        return [*self.shared, *self.pipelines]


def load(
    paths: Sequence[Path],
    *,
    registry: Registry | None = None,
    environ: Variables[str, str] = os.environ,
    secrets: Path | None = None,
    networks: Networks = ANYWHERE,
) -> Configuration:
    """Read pipelines from files and directories. Raises `SpecError` with every error of every file.

    A directory means every `*.yaml` in it but tests. `${NAME}` reads `environ`, `${file:NAME}` the directory
    `secrets`. Without a `registry`, plugins are the installed ones and those in `plugins/` beside the files. They may connect
    to `networks`; the URL of a consumer that leads elsewhere is an error, where that shows without asking for addresses.
    """
    report = check(paths, registry=registry, environ=environ, secrets=secrets, networks=networks)
    if report.errors:
        raise SpecError(report)
    return report.configuration


def check(
    paths: Sequence[Path],
    *,
    registry: Registry | None = None,
    environ: Variables[str, str] = os.environ,
    secrets: Path | None = None,
    networks: Networks = ANYWHERE,
    stand_in: Callable[[str], str] | None = None,
) -> Report:
    """Read as `load` does, and give a report of all errors and warnings in the order of the files; raises nothing for them.

    With `stand_in`, a variable that has neither a value nor a default gets what that gives for its name; so does each secret.
    """
    problems = Problems()
    files = find_files(paths, problems)
    registry = registry or Registry(files.directories)
    interpolator = Interpolator(environ, secrets, problems, stand_in)
    reader = StepReader(registry, problems, networks)
    roots = [_root(path, interpolator, problems) for path in files.pipelines]
    shared = [_root(path, interpolator, problems) for path in files.shared]
    for root in shared:
        _read_shared_file(root, reader, problems)
    pipelines: dict[str, tuple[PipelineSpec, Place]] = {}
    for root in roots:
        found = read_pipeline(root, reader, problems) if root is not None else None
        if found is None:
            continue
        name = found[0].name
        if name in pipelines:
            problems.error(found[1], f"another pipeline is called '{name}'", f"the first stands in {pipelines[name][1]}")
            continue
        pipelines[name] = found
    if files.whole and not reader.missed and all(root is not None for root in roots):
        _tell_unused(reader, problems)
    shown = tuple(map(origin_of, files.all()))
    configuration = Configuration({name: spec for name, (spec, _) in pipelines.items()}, shown)
    sources = tuple(root.place.source for root in (*shared, *roots) if root is not None)
    return Report(problems.sorted(shown), shown, configuration, sources)


def find_files(paths: Sequence[Path], problems: Problems) -> Files:
    """Say which files the paths mean; tells of paths that mean none."""
    files = Files()
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            _add(path, files, seen, problems)
            files.whole = False
            continue
        found = sorted(file for file in path.glob("*.yaml") if not file.name.startswith("."))
        for file in found:
            _add(file, files, seen, problems)
        for file in sorted(path.glob("*.yml")):
            problems.warning(Place(Source(origin_of(file))), "this file is not read", "call it '.yaml'")
        if not found:
            problems.error(Place(Source(origin_of(path))), "no file in this directory is called '*.yaml'")
    if not paths:
        problems.error(Place(Source(Path())), "no configuration is named", "name files or directories with --config")
    for file in files.pipelines:
        beside = file.parent / SHARED_FILE
        if beside.is_file() and beside.resolve() not in seen:
            seen.add(beside.resolve())
            files.shared.append(beside)
    files.directories = [path for path in dict.fromkeys(file.parent / PLUGINS for file in files.all()) if path.is_dir()]
    return files


def _add(file: Path, files: Files, seen: set[Path], problems: Problems) -> None:
    if not file.exists():
        problems.error(Place(Source(origin_of(file))), "there is no such file")
        return
    resolved = file.resolve()
    if resolved in seen or file.name.endswith(".test.yaml"):
        return
    seen.add(resolved)
    (files.shared if file.name == SHARED_FILE else files.pipelines).append(file)


def _root(path: Path, interpolator: Interpolator, problems: Problems) -> Mapping | None:
    before = len(problems)
    node: Node | None = read(path, problems)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        if len(problems) == before and path.name != SHARED_FILE:
            problems.error(Place(Source(origin_of(path))), "the file is empty", "a pipeline has producers, filters and consumers")
        return None
    if not isinstance(node, Mapping):
        problems.error(node.place, "a mapping is expected", "a pipeline's file begins with 'name:' or 'producers:'")
        return None
    interpolator.replace(node)
    return node


def _read_shared_file(root: Mapping | None, reader: StepReader, problems: Problems) -> None:
    if root is None:
        return
    for key, entry in root.entries.items():
        kind = _SHARED_KINDS.get(key)
        if kind is not None:
            read_shared(reader, kind, entry.value, problems)
            continue
        hint = did_you_mean(key, _SHARED_KINDS) or "producers, filters and consumers are shared"
        problems.error(entry.key, f"{SHARED_FILE} has no key '{key}'", hint)


def _tell_unused(reader: StepReader, problems: Problems) -> None:
    for kind, steps in reader.shared.items():
        for shared in steps.values():
            if not shared.used:
                problems.warning(shared.place, f"no pipeline uses the shared {kind} '{shared.name}'")
