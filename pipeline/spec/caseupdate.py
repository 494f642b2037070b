"""Writes what was seen into a file of tests, in place of what was expected; all else in the file stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_WIDTH: Final = 130
_PLAIN: Final = re.compile(r"[+A-Za-z][\w .+/-]*")
_WORDS: Final = frozenset(("true", "false", "null", "True", "False", "Null", "TRUE", "FALSE", "NULL"))

Changes = Mapping[int, Sequence[tuple[tuple[str, ...], Any]]]
"""By the number of a test in its file: the keys of what is to be written, and the value."""


def update(path: Path, changes: Changes) -> None:
    """Change a file that `read_cases` could read. Comments inside of a value that is written anew go with it."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    root = YAML(typ="safe", pure=True).compose(text)
    tests = _value(root, "tests")
    assert isinstance(tests, SequenceNode)
    edits: list[_Edit] = []
    for index, values in changes.items():
        edits += _Editing(text).edits(tests.value[index], values)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


_Edit = tuple[int, int, str]
"""Where from, where to, and what stands there then."""


class _Editing:
    """Finds the changes of a text whose nodes are known."""

    def __init__(self, text: str) -> None:
        self._text = text

    def edits(self, test: MappingNode, values: Sequence[tuple[tuple[str, ...], Any]]) -> list[_Edit]:
        """Give the changes of one test."""
        edits: list[_Edit] = []
        missing: dict[MappingNode, dict[str, Any]] = {}
        for keys, value in values:
            inside = test
            if len(keys) > 1:
                section = _value(test, keys[0])
                if not isinstance(section, MappingNode) or not section.value:
                    missing.setdefault(test, {}).setdefault(keys[0], {})[keys[-1]] = value
                    continue
                inside = section
            if _key(inside, keys[-1]) is None:
                missing.setdefault(inside, {})[keys[-1]] = value
            else:
                edits.append(self._replaced(inside, keys[-1], value))
        for inside, entries in missing.items():
            edits += self._added(inside, entries)
        return edits

    def _added(self, inside: MappingNode, entries: Mapping[str, Any]) -> list[_Edit]:
        """Give the changes that add keys to a mapping; a key that is there without a value gets it."""
        there = [self._replaced(inside, key, value) for key, value in entries.items() if _key(inside, key) is not None]
        new = {key: value for key, value in entries.items() if _key(inside, key) is None}
        if inside.flow_style:
            end = inside.end_mark.index - 1
            return [*there, (end, end, "".join(f", {_flow(key)}:{_written(value, 0, flow=True)}" for key, value in new.items()))]
        indent, end = inside.value[0][0].start_mark.column, self._end(inside)
        lines = (f"\n{' ' * indent}{_flow(key)}:{_written(value, indent, flow=False)}" for key, value in new.items())
        return [*there, (end, end, "".join(lines))]

    def _replaced(self, inside: MappingNode, key: str, value: Any) -> _Edit:
        """Give the change of what stands behind a key's colon."""
        name = _key(inside, key)
        assert name is not None
        start = self._text.index(":", name.end_mark.index) + 1
        end = max(start, self._end(_value(inside, key)))
        return start, end, _written(value, name.start_mark.column, flow=bool(inside.flow_style))

    def _end(self, node: Node | None) -> int:
        """Give where a value ends: behind its last character that is no space; 0 where there is none."""
        if node is None or (isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index):
            return 0
        if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
            last = node.value[-1]
            if not isinstance(last, tuple):
                return self._end(last)
            return self._end(last[1]) or self._text.index(":", last[0].end_mark.index) + 1
        return len(self._text[: node.end_mark.index].rstrip())


def _written(value: Any, indent: int, *, flow: bool) -> str:
    """Write a value as it stands behind its key's colon; `indent` is the key's."""
    deeper = " " * (indent + 2)
    if flow or not isinstance(value, list | dict) or not value:
        return f" {_flow(value)}"
    if isinstance(value, dict):
        return "".join(f"\n{deeper}{_flow(key)}:{_written(inner, indent + 2, flow=False)}" for key, inner in value.items())
    return "".join(f"\n{deeper}- {_item(item, deeper)}" for item in value)


def _item(item: Any, indent: str) -> str:
    """Write an item of a list: on a line of its own, or where that is too long with a line for each key."""
    line = _flow(item)
    if len(indent) + 2 + len(line) <= _WIDTH or not isinstance(item, dict):
        return line
    return f"\n{indent}  ".join(f"{_flow(key)}: {_flow(value)}" for key, value in item.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _WORDS and not value.endswith(" "):
        return value
    return json.dumps(value, ensure_ascii=False)


def _value(node: Node, key: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _key(node: MappingNode, key: str) -> Node | None:
    return next((name for name, _ in node.value if name.value == key), None)
