"""The conditions that most people write, as Python functions: CEL's answers in a hundredth of its time.

Plain is what only looks at texts: fields and labels compared with `==`, `!=` and `in [...]`, asked for with `has(labels.x)`
and `"x" in labels`, searched with `contains`, `startsWith`, `endsWith` and `matches`, and all that joined by `&&`, `||`, `!`
and parentheses. Anything else, and every text that could be read in two ways, is left to CEL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pipeline.message import Message
from pipeline.pattern import compile_pattern

_FIELDS: Final = frozenset({"id", "source", "type", "title", "text", "severity", "status", "key", "url"})
_TOKEN: Final = re.compile(
    r"""[ \t\n\f\r]*(?:
        [rR](?P<raw>"[^"\n\r]*"|'[^'\n\r]*')
        |(?P<text>"(?:[^"\\\n\r]|\\["'\\nrt])*"|'(?:[^'\\\n\r]|\\["'\\nrt])*')
        |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
        |(?P<mark>&&|\|\||==|!=|[!()\[\].,])
    )""",
    re.VERBOSE,
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}
_NO_NAMES: Final = frozenset({"in", "true", "false", "null"})
_DEEPEST: Final = 20
"""Parentheses and `!` inside each other. CEL has a limit as well, a higher one."""
_FUNCTIONS: Final[dict[str, Any]] = {
    "__builtins__": {},
    "has": dict.__contains__,
    "contains": str.__contains__,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
"""What the Python code may call; each raises TypeError for what has another type."""


class NotPlainError(Exception):
    """This is left to CEL."""


@dataclass(frozen=True, slots=True)
class PlainCondition:
    """A condition that is plain."""

    holds: Callable[[Message], bool]
    """Raises TypeError or AttributeError where a field is of another type than it ought to be: what CEL says of it is open."""
    names: tuple[str, ...]
    """The fields that it reads, sorted."""


def compile_plain(text: str) -> PlainCondition:
    """Compile; raises NotPlainError. What this takes is CEL, and nothing that CEL's compiler would refuse."""
    parser = _Parser(text)
    # Of what the user wrote, names that are in `_FIELDS` and texts as `repr` writes them stand in the code.
    holds = eval(f"lambda m: {parser.code}", parser.functions)  # noqa: S307 - see above
    return PlainCondition(holds, tuple(sorted(parser.names)))


class _Parser:
    """Writes Python for CEL, by CEL's precedence: `||`, then `&&`, then comparisons, then `!`.

    A comparison that reads a label that is not there is an error in CEL, and so is its opposite: neither makes anything
    hold, as `false && error` is false and `true || error` true. Therefore a `!` is carried inwards to the comparisons (not
    (a or b) is not a and not b), and each of them first asks for its labels: the error is then the same as false.
    """

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self.functions: dict[str, Any] = dict(_FUNCTIONS)
        self._tokens = _tokens(text)
        self._at = 0
        self.code = self._either(0, no=False)
        self._expect("end", "")

    def _either(self, depth: int, *, no: bool) -> str:
        parts = [self._both(depth, no=no)]
        while self._take("mark", "||"):
            parts.append(self._both(depth, no=no))
        return f"({(' and ' if no else ' or ').join(parts)})"

    def _both(self, depth: int, *, no: bool) -> str:
        parts = [self._one(depth, no=no)]
        while self._take("mark", "&&"):
            parts.append(self._one(depth, no=no))
        return f"({(' or ' if no else ' and ').join(parts)})"

    def _one(self, depth: int, *, no: bool, negated: bool = False) -> str:
        if depth > _DEEPEST:
            raise NotPlainError
        if self._take("mark", "!"):
            return self._one(depth + 1, no=not no, negated=True)
        if self._take("mark", "("):
            inner = self._either(depth + 1, no=no)
            self._expect("mark", ")")
            return inner
        labels: list[str] = []
        test = self._test(labels, negated=negated)
        return f"({''.join(f'has(m.labels, {name!r}) and ' for name in labels)}{'not ' if no else ''}{test})"

    def _test(self, labels: list[str], *, negated: bool) -> str:
        """Write a comparison, and add the labels that it reads."""
        for word in ("true", "false"):
            if self._take("word", word):
                return word.capitalize()
        if self._take("word", "has"):
            return self._has()
        literal = self._tokens[self._at][0] == "text"
        operand = self._operand(labels)
        if self._take("mark", "."):
            return self._method(operand)
        if negated:  # CEL negates before it compares
            raise NotPlainError
        for mark in ("==", "!="):
            if self._take("mark", mark):
                return f"({operand} {mark} {self._operand(labels)})"
        self._expect("word", "in")
        if literal and self._take("word", "labels"):
            self.names.add("labels")
            return f"has(m.labels, {operand})"
        return self._in(operand)

    def _has(self) -> str:
        self._expect("mark", "(")
        self._expect("word", "labels")
        self._expect("mark", ".")
        name = self._name()
        self._expect("mark", ")")
        self.names.add("labels")
        return f"has(m.labels, {name!r})"

    def _method(self, operand: str) -> str:
        method = self._next("word")
        self._expect("mark", "(")
        text = self._next("text")
        self._expect("mark", ")")
        if method in ("contains", "startsWith", "endsWith"):
            return f"{method}({operand}, {text!r})"
        if method != "matches":
            raise NotPlainError
        name = f"matches_{len(self.functions)}"
        self.functions[name] = _search(text)
        return f"{name}({operand})"

    def _in(self, operand: str) -> str:
        self._expect("mark", "[")
        texts = [self._next("text")]
        while self._take("mark", ","):
            texts.append(self._next("text"))
        self._expect("mark", "]")
        return f"({operand} in {{{', '.join(map(repr, texts))}}})"

    def _operand(self, labels: list[str]) -> str:
        kind, value = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return repr(value)
        if value in _FIELDS:
            self.names.add(value)
            return f"m.{value}"
        if value != "labels":
            raise NotPlainError
        self.names.add(value)
        if self._take("mark", "."):
            labels.append(self._name())
        else:
            self._expect("mark", "[")
            labels.append(self._next("text"))
            self._expect("mark", "]")
        return f"m.labels[{labels[-1]!r}]"

    def _name(self) -> str:
        name = self._next("word")
        if name in _NO_NAMES:
            raise NotPlainError
        return name

    def _take(self, kind: str, value: str) -> bool:
        taken = self._tokens[self._at] == (kind, value)
        self._at += taken
        return taken

    def _expect(self, kind: str, value: str) -> None:
        if not self._take(kind, value):
            raise NotPlainError

    def _next(self, kind: str) -> str:
        found, value = self._tokens[self._at]
        if found != kind:
            raise NotPlainError
        self._at += 1
        return value


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    text = text.rstrip(" \t\n\f\r")
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise NotPlainError
        kind = str(found.lastgroup)
        value = found[kind]
        if kind == "text":
            value = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), value)
        tokens.append(("text", value[1:-1]) if kind in ("text", "raw") else (kind, value))
        position = found.end()
    return [*tokens, ("end", "")]


def _search(pattern: str) -> Callable[[str], bool]:
    try:
        found = compile_pattern(pattern)
    except ValueError:  # CEL says so, with the place
        raise NotPlainError from None

    def search(text: str) -> bool:
        if not isinstance(text, str):
            raise TypeError
        return found(text)

    return search
