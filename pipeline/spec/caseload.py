"""From paths to tests that can be run: each with its pipeline, loaded as the test wants it and without any secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipeline.networks import ANYWHERE, Networks
from pipeline.plugin import WebhookProducer
from pipeline.registry import did_you_mean, suggestion
from pipeline.spec.casefile import read_cases
from pipeline.spec.cases import SUFFIX, Case, CaseFile, Sending, pipeline_of, tests_of
from pipeline.spec.document import read
from pipeline.spec.loader import check
from pipeline.spec.model import Configuration, PipelineSpec
from pipeline.spec.problems import Place, Problems, Report, Source, SpecProblem
from pipeline.spec.siblings import RESERVED
from pipeline.spec.tree import Items, Mapping

_NUMBER: Final = re.compile(r"(?i)(^|_)(chat|id|port|number|count|limit)(_?id)?$")
_URL: Final = re.compile(r"(?i)(^|_)(url|uri|endpoint|server|host)$")
_TOKEN: Final = re.compile(r"(?i)token$")


@dataclass(frozen=True, slots=True)
class Ready:
    """A test with its pipeline."""

    case: Case
    spec: PipelineSpec
    file: Path


@dataclass(slots=True)
class Loaded:
    """What the paths hold, and what is wrong with it."""

    files: list[CaseFile] = field(default_factory=list)
    ready: list[Ready] = field(default_factory=list)
    problems: list[SpecProblem] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """All problems as a report."""
        return Report(tuple(self.problems), tuple(file.path for file in self.files), Configuration())


def stand_in(name: str) -> str:
    """Give a value for a variable or a secret that a test does not set: one that is mostly accepted, and leads nowhere."""
    if _NUMBER.search(name):
        return "1"
    if _URL.search(name):
        return "https://stand-in.example.com"
    return "1:stand-in" if _TOKEN.search(name) else "stand-in"


def find_case_files(paths: Sequence[Path]) -> list[Path]:
    """Give the files of tests that paths mean: those in a directory, that beside a pipeline, or the file itself."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.glob(f"*{SUFFIX}") if not file.name.startswith("."))
        elif path.name.endswith(SUFFIX):
            found.append(path)
        elif (beside := tests_of(path)).is_file():
            found.append(beside)
    return list(dict.fromkeys(found))


def load_cases(paths: Sequence[Path], *, networks: Networks = ANYWHERE) -> Loaded:
    """Read all tests of these paths, and load the pipeline of each; raises nothing for what is wrong with them."""
    loaded = Loaded()
    for path in find_case_files(paths):
        problems = Problems()
        file = read_cases(path, problems)
        loaded.files.append(file or CaseFile(path, pipeline_of(path), ()))
        if not pipeline_of(path).is_file():
            _lone_file(path, problems)
        elif file is not None:
            _load(file, problems, loaded, networks)
        loaded.problems += problems.sorted([path])
    loaded.problems = list(dict.fromkeys(loaded.problems))
    return loaded


def with_tests(report: Report, loaded: Loaded) -> Report:
    """Give the report of a configuration with what is wrong with its tests.

    Not with it is what is wrong with a pipeline only as a test loads it: that keeps nothing from starting.
    """
    files = tuple(file.path for file in loaded.files)
    problems = tuple(problem for problem in loaded.problems if problem.position.file in files)
    return replace(report, problems=(*report.problems, *problems), files=(*report.files, *files))


def _load(file: CaseFile, problems: Problems, loaded: Loaded, networks: Networks) -> None:
    """Load the pipeline for each environment that its tests want."""
    reports: dict[tuple[tuple[str, str], ...], Report] = {}
    declared = _declared(file.pipeline)
    for case in file.cases:
        wanted = tuple(sorted(case.environment.items()))
        if (report := reports.get(wanted)) is None:
            report = check([file.pipeline], environ=case.environment, networks=networks, stand_in=stand_in)
            reports[wanted] = report
            loaded.problems += [_hinted(problem) for problem in report.problems if problem.severity == "error"]
        spec = next(iter(report.configuration.pipelines.values()), None)
        if spec is None or report.errors:
            if not report.errors:
                problems.error(Place(Source(file.path)), f"there is no pipeline in {file.pipeline.name}")
            continue
        before = len(problems)
        _refuse_unknown(case, spec, declared, problems)
        if len(problems) == before:
            loaded.ready.append(Ready(case, spec, file.path))


def _refuse_unknown(case: Case, spec: PipelineSpec, declared: Collection[str], problems: Problems) -> None:
    """Tell of steps that a test names and its pipeline does not have, and of payloads for producers that take none.

    `declared` are the labels of all its steps, of those that are not active too.
    """
    consumers = [step.label for step in spec.consumers]
    producers = {step.label: step for step in spec.producers}
    known = {"producer": list(producers), "consumer": consumers, "step": [*(step.label for step in spec.filters), *consumers]}
    for timed in case.steps:
        step = producers.get(timed.step.producer) if isinstance(timed.step, Sending) and timed.step.payload else None
        if step is not None and isinstance(timed.step, Sending) and not issubclass(step.type, WebhookProducer):
            problems.error(timed.step.place, f"producer '{step.label}' takes no payloads", "give it a message: {title: …}")
    for kind, named in case.labels.items():
        for label, place in named:
            if label not in known[kind]:
                what = "filter or consumer" if kind == "step" else kind
                inactive = "it is not active here: where a variable switches it on, 'environment:' sets that"
                hint = inactive if label in declared else suggestion(label, known[kind], none="")
                problems.error(place, f"the pipeline has no {what} '{label}'", hint)


def _lone_file(path: Path, problems: Problems) -> None:
    """Tell of a file of tests that lies beside no pipeline."""
    beside = [file.name for file in path.parent.glob("*.yaml") if not file.name.endswith(".test.yaml")]
    wanted = pipeline_of(path).name
    hint = did_you_mean(wanted, beside) or "tests lie beside their pipeline: NAME.test.yaml beside NAME.yaml"
    problems.error(Place(Source(path)), f"there is no {wanted} beside it", hint)


def _declared(pipeline: Path) -> set[str]:
    """Give the labels of all steps of a pipeline, active or not."""
    root = read(pipeline, Problems())
    lists = [entry.value for entry in root.entries.values()] if isinstance(root, Mapping) else []
    steps = [item for items in lists if isinstance(items, Items) for item in items.items]
    return {label for step in steps if isinstance(step, Mapping) and (label := _label(step.plain()))}


def _label(step: dict[str, Any]) -> str:
    return str(step.get("as") or step.get("use") or next((key for key in step if key not in RESERVED), ""))


def _hinted(problem: SpecProblem) -> SpecProblem:
    """Say of an error in a value that came from a variable that a test may set that."""
    start = problem.position.column - 1
    if "${" not in problem.source[start : start + problem.width] or problem.hint:
        return problem
    return replace(problem, hint="a variable that a test does not set has a stand-in: 'environment:' sets it")
