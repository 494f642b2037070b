"""The lists that are polled, and how far each has come: what changed since, and what of it was told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import msgspec

from pipeline import parse_time
from producers.github.options import Feed, GithubConfig

OVERLAP: Final = timedelta(minutes=2)
"""How far behind the latest change is looked again: GitHub may show a change some seconds after one that came later."""
_BEGINNING: Final = "1970-01-01T00:00:00Z"
_UNSTEADY: Final = frozenset({"unread", "last_read_at"})
"""Fields that change while nothing happens."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One list of GitHub's: of a repository, or of whoever asks."""

    kind: Feed
    repository: str = ""

    @property
    def name(self) -> str:
        """What it is called in a cursor, and in errors."""
        return f"{self.kind} of {self.repository}" if self.repository else self.kind

    @property
    def path(self) -> str:
        """Where it stands in the API."""
        if self.kind == "notifications":
            return "/notifications"
        return f"/repos/{self.repository}/{'pulls' if self.kind == 'pull_requests' else 'issues'}"

    def changed(self, since: datetime) -> Mapping[str, str]:
        """Give what asks for all that changed since, the latest change first."""
        if self.kind == "notifications":
            return {"all": "true", "since": written(since)}
        latest = {"state": "all", "sort": "updated", "direction": "desc"}
        return latest if self.kind == "pull_requests" else {**latest, "since": written(since)}

    def open(self) -> Mapping[str, str]:
        """Give what asks for all that is open or unread, the oldest first."""
        return {} if self.kind == "notifications" else {"state": "open", "sort": "created", "direction": "asc"}

    def wants(self, item: Mapping[str, Any], repositories: frozenset[str]) -> bool:
        """Say whether an item belongs here: the issues have pull requests among them, notifications are of all repositories."""
        if self.kind != "notifications":
            return self.kind != "issues" or "pull_request" not in item
        return not repositories or name_of(item).lower() in repositories


class Place(msgspec.Struct):
    """How far a list has come."""

    latest: str = _BEGINNING
    """When what was seen last changed."""
    told: list[str] = []
    """Digests of what changed within the overlap and is known, each with its time."""
    partly: str = ""
    """The item of whose messages some were told,"""
    part: int = 0
    """and how many."""
    tag: str = ""
    """The tag of the list's first page, where all of it is known."""
    rests_until: float = 0.0
    """When GitHub wants to be asked again, in seconds since 1970."""

    @property
    def since(self) -> datetime:
        """From when on is asked."""
        return max(parse_time(self.latest) - OVERLAP, parse_time(_BEGINNING))

    def knows(self, item: Mapping[str, Any]) -> bool:
        """Say whether this very state of an item was told."""
        return _mark(item) in self.told

    def is_told(self, item: Mapping[str, Any], number: int) -> bool:
        """Say whether this message of an item's was told before the others of the item were."""
        return self.partly == _mark(item) and number <= self.part

    def note(self, item: Mapping[str, Any], number: int = 1, *, of: int = 1) -> None:
        """Take one message of an item as told, and the item as known with the last; items come in the order of their times."""
        self.tag = ""
        if number < of:
            self.partly, self.part = _mark(item), number
            return
        self.partly, self.part = "", 0
        self.latest = max(self.latest, when(item))
        bound = written(self.since)
        self.told = [mark for mark in self.told if mark >= bound]
        if when(item) >= bound:
            self.told.append(_mark(item))


class Cursor(msgspec.Struct):
    """How far all lists have come, by name; `rounds` counts the polls that tell everything."""

    places: dict[str, Place] = {}
    rounds: int = 0
    """Begins at the time of the first poll: what is told after a cursor was lost is not taken for a repeat."""

    def text(self) -> str:
        """Write it."""
        return msgspec.json.encode(self).decode()


def read_cursor(text: str | None) -> Cursor:
    """Read what `Cursor.text` wrote."""
    return msgspec.json.decode(text, type=Cursor) if text else Cursor(rounds=int(time.time()))


def lists_of(config: GithubConfig) -> Iterator[Listing]:
    """Give the lists that these options want polled."""
    for kind in config.poll:
        if kind == "notifications":
            yield Listing(kind)
        else:
            yield from (Listing(kind, repository) for repository in config.repositories)


def when(item: Mapping[str, Any]) -> str:
    """Say when an item changed, as GitHub writes it: such texts sort as the times do."""
    updated = item.get("updated_at")
    try:
        return written(parse_time(updated))
    except ValueError:
        return _BEGINNING


def name_of(thread: Mapping[str, Any]) -> str:
    """Give the full name of a notification's repository."""
    repository = thread.get("repository")
    return str(repository.get("full_name", "")) if isinstance(repository, dict) else ""


def digest_of(item: Mapping[str, Any]) -> str:
    """Give what tells this state of an item from its others: its own fields, not those of the people and repositories in it."""
    own = {name: value for name, value in item.items() if not isinstance(value, dict) and name not in _UNSTEADY}
    head = item.get("head")
    own["head"] = head.get("sha") if isinstance(head, dict) else None
    return blake2b(msgspec.json.encode(own, order="sorted"), digest_size=8).hexdigest()


def _mark(item: Mapping[str, Any]) -> str:
    return f"{when(item)} {digest_of(item)}"


def written(moment: datetime) -> str:
    """Write a time as GitHub does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
