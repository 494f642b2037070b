"""Keeps the messages that a channel of the Redis transport has handed out until they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import virtual

if TYPE_CHECKING:
    from pipeline.queue.redis.claims import Claims, Outcome

UNLIMITED = 1 << 30
"""The room of a channel without a prefetch count."""


class Unsettled(virtual.QoS):
    """The unsettled messages of one channel. They may be settled from any thread, also when the channel is closed."""

    channel: Any

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._held: dict[str, tuple[Any, Claims]] = {}

    def can_consume(self) -> bool:
        """Say whether the channel may be handed another message."""
        return self.can_consume_max_estimate() > 0

    def can_consume_max_estimate(self) -> int:
        """Return how many more messages the channel may be handed."""
        return max(0, self.prefetch_count - len(self._held)) if self.prefetch_count else UNLIMITED

    def hold(self, message: Any, claims: Claims) -> None:
        """Note a delivered message and whose claim it is."""
        self._held[message.delivery_tag] = (message, claims)

    def holds(self) -> bool:
        """Say whether anything is not settled."""
        return bool(self._held)

    def get(self, delivery_tag: str) -> Any:
        """Return a message that is not settled."""
        return self._held[delivery_tag][0]

    def ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Remove the message, with `multiple` also those delivered before it. Its place is free whether Redis answers or not."""
        tags = [delivery_tag]
        if multiple and delivery_tag in self._held:
            earlier = list(self._held)
            tags = earlier[: earlier.index(delivery_tag) + 1]
        self._settle("done", tags)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put the message back at its place, as delivered in vain; else move it to the unreadable ones, for nothing is lost."""
        self._settle("failed" if requeue else "aside", [delivery_tag])

    def restore_unacked(self) -> None:
        """Hand back all that is not settled."""
        self._settle("back", list(self._held))

    def restore_unacked_once(self, stderr: Any = None) -> None:  # noqa: ARG002 - kombu's signature
        """Hand back all that is not settled, at the end of the channel or the process.

        While Redis is away all stays held: the connection's end hands it back then, and what is acknowledged before counts.
        """
        self._on_collect.cancel()  # type: ignore[attr-defined]  # kombu's finalizer, not in the stubs
        for claims in {claims for _, claims in self._held.values()}:
            tags = [tag for tag, (_, whose) in self._held.items() if whose is claims]
            if claims.hand_back([int(tag) for tag in tags]):
                for tag in tags:
                    self._held.pop(tag, None)

    def _settle(self, outcome: Outcome, tags: list[str]) -> None:
        held = [(int(tag), self._held.pop(tag)[1]) for tag in tags if tag in self._held]
        transport = self.channel.connection
        for claims in {claims for _, claims in held}:
            ended = [tag for tag, whose in held if whose is claims]
            if outcome == "done" and transport is not None and transport.tells(claims):
                claims.owe(outcome, ended)
            else:
                claims.settle(outcome, ended)
        if transport is not None:
            transport.stir()
