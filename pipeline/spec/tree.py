"""The tree of a file's values: each with its place, as it was written, and as it reads after interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.spec.problems import Place


@dataclass(slots=True, eq=False)
class Node:
    """A value with its place. `broken` is set where an error was found in it, so that no other follows from that one."""

    place: Place
    broken: bool = False

    def plain(self) -> Any:
        """Give the value as Python has it."""
        raise NotImplementedError

    def raw(self) -> Any:
        """Give the value as it was written: before interpolation."""
        raise NotImplementedError

    def children(self) -> Iterator[Node]:
        """Give the values directly in this one."""
        return iter(())

    def all(self) -> Iterator[Node]:
        """Give this value and all values in it."""
        yield self
        for child in self.children():
            yield from child.all()


@dataclass(slots=True, eq=False)
class Scalar(Node):
    """A text, number, boolean or null."""

    value: Any = None
    written: Any = None
    exact: bool = False
    """Whether the text stands in the file just as it is, so that its columns can be counted there."""
    private: tuple[str, ...] = ()
    """What came from the environment or the secrets directory: never to be shown."""

    def plain(self) -> Any:
        """Give the value as Python has it."""
        return self.value

    def raw(self) -> Any:
        """Give the value as it was written: before interpolation."""
        return self.written

    def column(self, number: int, width: int = 1) -> Place:
        """Give the place of a character of the text, counted from 1, where that is known; else of the whole value."""
        if not self.exact or not isinstance(self.written, str) or number > len(self.written) + 1:
            return self.place
        quote = len(self.written) + 2 == self.place.width
        return Place(self.place.source, self.place.line, self.place.column + quote + number - 1, width)


@dataclass(slots=True, eq=False)
class Items(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)

    def plain(self) -> Any:
        """Give the value as Python has it."""
        return [item.plain() for item in self.items]

    def raw(self) -> Any:
        """Give the value as it was written: before interpolation."""
        return [item.raw() for item in self.items]

    def children(self) -> Iterator[Node]:
        """Give the values directly in this one."""
        return iter(self.items)


@dataclass(slots=True, eq=False)
class Entry:
    """A key of a mapping and its value."""

    key: Place
    value: Node


@dataclass(slots=True, eq=False)
class Mapping(Node):
    """A mapping; its keys are texts."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def plain(self) -> Any:
        """Give the value as Python has it."""
        return {key: entry.value.plain() for key, entry in self.entries.items()}

    def raw(self) -> Any:
        """Give the value as it was written: before interpolation."""
        return {key: entry.value.raw() for key, entry in self.entries.items()}

    def children(self) -> Iterator[Node]:
        """Give the values directly in this one."""
        return (entry.value for entry in self.entries.values())
