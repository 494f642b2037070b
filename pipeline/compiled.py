"""Options that are written as text and compiled when they are read, so that a mistake in one has its place in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import GetJsonSchemaHandler
from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic.json_schema import JsonSchemaValue


class Compiled:
    """A value made of a text, usable as the type of a plugin's option; `__init__` raises ValueError that says what is wrong.

    Immutable: it may be shared, and a copy of it is itself. Two of the same class and text are equal.
    """

    about: ClassVar[str]
    """What the text is, for the JSON Schema."""
    min_length: ClassVar[int] = 0

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and type(other) is type(self) and other.text == self.text

    def __hash__(self) -> int:
        return hash((type(self), self.text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Any) -> Self:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        compiled = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=cls.min_length))
        return core_schema.json_or_python_schema(
            json_schema=compiled,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), compiled], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.text),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        least = {"minLength": cls.min_length} if cls.min_length else {}
        return {"type": "string", "description": cls.about} | least
