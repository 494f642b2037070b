"""Keeps the messages that a channel of the SQLite transport has handed out until they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.log import get_logger
from kombu.transport import virtual

from pipeline.queue.sqlite.file import QueueFileError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = get_logger(__name__)

UNLIMITED = 1 << 30
"""The room of a channel without a prefetch count."""


class Unsettled(virtual.QoS):
    """The unsettled messages of one channel. Settling is written at once, from whichever thread."""

    channel: Any

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._held: dict[str, Any] = {}

    def can_consume(self) -> bool:
        """Say whether the channel may be handed another message."""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages the channel may be handed."""
        return max(0, self.prefetch_count - len(self._held)) if self.prefetch_count else UNLIMITED

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message."""
        self._held[delivery_tag] = message

    def get(self, delivery_tag: str) -> Any:
        """Return a message that is not settled."""
        return self._held[delivery_tag]

    def ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Remove the message, with `multiple` also those delivered before it, from the queue.

        Its place is free even when that cannot be written now; then it is owed to the file, and QueueFileError raised.
        """
        self._settle(self.channel.rows.acknowledge, self._take(delivery_tag, multiple=multiple))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Remove the message from the queue, or put it back at its place as delivered in vain. Fails as `ack` does."""
        rows = self.channel.rows
        self._settle(rows.refuse if requeue else rows.acknowledge, self._take(delivery_tag))

    def restore_unacked(self) -> None:
        """Hand back all that is not settled."""
        held = list(self._held)
        self._held.clear()
        try:
            if held:
                self._settle(self.channel.rows.hand_back, held)
        except QueueFileError as error:
            logger.warning("%d messages go back to their queues when this connection ends: %s", len(held), error)

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Hand back all that is not settled, at the end of the channel or the process."""
        self._on_collect.cancel()  # type: ignore[attr-defined]  # kombu's finalizer, not in the stubs
        self.restore_unacked()

    def _take(self, tag: str, *, multiple: bool = False) -> list[str]:
        if tag not in self._held:
            raise QueueFileError(f"message {tag} is no longer held by this channel; it is delivered again elsewhere")
        tags = [tag]
        if multiple:
            earlier = list(self._held)
            tags = earlier[: earlier.index(tag) + 1]
        for each in tags:
            self._held.pop(each, None)
        return tags

    def _settle(self, write: Callable[[list[int]], None], tags: list[str]) -> None:
        try:
            write([int(tag) for tag in tags])
        finally:
            self.channel.connection.stir()
