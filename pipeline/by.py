"""By which fields messages belong together: `by: [labels.alertname, severity]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pipeline.message import Message

ALL_LABELS: Final = "..."
"""Stands for every label a message has, as in Alertmanager's `group_by`."""
KEY_OF_ALL: Final = "[]"
"""The key of all messages, where no names are given."""

_FIELDS: Final = ("source", "type", "title", "text", "severity", "status", "key", "url")
_EXPECTED: Final = f"one of {', '.join(_FIELDS)}, a label such as labels.team, or '{ALL_LABELS}' for all labels is expected"
_MAKE_A_LABEL: Final = "`by` has fields and labels; `set` makes a label of it: labels.order: '{{ data.order.id }}'"
_LABEL: Final = re.compile(r"labels\.(.+)", re.DOTALL)


class By:
    """Names of fields and labels, usable as the type of a plugin's option. Messages in whose values they agree belong together.

    In YAML a list of names, or one name: fields of `Message` that are texts, `labels.NAME`, `...` for all labels. Without any,
    all messages belong together. A label that a message lacks counts as "".
    """

    def __init__(self, *names: str) -> None:
        """Read the names; raises ValueError for one that is none."""
        for name in names:
            if name not in _FIELDS and name != ALL_LABELS and not _LABEL.fullmatch(name):
                raise ValueError(_MAKE_A_LABEL if name.startswith(("data.", "data[")) else _EXPECTED)
        self.names = tuple(dict.fromkeys(names))
        self._parts = tuple((name, found[1] if (found := _LABEL.fullmatch(name)) else None) for name in self.names)

    def __str__(self) -> str:
        return f"[{', '.join(self.names)}]"

    def __repr__(self) -> str:
        return f"By{self.names!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, By) and other.names == self.names

    def __hash__(self) -> int:
        return hash(self.names)

    def values(self, message: Message) -> dict[str, str]:
        """Give the values by name, labels as `labels.NAME`, in the order in which they are named; all labels in that of names."""
        found: dict[str, str] = {}
        for name, label in self._parts:
            if name == ALL_LABELS:
                found |= {f"labels.{one}": message.labels[one] for one in sorted(message.labels)}
            else:
                found[name] = getattr(message, name) if label is None else message.labels.get(label, "")
        return found

    def key(self, message: Message) -> str:
        """Give a text that is the same for messages that belong together, and for no others."""
        return msgspec.json.encode(
            list(self.values(message).items()) if ALL_LABELS in self.names else [*self._only(message)]
        ).decode()

    def _only(self, message: Message) -> list[str]:
        return [getattr(message, name) if label is None else message.labels.get(label, "") for name, label in self._parts]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        texts = core_schema.list_schema(core_schema.str_schema())
        one = core_schema.no_info_after_validator_function(lambda name: [name], core_schema.str_schema())
        read = core_schema.no_info_after_validator_function(_read, core_schema.union_schema([texts, one]))
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda by: list(by.names)),
        )


def _read(names: Sequence[str]) -> By:
    return By(*names)
