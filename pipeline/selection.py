"""Which messages are meant: the options that `match` and `drop` share, and why a message is one of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pipeline.condition import Condition
from pipeline.matchers import Matchers
from pipeline.message import SEVERITIES, Message, gravity, normal_severity
from pipeline.paths import MessagePath
from pipeline.pattern import compile_pattern
from pipeline.plugin import Config
from pipeline.text import shorten

MOST_KEYWORDS: Final = 1000
_LONGEST: Final = 200
"""Characters of an option or a value that stand in a reason."""
_KNOWN: Final = f"one of {', '.join(SEVERITIES)} is expected"


@dataclass(frozen=True, slots=True)
class Check:
    """One of the things that are asked of a message."""

    holds: Callable[[Message], bool]
    """Never raises for a message's sake."""
    told: Callable[[Message, bool], str]
    """Says in a few words that it holds for a message, or with False why it does not."""


def _severity(value: Any) -> Any:
    if not isinstance(value, str) or (word := normal_severity(value)) not in SEVERITIES:
        raise ValueError(_KNOWN)
    return word


def _keyword(text: str) -> str:
    if not text.strip():
        raise ValueError("a word is expected")
    return " ".join(text.split())


def _place(path: MessagePath) -> MessagePath:
    if path.field in ("labels", "data") and not path.is_part:
        raise ValueError("a field, a label such as labels.team, or a part of the payload such as data.note is expected")
    return path


Severity = Annotated[str, BeforeValidator(_severity), WithJsonSchema({"type": "string", "examples": [*SEVERITIES]})]
"""One of `SEVERITIES`, or a word that means one (`WARN`)."""
Words = Annotated[tuple[Annotated[str, AfterValidator(_keyword)], ...], Field(max_length=MOST_KEYWORDS)]


class Keywords(Config):
    """Words to look for in a message, as whole words; a list of them is that of `any`."""

    any: Words = Field(default=(), description="Words of which one must be there.")
    all: Words = Field(default=(), description="Words which must all be there, wherever each one is.")
    in_: tuple[Annotated[MessagePath, AfterValidator(_place)], ...] = Field(
        default_factory=lambda: (MessagePath("title"), MessagePath("text")),
        alias="in",
        description="Where to look, title and text if not given: fields, `labels.NAME`, `data.PATH`.",
    )
    case: bool = Field(default=False, description="Whether capital and small letters differ.")

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {"any": [value] if isinstance(value, str) else value} if isinstance(value, (str, list, tuple)) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "array", "items": {"type": "string"}}, {"type": "string"}]}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.any and not self.all:
            raise ValueError("any or all is required")
        if not self.in_:
            raise ValueError("in: a place to look is expected, such as title")
        list(self.checks())
        return self

    def checks(self) -> Iterator[Check]:
        """Give what is asked of a message; raises ValueError where that cannot be compiled."""
        places = " or ".join(path.text for path in self.in_)
        for word in self.all:
            yield Check(self._sought((word,)), partial(_told_of_word, word, places))
        if len(self.any) == 1:
            yield Check(self._sought(self.any), partial(_told_of_word, self.any[0], places))
        elif self.any:
            each = [(word, self._sought((word,))) for word in self.any]
            yield Check(self._sought(self.any), partial(_told_of_words, each, places))

    def _sought(self, words: Sequence[str]) -> Callable[[Message], bool]:
        """Give what says whether one of the words is in a message, where it is no part of a longer word."""
        choices = "|".join(r"\s+".join(_literal(part) for part in word.split()) for word in words)
        found = compile_pattern(rf"{'' if self.case else '(?i)'}\b{{start-half}}(?:{choices})\b{{end-half}}")
        paths = self.in_
        return lambda message: any(found(path.text_of(message)) for path in paths)


class Selection(Config):
    """Which messages are meant: those for which all holds that is given. The options of `match` and `drop`."""

    shorthand: ClassVar[str | None] = "condition"
    passes_what_holds: ClassVar[bool] = True
    """Whether the messages that are meant go on, or the others do."""

    condition: Condition | None = Field(default=None, description="A condition (CEL) that must hold.")
    labels: tuple[Matchers, ...] = Field(default=(), description='Label matchers that must all match, such as team="db".')
    keywords: Keywords | None = Field(
        default=None, description="Words of which one must be in title or text, as a whole word in capital or small letters."
    )
    min: Severity | None = Field(default=None, description="The least severity: one of debug, info, warning, error, critical.")
    types: tuple[str, ...] | None = Field(default=None, min_length=1, description="Types of which it must be one, such as alert.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(value is not None and value != () for _, value in self):
            raise ValueError("condition, labels, keywords, min or types is required")
        return self

    @property
    def is_light(self) -> bool:
        """Whether a filter that asks for it is: its condition has no comprehension."""
        return self.condition is None or self.condition.is_light

    def checks(self, *, unsure: bool) -> tuple[Check, ...]:
        """Give what is asked of a message, in the order of the options.

        `unsure` is the answer where `min` cannot be told: for a severity that is none of `SEVERITIES`.
        """
        return tuple(self._checks(unsure=unsure))

    def _checks(self, *, unsure: bool) -> Iterator[Check]:
        if (condition := self.condition) is not None:
            brief = shorten(" ".join(condition.text.split()), _LONGEST)
            yield Check(condition.matches, lambda _, held: f"{brief} {'holds' if held else 'does not hold'}")
        for matchers in self.labels:
            yield Check(partial(_labelled, matchers), partial(_told_of_labels, matchers))
        if self.keywords is not None:
            yield from self.keywords.checks()
        if self.min is not None:
            yield _at_least(self.min, unsure=unsure)
        if self.types is not None:
            types = frozenset(self.types)
            yield Check(lambda message: message.type in types, partial(_told_of_type, self.types))


def _labelled(matchers: Matchers, message: Message) -> bool:
    return matchers.match(message.labels)


def _literal(text: str) -> str:
    """Write a text as a pattern that it alone matches."""
    return "".join(rf"\x{{{ord(character):x}}}" if not character.isalnum() else character for character in text)


def _told_of_word(word: str, places: str, _message: Message, held: bool) -> str:
    return f"the keyword {shorten(word, _LONGEST)} is {'' if held else 'not '}in {places}"


def _told_of_words(each: Sequence[tuple[str, Callable[[Message], bool]]], places: str, message: Message, held: bool) -> str:
    if held:
        return _told_of_word(next(word for word, found in each if found(message)), places, message, held)
    return f"none of the keywords {shorten(', '.join(word for word, _ in each), _LONGEST)} is in {places}"


def _told_of_labels(matchers: Matchers, message: Message, held: bool) -> str:
    failing = matchers.failing(message.labels)
    if held or failing is None:
        return f"the labels match {shorten(str(matchers), _LONGEST)}"
    value = message.labels.get(failing.name)
    there = f"there is no label {failing.name}" if value is None else f'label {failing.name} is "{shorten(value, _LONGEST)}"'
    return f"{there}: {shorten(str(failing), _LONGEST)} does not match"


def _told_of_type(types: Sequence[str], message: Message, held: bool) -> str:
    none = f"none of {shorten(', '.join(types), _LONGEST)}" if len(types) > 1 else f"not {types[0]}"
    return f"type {message.type}" if held else f"type {message.type} is {none}"


def _at_least(least: str, *, unsure: bool) -> Check:
    passing = frozenset(SEVERITIES[gravity(least) :])

    def holds(message: Message) -> bool:
        word = message.severity
        return word in passing or (gravity(word) < 0 and _unusual(word))

    def _unusual(word: str) -> bool:
        known = normal_severity(word)
        return known in passing if gravity(known) >= 0 else unsure

    return Check(holds, lambda message, held: f"severity {message.severity} is {'at least' if held else 'below'} {least}")
