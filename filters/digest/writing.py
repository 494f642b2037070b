"""Writes digests: the message that leaves, or several where one would be larger than the queue takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from filters.digest.files import as_csv, as_html, as_text
from filters.digest.options import DigestConfig, Kind
from filters.digest.rows import LONGEST, Entry, clean, table_of
from filters.digest.words import gravest, gravity, in_short, text_of, title_of
from pipeline import Attachment, BatchTemplate, Message, PermanentError, attach, shorten

TYPE: Final = "digest"
_TYPES: Final[Mapping[Kind, tuple[str, str]]] = {
    "csv": ("csv", "text/csv"),
    "xlsx": ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "html": ("html", "text/html"),
    "text": ("txt", "text/plain"),
}
_LISTED: Final = 100
"""Messages that stand in `data.messages`."""
_TEXT: Final = 16_000
"""Characters of the text."""
_TITLE: Final = 300
_SHORT: Final = 500
"""Characters of a cell, and of the text, where a message alone makes a digest that is too large."""
_LABELS: Final = 2_000
"""Characters of the labels that all messages share."""
_PACKED: Final = 500
"""Bytes that a digest may have for what is written once its parts are counted: its number, and its files' names."""


@dataclass(frozen=True)
class _Part:
    """What one message tells: its entries, and the files as they travel."""

    entries: Sequence[Entry]
    title: str
    text: str
    files: Sequence[Attachment]
    listed: int = _LISTED


class Digests:
    """Writes the digests of what waited for one key, as it stood at `due`."""

    def __init__(self, config: DigestConfig, about: Mapping[str, str], due: datetime) -> None:
        self._config, self._about, self._due = config, about, due

    def write(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Give a message, or several where there are too many or it would be too large. Each message is in one of them.

        Raises `PermanentError` where a template fails.
        """
        entries = newest(messages) if self._config.latest else [Entry(message) for message in messages]
        cut = [entries[start : start + self._config.most] for start in range(0, len(entries), self._config.most)] or [entries]
        parts = [part for some in cut for part in self._fitting(some)]
        for number, part in enumerate(parts, start=1):
            yield self._message(part, number, len(parts))

    def nothing(self, since: str) -> Message:
        """Give the digest that says that nothing came since a time, as ISO 8601 has it; empty where that is not known."""
        told = f"{datetime.fromisoformat(since).astimezone(self._config.zone):%Y-%m-%d %H:%M}" if since else ""
        text = f"Nothing came since {told}." if told else "Nothing came."
        return self._message(_Part((), title_of((), ()), text, ()), 1, 1)

    def _fitting(self, entries: Sequence[Entry]) -> Iterator[_Part]:
        """Cut into halves what is larger than a digest may be; what cannot be cut any more is shortened."""
        part = self._part(entries, LONGEST)
        if self._fits(part):
            yield part
        elif len(entries) > 1:
            middle = len(entries) // 2
            yield from self._fitting(entries[:middle])
            yield from self._fitting(entries[middle:])
        else:
            yield self._shortened(entries)

    def _shortened(self, entries: Sequence[Entry]) -> _Part:
        part = self._part(entries, _SHORT)
        if self._fits(part):
            return part
        note = "Its files were left out: they are larger than a digest may be." if part.files else ""
        return _Part(entries, part.title, "\n\n".join(filter(None, (shorten(part.text, _SHORT), note))), (), listed=0)

    def _part(self, entries: Sequence[Entry], longest: int) -> _Part:
        config, messages = self._config, [entry.message for entry in entries]
        title = _rendered("title", config.title, messages) or title_of(entries, [*self._about.values()])
        text = _rendered("text", config.text, messages) or text_of(entries, config.zone, config.lines)
        title = shorten(" ".join(clean(title).split()), _TITLE)
        return _Part(entries, title, shorten(clean(text).strip(), _TEXT), [*self._files(entries, title, longest)])

    def _fits(self, part: _Part) -> bool:
        return len(msgspec.json.encode(self._message(part, 1, 1))) + _PACKED <= self._config.size

    def _files(self, entries: Sequence[Entry], title: str, longest: int) -> Iterator[Attachment]:
        config = self._config
        if not config.attach:
            return
        table = table_of(entries, config.columns, config.zone, longest)
        ways: Mapping[Kind, Callable[[], bytes]] = {
            "csv": partial(as_csv, table),
            "html": partial(as_html, table, title),
            "text": partial(as_text, entries, config.zone, longest),
            "xlsx": lambda: self._xlsx(entries, longest),
        }
        for kind in dict.fromkeys(config.attach):
            ending, media = _TYPES[kind]
            yield Attachment(ending, media, ways[kind]())

    def _xlsx(self, entries: Sequence[Entry], longest: int) -> bytes:
        from filters.digest.xlsx import as_xlsx  # noqa: PLC0415 - an extra of its own

        config = self._config
        sheets = [sheet_of(config, entry.message) for entry in entries]
        return as_xlsx(table_of(entries, config.columns, config.zone, longest), sheets, self._due)

    def _message(self, part: _Part, number: int, parts: int) -> Message:
        messages = [entry.message for entry in part.entries]
        mark = f" ({number} of {parts})" if parts > 1 else ""
        message = Message(
            source=_common(message.source for message in messages) or TYPE,
            type=TYPE,
            time=self._due,
            title=part.title + mark,
            text=part.text,
            severity=shorten(gravest(messages), 50),
            status="resolved" if messages and all(message.status == "resolved" for message in messages) else "firing",
            labels=_shared(messages),
            url=shorten(_common(message.url for message in messages), _TITLE, mark=""),
            data=self._data(part) | ({"part": number, "parts": parts} if parts > 1 else {}),
        )
        files = [self._named(file, number if parts > 1 else 0) for file in part.files]
        return attach(message, files) if files else message

    def _data(self, part: _Part) -> dict[str, Any]:
        times = [entry.message.time for entry in part.entries]
        severities: dict[str, int] = {}
        for entry in part.entries:
            word = shorten(entry.message.severity, 50)
            if word and (word in severities or len(severities) < 20):
                severities[word] = severities.get(word, 0) + 1
        counts = dict(sorted(severities.items(), key=lambda item: -gravity(item[0])))
        return {
            "count": sum(entry.count for entry in part.entries),
            "severities": counts,
            "resolved": sum(entry.message.status == "resolved" for entry in part.entries),
            **({"first": min(times).isoformat(), "last": max(times).isoformat()} if times else {}),
            "messages": [*in_short(part.entries[: part.listed])],
            "left_out": max(0, len(part.entries) - part.listed),
        }

    def _named(self, file: Attachment, part: int) -> Attachment:
        """Give a file its name: the digest's, when it was made, its part and the ending."""
        stamp = f"{self._due.astimezone(self._config.zone):%Y-%m-%d-%H%M}"
        name = "-".join(filter(None, (self._config.name, stamp, f"part-{part}" if part else "")))
        return Attachment(f"{name}.{file.name}", file.type, file.content)


def newest(messages: Iterable[Message]) -> list[Entry]:
    """Give the newest message of each key, with how many there were, in the order of the first; what has no key is alone."""
    found: dict[str, Entry] = {}
    for message in messages:
        key = f"key {message.key}" if message.key else f"id {message.id}"
        known = found.get(key)
        later = known is None or (message.time, message.id) >= (known.message.time, known.message.id)
        found[key] = Entry(message if later or known is None else known.message, known.count + 1 if known else 1)
    return [*found.values()]


def sheet_of(config: DigestConfig, message: Message) -> str:
    """Give the sheet that a message is on. Raises `PermanentError` where the template fails."""
    if config.sheet is None:
        return message.title
    try:
        return config.sheet.render(message)
    except PermanentError as error:
        raise PermanentError(f"sheet: {error}") from None


def _rendered(name: str, template: BatchTemplate | None, messages: Sequence[Message]) -> str:
    try:
        return template.render_all(messages) if template is not None else ""
    except PermanentError as error:
        raise PermanentError(f"{name}: {error}") from None


def _common(values: Iterable[str]) -> str:
    found = {*values}
    return found.pop() if len(found) == 1 else ""


def _shared(messages: Sequence[Message]) -> dict[str, str]:
    """Give the labels in which all messages agree, as long as they are short."""
    shared = set.intersection(*({*message.labels.items()} for message in messages)) if messages else set()
    found: dict[str, str] = {}
    left = _LABELS
    for name, value in sorted(shared):
        if (left := left - len(name) - len(value)) < 0:
            break
        found[name] = value
    return found
