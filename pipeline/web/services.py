"""What the web edge needs from the rest, put together by whoever starts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.engine.pipeline import Pipelines
from pipeline.engine.publisher import Publisher
from pipeline.settings import Settings
from pipeline.store import Store


@dataclass(frozen=True)
class Services:
    """What requests are answered with. The app closes `publisher` and `pipelines` when it stops, and leaves `store` open."""

    pipelines: Pipelines
    store: Store
    publisher: Publisher
    settings: Settings
    check_broker: Callable[[], None]
    """Raises `TemporaryError` where the broker cannot be reached."""
