"""The options of `flap`."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pipeline import By, Config, Duration


class FlapConfig(Config):
    """The options of `flap`."""

    shorthand: ClassVar[str | None] = "changes"

    changes: int = Field(default=4, ge=2, le=30, description="So many changes of the status are flapping.")
    within: Duration = Field(default=timedelta(minutes=10), gt=timedelta(), description="In how long they happen.")
    stable: Duration = Field(
        default=timedelta(minutes=10), gt=timedelta(), description="How long the status must stay until flapping is over."
    )
    settle: Duration = Field(
        default=timedelta(minutes=1), description="How long a resolve waits that comes sooner than this after its firing message."
    )
    by: By = Field(default=By("key"), description="Fields in which messages about the same agree, such as [labels.alertname].")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.settle > self.within:
            raise ValueError("settle: at most as long as within is expected")
        return self
