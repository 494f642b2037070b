"""The JSON Schema of files of tests, from the models that their reader validates with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pipeline.spec.casekeys import CaseKeys, FailKeys, FileKeys, PayloadKeys, SpanKeys, StepKeys

_PREFIX = "tests."
_MODELS: tuple[type[BaseModel], ...] = (FileKeys, CaseKeys, StepKeys, PayloadKeys, FailKeys, SpanKeys)


def case_definitions() -> dict[str, Any]:
    """Give the definitions; a file of tests is `tests.FileKeys`."""
    found: dict[str, Any] = {}
    for model in _MODELS:
        made = model.model_json_schema(ref_template=f"#/$defs/{_PREFIX}{{model}}")
        inner = made.pop("$defs", {})
        found |= {f"{_PREFIX}{name}": _tidy(one) for name, one in {**inner, model.__name__: made}.items()}
    found[f"{_PREFIX}FileKeys"]["properties"]["tests"]["items"] = _ref(CaseKeys)
    case = found[f"{_PREFIX}CaseKeys"]["properties"]
    case["send"]["items"] = _ref(StepKeys)
    case["fail"]["additionalProperties"] = _one_or_several(_ref(FailKeys))
    for part in ("expect", "dropped", "dead_letters"):
        case[part] = {"type": ["object", "null"], "additionalProperties": _EXPECTED, "description": case[part]["description"]}
    step = found[f"{_PREFIX}StepKeys"]
    step["additionalProperties"] = {"anyOf": [_ref(PayloadKeys), {"type": "null"}]}
    return found


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{_PREFIX}{model.__name__}"}


def _one_or_several(one: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [one, {"type": "array", "items": one}]}


_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_WANTED = {"type": "object", "properties": {"at": {"anyOf": [{"type": "string"}, _ref(SpanKeys)]}}}
_EXPECTED = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"anyOf": [_SCALAR, _WANTED]}}]}


def _tidy(made: dict[str, Any]) -> dict[str, Any]:
    """Leave out titles, and what only says that a key may be missing."""
    made = {key: value for key, value in made.items() if key != "title"}
    properties = {name: _without_null(value) for name, value in made.get("properties", {}).items()}
    return made | ({"properties": properties} if properties else {})


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [one for one in value.get("anyOf", []) if one != {"type": "null"}]
    rest = {key: one for key, one in value.items() if key not in ("anyOf", "title") and not (key == "default" and one is None)}
    if len(choices) == 1:
        return choices[0] | rest
    return rest | ({"anyOf": choices} if choices else {})
