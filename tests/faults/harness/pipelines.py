"""The pipeline that is tested: two filters, two HTTP consumers and a file, with whatever the product offers to hurry retries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pipeline.spec.model import ConsumerStep, Retry

SINKS = ("alpha", "beta")
FILE = "archive.jsonl"
CONSUMERS = (*SINKS, "archive")
_KNOWN = {field.name for field in dataclasses.fields(ConsumerStep)}
ORDERED = ("beta",) if "ordered" in _KNOWN else ()
"""Consumers whose messages must arrive in order, key by key."""
HURRIED = {"first", "longest"} <= {field.name for field in dataclasses.fields(Retry)}
BAD = "name: faults\nproducers: [{http: {}}]\nfilters: [{mtach: severity != 'debug'}\nconsumers: nonsense\n"
"""What somebody might save by mistake."""


def pipeline_yaml(urls: Mapping[str, str], file: Path, *, longest: str = "2s") -> str:
    """Give the pipeline's YAML; `longest` is the longest wait between two attempts, where the product lets that be said."""
    retry = f"{{for: 30m, first: 200ms, longest: {longest}}}" if HURRIED else "{for: 30m}"
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
        lines += ["    ordered: true"] if name in ORDERED else []
    lines += [f"  - file: {{path: '{file}'}}", "    as: archive", f"    retry: {retry}"]
    return "\n".join(lines) + "\n"
