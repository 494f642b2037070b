"""HTML as Telegram takes it: cut into parts that are well-formed by themselves, and without its markup."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any


def plain(text: str) -> str:
    """Give the text without its markup."""
    reader = _Plain()
    reader.feed(text)
    reader.close()
    return unescape("".join(reader.pieces))


class _Plain(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_entityref(self, name: str) -> None:
        self.pieces.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.pieces.append(f"&#{name};")


def split_html(text: str, most: int) -> Iterator[str]:
    """Cut HTML into parts of at most `most` UTF-16 units each, markup included, every one well-formed by itself.

    Cuts at a line's end where there is one in the second half, else at a space, else anywhere but inside a tag or
    an entity; tags that are open at a cut are closed and opened again. A tag that would leave less than half of a part for
    text is left out: a link, say, whose URL does not end.
    """
    splitter = _Splitter(most)
    splitter.feed(text)
    splitter.close()
    yield from splitter.finish()


class _Splitter(HTMLParser):
    """Collects parts; `_open` holds the tags that are open: name, what opens and what closes it, both empty where left out."""

    def __init__(self, most: int) -> None:
        super().__init__(convert_charrefs=False)
        self._most = most
        self._open: list[tuple[str, str, str]] = []
        self._part = ""
        self._filled = False
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - HTMLParser's signature
        opening, closing = self.get_starttag_text() or "", f"</{tag}>"
        if sum(_units(before + after) for _, before, after in self._open) + _units(opening + closing) > self._most // 2:
            opening = closing = ""
        self._add(opening, extra=_units(closing))
        self._open.append((tag, opening, closing))

    def handle_endtag(self, tag: str) -> None:
        known = self._open and self._open[-1][0] == tag
        self._part += self._open.pop()[2] if known else f"</{tag}>"

    def handle_entityref(self, name: str) -> None:
        self._add(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._add(f"&#{name};")

    def handle_data(self, data: str) -> None:
        while data:
            room = self._room()
            if _units(data) <= room:
                self._add(data)
                return
            cut = _cut(data, room)
            self._add(data[:cut])
            data = data[cut:].lstrip() if cut else data
            self._break()

    def finish(self) -> list[str]:
        """Give the parts."""
        if self._filled:
            self._parts.append(self._part)
        return self._parts

    def _room(self, extra: int = 0) -> int:
        return self._most - _units(self._part) - sum(_units(closing) for _, _, closing in self._open) - extra

    def _add(self, piece: str, *, extra: int = 0) -> None:
        if _units(piece) > self._room(extra):
            self._break()
        self._part += piece
        self._filled = self._filled or bool(piece.strip() and not piece.startswith("<"))

    def _break(self) -> None:
        closing = "".join(after for _, _, after in reversed(self._open))
        if self._filled:
            self._parts.append(self._part.rstrip() + closing)
        self._part = "".join(before for _, before, _ in self._open)
        self._filled = False


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, room: int) -> int:
    """Give how many characters of the text fit into `room` UTF-16 units, shortened to a line's or a word's end."""
    fits, units = 0, 0
    for character in text:
        units += _units(character)
        if units > room:
            break
        fits += 1
    for end in ("\n", " "):
        found = text.rfind(end, fits // 2, fits)
        if found > 0:
            return found + 1
    return fits
