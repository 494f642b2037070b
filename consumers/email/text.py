"""The text of a mail: a message in plain words, on lines that no mail program and no terminal obeys."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from pipeline import Message, headline, shorten, shown_labels

LONGEST: Final = 50_000
"""Characters of a message's text."""
_CONTROLS: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])


def line(text: str) -> str:
    """Make one line of a text: whatever a line may end with becomes a space, so that no header has a second one."""
    return " ".join(clean(text).split())


def clean(text: str) -> str:
    """Take out what no mail may hold: controls, and halves of characters."""
    return text.replace("\r\n", "\n").translate(_CONTROLS).encode(errors="replace").decode()


def told(answer: str) -> str:
    """Give a server's words on one line, without what a terminal would obey."""
    return shorten(" ".join("".join(one if one.isprintable() else " " for one in answer).split()), 300)


def as_text(message: Message) -> str:
    """Give a message as text: title, text, labels, origin and link."""
    parts = [headline(message), clean(shorten(message.text, LONGEST))]
    parts += ["\n".join(f"{name}: {value}" for name, value in shown_labels(message).items())]
    parts += [origin(message), message.url]
    return "\n\n".join(clean(part).strip() for part in parts if part.strip())


def origin(message: Message) -> str:
    """Say in one line how grave a message is, where it comes from, and when."""
    parts = (message.severity, message.source, f"{message.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return " · ".join(line(part) for part in parts if part)
