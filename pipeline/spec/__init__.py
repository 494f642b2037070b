"""YAML to specs: pipelines with a place for every error, and the JSON Schema of the format."""

from pipeline.spec.loader import check, load
from pipeline.spec.problems import (
    RENDERERS,
    Report,
    SpecError,
    SpecProblem,
    render_github,
    render_json,
    render_text,
    summary,
)

__all__ = [
    "RENDERERS",
    "Report",
    "SpecError",
    "SpecProblem",
    "check",
    "load",
    "render_github",
    "render_json",
    "render_text",
    "summary",
]
