"""Reads a YAML file into a tree of values, each with its place: YAML 1.2, one document, no duplicate keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.spec.copies import origin_of
from pipeline.spec.events import Event, events
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
_VALUES: Final = frozenset({"Scalar", "Alias", "SequenceStart", "MappingStart"})
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
        found = events(text)
        root: Node | None = None
        documents = 0
        for event in found:
            if event.kind == "DocumentStart":
                documents += 1
                if documents > 1:
                    self.refuse(event, "a second document begins here", "one pipeline per file")
            elif event.kind in _VALUES:
                root = self.node(event, found, 0)
        return root

    def node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        self.size += 1
        if depth > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if event.kind == "Alias":
            return self.alias(event)
        node: Node
        if event.kind == "Scalar":
            node = self.scalar(event)
        elif event.kind == "SequenceStart":
            node = self.sequence(event, events, depth)
        else:
            node = self.mapping(event, events, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: Event) -> Node:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            self.refuse(event, f"no value before this one bears the anchor '&{event.anchor}'")
        self.size += sum(1 for _ in node.all())
        if self.size > MAX_VALUES:
            self.refuse(event, f"with this alias the file has more than {MAX_VALUES} values")
        return node

    def sequence(self, start: Event, events: Iterator[Event], depth: int) -> Items:
        self.refuse_tag(start, "seq")
        node = Items(self.place(start))
        for event in events:
            if event.kind == "SequenceEnd":
                node.place = _until(node.place, start, event)
                break
            node.items.append(self.node(event, events, depth + 1))
        return node

    def mapping(self, start: Event, events: Iterator[Event], depth: int) -> Mapping:
        self.refuse_tag(start, "map")
        node = Mapping(self.place(start))
        merged: list[Node] = []
        for event in events:
            if event.kind == "MappingEnd":
                node.place = _until(node.place, start, event)
                break
            if event.kind != "Scalar":
                self.refuse(event, "a key is a plain text")
            place, key = self.place(event), event.value
            value = self.node(next(events), events, depth + 1)
            if isinstance(value, Scalar) and value.value is None and not value.written:
                value.place = place
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

    def scalar(self, event: Event) -> Scalar:
        text = event.value
        place = self.place(event)
        value = _resolve(text) if event.style is None and not event.tag else text
        if event.tag and event.tag != "!":
            value = self.tagged(event, text)
        line = self.source.lines[place.line - 1] if place.line <= len(self.source.lines) else ""
        shown = line[place.column - 1 : place.column - 1 + place.width]
        one_line = event.line == event.end_line
        exact = one_line and event.style in (None, "'", '"') and (shown == text or shown[1:-1] == text)
        return Scalar(place, value=value, written=value, exact=exact)

    def tagged(self, event: Event, text: str) -> Any:
        name = str(event.tag).removeprefix(_STANDARD_TAG)
        value = text if name == "str" else _resolve(text)
        kinds: dict[str, type] = {"str": str, "int": int, "bool": bool, "float": float, "null": type(None)}
        if name not in kinds or type(value) is not kinds[name]:
            self.refuse_tag(event, "str")
        return value

    def refuse_tag(self, event: Event, usual: str) -> None:
        if event.tag and event.tag not in ("!", f"{_STANDARD_TAG}{usual}"):
            self.refuse(event, "a tag has no meaning here", "remove the word that begins with '!'")

    def refuse(self, event: Event, text: str, hint: str = "") -> NoReturn:
        self.problems.error(self.place(event), text, hint)
        raise _RefusedError

    def place(self, event: Event) -> Place:
        """Give an event's place: to its end, or to the end of its first line where it goes on."""
        line = self.source.lines[event.line] if event.line < len(self.source.lines) else ""
        one_line = event.line == event.end_line and event.kind == "Scalar"
        stop = event.end_column if one_line else len(line.rstrip())
        return Place(self.source, event.line + 1, event.column + 1, max(1, stop - event.column))


def _until(place: Place, start: Event, end: Event) -> Place:
    """Give the place of a list or mapping: all of it where it ends in the line in which it begins."""
    if start.line != end.end_line:
        return place
    return replace(place, width=max(1, end.end_column - start.column))


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
