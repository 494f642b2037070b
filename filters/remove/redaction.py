"""What nobody should read, and its replacement: patterns by name or as RE2, in texts and in whatever JSON can hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

import re2
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

MARK: Final = "***"
LONGEST: Final = 1000
"""Characters of a pattern."""
_FEWEST_DIGITS: Final = 13
_MOST_DIGITS: Final = 19
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""The sum of the digits of twice a digit."""
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
NAMED: Final = {
    "email": r"[\pL\pM\pN._%+-]+@[\pL\pM\pN-]+(?:\.[\pL\pM\pN-]+)+",
    "ipv4": rf"\b(?:{_OCTET}\.){{3}}{_OCTET}\b",
    "card": r"[0-9](?:[\pZ\p{Pd}]?[0-9]){12,}",
    "bearer": r"(?i)\bbearer\s+(?P<secret>[a-z0-9._~+/=-]{8,})",
    # the second form has a / in it that nobody escaped; what is only digits before it is a port
    "password-in-url": r"://[^\s/:@?#]*:(?P<secret>[^\s/?#]+|[0-9]*[^\s/?#@0-9][^\s/?#@]*[/?#][^\s@]*)@",
}
"""The patterns that have names."""


class Pattern:
    """A pattern whose matches are replaced; usable as the type of an option."""

    def __init__(self, text: str) -> None:
        """Compile; raises ValueError for what is neither a name nor a regular expression."""
        self.text = text
        if len(text) > LONGEST:
            raise ValueError(f"a regular expression of at most {LONGEST} characters is expected")
        close = get_close_matches(text.lower().replace("_", "-"), NAMED, n=1)
        if text not in NAMED and re.fullmatch(r"[\w-]+", text) and (close or text.islower()):
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(NAMED)}."
            raise ValueError(f"no pattern has this name; {hint} A regular expression that is a word is written in parentheses")
        options = re2.Options()
        options.log_errors = False
        try:
            self._found = re2.compile(NAMED.get(text, text), options)
        except re2.error:
            raise ValueError("neither the name of a pattern nor a regular expression (RE2)") from None
        if self._found.match("") is not None:
            raise ValueError("this regular expression matches the empty text")
        self._part: int = self._found.groupindex.get("secret", 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def replaced(self, text: str) -> str:
        """Give the text with each match replaced, and the text itself where there is none."""
        if self._found.search(text) is None:
            return text
        made: str = self._found.sub(self._mark, text)
        return made

    def _mark(self, match: Any) -> str:
        whole: str = match.group()
        if self.text == "card":
            return _without_cards(whole)
        if match.start(self._part) < 0 or not whole:  # the group `secret` is where the pattern need not match
            return whole
        start, end = match.start(self._part) - match.start(), match.end(self._part) - match.start()
        return f"{whole[:start]}{MARK}{whole[end:]}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        read = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1))
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda one: one.text),
        )


def _without_cards(run: str) -> str:
    """Replace the card numbers in a run of digits, beside which other numbers may stand."""
    groups = [match.span() for match in re.finditer("[0-9]+", run)]
    made, end = "", 0
    for first, (begin, _) in enumerate(groups):
        last = _last_of_card(run, groups, first)
        if last < first:
            continue
        if begin >= end:  # else it goes with the one before: of two that overlap either may be the card
            made += f"{run[end:begin]}{MARK}"
        end = max(end, groups[last][1])
    return made + run[end:]


def _last_of_card(run: str, groups: Sequence[tuple[int, int]], first: int) -> int:
    """Give the last group of digits of the longest card number that begins with the group `first`; -1 where there is none."""
    digits, found = "", -1
    for index in range(first, len(groups)):
        digits += run[slice(*groups[index])]
        if len(digits) > _MOST_DIGITS:
            break
        if len(digits) >= _FEWEST_DIGITS and _is_checked(digits):
            found = index
    return found


def _is_checked(digits: str) -> bool:
    """Say whether the last digit is the check digit (Luhn's) of the others."""
    numbers = [int(digit) for digit in digits]
    return (sum(numbers[-1::-2]) + sum(_DOUBLED[number] for number in numbers[-2::-2])) % 10 == 0


def redacted(patterns: tuple[Pattern, ...], value: Any) -> Any:
    """Give a value of JSON in which every text is redacted: the value itself where nothing was found."""
    if isinstance(value, str):
        for pattern in patterns:
            value = pattern.replaced(value)
        return value
    if isinstance(value, list):
        items = [redacted(patterns, inner) for inner in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        members = {name: redacted(patterns, inner) for name, inner in value.items()}
        return value if all(members[name] is inner for name, inner in value.items()) else members
    return value
