"""What belongs to the engine and stands beside a plugin's name in a step: `as`, `when`, `schedule`, `retry` and so on."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from pipeline.condition import Condition
from pipeline.registry import Kind
from pipeline.rendering import RenderingOrText
from pipeline.schedule import read_schedule, read_zone
from pipeline.units import Duration, Rate

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
NAME_RULE: Final = "lower-case letters, digits, '-' and '_' are expected, at most 63"


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(NAME_RULE)
    return text


def _schedule(text: str) -> str:
    read_schedule(text)
    return text


def _zone(text: str) -> str:
    read_zone(text)
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]


class Siblings(BaseModel):
    """What every step may have."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    label: Name | None = Field(default=None, alias="as", description="The name of this step; else the plugin's name.")
    active: bool = Field(default=True, description="false leaves the step out.")


class ProducerSiblings(Siblings):
    """What a producer may have."""

    schedule: Annotated[str, AfterValidator(_schedule)] | None = Field(
        default=None,
        description="When a polling producer is asked: 30s, a cron line of five fields, or @daily and the like.",
    )
    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None, description="The time zone of a cron line, such as Europe/Berlin; UTC where it is not given."
    )


class FilterSiblings(Siblings):
    """What a filter may have."""

    when: Condition | None = Field(default=None, description="Messages for which this does not hold pass the filter unchanged.")
    queue: Name | None = Field(default=None, description="Starts a new hop, on a queue of this name.")


def _positive(wait: timedelta) -> timedelta:
    if not wait:
        raise ValueError("a duration above zero is expected")
    return wait


class RetrySiblings(BaseModel):
    """How temporary errors are tried again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lasting: Duration = Field(
        default="6h",
        validate_default=True,
        alias="for",
        description="How long a message is tried again before it goes to the dead letters.",
    )
    first: Annotated[Duration, AfterValidator(_positive)] = Field(
        default="1s", validate_default=True, description="The longest wait before the second attempt; doubles with each."
    )
    longest: Annotated[Duration, AfterValidator(_positive)] = Field(
        default="10m", validate_default=True, description="The longest wait, where the other side asks for no longer one."
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.first > self.longest:
            raise ValueError("'first' is not longer than 'longest'")
        return self


class ConsumerSiblings(Siblings):
    """What a consumer may have."""

    when: Condition | None = Field(default=None, description="The consumer gets only messages for which this holds.")
    queue: Name | None = Field(default=None, description="The queue its batches wait on; else one of the step's own.")
    concurrency: int = Field(default=50, ge=1, le=1000, description="How many messages each worker process gives to it at once.")
    retry: RetrySiblings | None = Field(default=None, description="How temporary errors are tried again; else for 6h.")
    rate: Rate | None = Field(
        default=None, description="At most so many messages are delivered in a time, over all workers: 20/s, 90/m, 1000/h."
    )
    ordered: bool = Field(
        default=False,
        description="Messages of one key arrive in the order in which they were accepted; one that waits holds back its key.",
    )
    render: RenderingOrText | None = Field(
        default=None, description="How messages are written for this consumer: as the filter `render` does, for it alone."
    )


class KeepOptions(BaseModel):
    """For how long messages are kept for `siftbell replay`, and how many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lasting: Annotated[Duration, AfterValidator(_positive)] = Field(
        alias="for", description="How long a message is kept; no longer than records are."
    )
    most: int = Field(default=100_000, ge=1, le=10_000_000, description="How many are kept, about; the oldest go first.")


def _bare(value: object) -> object:
    return value if isinstance(value, dict) else {"for": value}


class PipelineKeys(BaseModel):
    """What a pipeline may have beside its name, its description and its steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: Annotated[KeepOptions | None, BeforeValidator(_bare)] = Field(
        default=None, description="Keeps the messages as they were accepted, for `siftbell replay`: 24h, or for: and most:."
    )


SIBLINGS: Final[dict[Kind, type[Siblings]]] = {
    "producer": ProducerSiblings,
    "filter": FilterSiblings,
    "consumer": ConsumerSiblings,
}


def keys(kind: Kind) -> list[str]:
    """Give the sibling keys that a step of a kind may have, as they stand in YAML."""
    return [field.alias or name for name, field in SIBLINGS[kind].model_fields.items()]


RESERVED: Final = frozenset({"use", *(key for kind in SIBLINGS for key in keys(kind))})
"""Keys of a step that are no plugin's name, but for `queue` with options under it, and a key of other kinds than the plugin's."""
