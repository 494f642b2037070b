"""The pipeline that is tested: two filters, two HTTP consumers and a file, with whatever the product offers to hurry retries."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.spec.model import ConsumerStep, Retry

SINKS = ("alpha", "beta")
FILE = "archive.jsonl"
CONSUMERS = (*SINKS, "archive")
_KNOWN = {field.name for field in dataclasses.fields(ConsumerStep)}
CAN_BE_ORDERED = "ordered" in _KNOWN
HURRIED = {"first", "longest"} <= {field.name for field in dataclasses.fields(Retry)}
BAD = "name: faults\nproducers: [{http: {}}]\nfilters: [{mtach: severity != 'debug'}\nconsumers: nonsense\n"
"""What somebody might save by mistake."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waits:
    """How long a message waits between two attempts."""

    first: str = "200ms"
    longest: str = "2s"


def pipeline_yaml(urls: Mapping[str, str], file: Path, ordered: Collection[str], waits: Waits) -> str:
    """Give the pipeline's YAML; `ordered` names consumers that keep the order of each key."""
    retry = f"{{for: 30m, first: {waits.first}, longest: {waits.longest}}}" if HURRIED else "{for: 30m}"
    lines = [
        "name: faults",
        "producers:",
        "  - http: {}",
        "filters:",
        "  - match: severity != 'debug'",
        "  - render: {title: '{{ severity | upper }}: {{ title }}'}",
        "consumers:",
    ]
    for name in SINKS:
        lines += [f"  - webhook: {{url: '{urls[name]}'}}", f"    as: {name}", f"    retry: {retry}"]
        lines += ["    ordered: true"] if name in ordered and CAN_BE_ORDERED else []
    lines += [f"  - file: {{path: '{file}'}}", "    as: archive", f"    retry: {retry}"]
    return "\n".join(lines) + "\n"
