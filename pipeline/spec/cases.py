"""The tests of a pipeline, as a `NAME.test.yaml` declares them: what is sent when, what fails meanwhile, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.spec.model import Position
from pipeline.spec.problems import Place

SUFFIX: Final = ".test.yaml"

Failure = Literal["temporary", "permanent", "crash"]


@dataclass(frozen=True, slots=True)
class Answered:
    """What the sender of a payload is to be answered; None: whatever it is."""

    status: int
    reason: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What is posted to a producer: `body`, or `value` with what stands in `{{ }}` filled in."""

    body: bytes | None = None
    kind: Literal["json", "text", "form", "none"] = "none"
    value: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = ""
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A step: what a producer is given, and how often. `messages` are its fields, where it is no payload."""

    place: Place
    producer: str
    payload: Payload | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    repeat: int | None = None
    every: timedelta = timedelta()
    answer: Answered | None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """A step: the processes start anew, or the memory is lost; None: time passes."""

    what: Literal["restart", "forget"] | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: since the test's beginning, or an absolute one."""

    since_start: timedelta | None = None
    absolute: datetime | None = None

    def of(self, start: datetime) -> datetime:
        """Give the time for a test that begins at `start`."""
        if self.absolute is not None:
            return self.absolute
        return start + (self.since_start or timedelta())


@dataclass(frozen=True, slots=True)
class Timed:
    """A step with its time: `after` the one before it, or `at` a moment."""

    step: Sending | Happening
    after: timedelta = timedelta()
    at: Moment | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """How a consumer fails, from `after` the test's beginning on; `lasting` None: until its end."""

    how: Failure
    after: timedelta = timedelta()
    lasting: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A delivery, a dropped message or a dead letter that is expected: some of its fields, by their paths; and its time."""

    fields: Mapping[str, Any]
    earliest: Moment | None = None
    latest: Moment | None = None


Expected = int | Sequence[Wanted]
"""How many, or which, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A test."""

    name: str
    place: Place
    index: int
    """Which one of its file, from 0."""
    start: datetime
    steps: Sequence[Timed] = ()
    broken: Mapping[str, Sequence[Broken]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Expected] = field(default_factory=dict)
    dropped: Mapping[str, Expected] = field(default_factory=dict)
    dead_letters: Mapping[str, Expected] = field(default_factory=dict)
    held: int | None = None
    only: bool = False
    until: timedelta | None = None
    labels: Mapping[str, Sequence[tuple[str, Place]]] = field(default_factory=dict)
    """By kind, the steps of the pipeline that it names, and where."""

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.place.position


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A file of tests, and the pipeline's file that it lies beside."""

    path: Path
    pipeline: Path
    cases: Sequence[Case]


def pipeline_of(tests: Path) -> Path:
    """Give the file of the pipeline that these tests are of."""
    return tests.with_name(f"{tests.name.removesuffix(SUFFIX)}.yaml")


def tests_of(pipeline: Path) -> Path:
    """Give the file that a pipeline's tests stand in, if it has any."""
    return pipeline.with_name(f"{pipeline.name.removesuffix('.yaml')}{SUFFIX}")
