"""What options put at places of a message: constants, and what templates make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator, ValidationError
from pydantic_core import InitErrorDetails

from pipeline.errors import PermanentError
from pipeline.paths import MessagePath
from pipeline.payload import read_field
from pipeline.template import ItemTemplate, Template


def _reader(kind: type[Template]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            return kind(value)
        if value is None:
            raise ValueError("a text, a number, true or false, a list or a mapping is expected; `remove` leaves nothing there")
        return value

    return read


def _fitting(values: dict[MessagePath, Any]) -> dict[MessagePath, Any]:
    """Raise what is wrong with each value at its own place."""
    wrong: list[InitErrorDetails] = []
    for path, value in values.items():
        try:
            _fit(path, value)
        except ValueError as error:
            wrong.append({"type": "value_error", "loc": (path.text,), "input": value, "ctx": {"error": error}})
    if wrong:
        raise ValidationError.from_exception_data("values", wrong)
    return values


def _fit(path: MessagePath, value: Any) -> None:
    if path.field == "data":
        return
    if isinstance(value, (list, dict)):
        raise ValueError("a text is expected; lists and mappings are for places in data")  # noqa: TRY004 - for pydantic
    if not isinstance(value, Template):
        read_field(path.field, value)
    elif "{" not in value.text:  # it is what it is for every message
        read_field(path.field, value.text)


_plain = PlainSerializer(lambda value: value.text if isinstance(value, Template) else value)

Value = Annotated[Any, PlainValidator(_reader(Template)), _plain]
"""A template, or a constant: what `set` puts somewhere."""
ItemValue = Annotated[Any, PlainValidator(_reader(ItemTemplate)), _plain]
"""As `Value`; its template sees `item` and `index` as well."""
Fitting = AfterValidator(_fitting)
"""Refuses constants that their places cannot have, such as lists in a title: for options that are mappings of paths to values."""


def rendered(path: MessagePath, render: Callable[[], str]) -> str:
    """Give the text that a template makes for a place: on one line, but in `text` and `data`. The error names the place."""
    try:
        text = render()
    except PermanentError as error:
        raise PermanentError(f"{path}: {error}") from None
    return text if path.field in ("text", "data") else " ".join(text.split())
