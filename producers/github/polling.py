"""Polls GitHub's lists, and makes messages of what has changed in them, or of all that is open."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog

from pipeline import Message, PermanentError, PipelineError, TemporaryError, parse_time
from producers.github.api import Api, LimitedError
from producers.github.feeds import OVERLAP, Cursor, Listing, Place, digest_of, lists_of, read_cursor, when, written
from producers.github.options import GithubConfig
from producers.github.reading import Payload
from producers.github.writing import write

_MOST_WALKS: Final = 5
_SLACK: Final = 5.0
"""Seconds by which an answer may be later than the poll: GitHub wants a minute, and a schedule of a minute is to keep it."""
_NEAR: Final = timedelta(minutes=10)
"""How close to its last change a pull request was opened, closed or merged for this to be what is told of it."""
_Item = dict[str, Any]
_Found = Iterator[tuple[Message | None, str]]

log = structlog.get_logger()


class _Walked(NamedTuple):
    items: list[_Item]
    """What is to be told, in the order in which it changed."""
    tag: str
    pause: float


class Polling:
    """What a step that polls does at each occurrence of its schedule."""

    def __init__(self, config: GithubConfig) -> None:
        self._config = config
        self._api = Api(config)
        self._lists = list(lists_of(config))
        self._repositories = frozenset(map(str.lower, config.repositories))
        self._quiet_until = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def probe(self) -> str:
        """Ask who asks, and give the name."""
        return f"GitHub, as {self._api.login()}"

    def poll(self, text: str | None) -> _Found:
        """Go through all lists; one that cannot be read keeps no other from being told.

        Where no list came on, the first error is raised; else it is logged, as the engine would let go of what it was given and
        of how far the others came. After a `LimitedError` nothing is asked until the time that GitHub named is over.
        """
        if (left := self._quiet_until - time.monotonic()) > 0:
            raise LimitedError("GitHub limits how much is asked; it is left alone for now", retry_after=left)
        cursor = read_cursor(text)
        cursor.places = {one.name: cursor.places[one.name] for one in self._lists if one.name in cursor.places}
        cursor.rounds += self._config.remind
        before = deepcopy(cursor.places)
        failed: list[tuple[Listing, PipelineError]] = []
        told = False
        for one in self._lists:
            try:
                for message, position in self._open(one, cursor) if self._config.remind else self._changed(one, cursor):
                    told = True
                    yield message, position
            except LimitedError as error:
                self._quiet_until = time.monotonic() + (error.retry_after or 0)
                failed.append((one, error))
                break
            except (TemporaryError, PermanentError) as error:
                failed.append((one, error))
        _settle(failed, moved=told or cursor.places != before)
        if cursor.text() != text:
            yield None, cursor.text()

    def _changed(self, one: Listing, cursor: Cursor) -> _Found:
        """Tell what changed since the last poll, in the order in which it did."""
        place = cursor.places.get(one.name) or self._begun(one)
        if time.time() < place.rests_until:
            return
        found = self._walk(one, one.changed(place.since), place)
        cursor.places[one.name] = place
        for item in found.items:
            messages = list(self._messages(one, item, f"{when(item)} {digest_of(item)}", _action(item)))
            for number, message in enumerate(messages, 1):
                if not place.is_told(item, number):
                    place.note(item, number, of=len(messages))
                    yield message, cursor.text()
        place.tag = found.tag or place.tag
        place.rests_until = time.time() + found.pause - _SLACK if found.pause else 0.0

    def _open(self, one: Listing, cursor: Cursor) -> _Found:
        """Tell all that is open or unread."""
        for item in self._walk(one, one.open(), Place()).items:
            for message in self._messages(one, item, f"round {cursor.rounds}", "open"):
                yield message.replace(time=datetime.now(UTC)), cursor.text()

    def _begun(self, one: Listing) -> Place:
        """Give where a list begins: so far back as `start` says, or behind the latest change."""
        if self._config.start:
            return Place(latest=written(datetime.now(UTC) - self._config.start + OVERLAP))
        first = next(self._api.pages(one.path, one.changed(Place().since), repository=one.repository))
        place = Place(latest=max(map(when, first.items or ()), default=Place().latest))
        found = self._walk(one, one.changed(place.since), place)
        for item in found.items:
            place.note(item)
        place.tag = found.tag
        return place

    def _walk(self, one: Listing, query: Mapping[str, str], place: Place) -> _Walked:
        """Read a list that may change meanwhile, in which what moves from page to page is passed over.

        So several pages are read again until nothing new comes. The tag is that of a first page behind which all is known.
        """
        found: dict[Any, _Item] = {}
        for walk in range(_MOST_WALKS):
            fresh = read = 0
            tag, pause = "", 0.0
            for page in self._api.pages(one.path, query, repository=one.repository, tag="" if walk else place.tag):
                read += 1
                tag, pause = (page.tag, page.pause) if read == 1 else (tag, pause)
                if page.items is None:
                    return _Walked([], page.tag, page.pause)
                for item in page.items:
                    fresh += self._take(one, item, place, found)
                if _is_behind(page.items, place):
                    break
            if read == 1 or not fresh:
                break
        else:
            tag = ""
        return _Walked(sorted(found.values(), key=lambda item: (when(item), str(item.get("id")))), tag, pause)

    def _take(self, one: Listing, item: _Item, place: Place, found: dict[Any, _Item]) -> bool:
        """Keep an item that is to be told; say whether it is one, or another state of one."""
        if when(item) < written(place.since) or place.knows(item) or not one.wants(item, self._repositories):
            return False
        known = found.get(item.get("id"))
        found[item.get("id")] = item
        return known is None or digest_of(known) != digest_of(item)

    def _messages(self, one: Listing, item: _Item, unique: str, action: str) -> Iterator[Message]:
        unique = f"{one.name} {item.get('id')} {unique}"
        return write(_payload(one, item, action), unique, per_person=self._config.per == "person")


def _settle(failed: list[tuple[Listing, PipelineError]], *, moved: bool) -> None:
    if failed and not moved:
        one, error = failed[0]
        error.args = (f"{one.name}: {error}",)
        raise error
    for one, error in failed:
        log.warning("a list of GitHub's could not be polled", list=one.name, error=str(error))


def _payload(one: Listing, item: _Item, action: str) -> Payload:
    """Write an item as GitHub's webhooks do, so that messages of both look alike."""
    if one.kind == "notifications":
        data = {"action": item.get("reason"), "notification": item, "repository": item.get("repository")}
        return Payload("notification", data)
    home = str(item.get("html_url", "")).rpartition("/")[0].rpartition("/")[0]
    name = "/".join(home.split("/")[-2:]) if home else one.repository
    data = {
        "action": action,
        "pull_request" if one.kind == "pull_requests" else "issue": item,
        "repository": {"full_name": name, "html_url": home, "owner": {"login": name.partition("/")[0]}},
        **({"sender": item.get("user")} if action == "opened" else {}),
    }
    return Payload("pull_request" if one.kind == "pull_requests" else "issues", data)


def _action(item: _Item) -> str:
    """Say what was probably the latest that was done: GitHub's lists say when something changed, and not what."""
    changed = parse_time(when(item))
    for field, action in (("merged_at", "merged"), ("closed_at", "closed"), ("created_at", "opened")):
        moment = item.get(field)
        if isinstance(moment, str) and changed - parse_time(when({"updated_at": moment})) <= _NEAR:
            return action
    return "updated"


def _is_behind(items: list[_Item], place: Place) -> bool:
    """Say whether a page, the latest change first, reaches back to what is known."""
    return any(when(item) < written(place.since) for item in items)
