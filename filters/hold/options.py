"""The options of `hold`."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field

from pipeline import By, Condition, Config, Duration


class HoldConfig(Config):
    """The options of `hold`."""

    shorthand: ClassVar[str | None] = "for"

    for_: Duration = Field(alias="for", gt=timedelta(), description="How long it must last until it is told.")
    by: By = Field(default=By("key"), description="Fields in which messages about the same agree, such as [labels.alertname].")
    pass_: Condition | None = Field(default=None, alias="pass", description="Firing messages that pass at once (CEL).")
    tell: Literal["text", "data"] | None = Field(
        default=None, description="Where it is told how long it has lasted; else nowhere."
    )
    remember: Duration = Field(
        default=timedelta(days=7), gt=timedelta(), description="How long after its last message it is known that it was told."
    )
