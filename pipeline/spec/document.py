"""Reads a YAML file into a tree of values, each with its place: YAML 1.2, one document, no duplicate keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent
from ruamel.yaml.reader import ReaderError

from pipeline.spec.copies import origin_of
from pipeline.spec.problems import Place, Problems, Source
from pipeline.spec.tree import Entry, Items, Mapping, Node, Scalar

MAX_DEPTH: Final = 32
"""How deep the lists and mappings of a file may nest."""
MAX_VALUES: Final = 100_000
"""How many values a file may have, each use of an alias counted anew."""

_BREAK: Final = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
_INT: Final = re.compile(r"[-+]?[0-9]+")
_OTHER_INT: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STANDARD_TAG: Final = "tag:yaml.org,2002:"


class _RefusedError(Exception):
    """The file cannot be read as a tree; the problem is already told."""


def read(path: Path, problems: Problems) -> Node | None:
    """Read a file; None where it cannot be read, after its problems were told."""
    shown = origin_of(path)
    source = Source(shown)
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.error(Place(source), f"cannot be read: {error.strerror}")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig", "replace")
        source = Source(shown, tuple(_BREAK.split(data.decode("utf-8-sig", "replace"))))
        problems.error(_at(source, before), f"this is not UTF-8: byte 0x{data[error.start]:02X}", "save the file as UTF-8")
        return None
    source = Source(shown, tuple(_BREAK.split(text)))
    try:
        return _Builder(source, problems).build(text)
    except _RefusedError:
        return None
    except ReaderError as error:
        problems.error(
            _at(source, text[: error.position]), f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        )
    except MarkedYAMLError as error:
        problems.error(*_syntax(source, error))
    return None


def _at(source: Source, before: str) -> Place:
    lines = _BREAK.split(before)
    return Place(source, len(lines), len(lines[-1]) + 1)


def _syntax(source: Source, error: MarkedYAMLError) -> tuple[Place, str, str]:
    unclosed = "end of stream" in str(error.problem) and "quoted" in str(error.context)
    mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    line = min(line, len(source.lines))
    text = str(error.problem or error.context or "this is not YAML")
    hint = ""
    if unclosed:
        text = "this quoted text has no end"
    elif "'\\t'" in text:
        text, hint = "a tab cannot indent YAML", "use spaces"
    elif "mapping values are not allowed" in text:
        text, hint = "': ' starts a value here, inside another value", "put the whole text in quotes"
    elif "cannot start any token" in text:
        text, hint = text.removeprefix("found ").replace("any token", "a value"), "put the text in quotes"
    elif "<block end>" in text:
        text, hint = "this line does not belong to the block above it", "does its indentation match?"
    elif error.context_mark is not None and error.context:
        hint = f"{error.context}, which began in line {error.context_mark.line + 1}"
    return Place(source, line, column), text, hint


class _Builder:
    """Makes the tree of the parser's events."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source = source
        self.problems = problems
        self.anchors: dict[str, Node] = {}
        self.size = 0

    def build(self, text: str) -> Node | None:
        events = YAML(typ="safe", pure=True).parse(text)
        root: Node | None = None
        documents = 0
        for event in events:
            if type(event).__name__ == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    self.refuse(event, "a second document begins here", "one pipeline per file")
            elif isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent | AliasEvent):
                root = self.node(event, events, 0)
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        self.size += 1
        if depth > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            return self.alias(event)
        anchor = event.anchor
        node: Node
        if isinstance(event, ScalarEvent):
            node = self.scalar(event)
        elif isinstance(event, SequenceStartEvent):
            node = self.sequence(event, events, depth)
        else:
            node = self.mapping(event, events, depth)
        if anchor:
            self.anchors[anchor] = node
        return node

    def alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            self.refuse(event, f"no value before this one bears the anchor '&{event.anchor}'")
        node = self.anchors[event.anchor]
        self.size += sum(1 for _ in node.all())
        if self.size > MAX_VALUES:
            self.refuse(event, f"with this alias the file has more than {MAX_VALUES} values")
        return node

    def sequence(self, start: Any, events: Iterator[Any], depth: int) -> Items:
        self.refuse_tag(start, "seq")
        node = Items(self.place(start))
        for event in events:
            if isinstance(event, SequenceEndEvent):
                node.place = _until(node.place, start, event)
                break
            node.items.append(self.node(event, events, depth + 1))
        return node

    def mapping(self, start: Any, events: Iterator[Any], depth: int) -> Mapping:
        self.refuse_tag(start, "map")
        node = Mapping(self.place(start))
        merged: list[Node] = []
        for event in events:
            if isinstance(event, MappingEndEvent):
                node.place = _until(node.place, start, event)
                break
            if not isinstance(event, ScalarEvent):
                self.refuse(event, "a key is a plain text")
            place, key = self.place(event), event.value
            value = self.node(next(events), events, depth + 1)
            if key == "<<" and event.style is None:
                merged += value.items if isinstance(value, Items) else [value]
            elif key in node.entries:
                first = node.entries[key].key
                self.problems.error(place, f"'{key}' stands here twice", f"first in line {first.line}")
            else:
                node.entries[key] = Entry(place, value)
        self.merge(node, merged)
        return node

    def merge(self, node: Mapping, merged: list[Node]) -> None:
        for value in merged:
            if not isinstance(value, Mapping):
                self.problems.error(value.place, "'<<' takes a mapping")
                continue
            for key, entry in value.entries.items():
                node.entries.setdefault(key, entry)

    def scalar(self, event: Any) -> Scalar:
        text = event.value
        place = self.place(event)
        value = _resolve(text) if event.style is None and not event.ctag else text
        if event.ctag and str(event.ctag) != "!":
            value = self.tagged(event, text)
        line = self.source.lines[place.line - 1] if place.line <= len(self.source.lines) else ""
        shown = line[place.column - 1 : place.column - 1 + place.width]
        one_line = event.start_mark.line == event.end_mark.line
        exact = one_line and event.style in (None, "'", '"') and (shown == text or shown[1:-1] == text)
        return Scalar(place, value=value, written=value, exact=exact)

    def tagged(self, event: Any, text: str) -> Any:
        name = str(event.ctag).removeprefix(_STANDARD_TAG)
        value = text if name == "str" else _resolve(text)
        kinds: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float, "null": type(None)}
        if name not in kinds or type(value) is not kinds[name]:
            self.refuse_tag(event, "str")
        return value

    def refuse_tag(self, event: Any, usual: str) -> None:
        if event.ctag and str(event.ctag) not in ("!", f"{_STANDARD_TAG}{usual}"):
            self.refuse(event, "a tag has no meaning here", "remove the word that begins with '!'")

    def refuse(self, event: Any, text: str, hint: str = "") -> None:
        self.problems.error(self.place(event), text, hint)
        raise _RefusedError

    def place(self, event: Any) -> Place:
        """Give an event's place: to its end, or to the end of its first line where it goes on."""
        start, end = event.start_mark, event.end_mark
        line = self.source.lines[start.line] if start.line < len(self.source.lines) else ""
        one_line = start.line == end.line and isinstance(event, ScalarEvent)
        stop = end.column if one_line else len(line.rstrip())
        return Place(self.source, start.line + 1, start.column + 1, max(1, stop - start.column))


def _until(place: Place, start: Any, end: Any) -> Place:
    """Give the place of a list or mapping: all of it where it ends in the line in which it begins."""
    if start.start_mark.line != end.end_mark.line:
        return place
    return replace(place, width=max(1, end.end_mark.column - start.start_mark.column))


def _resolve(text: str) -> Any:
    """Read a plain scalar as YAML 1.2's core schema does."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 4000 else text
    if _OTHER_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
