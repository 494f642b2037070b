"""Texts over a message: Jinja2 in the immutable sandbox, compiled once, with a cap on output and work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar, Final

from pipeline.compiled import Compiled
from pipeline.message import FIELDS, Message

MAX_TEXT: Final = 64 * 1024
"""How many characters a template may have."""


class Template(Compiled):
    """A Jinja2 template over the fields of `Message`, usable as the type of a plugin's option.

    Strict: reading what a message lacks (`labels.team` where there is no such label) fails; write
    `labels.team | default("none")` where that may be. `labels.items` is the label called items where there is one.
    None is written as nothing, a time as `2026-11-21 08:30:00+00:00`, lists and objects as JSON.

    Filters beside Jinja2's usual ones: `localtime("Europe/Berlin")` for a time, `duration` for a number of seconds
    (`90 | duration` is `1m30s`), `tojson` (not escaped for HTML). What could not be bounded is not there: macros,
    blocks, imports, `namespace`, recursive loops, and methods beyond the everyday ones of texts, objects and times.

    Bounded per rendering: the output (`max_length` characters), the work (`bounds.MAX_WORK` characters made and
    loop steps taken) and the thread's CPU time (`bounds.MAX_SECONDS`, looked at between steps). Not bounded is a
    single step over what the message holds, such as sorting it, and the comparison of lists that a template
    nested into themselves many times.
    """

    about = "A Jinja2 template over the fields of a message."
    known: ClassVar[tuple[str, ...]] = FIELDS
    """The names that it may read."""
    unknown: ClassVar[str] = "no field of a message is called '{}'"
    escape: ClassVar[bool] = False
    max_length: ClassVar[int] = 64 * 1024

    def __init__(self, text: str) -> None:
        """Compile; raises ValueError, with the line, for what is not Jinja2 or names what there is not."""
        from pipeline.template import sandbox  # noqa: PLC0415 - Jinja2 is loaded only where there are templates

        if len(text) > MAX_TEXT:
            raise ValueError(f"a template has at most {MAX_TEXT} characters, this one has {len(text)}")
        super().__init__(text)
        try:
            self._compiled, names = sandbox.compile_template(text, escape=self.escape)
        except sandbox.NotATemplateError as error:
            raise ValueError(_readable(text, error.line, error.name, str(error), error.known)) from None
        for name, line in sorted(names.items(), key=lambda item: item[1]):
            if name not in self.known:
                raise ValueError(_readable(text, line, name, self.unknown.format(name), self.known))
        self.names = tuple(sorted(names))

    def render(self, message: Message) -> str:
        """Give the text. Raises `PermanentError` that names what is missing or went wrong, and the line."""
        return self._compiled.render({name: getattr(message, name) for name in self.names}, self.max_length)


class HtmlTemplate(Template):
    """A template whose own text is HTML and whose values are escaped: `<b>{{ title }}</b>` is safe whatever the title."""

    escape = True


class ItemTemplate(Template):
    """A template over a part of a message's payload, as `item`, its number from 0, as `index`, and the message's fields."""

    about = "A Jinja2 template over `item`, `index`, and the fields of a message."
    known = (*FIELDS, "item", "index")
    unknown = "neither an item nor a message has '{}'"

    def render_item(self, message: Message, item: Any, index: int) -> str:
        """Give the text. Raises `PermanentError` as `render` does, which takes the whole payload for an item."""
        found = {"item": item, "index": index}
        names = {name: found[name] if name in found else getattr(message, name) for name in self.names}
        return self._compiled.render(names, self.max_length)

    def render(self, message: Message) -> str:
        """Give the text where the whole payload is the item."""
        return self.render_item(message, message.data, 0)


class BatchTemplate(Template):
    """A template over several messages at once: `{% for message in messages %}{{ message.title }}{% endfor %}`."""

    about = "A Jinja2 template over `messages`, each with its fields."
    known = ("messages",)
    unknown = "there is no '{}' for several messages together"
    max_length = 1024 * 1024

    def render_all(self, messages: Sequence[Message]) -> str:
        """Give the text. Raises `PermanentError` as `render` does, which is for one message alone."""
        told = [{name: getattr(message, name) for name in FIELDS} for message in messages]
        return self._compiled.render({"messages": told}, self.max_length)

    def render(self, message: Message) -> str:
        """Give the text for a message alone."""
        return self.render_all([message])


def _readable(text: str, line: int, name: str, what: str, known: Any) -> str:
    """Name the place, and the known name that is closest to an unknown one."""
    rows = text.split("\n")
    row = rows[line - 1] if 0 < line <= len(rows) else ""
    found = re.search(rf"(?<![\w.]){re.escape(name)}\b", row) if name else None
    place = f"line {line}, column {found.start() + 1}" if found else f"line {line}"
    close = get_close_matches(name, known, n=1) if name else []
    hint = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}" if known else ""
    return f"{place}: {what}{hint}"
