"""What this process is working on: a message that came twice is not given to its consumer twice at once."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

Place = tuple[str, str]
"""Pipeline and step."""


class Underway:
    """The messages under way in one process. The second of two batches that share messages waits until the first is recorded.

    A batch comes twice without any death where a publish was confirmed too late and repeated, or where its worker lost
    the broker in the middle of it.
    """

    def __init__(self) -> None:
        self._messages: set[tuple[Place, str]] = set()
        self._changed = threading.Condition()

    @contextmanager
    def alone(self, place: Place, message_ids: Collection[str]) -> Iterator[None]:
        """Have these messages at a step for this thread alone, waiting for as long as others have some of them."""
        mine = {(place, message_id) for message_id in message_ids}
        with self._changed:
            self._changed.wait_for(lambda: self._messages.isdisjoint(mine))
            self._messages |= mine
        try:
            yield
        finally:
            with self._changed:
                self._messages -= mine
                self._changed.notify_all()
