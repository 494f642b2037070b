"""Batches that are run as one: small ones that waited at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from pipeline.engine.batch import MAX_DELIVER, MAX_PROCESS, Batch, is_for_consumers


class Outline(msgspec.Struct, frozen=True):
    """What a batch says beside its messages, which are not read."""

    job: Literal["process", "deliver"]
    queue: str
    pipeline: str
    messages: list[msgspec.Raw]
    step: str = ""
    attempt: int = 1
    revision: str = ""
    deaths: int = 0
    claim: str = ""

    def join(self, other: Outline, full: int = 1) -> Outline | None:
        """Give that of both as one, of `full` full ones at most; None where they differ, or one has a story of its own."""
        messages = [*self.messages, *other.messages]
        if self.kind != other.kind or self.deaths or self.claim or len(messages) > full * self._most():
            return None
        return msgspec.structs.replace(self, messages=messages)

    @property
    def kind(self) -> tuple[object, ...]:
        """What those have in common that may run as one."""
        return self.job, self.queue, self.pipeline, self.step, self.attempt, self.revision, self.deaths, self.claim

    def _most(self) -> int:
        return MAX_DELIVER if is_for_consumers(self.queue) else MAX_PROCESS


_decoder: Final = msgspec.json.Decoder(Outline)


def outline(text: bytes | str) -> Outline | None:
    """Give what a batch says beside its messages; None for what is no batch."""
    try:
        return _decoder.decode(text)
    except (ValueError, RecursionError):
        return None


def joined(batches: Sequence[Batch]) -> Batch:
    """Give batches that differ in their messages only as one."""
    return batches[0].replace(messages=[message for batch in batches for message in batch.messages])
