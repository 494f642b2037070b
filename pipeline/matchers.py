"""Label matchers as Alertmanager writes them: `team="db"`, `{severity=~"warning|critical", env!="test"}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import eq
from typing import Final, Literal, cast

from pipeline.compiled import Compiled
from pipeline.pattern import compile_pattern

MAX_LENGTH: Final = 4096
"""How many characters a list of matchers may have."""
Operator = Literal["=", "!=", "=~", "!~"]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<operator>=~|!~|!=|=)|(?P<comma>,)|"(?P<quoted>(?:\\.|[^"\\])*)"|(?P<bare>[^\s{}!=~,\\"'`]+))\s*"""
)
_CLASSIC: Final = re.compile(
    r"""\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|!~|!=|=)\s*("(?:\\.|[^"\\])*"|(?:\\.|[^"\\,])*?)\s*(?:,|$)""", re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))|(\\)")
_ESCAPES: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher. A label that a message lacks has the value "" here."""

    name: str
    operator: Operator
    value: str

    def __str__(self) -> str:
        return f"{self.name if re.fullmatch(_BARE, self.name) else _quoted(self.name)}{self.operator}{_quoted(self.value)}"


class Matchers(Compiled):
    """A list of label matchers, all of which must match; usable as the type of a plugin's option.

    The grammar is Alertmanager's, in its default mode: the list may stand in braces, and a comma may end it; names
    and values are bare or in double quotes. What the UTF-8 grammar and the older one read differently, or only the
    older one reads, is read as the older one does. Regular expressions must match the whole value. They are matched
    as in conditions, in time linear in the value: Python's own can take for ever.
    """

    about = 'Label matchers such as team="db", env=~"prod|stage".'

    def __init__(self, text: str) -> None:
        """Read; raises ValueError that says what is wrong."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"label matchers have at most {MAX_LENGTH} characters, these have {len(text)}")
        super().__init__(text)
        self.matchers = tuple(_parse(text))
        self._tests = [(matcher.name, _test(matcher), matcher.operator[0] == "=") for matcher in self.matchers]

    def match(self, labels: Mapping[str, str]) -> bool:
        """Say whether all matchers match these labels; true where there are none."""
        return all(test(labels.get(name, "")) is wanted for name, test, wanted in self._tests)

    def failing(self, labels: Mapping[str, str]) -> Matcher | None:
        """Give the first matcher that does not match these labels."""
        tests = zip(self.matchers, self._tests, strict=True)
        return next((one for one, (name, test, wanted) in tests if test(labels.get(name, "")) is not wanted), None)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.matchers)) + "}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matchers) and other.matchers == self.matchers

    def __hash__(self) -> int:
        return hash(self.matchers)


_BARE: Final = r"""[^\s{}!=~,\\"'`]+"""


def _parse(text: str) -> list[Matcher]:
    inner = text.strip()
    if inner.startswith("{") != inner.endswith("}"):
        raise ValueError(f"{text}: a brace is missing")
    inner = inner[1:-1].strip() if inner.startswith("{") else inner
    if not inner:
        return []
    try:
        classic = [*_classic(inner)]
    except ValueError as error:
        try:
            return [*_utf8(inner)]
        except ValueError:
            raise ValueError(f"{text}: {error}") from None
    return classic


def _utf8(text: str) -> Iterator[Matcher]:
    """Read the newer grammar, in which names may be quoted and bare values are narrow."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"at column {position + 1}: '{text[position]}' is not expected")
        kind = cast("str", found.lastgroup)
        tokens.append(
            ("text" if kind in ("quoted", "bare") else kind, _unescaped(found[kind]) if kind == "quoted" else found[kind])
        )
        position = found.end()
    if len(tokens) > 1 and tokens[-1][0] == "comma":
        tokens.pop()
    while tokens:
        if [kind for kind, _ in tokens[:3]] != ["text", "operator", "text"] or not tokens[0][1]:
            raise ValueError("a name, one of = != =~ !~, and a value are expected")
        yield Matcher(tokens[0][1], cast("Operator", tokens[1][1]), tokens[2][1])
        if len(tokens) > 3 and (tokens[3][0] != "comma" or len(tokens) == 4):
            raise ValueError(f"a comma is expected before '{tokens[3][1]}'")
        del tokens[:4]


def _classic(text: str) -> Iterator[Matcher]:
    """Read the older grammar, in which names are narrow, and bare values are nearly anything up to a comma."""
    position = 0
    while position < len(text):
        found = _CLASSIC.match(text, position)
        if found is None:
            raise ValueError(f"at column {position + 1}: a name, one of = != =~ !~, and a value are expected")
        value = found[3][1:-1] if found[3].startswith('"') else found[3]
        yield Matcher(
            found[1], cast("Operator", found[2]), re.sub(r'\\([n"\\])', lambda one: "\n" if one[1] == "n" else one[1], value)
        )
        position = found.end()


def _unescaped(text: str) -> str:
    r"""Resolve Go's escapes; bytes written as \xNN must make valid UTF-8."""

    def resolve(found: re.Match[str]) -> str:
        plain, byte, short, long, octal, stray = found.groups()
        if stray:
            raise ValueError("a backslash begins no escape that is known")
        if plain:
            return chr(_ESCAPES[plain])
        if byte or octal:
            return chr(0xDC00 + code) if (code := int(byte or octal, 16 if byte else 8)) > 127 else chr(code)
        return chr(int(short or long, 16))

    try:
        return _ESCAPE.sub(resolve, text).encode("utf-8", "surrogateescape").decode()
    except (UnicodeError, OverflowError):
        raise ValueError("an escape makes no valid character") from None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


def _test(matcher: Matcher) -> Callable[[str], bool]:
    """Give what says whether a value is that of the matcher, whose operator may ask for the opposite."""
    if "~" not in matcher.operator:
        return partial(eq, matcher.value)
    if "\0" in matcher.value:
        raise ValueError(f"{matcher}: a regular expression holds no NUL")
    try:
        compile_pattern(matcher.value)  # so that no parenthesis of it closes the one that is put around it
        return compile_pattern(rf"\A(?:{matcher.value})\z")
    except ValueError:
        raise ValueError(f"{matcher}: '{matcher.value}' is not a regular expression (RE2)") from None
