"""The events of a YAML file: from libyaml where the file is plain, for it takes a thirtieth of the time, else from ruamel.yaml.

ruamel.yaml says what is YAML 1.2 and what is wrong with a file. libyaml is only asked where both agree to the last column
(a property test compares them), and what it refuses is read by the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_UNLIKE: Final = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"  # tabs, other line breaks
    r"|(?<![^\s,\[{])\?(?=\s)"  # keys that begin with '?'
    r"|(?<!\S)-\ *(?:\#.*)?$"  # items of a list that may be empty, and then are placed otherwise
    r"|[|>][-+0-9]*\#"  # blocks of text: what may stand behind the sign
    r"|^(?:\ *[|>]|\ +$|%|---|\.\.\.)",  # and lines of blanks, which are indented too deep to one of them only
    re.MULTILINE | re.VERBOSE,
)


@dataclass(slots=True)
class Event:
    """One step through a file; lines and columns count from 0."""

    kind: str
    """Scalar, Alias, SequenceStart, SequenceEnd, MappingStart, MappingEnd, or one of DocumentStart and others without a value."""
    line: int
    column: int
    end_line: int
    end_column: int
    value: str = ""
    style: str | None = None
    """The quote or sign that a text begins with; None for a plain one."""
    anchor: str | None = None
    tag: str | None = None


def events(text: str) -> Iterator[Event]:
    """Give the events of a text. Raises ruamel.yaml's `MarkedYAMLError` and `ReaderError`."""
    quick = _libyaml(text) if is_plain(text) else None
    return iter(quick) if quick is not None else _ruamel(text)


def is_plain(text: str) -> bool:
    """Say whether the text has nothing in it that the two parsers are known to read otherwise."""
    return text.endswith("\n") and _UNLIKE.search(text) is None


def _libyaml(text: str) -> list[Event] | None:
    """Give the events; None where libyaml is not there or refuses the text, and for tags and anchors: it reads them otherwise."""
    try:
        from yaml import CBaseLoader, YAMLError  # type: ignore[import-untyped]  # noqa: PLC0415 - PyYAML may be built without it
    except ImportError:
        return None
    loader = CBaseLoader(text)
    found = []
    try:
        while loader.check_event():
            event = _event(loader.get_event())
            if event.tag or event.anchor:
                return None
            found.append(event)
    except YAMLError:
        return None
    finally:
        loader.dispose()
    return found


def _ruamel(text: str) -> Iterator[Event]:
    from ruamel.yaml import YAML  # noqa: PLC0415 - seldom needed

    return map(_event, YAML(typ="safe", pure=True).parse(text))


def _event(event: Any) -> Event:
    start, end = event.start_mark, event.end_mark
    made = Event(type(event).__name__.removesuffix("Event"), start.line, start.column, end.line, end.column)
    made.anchor = getattr(event, "anchor", None) or None
    made.tag = getattr(event, "tag", None) or None
    if made.kind == "Scalar":
        made.value, made.style = event.value, event.style or None
    return made
