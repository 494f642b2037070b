"""A plugin's manual as data: its docstrings and its options in plain words."""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.by import By
from pipeline.condition import Condition
from pipeline.plugin import Plugin
from pipeline.template import Template
from pipeline.units import format_duration, parse_size

WORDS: Final[dict[Any, str]] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    timedelta: "duration",
    Path: "path",
    By: "names of fields",
    Condition: "condition",
    Template: "template",
    Any: "anything",
}
_YAML: Final = re.compile(r"```yaml\n(?P<yaml>.*?)```", re.DOTALL)
EXAMPLES: Final = {"number": 1, "duration": "5m", "size": "1MiB", "true or false": True, "condition": 'severity == "critical"'}
"""What stands in an example for an option that has to be given; any other is its name in capitals."""


def manual(name: str, kind: str, plugin: type[Plugin[Any]]) -> dict[str, Any]:
    """Give a plugin's page: kind, name, first sentence, manual, options, and an example.

    The manual is the module's docstring where that is more than a sentence, else that of the class before it.
    The example is the first block of YAML in the docstrings, or else the shortest lines that use the plugin.
    """
    own, module = inspect.getdoc(plugin) or "", inspect.getdoc(sys.modules[plugin.__module__]) or ""
    whole = "\n\n" in module and "\n\n" not in own
    text = module if whole else "\n\n".join(part for part in (own, module) if part)
    shown = _YAML.search(text)
    return {
        "kind": kind,
        "name": name,
        "summary": summary(plugin),
        "manual": text,
        "options": list(options(plugin.config_type)),
        "shorthand": plugin.config_type.shorthand,
        "example": shown["yaml"].rstrip() if shown else example(name, kind, plugin),
    }


def summary(plugin: type[Plugin[Any]]) -> str:
    """Give the first sentence of a plugin's docstring, in one line."""
    text = " ".join((inspect.getdoc(plugin) or "").partition("\n\n")[0].split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def options(config: type[BaseModel], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Give each option's name, type, default, whether it is required, and description; those of a nested model follow it."""
    for name, field in config.model_fields.items():
        shown = f"{prefix}{field.alias or name}"
        yield {
            "name": shown,
            "type": _type(field),
            "default": _default(field),
            "required": field.is_required(),
            "description": field.description or "",
        }
        for part in _models(field.annotation):
            yield from options(part, f"{shown}.")


def example(name: str, kind: str, plugin: type[Plugin[Any]]) -> str:
    """Give a pipeline's lines that use the plugin, with the options that have to be given."""
    config = plugin.config_type
    given = {
        field.alias or option: EXAMPLES.get(_type(field), option.upper())
        for option, field in config.model_fields.items()
        if field.is_required()
    }
    if config.shorthand and list(given) in ([], [config.shorthand]):
        value = given.get(config.shorthand, config.shorthand.upper())
        return f"{kind}s:\n  - {name}: {_yaml(value)}"
    inner = ", ".join(f"{option}: {_yaml(value)}" for option, value in given.items())
    return f"{kind}s:\n  - {name}: {{{inner}}}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) and value.replace("_", "").isalnum() else json.dumps(value)


def _type(field: FieldInfo) -> str:
    if any(getattr(part, "func", None) is parse_size for part in field.metadata):
        return "size"
    taken = (part.json_schema_input_type for part in field.metadata if isinstance(part, BeforeValidator))
    return type_words(next((one for one in taken if one is not PydanticUndefined), field.annotation))


def type_words(annotation: Any) -> str:
    """Say in plain words what an option takes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _simple(annotation)
    if origin is Annotated:
        return type_words(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(part) for part in inner if part is not type(None)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"map of {type_words(inner[1])}"
    return f"list of {type_words(inner[0])}"


def _simple(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "map"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(str(member.value) for member in annotation)
    for known in (Condition, Template):
        if isinstance(annotation, type) and issubclass(annotation, known):
            return WORDS[known]
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(field: FieldInfo) -> Any:
    """Give the default as it would be written in YAML; None where there is none."""
    made = field.default_factory is not None
    value = field.get_default(call_default_factory=True, validated_data={}) if made else field.default
    return None if value is PydanticUndefined else plain(value)


def plain(value: Any) -> Any:
    """Give an option's value as YAML has it; a secret's is masked."""
    if isinstance(value, BaseModel | Mapping):
        return {str(name): plain(inner) for name, inner in (value.items() if isinstance(value, Mapping) else value)}
    if isinstance(value, By):
        return list(value.names)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Condition | Template):
        return value.text
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def paragraphs(text: str) -> Iterator[str]:
    """Give a docstring's paragraphs, each in one line to be wrapped anew; code, lists and tables keep their lines."""
    for part in re.split(r"\n*(^```.*?^```$)\n*|\n\n+", text, flags=re.DOTALL | re.MULTILINE):
        if not part or not part.strip():
            continue
        if part.startswith("```"):
            yield "\n".join(f"    {line}" for line in part.splitlines()[1:-1])
        elif part.startswith(("- ", "|", "1. ", " ")):
            yield part
        else:
            yield " ".join(part.split())


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
