"""What options put at places of a message: constants, and what templates make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator

from pipeline.errors import PermanentError
from pipeline.paths import MessagePath
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
    for path, value in values.items():
        if path.field != "data" and isinstance(value, (list, dict)):
            raise ValueError(f"{path}: a text is expected; lists and mappings are for places in data")
    return values


_plain = PlainSerializer(lambda value: value.text if isinstance(value, Template) else value)

Value = Annotated[Any, PlainValidator(_reader(Template)), _plain]
"""A template, or a constant: what `set` puts somewhere."""
ItemValue = Annotated[Any, PlainValidator(_reader(ItemTemplate)), _plain]
"""As `Value`; its template sees `item` and `index` as well."""
Fitting = AfterValidator(_fitting)
"""Refuses lists and mappings where a message has a text: for options that are mappings of paths to values."""


def rendered(path: MessagePath, render: Callable[[], str]) -> str:
    """Give the text that a template makes for a place: on one line, but in `text` and `data`. The error names the place."""
    try:
        text = render()
    except PermanentError as error:
        raise PermanentError(f"{path}: {error}") from None
    return text if path.field in ("text", "data") else " ".join(text.split())
