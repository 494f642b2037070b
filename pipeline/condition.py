"""Conditions over a message: CEL, compiled once; the common ones to Python, the others handed only the fields they name."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Final

from pipeline.compiled import Compiled
from pipeline.message import FIELDS, Message
from pipeline.plain_condition import NotPlainError, PlainCondition, compile_plain

MAX_LENGTH: Final = 4096
"""How many characters a condition may have."""
MAX_STEPS: Final = 4_000_000
"""How many steps a comprehension inside another may take over one message: about a second."""
_FUNCTIONS: Final = (  # noqa: SIM905 - one name a line would be a page
    "size string int uint double bytes type dyn duration timestamp matches contains startsWith endsWith has all exists "
    "exists_one map filter getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours getMinutes "
    "getSeconds getMilliseconds"
).split()
_TYPES: Final = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type"})
_NEVER: Final = (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError)
_ERROR: Final = re.compile(r"ERROR: <input>:(?P<line>\d+):(?P<column>\d+): (?:Syntax error: )?(?P<text>.*)")
_QUOTED: Final = re.compile(r"""'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|//[^\n]*""", re.DOTALL)
_MACRO: Final = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_OPEN_OR_CLOSE: Final = re.compile(rf"(?P<macro>{_MACRO.pattern})|[\[({{]|[\])}}]")
_LABEL: Final = re.compile(r"""labels\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(["'])(.*?)\2\s*\])""")
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}"}
_KINDS: Final = {str: "a text", int: "a number", float: "a number", dict: "an object", list: "a list"}
_WORDS: Final = {"and": "&&", "or": "||", "not": "!"}


class Condition(Compiled):
    """A CEL expression over the fields of `Message`, usable as the type of a plugin's option.

    A condition that reads something the message lacks (`labels.team` where there is no such label), or compares
    what cannot be compared, does not hold: use `has(labels.team)` to ask first.

    Work is bounded by the message and the text: `matches()` takes time linear in the text it searches, a
    comprehension one step per element, and at most two comprehensions may stand inside each other. Where those two
    could take more than `MAX_STEPS` steps over a message, the condition does not hold for it.
    """

    about = "A CEL condition over the fields of a message."
    min_length = 1

    def __init__(self, text: str) -> None:
        """Compile; raises ValueError, with the column counted from 1, for what is not CEL or names what there is not."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"a condition has at most {MAX_LENGTH} characters, this one has {len(text)}")
        super().__init__(text)
        self._plain = _plain(text)
        self._depth = 0
        if self._plain is None:
            self._check()
            self._try()
        else:
            self.names = self._plain.names

    @property
    def is_light(self) -> bool:
        """Whether it takes time in proportion to what it looks at, as no comprehension stands in it."""
        return self._depth == 0

    def matches(self, message: Message) -> bool:
        """Say whether the condition holds for the message. Never raises for a message's sake."""
        if self._plain is None:
            return self._holds(message)
        try:
            return self._plain.holds(message)
        except (TypeError, AttributeError):
            return self._holds(message)

    @cached_property
    def _program(self) -> Any:
        """What CEL makes of it. A plain condition needs that, and the 6 MB of CEL, only for a message of wrong types."""
        from pipeline.cel import compile_expression  # noqa: PLC0415 - see above

        return compile_expression(self.text)

    def _check(self) -> None:
        text = self.text
        try:
            program = self._program
        except ValueError as error:
            raise ValueError(_readable(text, str(error))) from None
        code = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), text)
        own = {macro[1] for macro in _MACRO.finditer(code)}
        self.names = tuple(sorted(name for name in program.variables() if name in FIELDS))
        for name in program.variables():
            if name not in own and name not in FIELDS and name not in _TYPES:
                raise ValueError(_unknown(code, "field of a message", name, FIELDS))
        for name in program.functions():
            if name.isidentifier() and name not in _FUNCTIONS:
                raise ValueError(_unknown(code, "function", name, _FUNCTIONS))
        self._depth = _depth(code)
        if self._depth > 2:
            raise ValueError(
                f"{_brief(text)}: at most two of all, exists, exists_one, map and filter may stand inside each other"
            )

    def _holds(self, message: Message) -> bool:
        if self._depth > 1 and _longest(message.data if "data" in self.names else message.labels) ** self._depth > MAX_STEPS:
            return False
        try:
            return self._program.execute({name: getattr(message, name) for name in self.names}) is True
        except _NEVER:
            return False

    def _try(self) -> None:
        """Run once over a made-up message: finds what CEL's parser does not. Raises ValueError."""
        labels = {found[1] or found[3]: "" for found in _LABEL.finditer(self.text)}
        message = Message(source="", severity="info", labels=labels, data={})
        try:
            value = self._program.execute({name: getattr(message, name) for name in self.names})
        except RuntimeError as error:
            if "not a valid regex" in str(error):
                raise ValueError(f"{_brief(self.text)}: matches() is given something that is not a regular expression") from None
            undefined = re.search(r"Undefined variable or function: '(.*?)'", str(error))
            if undefined and undefined[1] not in _FUNCTIONS:  # CEL says the same of `string({})`
                raise ValueError(_unknown(self.text, "field or function", undefined[1], [*FIELDS, *_FUNCTIONS])) from None
            return
        except TypeError as error:
            if "data" not in self.names and "overload" in str(error):
                raise ValueError(f"{_brief(self.text)}: compares or combines values of different types") from None
            return
        except _NEVER:
            return
        if not isinstance(value, bool) and "data" not in self.names:
            raise ValueError(
                f"{_brief(self.text)}: gives {_KINDS.get(type(value), 'a value')}, but a condition gives true or false"
            )


def _plain(text: str) -> PlainCondition | None:
    try:
        return compile_plain(text)
    except NotPlainError:
        return None


def _depth(code: str) -> int:
    """Count how many comprehensions stand inside each other."""
    stack: list[bool] = []
    deepest = 0
    for found in _OPEN_OR_CLOSE.finditer(code):
        if found[0] in ")]}":
            stack.pop()
        else:
            stack.append(found["macro"] is not None)
            deepest = max(deepest, sum(stack))
    return deepest


def _longest(value: Any) -> int:
    """Give the length of the longest list or object in `value`."""
    longest, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, (list, dict)):
            longest = max(longest, len(item))
            stack += item.values() if isinstance(item, dict) else item
    return longest


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def _place(text: str, line: int, column: int) -> str:
    return f"at column {column}" if "\n" not in text.strip() else f"at line {line}, column {column}"


def _unknown(text: str, what: str, name: str, known: Any) -> str:
    found = re.search(rf"(?<![\w.]){re.escape(name)}\b|\b{re.escape(name)}\s*\(", text)
    before = text[: found.start()] if found else ""
    place = _place(text, before.count("\n") + 1, len(before) - before.rfind("\n")) if found else "somewhere"
    close = get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known if known is FIELDS else sorted(known))}"
    return f"{place}: no {what} is called '{name}'; {hint}"


def _readable(text: str, error: str) -> str:
    found = [match for match in _ERROR.finditer(error) if "Incomplete" not in match["text"]]
    if not found:
        return f"{_brief(text)}: is not a condition"
    first = found[0]
    line, column = int(first["line"]), int(first["column"])
    return f"{_brief(text)}: {_place(text, line, column)}: {_what(text, line, column, first['text'])}"


def _what(text: str, line: int, column: int, error: str) -> str:
    """Say CEL's complaint in the words of someone who writes conditions."""
    row = [*text.split("\n"), ""][line - 1]
    rest = row[column - 1 :]
    word = re.match(r"\w+|\S", rest)
    what = f"'{word[0]}' is not expected here" if word else error.partition(" expecting ")[0]
    if re.search(r"\bnot\s+$", row[: column - 1]):
        what = "write '!' for 'not'"
    elif word and word[0] in _WORDS:
        what = f"write '{_WORDS[word[0]]}' for '{word[0]}'"
    elif "token recognition" in error and rest.startswith("="):
        what = "write '==' to compare"
    elif "token recognition" in error and rest.startswith(('"', "'")):
        what = "the text that begins here has no closing quote"
    elif "'<EOF>'" in error:
        closer = _unclosed(text)
        what = f"expected '{closer}'" if closer else "the condition ends too early"
    elif "has()" in error:
        what = "has() asks for a part of a field, as in has(labels.team)"
    return what


def _unclosed(text: str) -> str:
    """Give the character that closes the last bracket that is still open, or an empty string."""
    stack: list[str] = []
    for character in _QUOTED.sub("", text):
        if character in _CLOSERS:
            stack.append(_CLOSERS[character])
        elif stack and character == stack[-1]:
            stack.pop()
    return stack[-1] if stack and text.rstrip()[-1] not in "([{,&|=<>+-*/" else ""
