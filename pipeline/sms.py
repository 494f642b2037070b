"""What an SMS holds, and whom it goes to: its two alphabets, how many parts a text takes, how a telephone number is written."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE: Final = frozenset("\f^{}\\[~]|€")
_PLAIN: Final = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\t\u00a0\u2007\u2009\u200a\u202f", " ")
    | dict.fromkeys(map(chr, [*range(9), 11, *range(14, 32), 127, 0x200B, 0xFEFF]), "")
    | {"\u2026": "...", "\u2022": "*", "\u2028": "\n"}
)

_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_BETWEEN: Final = re.compile(r"[\s()./-]")


def phone_number(text: str) -> str:
    """Give a telephone number (E.164) without what people write between its digits; raises `ValueError` for what is none."""
    number = _BETWEEN.sub("", text)
    if not _NUMBER.fullmatch(number):
        raise ValueError('a number is written with + and its country, in quotes: "+49 151 12345678"')
    return number


def plain_sms(text: str) -> str:
    """Write typographic characters plainly, and leave out what a phone does not show."""
    return text.replace("\r\n", "\n").translate(_PLAIN).strip()


def is_gsm(text: str) -> bool:
    """Say whether all of a text is in the GSM alphabet."""
    return _GSM.union(_GSM_TWICE).issuperset(text)


def sms_parts(text: str) -> int:
    """Give how many SMS a text takes: in the GSM alphabet where that does, else in UCS-2. No character stands in two of them."""
    one, each, twice = (160, 153, _GSM_TWICE.__contains__) if is_gsm(text) else (70, 67, "\uffff".__lt__)
    sizes = [2 if twice(character) else 1 for character in text]
    if sum(sizes) <= one:
        return 1
    parts, room = 1, each
    for size in sizes:
        if size > room:
            parts, room = parts + 1, each
        room -= size
    return parts


def fit_sms(text: str, most: int) -> str:
    """Give the text where it takes at most `most` parts, else as much of its beginning as does with dots of its alphabet."""
    if sms_parts(text) <= most:
        return text
    ends = range(min(len(text), most * 160))
    end = bisect_right(ends, most, key=lambda end: sms_parts(_dotted(text[:end]))) - 1
    return _dotted(text[:end])


def _dotted(text: str) -> str:
    return text.rstrip() + ("..." if is_gsm(text) else "…")
