"""What the ways in share: an alert's fingerprint, its message, and the words for what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Literal

from pipeline import Message, Problem, normal_severity, parse_time

_UNSET: Final = re.compile(r"0001-01-01T00:00:00(\.0+)?(Z|[+-]00:00)")
"""How Alertmanager and its clients write a time that is not set: Go's zero."""


def message_of(
    labels: dict[str, str], annotations: Mapping[str, str], status: Literal["firing", "resolved"], **fields: Any
) -> Message:
    """Give an alert's message: title, text, severity and labels as all ways in map them; `fields` are the others."""
    return Message(
        type="alert",
        title=annotations.get("summary") or labels.get("alertname") or "alert",
        text=annotations.get("description") or annotations.get("message", ""),
        severity=normal_severity(labels.get("severity", "")),
        status=status,
        labels=labels,
        **fields,
    )


def fingerprint(labels: Mapping[str, str]) -> str:
    """Compute what Alertmanager calls an alert by: FNV-1a of 64 bits over its sorted labels."""
    return _fingerprint(tuple(sorted(labels.items())))


@lru_cache(maxsize=4096)
def _fingerprint(labels: tuple[tuple[str, str], ...]) -> str:
    """Compute it byte by byte, which takes Python long; Prometheus sends the same alerts each minute."""
    value = 0xCBF29CE484222325
    for byte in b"".join(name.encode() + b"\xff" + text.encode() + b"\xff" for name, text in labels):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def moment(name: str, text: str | None) -> datetime | None:
    """Read a time; None where it is not set. Raises ValueError that names it."""
    if not text or _UNSET.fullmatch(text):
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def without_nul(texts: Mapping[str, str] | None) -> dict[str, str]:
    """Give names and texts without NUL: Prometheus has it in labels, and databases do not."""
    return {_clean(name): _clean(text) for name, text in (texts or {}).items()}


def storable(value: Any, room: int) -> Any:
    """Give what JSON held without NUL; raises ValueError for what databases refuse, too: huge integers, and for more levels."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("it holds an integer of more than 64 bits")
    if isinstance(value, dict | list) and not room:
        raise ValueError("it nests too deep")
    if isinstance(value, dict):
        return {_clean(name): storable(inner, room - 1) for name, inner in value.items()}
    return [storable(inner, room - 1) for inner in value] if isinstance(value, list) else value


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def problem_of(place: str, error: ValueError, alert: Any = None) -> Problem:
    """Put what is wrong with an alert, msgspec's complaint or ours, into words and a place."""
    what, found, path = str(error).partition(" - at `$")
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return Problem(f"{place}.{missing[1]}", "is required")
    if not found and re.match(r"\w+: ", what):
        where, _, what = what.partition(": ")
        return Problem(f"{place}.{where}", what)
    where = path.rstrip("`")
    if where.endswith("[...]") and isinstance(alert, dict):
        where = where.removesuffix("[...]")
        wrong = next((name for name, value in alert[where[1:]].items() if not isinstance(value, str)), "")
        where = f"{where}.{wrong}"
    return Problem(f"{place}{where.removesuffix('[...]')}", what.replace("`", "").lower().replace("expected ", "expected: "))
