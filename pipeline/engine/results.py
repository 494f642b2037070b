"""What becomes of deliveries behind the other side: noted by the consumer, told by who called back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from pipeline.errors import TemporaryError
from pipeline.message import Message
from pipeline.plugin import Told
from pipeline.store import Store
from pipeline.store.results import Result
from pipeline.telemetry import RESULTS

log = structlog.get_logger()

MOST: Final = 500
"""Characters of a text that are kept, and of a reference."""


@dataclass(frozen=True, slots=True)
class StepResults:
    """The results of one step's deliveries."""

    store: Store
    pipeline: str
    step: str
    now: Callable[[], datetime]

    def note(self, message: Message, reference: str, text: str) -> None:
        """Note what the other side calls this delivery; a store that is away is told in the log."""
        try:
            self.store.note_result(self._result(reference, message_id=message.id, note=text[:MOST]))
        except TemporaryError as away:
            told = "what a delivery is called could not be noted; `siftbell explain` will not tell what becomes of it"
            log.warning(told, pipeline=self.pipeline, step=self.step, message=message.id, reference=reference, error=str(away))

    def tell(self, told: Told) -> None:
        """Write what the other side says of a delivery, count it, and log what did not arrive. Raises StoreAway."""
        result = self._result(told.reference, arrived=told.arrived, text=told.text[:MOST])
        self.store.tell_result(result)
        outcome = {None: "under way", True: "arrived", False: "failed"}[told.arrived]
        RESULTS.labels(self.pipeline, self.step, outcome).inc()
        if told.arrived is False:
            log.warning("did not arrive", pipeline=self.pipeline, step=self.step, reference=result.reference, reason=result.text)

    def _result(self, reference: str, **known: Any) -> Result:
        known = {"message_id": "", **known}
        return Result(pipeline=self.pipeline, step=self.step, reference=reference[:MOST], at=self.now(), **known)
