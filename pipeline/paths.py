"""Places in a message by name, as options have them: `severity`, `labels.team`, `data.order.items[0].name`; and their change."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final

import msgspec
from pydantic import AfterValidator, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pipeline.compiled import Compiled
from pipeline.errors import PermanentError
from pipeline.message import FIELDS, Message
from pipeline.payload import read_field, read_steps, value_at
from pipeline.plugin import Config

_EMPTY: Final = frozenset({"title", "text", "severity", "key", "url"})
"""The fields that may be empty."""
_PATTERN: Final = rf"^({'|'.join(FIELDS)}|labels\..+|data[.\[].+)$"


class MessagePath(Compiled):
    """A place in a message, usable as the type of a plugin's option: a field, `labels.NAME`, or `data.PATH`.

    What follows `labels.` is a label's name, dots and all. A path into `data` has the names of an object's members and, in
    brackets, the numbers of a list's elements, from 0; a name that has a dot or a bracket in it cannot be reached.
    """

    about = "A place in a message: a field such as `severity`, `labels.NAME`, or `data.PATH`."
    min_length = 1

    def __init__(self, text: str) -> None:
        """Read; raises ValueError that says what is expected."""
        super().__init__(text)
        found = re.match(r"[^.\[]*", text)
        self.field = found[0] if found else ""
        """The field that it is, or lies in."""
        rest = text[len(self.field) :]
        if self.field not in FIELDS or (rest and self.field not in ("labels", "data")):
            raise ValueError(_unknown(text))
        if self.field == "labels" and rest and (not rest[1:] or rest[0] != "."):
            raise ValueError("a label such as labels.team is expected")
        self.label = rest[1:] if self.field == "labels" and rest else None
        """The label's name; None where it is none."""
        self.steps = read_steps(rest) if self.field == "data" else ()
        """The way into the payload: names of members, numbers of elements."""

    def __str__(self) -> str:
        return self.text

    @property
    def is_part(self) -> bool:
        """Whether it is a label, or a place in the payload."""
        return self.label is not None or bool(self.steps)

    def value(self, message: Message) -> Any:
        """Give what is there; None where there is nothing."""
        if self.label is not None:
            return message.labels.get(self.label)
        value = getattr(message, self.field)
        return value_at(value, self.steps) if self.steps else value

    def within(self, payload: Any) -> Any:
        """Give what is there in another payload than a message's, such as an element of a list; None where there is nothing."""
        return value_at(payload, self.steps)

    def text_of(self, message: Message) -> str:
        """Give what is there as a text: "" where there is nothing, objects and lists as JSON."""
        value = self.value(message)
        if value is None or isinstance(value, str):
            return value or ""
        return value.isoformat() if isinstance(value, datetime) else msgspec.json.encode(value).decode()


def _unknown(name: str) -> str:
    close = get_close_matches(name.partition(".")[0], FIELDS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "a label is written as labels.NAME, a part of the payload as data.PATH"
    return f"no field of a message is called so; {hint}"


def _changeable(path: MessagePath) -> MessagePath:
    if path.field == "id":
        raise ValueError("a message keeps its id")
    if path.field in ("labels", "data") and not path.is_part:
        raise ValueError(f"a part of it is expected, such as {'labels.team' if path.field == 'labels' else 'data.order.id'}")
    return path


def _removable(path: MessagePath) -> MessagePath:
    if path.field not in _EMPTY and path.field not in ("labels", "data"):
        raise ValueError(f"a message always has one: what may be empty is {', '.join(sorted(_EMPTY))}, labels and data")
    return path


def _emptiable(path: MessagePath) -> MessagePath:
    return _removable(_changeable(path))


ChangeablePath = Annotated[MessagePath, AfterValidator(_changeable)]
"""A place whose value can be another: any field but `id`, a label, a place in `data`."""
EmptiablePath = Annotated[MessagePath, AfterValidator(_emptiable)]
"""A `ChangeablePath` at which there may be nothing."""
RemovablePath = Annotated[MessagePath, AfterValidator(_removable)]
"""As `EmptiablePath`; all labels (`labels`) and the whole payload (`data`) as well."""


class Draft:
    """A message that is about to be changed: any number of changes, and one copy in the end. The message stays as it is."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._changes: dict[str, Any] = {}

    def value(self, path: MessagePath) -> Any:
        """Give what is at the place now; None where there is nothing."""
        if path.label is not None:
            labels: Mapping[str, str] = self._now("labels")
            return labels.get(path.label)
        return value_at(self._now(path.field), path.steps)

    def write(self, path: MessagePath, value: Any) -> None:
        """Put a value at a `ChangeablePath`, read as producers read theirs: `WARN` is the severity warning, 7 the text "7".

        Objects on the way into the payload are made where there are none. Raises `PermanentError`, which names the place, for
        what cannot be there, and for a way that leads through something else than objects and elements that are there.
        """
        try:
            if path.label is not None:
                self._changes["labels"] = {**self._now("labels"), path.label: read_field("labels", value)}
            elif path.steps:
                self._changes["data"] = _with(self._now("data"), path.steps, value)
            else:
                self._changes[path.field] = read_field(path.field, value)
        except ValueError as error:
            raise PermanentError(f"{path}: {error}") from None

    def remove(self, *paths: MessagePath) -> None:
        """Leave nothing at `RemovablePath`s; elements of lists go, and those behind them move up after all have gone."""
        for path in sorted({*paths}, key=_place_in_lists, reverse=True):
            if path.label is not None:
                labels: Mapping[str, str] = self._now("labels")
                if path.label in labels:
                    self._changes["labels"] = {name: text for name, text in labels.items() if name != path.label}
            elif path.steps:
                data = self._now("data")
                if _is_there(data, path.steps):
                    self._changes["data"] = _without(data, path.steps)
            elif self._now(path.field):
                self._changes[path.field] = {"labels": {}, "data": None}.get(path.field, "")

    def done(self) -> Message:
        """Give the message with all changes: itself where there were none."""
        return self._message.replace(**self._changes) if self._changes else self._message

    def _now(self, field: str) -> Any:
        if field not in self._changes and field == "data":
            return self._data
        return self._changes[field] if field in self._changes else getattr(self._message, field)

    @cached_property
    def _data(self) -> Any:
        return self._message.data  # read anew at each look


def _with(there: Any, steps: Sequence[str | int], value: Any) -> Any:
    """Give a copy of a payload that has a value at the end of a way; raises ValueError where the way is blocked."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if not isinstance(there, list) or step >= len(there):
            raise ValueError(f"there is no list with an element [{step}]")
        return [_with(inner, rest, value) if index == step else inner for index, inner in enumerate(there)]
    if there is not None and not isinstance(there, dict):
        raise ValueError(f"what should have a member '{step}' is no object")
    own = there or {}
    return {**own, step: _with(own.get(step), rest, value)}


def _place_in_lists(path: MessagePath) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (-1, step) for step in path.steps]


def _is_there(data: Any, steps: Sequence[str | int]) -> bool:
    parent, last = value_at(data, steps[:-1]), steps[-1]
    if isinstance(last, int):
        return isinstance(parent, list) and last < len(parent)
    return isinstance(parent, dict) and last in parent


def _without(there: Any, steps: Sequence[str | int]) -> Any:
    """Give a copy of a payload without what a way leads to, which is there."""
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if rest:
            return [_without(inner, rest) if index == step else inner for index, inner in enumerate(there)]
        return [inner for index, inner in enumerate(there) if index != step]
    if rest:
        return {**there, step: _without(there[step], rest)}
    return {name: inner for name, inner in there.items() if name != step}


class PathsConfig(Config):
    """Options among which places of a message may stand, as entries of the option `rest`.

    `set: {severity: critical}` is `set: {fields: {severity: critical}}`.
    """

    rest: ClassVar[str] = "fields"

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        own = {field.alias or name for name, field in cls.model_fields.items()}
        places = {name: inner for name, inner in value.items() if name not in own and _looks_like_a_place(name, own)}
        if not places:
            return value
        listed = value.get(cls.rest, {})
        if not isinstance(listed, Mapping) or not places.keys().isdisjoint(listed):
            raise ValueError(f"what stands beside '{cls.rest}' may not stand in it as well")
        return {name: inner for name, inner in value.items() if name not in places} | {cls.rest: {**listed, **places}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        model = handler.resolve_ref_schema(made)
        if (values := model["properties"][cls.rest].get("additionalProperties")) is not None:
            model["patternProperties"] = {_PATTERN: values}
        return made


def _looks_like_a_place(name: Any, options: Collection[str]) -> bool:
    """Say whether an unknown option is meant as a place: then what is wrong with it is told as of one."""
    if not isinstance(name, str):
        return False
    field, dot, _ = name.partition(".")
    return (
        bool(dot)
        or field.partition("[")[0] in FIELDS
        or (not get_close_matches(name, options, n=1) and bool(get_close_matches(name, FIELDS, n=1)))
    )
