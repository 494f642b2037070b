"""Cursors: how far new rows have come, what there was at the last poll, and how values are written in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, Self
from uuid import UUID

import msgspec

from pipeline import PermanentError, SqlDatabase

MOST: Final = 10_000
"""Rows that a cursor remembers, and that a result without `:cursor` may have."""
DIGEST: Final = 16
"""Characters of a digest in a cursor."""


class Place:
    """How far the rows have come: the value from which on is asked, the latest one, and which rows behind the bound were told."""

    def __init__(self, bound: Any, latest: Any = None, told: Iterable[str] = ()) -> None:
        self.bound = bound
        self._latest = latest
        self._old = dict.fromkeys(told)
        """Told at an earlier poll, and not met in this one yet."""
        self._met: dict[str, Any] = {}
        """Told or passed over in this poll, with the value of each, about in order."""
        self._joined = ""
        """Both as they are written; empty where that is to be done anew: thousands of them are not put together for each row."""

    @classmethod
    def read(cls, cursor: str) -> Self:
        """Read what `text` wrote."""
        kept = msgspec.json.decode(cursor)
        told = kept["told"]
        latest = None if kept["latest"] is None else _read(kept["latest"])
        return cls(_read(kept["bound"]), latest, (told[at : at + DIGEST] for at in range(0, len(told), DIGEST)))

    def text(self) -> str:
        """Write it as a cursor."""
        latest = None if self._latest is None else _written(self._latest)
        self._joined = self._joined or "".join((*self._old, *self._met))
        kept = {"bound": _written(self.bound), "latest": latest, "told": self._joined}
        return msgspec.json.encode(kept).decode()

    @property
    def remembered(self) -> int:
        """How many rows are remembered as told."""
        return len(self._old) + len(self._met)

    def pass_by(self, value: Any, digest: str, overlap: timedelta | float | None) -> bool:
        """Note the next row, in the order of the values, and say whether it is to be told."""
        digest = digest[:DIGEST]
        known = digest in self._old or digest in self._met
        self._old.pop(digest, None)
        try:
            if self._latest is None or value > self._latest:
                self._move(value, overlap)
            elif _is_less(value, self.bound):
                raise PermanentError("the rows do not come in the order of the cursor's column: end the query with ORDER BY")
        except TypeError:
            raise PermanentError("the values of the cursor's column cannot be compared: they are of different types") from None
        self._met.setdefault(digest, value)
        if self._joined and not known:
            self._joined += digest
        if self.remembered > MOST:
            raise PermanentError(
                f"more than {MOST} rows share a value of the cursor's column, or lie within `overlap`: "
                "name a column that tells rows apart, or a shorter overlap"
            )
        return not known

    def _move(self, value: Any, overlap: timedelta | float | None) -> None:
        """Go on to a later value: all that is remembered has been met or is gone, and the bound follows."""
        self._old.clear()
        self._joined = ""
        if self._latest is not None:
            follows = self._latest if overlap is None else min(self._latest, _before(value, overlap))
            self.bound = _later(self.bound, follows)
        self._latest = value
        while self._met and (first := next(iter(self._met))) and _is_less(self._met[first], self.bound):
            del self._met[first]


class Kept:
    """What there was at the last poll: a digest of each row by a digest of what tells it apart; and how many were told so far."""

    def __init__(self, count: int = 0, rows: str = "") -> None:
        self.count = count
        self._joined = rows
        ends = range(0, len(rows), 2 * DIGEST)
        self.rows = {rows[at : at + DIGEST]: rows[at + DIGEST : at + 2 * DIGEST] for at in ends}

    @classmethod
    def read(cls, cursor: str | None) -> Self:
        """Read what `text` wrote."""
        return cls(**msgspec.json.decode(cursor)) if cursor else cls()

    def text(self) -> str:
        """Write it as a cursor."""
        self._joined = self._joined or "".join(key + digest for key, digest in self.rows.items())
        return msgspec.json.encode({"count": self.count, "rows": self._joined}).decode()

    def put(self, key: str, digest: str) -> None:
        """Note a row."""
        self._joined = self._joined + key + digest if self._joined and key not in self.rows else ""
        self.rows[key] = digest

    def forget(self, key: str) -> None:
        """Forget a row that is gone."""
        self._joined = ""
        del self.rows[key]


def digest_of(value: Any, *more: Any) -> str:
    """Give what tells values apart, whatever they hold."""
    return blake2b(msgspec.json.encode(SqlDatabase.plain([value, *more])), digest_size=16).hexdigest()


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "int": int,
    "float": float,
    "str": str,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": bytes.fromhex,
    "UUID": UUID,
}


def _written(value: Any) -> tuple[str, str]:
    kind = type(value).__name__
    if kind not in _READERS:
        raise PermanentError(f"the cursor's column holds {kind}: a column of numbers, times or texts is expected")
    return kind, value.hex() if kind == "bytes" else value.isoformat() if isinstance(value, date) else str(value)


def _read(written: Sequence[str]) -> Any:
    kind, text = written
    return _READERS[kind](text)


def _before(value: Any, overlap: timedelta | float) -> Any:
    """Give what is by `overlap` less than a value, of the value's own type."""
    try:
        if not isinstance(overlap, timedelta):
            return value - (Decimal(str(overlap)) if isinstance(value, Decimal) else overlap)
        if isinstance(value, (int, float)):  # seconds or milliseconds since 1970
            return value - type(value)(overlap.total_seconds() * (1000 if value >= 10**11 else 1))
        if not isinstance(value, str):
            return value - overlap
        moment = datetime.fromisoformat(value) - overlap
        return moment.isoformat(value[10]) if len(value) > 10 else moment.date().isoformat()
    except (TypeError, ValueError, OverflowError):
        raise PermanentError("overlap: a duration is expected for a column of times, a number for one of numbers") from None


def _is_less(one: Any, other: Any) -> bool:
    try:
        return bool(one < other)
    except TypeError:  # the start, as it stands in the configuration
        return False


def _later(bound: Any, follows: Any) -> Any:
    """Give the later of two; where the bound is still the text of a time, it is read."""
    try:
        return max(bound, follows)
    except TypeError:
        pass
    try:
        start = datetime.fromisoformat(bound)
        zone = follows.tzinfo
    except (TypeError, ValueError, AttributeError):
        return follows
    return follows if (start.astimezone(zone) if start.tzinfo and zone else start.replace(tzinfo=zone)) < follows else bound
