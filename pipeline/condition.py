"""Conditions over a message: CEL, compiled once, handed only the fields it names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import GetJsonSchemaHandler
from pydantic_core import core_schema

from pipeline.message import FIELDS, Message

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

_ERROR: Final = re.compile(r"ERROR: <input>:\d+:(?P<column>\d+): (?:Syntax error: )?(?P<text>.*)")


class Condition:
    """A CEL expression over the fields of `Message`, usable as the type of a plugin's option.

    A condition that reads something the message lacks (`labels.team` where there is no such label), or compares
    what cannot be compared, does not hold: use `has(labels.team)` to ask first.
    """

    def __init__(self, text: str) -> None:
        """Compile; raises ValueError, with the column counted from 1, for what is not CEL or names an unknown field."""
        import cel  # noqa: PLC0415 - the import takes half a second, which a command without conditions need not wait for

        self.text = text
        try:
            self._program = cel.compile(text)
        except ValueError as error:
            raise ValueError(_readable(text, str(error))) from None
        self.names = tuple(sorted(self._program.variables()))
        for name in self.names:
            if name not in FIELDS:
                raise ValueError(f"no field of a message is called '{name}'; there are {', '.join(FIELDS)}")

    def matches(self, message: Message) -> bool:
        """Say whether the condition holds for the message. Never raises for a message's sake."""
        try:
            return self._program.execute({name: getattr(message, name) for name in self.names}) is True
        except (ValueError, TypeError, KeyError, RuntimeError):
            return False

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        compiled = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.json_or_python_schema(
            json_schema=compiled,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), compiled], mode="left_to_right"),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda condition: condition.text),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1, "description": "A CEL condition over the fields of a message."}


def _readable(text: str, error: str) -> str:
    found = _ERROR.search(error)
    if found is None:
        return f"not a condition: {text}"
    what = found["text"].replace("mismatched input '<EOF>'", "the condition ends too early:")
    return f"{text}: at column {found['column']}: {what}"
