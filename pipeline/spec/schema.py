"""The format as JSON Schema, for editors and for CI: from the models that the loader itself validates with."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from pipeline.registry import KINDS, Kind, PluginError, Registry
from pipeline.spec.caseschema import case_definitions
from pipeline.spec.siblings import NAME, SIBLINGS, KeepOptions, PipelineKeys

INTERPOLATED: Final[dict[str, Any]] = {"type": "string", "pattern": r"\$\{"}
"""What may stand in place of any scalar."""

_NAME: Final[dict[str, Any]] = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_CONSTRAINTS: Final = ("pattern", "format", "minLength", "maxLength", "enum", "const")


def make_schema(registry: Registry | None = None) -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a pipeline's file, `siftbell.yaml` and files of tests, with all known plugins' options.

    Without a `registry`, the installed plugins are known. The options of one that cannot be imported are not checked.
    """
    registry = registry or Registry()
    definitions: dict[str, Any] = {"pipeline": _pipeline(), "shared": _shared(), **case_definitions()}
    for kind in KINDS:
        definitions |= _options_of_kind(kind, registry)
        definitions[kind] = _step(kind, registry, shared=False)
        definitions[f"shared-{kind}"] = _step(kind, registry, shared=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Siftbell: a pipeline, siftbell.yaml, or tests",
        "type": "object",
        "if": {"anyOf": [{"required": [key], "properties": {key: {"type": "object"}}} for key in (f"{kind}s" for kind in KINDS)]},
        "then": {"$ref": "#/$defs/shared"},
        "else": {
            "if": {"required": ["tests"]},
            "then": {"$ref": "#/$defs/tests.FileKeys"},
            "else": {"$ref": "#/$defs/pipeline"},
        },
        "$defs": definitions,
    }


def _pipeline() -> dict[str, Any]:
    lists: dict[str, dict[str, Any]] = {f"{kind}s": {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}} for kind in KINDS}
    lists["producers"] |= {"minItems": 1, "description": "Where messages come from."}
    lists["filters"] = {"anyOf": [lists["filters"], {"type": "null"}], "description": "What is done to them, in this order."}
    lists["consumers"] |= {"minItems": 1, "description": "Whom they are told to."}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["producers", "consumers"],
        "properties": {
            "name": _or_interpolated(_NAME | {"description": "The pipeline's name; else the file's name without '.yaml'."}),
            "description": {"type": "string", "description": "What the pipeline is for."},
            "keep": _keep(),
            **lists,
        },
    }


def _keep() -> dict[str, Any]:
    """Give the schema of `keep`: a duration alone, or a mapping."""
    options = KeepOptions.model_json_schema()
    alone = {key: value for key, value in options["properties"]["for"].items() if key not in ("title", "description")}
    mapping = {key: value for key, value in options.items() if key not in ("title", "description")}
    description = PipelineKeys.model_fields["keep"].description
    return {"anyOf": [_accepting(alone), _accepting(mapping)], "description": description}


def _shared() -> dict[str, Any]:
    def named(kind: Kind) -> dict[str, Any]:
        return {
            "type": ["object", "null"],
            "description": f"{kind.capitalize()}s that pipelines use by name: '- use: NAME'.",
            "propertyNames": _NAME,
            "additionalProperties": {"$ref": f"#/$defs/shared-{kind}"},
        }

    properties = {f"{kind}s": named(kind) for kind in KINDS}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _step(kind: Kind, registry: Registry, *, shared: bool) -> dict[str, Any]:
    """Give the schema of a step: a name alone, or a mapping with exactly one plugin and the engine's keys."""
    names = registry.names(kind)
    plugins = {name: {"$ref": f"#/$defs/{kind}.{name}"} for name in names}
    siblings = _siblings(kind)
    module_class = {"not": {"propertyNames": {"not": {"pattern": ":"}}}}
    choices: list[dict[str, Any]] = [_names(name, siblings) for name in names]
    choices.append(module_class)
    if shared:
        siblings = {key: value for key, value in siblings.items() if key != "as"}
    else:
        choices.append({"required": ["use"]})
        siblings["use"] = _or_interpolated(_NAME | {"description": f"The name of a shared {kind} of siftbell.yaml."})
    alone = {
        "anyOf": [{"enum": [name for name in names if _needs_nothing(kind, name, registry)]}, {"pattern": ":"}, INTERPOLATED]
    }
    mapping = {
        "type": "object",
        "properties": plugins | {key: _either(key, plugins, value) for key, value in siblings.items()},
        "patternProperties": {":": {}},
        "additionalProperties": False,
        "oneOf": choices,
    }
    return {"if": {"type": "string"}, "then": alone, "else": mapping}


def _either(key: str, plugins: dict[str, Any], sibling: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of a key: of the engine's, or of a plugin of the same name where options stand under it."""
    return {"if": {"type": "object"}, "then": plugins[key], "else": sibling} if key in plugins else sibling


def _names(name: str, siblings: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of a step that names this plugin."""
    required = {"required": [name]}
    return required | {"properties": {name: {"type": "object"}}} if name in siblings else required


def _siblings(kind: Kind) -> dict[str, Any]:
    model = SIBLINGS[kind]
    made = model.model_json_schema(ref_template=f"#/$defs/{kind}.siblings.{{model}}")
    inner = made.get("$defs", {})
    return {key: _accepting(_without_null(_inlined(value, inner))) for key, value in made["properties"].items()}


def _inlined(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Put the few models inside the siblings in place of their references."""
    choices = [definitions[item["$ref"].rpartition(".")[2]] if "$ref" in item else item for item in value.get("anyOf", [])]
    return value | ({"anyOf": choices} if choices else {})


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [item for item in value.get("anyOf", []) if item != {"type": "null"}]
    rest = {key: item for key, item in value.items() if key != "anyOf" and not (key == "default" and item is None)}
    if len(choices) == 1:
        return choices[0] | rest
    return rest | ({"anyOf": choices} if choices else {})


def _options_of_kind(kind: Kind, registry: Registry) -> dict[str, Any]:
    """Give the definitions of all options of a kind's plugins: `consumer.log`, and the models inside it."""
    found: dict[str, Any] = {}
    for name in registry.names(kind):
        key = f"{kind}.{name}"
        try:
            model = registry.find(kind, name).config_type
            made = model.model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")
        except (PluginError, PydanticInvalidForJsonSchema):
            found[key] = {}
            continue
        found |= {f"{key}.{inner}": _accepting(value) for inner, value in made.pop("$defs", {}).items()}
        found[f"{key}.options"] = _accepting(made)
        found[key] = _forms(key, model.shorthand, made)
    return found


def _forms(key: str, shorthand: str | None, made: dict[str, Any]) -> dict[str, Any]:
    """Give the forms that a plugin's options may have: a mapping, nothing, or the shorthand's value."""
    other: list[dict[str, Any]] = []
    if not made.get("required"):
        other.append({"type": "null"})
    if shorthand is not None and set(made.get("required", [])) <= {shorthand}:
        other.append(_accepting(made["properties"][shorthand]))
    rest: dict[str, Any] = {"anyOf": other} if other else {"type": "object"}
    return {"if": {"type": "object"}, "then": {"$ref": f"#/$defs/{key}.options"}, "else": rest}


def _needs_nothing(kind: Kind, name: str, registry: Registry) -> bool:
    try:
        model: type[BaseModel] = registry.find(kind, name).config_type
    except PluginError:
        return True
    return not any(field.is_required() for field in model.model_fields.values())


def _accepting(value: Any) -> Any:
    """Give a schema that also accepts `${…}` wherever a scalar stands."""
    if isinstance(value, list):
        return [_accepting(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = dict(value)
    for key in ("properties", "patternProperties"):
        if key in made:
            made[key] = {name: _accepting(inner) for name, inner in made[key].items()}
    for key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf", "prefixItems"):
        if key in made:
            made[key] = _accepting(made[key])
    return _or_interpolated(made) if _is_narrow_scalar(made) else made


def _is_narrow_scalar(value: dict[str, Any]) -> bool:
    if value.get("type") in ("integer", "number", "boolean") or "enum" in value or "const" in value:
        return True
    return value.get("type") == "string" and any(key in value for key in _CONSTRAINTS)


def _or_interpolated(value: dict[str, Any]) -> dict[str, Any]:
    words = {key: value[key] for key in ("title", "description", "default", "examples") if key in value}
    bare = {key: item for key, item in value.items() if key not in words}
    return words | {"anyOf": [bare, INTERPOLATED]}
