"""Writes digests: the message that leaves, or several where one would be larger than the queue takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from filters.digest.files import as_csv, as_html, as_text
from filters.digest.options import DigestConfig, Kind
from filters.digest.rows import LONGEST, Entry, Table, clean, table_of
from filters.digest.words import gravest, in_short, text_of, title_of
from pipeline import Attachment, Message, PermanentError, attach, gravity, shorten

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
_SPARE: Final = 1_000
"""Bytes for what is written once the parts are counted: the part's number, and the files' names."""
_SEVERITIES: Final = 20
_SAMPLE: Final = 300
"""Messages of which the files are made to see how large those of all will be."""
_UNSURE: Final = 1.6
"""So much smaller all of them may turn out, as what is large packs better."""


class Digests:
    """Writes the digests of what waited for one key, as it stood at `due`."""

    def __init__(self, config: DigestConfig, about: Mapping[str, str], due: datetime) -> None:
        self._config, self._about, self._due = config, about, due

    def write(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Give a message, or several where there are too many or it would be too large. Each message is in one of them."""
        entries = newest(messages) if self._config.latest else [Entry(message) for message in messages]
        parts = [part for some in self._cut(entries) for part in self._fitting(some)]
        for number, part in enumerate(parts, start=1):
            yield self._numbered(part, number, len(parts))

    def nothing(self, since: str) -> Message:
        """Give the digest that says that nothing came since a time, as ISO 8601 has it; empty where that is not known."""
        told = f"{datetime.fromisoformat(since).astimezone(self._config.zone):%Y-%m-%d %H:%M}" if since else ""
        return self._message((), title_of((), ()), f"Nothing came since {told}." if told else "Nothing came.", _LISTED)

    def _cut(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Cut into as many equal parts as there have to be, and will likely be, of messages that are about alike."""
        count, most = len(entries), self._config.most
        parts = max(math.ceil(count / most), self._likely(entries) if count > 2 * _SAMPLE else 1)
        for number in range(parts):
            yield entries[count * number // parts : count * (number + 1) // parts]

    def _likely(self, entries: Sequence[Entry]) -> int:
        """Say how many parts there will likely be: to write files that are too large, and then their halves, takes seconds."""
        sample = entries[:: len(entries) // _SAMPLE]
        bare, whole = (size_of(self._part(sample, LONGEST, files=files)) for files in (False, True))
        parts = (whole - bare) * len(entries) / len(sample) / max(1, self._config.size - bare)
        return math.ceil(parts) if parts > _UNSURE else 1

    def _fitting(self, entries: Sequence[Entry]) -> Iterator[Message]:
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

    def _shortened(self, entries: Sequence[Entry]) -> Message:
        part = self._part(entries, _SHORT)
        if self._fits(part):
            return part
        left_out = "Its files were left out: they are larger than a digest may be." if self._config.attach else ""
        text = "\n\n".join(filter(None, (shorten(part.text, _SHORT), left_out)))
        return self._message(entries, part.title, text, 0)

    def _fits(self, part: Message) -> bool:
        return size_of(part) + _SPARE <= self._config.size

    def _part(self, entries: Sequence[Entry], longest: int, *, files: bool = True) -> Message:
        title, text = self._words(entries)
        message = self._message(entries, title, text, _LISTED)
        return attach(message, self._files(entries, title, longest)) if self._config.attach and files else message

    def _words(self, entries: Sequence[Entry]) -> tuple[str, str]:
        """Give title and text. Where a template fails the usual words are taken, and the text says why."""
        config, messages = self._config, [entry.message for entry in entries]
        found, failures = {"title": "", "text": ""}, []
        for name, template in (("title", config.title), ("text", config.text)):
            try:
                found[name] = clean(template.render_all(messages)).strip() if template is not None else ""
            except PermanentError as error:
                failures.append(f"({name}: {shorten(clean(str(error)), _SHORT)})")
        title = found["title"] or title_of(entries, [*self._about.values()])
        text = found["text"] or text_of(entries, config.zone, config.lines)
        return shorten(" ".join(title.split()), _TITLE), "\n\n".join([shorten(text, _TEXT), *failures])

    def _files(self, entries: Sequence[Entry], title: str, longest: int) -> Iterator[Attachment]:
        """Give the files; they have no names yet."""
        config = self._config
        table = table_of(entries, config.columns, config.zone, longest)
        ways: Mapping[Kind, Callable[[], bytes]] = {
            "csv": partial(as_csv, table),
            "html": partial(as_html, table, title),
            "text": partial(as_text, entries, config.zone, longest),
            "xlsx": partial(self._xlsx, entries, table),
        }
        for kind in dict.fromkeys(config.attach):
            ending, media = _TYPES[kind]
            yield Attachment(ending, media, ways[kind]())

    def _xlsx(self, entries: Sequence[Entry], table: Table) -> bytes:
        from filters.digest.xlsx import as_xlsx  # noqa: PLC0415 - an extra of its own

        return as_xlsx(table, [self._sheet(entry.message) for entry in entries], self._due)

    def _sheet(self, message: Message) -> str:
        """Give its sheet; that of its title where it came before there was a template, which fails."""
        try:
            return sheet_of(self._config, message)
        except PermanentError:
            return message.title

    def _message(self, entries: Sequence[Entry], title: str, text: str, listed: int) -> Message:
        messages = [entry.message for entry in entries]
        return Message(
            source=_common(message.source for message in messages) or TYPE,
            type=TYPE,
            time=self._due,
            title=title,
            text=text,
            severity=shorten(gravest(messages), 50),
            status="resolved" if messages and all(message.status == "resolved" for message in messages) else "firing",
            labels=_shared(messages),
            url=_common(message.url for message in messages),
            data=_data(entries, listed),
        )

    def _numbered(self, part: Message, number: int, parts: int) -> Message:
        """Say which of how many parts it is, and give its files their names."""
        stamp = f"{self._due.astimezone(self._config.zone):%Y-%m-%d-%H%M}"
        several = parts > 1
        name = "-".join(filter(None, (self._config.name, stamp, f"part-{number}" if several else "")))
        data = {**part.data, **({"part": number, "parts": parts} if several else {})}
        if "attachments" in data:
            data["attachments"] = [file | {"name": f"{name}.{file['name']}"} for file in data["attachments"]]
        return part.replace(title=f"{part.title} ({number} of {parts})" if several else part.title, data=data)


def newest(messages: Iterable[Message]) -> list[Entry]:
    """Give the newest message of each key, with how many there were, in the order of the first; what has no key is alone."""
    found: dict[str, Entry] = {}
    for message in messages:
        key = f"key {message.key}" if message.key else f"id {message.id}"
        known = found.get(key)
        later = known is None or (message.time, message.id) >= (known.message.time, known.message.id)
        found[key] = Entry(message if later or known is None else known.message, known.times + 1 if known else 1)
    return [*found.values()]


def sheet_of(config: DigestConfig, message: Message) -> str:
    """Give the sheet that a message is on. Raises `PermanentError` where the template fails."""
    if config.sheet is None:
        return message.title
    try:
        return config.sheet.render(message)
    except PermanentError as error:
        raise PermanentError(f"sheet: {error}") from None


def _data(entries: Sequence[Entry], listed: int) -> dict[str, Any]:
    times = [entry.message.time for entry in entries]
    counts = Counter(shorten(entry.message.severity, 50) for entry in entries if entry.message.severity)
    return {
        "count": sum(entry.times for entry in entries),
        "severities": dict(sorted(counts.most_common(_SEVERITIES), key=lambda item: (-gravity(item[0]), item[0]))),
        "resolved": sum(entry.message.status == "resolved" for entry in entries),
        **({"first": min(times).isoformat(), "last": max(times).isoformat()} if times else {}),
        "messages": [*in_short(entries[:listed])],
        "left_out": max(0, len(entries) - listed),
    }


def size_of(message: Message) -> int:
    """Give the bytes of a message, as it travels."""
    return len(msgspec.json.encode(message))


def _common(values: Iterable[str]) -> str:
    """Give the value that all have, where that is one, and a short one."""
    found = {*values}
    value = found.pop() if len(found) == 1 else ""
    return value if len(value) <= _TITLE else ""


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
