"""API keys: made and shown once, stored as digests, and checked without asking the store for every request."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from time import monotonic
from typing import Final

from pipeline.errors import PermanentError, TemporaryError
from pipeline.store import Store
from pipeline.store.rows import ApiKey

SCOPES: Final = ("intake", "api")
"""What a key may be good for: `intake` to post messages, `api` to read and steer."""
FRESH: Final = 10.0
"""Seconds for which the store is not asked again about a key; a revoked key works for that long at most."""
LAST_KNOWN: Final = 3600.0
"""Seconds for which a key that was good goes on working while the store is away."""
PAUSE: Final = 5.0
"""Seconds after the store did not answer during which it is not asked about keys that were good."""
MOST: Final = 1000
"""Keys remembered, good and unknown ones each."""
_FORM: Final = re.compile(r"sb_[A-Za-z0-9_-]{43}[0-9a-f]{6}")


def create_key(store: Store, name: str, scopes: Iterable[str], expires: datetime | None = None) -> str:
    """Make a key, store what is needed to recognise it, and give it: it cannot be had again.

    Raises `PermanentError` for a scope that there is not, or none; `TemporaryError` when the store is away.
    """
    wanted = frozenset(scopes)
    if not wanted or not wanted <= frozenset(SCOPES):
        raise PermanentError(f"a key needs one or both of the scopes {' and '.join(SCOPES)}")
    body = f"sb_{secrets.token_urlsafe(32)}"
    key = body + _checksum(body)
    now = datetime.now(UTC)
    store.add_key(ApiKey(name=name, prefix=key[:9], digest=_digest(key), scopes=wanted, created=now, expires=expires))
    return key


def digest_of(key: str) -> str | None:
    """Give the digest under which a key is stored, or None for what cannot be a key, such as one with a typing error."""
    well_formed = _FORM.fullmatch(key) is not None and hmac.compare_digest(key[-6:], _checksum(key[:-6]))
    return _digest(key) if well_formed else None


@dataclass(frozen=True, slots=True)
class Known:
    """What the store said about a digest: its key, or None where there is none."""

    key: ApiKey | None
    at: float


class KeyCheck:
    """The keys that were asked for lately. `remembered` and `last_known` return at once, `ask` waits for the store."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._good: dict[str, Known] = {}
        self._unknown: dict[str, Known] = {}
        self._away_until = 0.0

    def remembered(self, digest: str) -> Known | None:
        """Give what the store said within the last `FRESH` seconds; None: it is to be asked."""
        found = self._good.get(digest) or self._unknown.get(digest)
        if found is not None and self._clock() - found.at < FRESH:
            return found
        return self.last_known(digest) if self._clock() < self._away_until else None

    def ask(self, digest: str) -> ApiKey | None:
        """Ask the store; raises `TemporaryError` when it is away."""
        try:
            key: ApiKey | None = self._store.key_by_digest(digest)
        except TemporaryError:
            self.away()
            raise
        if key is not None and not hmac.compare_digest(key.digest, digest):
            key = None
        self._good.pop(digest, None)
        keep = self._unknown if key is None else self._good
        if len(keep) >= MOST:
            keep.clear()
        keep[digest] = Known(key, self._clock())
        return key

    def away(self) -> None:
        """Note that the store did not answer."""
        self._away_until = self._clock() + PAUSE

    def last_known(self, digest: str) -> Known | None:
        """Give a key that was good within the last `LAST_KNOWN` seconds: what holds while the store is away."""
        found = self._good.get(digest)
        return found if found is not None and self._clock() - found.at < LAST_KNOWN else None


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:6]


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()
