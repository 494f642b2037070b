"""Validates what stands in YAML with a pydantic model, and tells each error in our words at its place in the file."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from pipeline.files import DIRECTORY
from pipeline.networks import ANYWHERE, Networks
from pipeline.registry import did_you_mean, suggestion
from pipeline.secrecy import NETWORKS, REFUSED
from pipeline.spec.problems import Place, Problems
from pipeline.spec.siblings import RESERVED
from pipeline.spec.tree import Items, Mapping, Node, Scalar

M = TypeVar("M", bound=BaseModel)

_COLUMN: Final = re.compile(r"\bcolumn (\d+)")
_LINE: Final = re.compile(r"\bline (\d+)")
_SECRET_WORDS: Final = ("token", "secret", "password", "passphrase", "api_key", "authorization", "credentials")
_INSTALL: Final = re.compile(r'pip install "siftbell\[\w+\]"')
"""What to do where an extra is missing: its name may be that of a URL's scheme, and no secret."""
_IS_EXPECTED: Final = " is expected"
_EXPECTED: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "path_type": "a path",
    "url_parsing": "a URL such as https://example.com",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


def validate(
    model: type[M], node: Mapping, key: Place, subject: str, problems: Problems, networks: Networks = ANYWHERE
) -> M | None:
    """Make the model of a mapping, or tell why not; URLs have to lead to `networks`.

    `key` is the place for what is missing; `subject` (`consumer telegram`) begins the paths in the texts. The texts
    never repeat what came through interpolation or is a secret. None where anything in the mapping is wrong.
    """
    _mark_secrets(model, node)
    broken = any(inner.broken for inner in node.all())
    try:
        made = model.model_validate(node.plain(), context={NETWORKS: networks, DIRECTORY: key.source.path.parent})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        _Teller(model, node, key, subject, problems).tell(details)
        return None
    return None if broken else made


@dataclass(slots=True)
class _Found:
    """Where an error's location leads in the tree; `path` is the part of it that exists there."""

    node: Node
    key: Place
    path: list[str | int]


class _Teller:
    """Tells the errors of one mapping."""

    def __init__(self, model: type[BaseModel], node: Mapping, key: Place, subject: str, problems: Problems) -> None:
        self.model = model
        self.node = node
        self.key = key
        self.subject = subject
        self.problems = problems

    def tell(self, errors: list[ErrorDetails]) -> None:
        """Tell all errors; those of a union's branches become one."""
        texts: dict[tuple[Place, str], list[str]] = {}
        misspelt = [self.unknown(self.follow(error["loc"])) for error in errors if error["type"] == "extra_forbidden"]
        for error in _relevant(errors, misspelt):
            found = self.follow(error["loc"])
            if any(inner.broken for inner in found.node.all()) and error["type"] != "missing":
                continue
            if error["type"] == "missing":
                place, where, text = found.key, self.where([*found.path, error["loc"][-1]]), "required"
            else:
                text = _words(error) if _tells_nothing_of_it(error) else _without_private(_words(error), found.node)
                is_key = "[key]" in error["loc"]
                place, where = found.key if is_key else _shifted(found.node, text), self.where(found.path)
            known = texts.setdefault((place, where), [])
            if text not in known:
                known.append(text)
        for (place, where), words in texts.items():
            self.problems.error(place, f"{where}: {_joined(words)}")

    def unknown(self, found: _Found) -> str:
        """Tell of an option that does not exist, and give the hint."""
        known = [field.alias or name for name, field in _model_at(self.model, found.path[:-1]).model_fields.items()]
        hint = suggestion(str(found.path[-1]), known, none="it has none")
        if self.subject and len(found.path) == 1 and found.path[0] in RESERVED - {"use"}:
            hint = f"'{found.path[0]}' stands beside the plugin's name, on a line of its own"
        self.problems.error(found.key, f"{self.where(found.path[:-1])} has no option '{found.path[-1]}'", hint)
        return hint

    def where(self, path: list[str | int]) -> str:
        """Write a path: `consumer telegram.headers[0]`."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        return f"{self.subject}{text}" if self.subject else text.removeprefix(".")

    def follow(self, location: tuple[str | int, ...]) -> _Found:
        """Walk down as far as the tree goes; names of a union's branches are passed over."""
        found = _Found(self.node, self.key, [])
        for part in location:
            if isinstance(found.node, Mapping) and str(part) in found.node.entries:
                entry = found.node.entries[str(part)]
                found = _Found(entry.value, entry.key, [*found.path, str(part)])
            elif isinstance(found.node, Items) and isinstance(part, int) and part < len(found.node.items):
                item = found.node.items[part]
                found = _Found(item, item.place, [*found.path, part])
        if found.node is self.node:
            return _Found(Mapping(self.key, entries=self.node.entries), self.key, [])
        return found


def _relevant(errors: list[ErrorDetails], misspelt: list[str]) -> Iterator[ErrorDetails]:
    """Leave out what is told already, and the branch of a type that also takes an instance of itself."""
    branches = Counter(error["loc"][:-1] for error in errors)
    for error in errors:
        told = error["type"] == "extra_forbidden"
        named_otherwise = error["type"] == "missing" and f"did you mean '{error['loc'][-1]}'?" in misspelt
        instance = error["type"] == "is_instance_of" and branches[error["loc"][:-1]] > 1
        if not told and not named_otherwise and not instance:
            yield error


def _words(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("value_error", "assertion_error"):
        return " ".join(str(context.get("error", error["msg"])).split()) or "not accepted"
    if error["type"] in ("too_short", "too_long") and context.get("field_type") == "Dictionary":
        return _EXPECTED[error["type"]].replace("list", "mapping").format(**context) + _IS_EXPECTED
    if context.get("expected") == "True":
        return "true" + _IS_EXPECTED
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]].format(**context) + _IS_EXPECTED
    text = error["msg"].removeprefix("Input should be ")
    return text + _IS_EXPECTED if text != error["msg"] else text[:1].lower() + text[1:]


def _joined(texts: list[str]) -> str:
    if all(text.endswith(_IS_EXPECTED) for text in texts):
        return " or ".join(text.removesuffix(_IS_EXPECTED) for text in texts) + _IS_EXPECTED
    return "; or ".join(texts)


def _tells_nothing_of_it(error: ErrorDetails) -> bool:
    """Say whether a text surely holds nothing of the value: it stands in the code that raised it as it is."""
    raised = error.get("ctx", {}).get("error")
    frames = traceback.walk_tb(raised.__traceback__) if isinstance(raised, ValueError) else ()
    return error["type"] == REFUSED or any(str(raised) in frame.f_code.co_consts for frame, _ in frames)


def _without_private(text: str, node: Node) -> str:
    """Give the text, or one that says less where it shares a word with a private value."""
    own = _INSTALL.sub("", text)
    words = set(re.findall(r"\w+", own.casefold()))
    for value in _private(node):
        if value in own or words & set(re.findall(r"\w+", value.casefold())):
            return "its value is not accepted (not shown, as it may be a secret)"
    return text


def _private(node: Node) -> Iterator[str]:
    for inner in node.all():
        if isinstance(inner, Scalar):
            yield from inner.private


def _shifted(node: Node, text: str) -> Place:
    """Give the place that a text's `column N` means, where the value stands in the file as it is."""
    column, line = _COLUMN.search(text), _LINE.search(text)
    if not isinstance(node, Scalar) or node.private or column is None or (line is not None and int(line[1]) > 1):
        return node.place
    return node.column(int(column[1]))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _is_secret(annotation: Any) -> bool:
    return annotation in (SecretStr, SecretBytes) or any(_is_secret(part) for part in get_args(annotation))


def _model_at(model: type[BaseModel], path: list[str | int]) -> type[BaseModel]:
    """Give the model that a path into another one leads to."""
    for part in path:
        for name, field in model.model_fields.items():
            if part == (field.alias or name):
                model = next(_models(field.annotation), model)
    return model


class _Fields(NamedTuple):
    """What there is to know of a model's fields, by the names that stand in YAML."""

    names: tuple[str, ...]
    secret: frozenset[str]
    models: dict[str, tuple[type[BaseModel], ...]]


@lru_cache(maxsize=1000)
def _fields(model: type[BaseModel]) -> _Fields:
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    secret = frozenset(name for name, annotation in fields.items() if _is_secret(annotation))
    models = {name: found for name, annotation in fields.items() if (found := tuple(_models(annotation)))}
    return _Fields(tuple(fields), secret, models)


def _mark_secrets(model: type[BaseModel], node: Node) -> None:
    """Note the values of secret fields: they are masked where their line is shown, and never repeated."""
    if isinstance(node, Items):
        for item in node.items:
            _mark_secrets(model, item)
    if not isinstance(node, Mapping):
        return
    fields = _fields(model)
    for key, entry in node.entries.items():
        meant = "" if key in fields.names else did_you_mean(key, fields.names)
        if key in fields.secret or any(f"'{name}'" in meant for name in fields.secret):
            _hide(entry.value)
        for inner in fields.models.get(key, ()):
            _mark_secrets(inner, entry.value)


def hide_suspects(node: Node) -> None:
    """Note the values whose keys sound like secrets, where no model can tell: those of an unknown plugin."""
    for key, entry in node.entries.items() if isinstance(node, Mapping) else ():
        if did_you_mean(key, _SECRET_WORDS):
            _hide(entry.value)
    for child in node.children():
        hide_suspects(child)


def _hide(node: Node) -> None:
    for inner in node.all():
        if isinstance(inner, Scalar) and inner.value is not None:
            place = inner.place
            place.source.secrets.add((place.line, place.column, place.column + place.width - 1))
            inner.private += (str(inner.value),)
