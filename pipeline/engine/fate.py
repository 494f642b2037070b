"""The fate of a message: whether it reached a consumer, as far as the records can tell."""

from __future__ import annotations

from typing import Final

from pipeline.engine.pipeline import Pipeline
from pipeline.store import Outcome, Store

MOST_FOLLOWED: Final = 100
"""Messages that went on in place of others, and are looked at to answer for one."""


class Fates:
    """What became of messages of a pipeline, by the records in the store. Methods may raise `TemporaryError`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def lost(self, pipeline: Pipeline, message_id: str) -> bool:
        """Say whether a message has ended without reaching any consumer; False while it is on its way, or is not on record."""
        consumers = {step.label for step in pipeline.spec.consumers}
        waiting, seen = [message_id], {message_id}
        while waiting:
            records = [one for one in self._store.history(waiting.pop()) if one.pipeline == pipeline.spec.name]
            became = [other for one in records if one.outcome is Outcome.REPLACED for other in one.became if other not in seen]
            ended = {one.step for one in records if one.outcome in {Outcome.DROPPED, Outcome.BURIED}}
            on_its_way = any(one.outcome in {Outcome.DELIVERED, Outcome.HELD} for one in records)
            over = bool(became) or bool(ended - consumers) or ended >= consumers
            if on_its_way or not over or len(seen) > MOST_FOLLOWED:
                return False
            waiting += became
            seen.update(became)
        return True
