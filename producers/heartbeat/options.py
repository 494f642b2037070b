"""The options of the heartbeat producer, and what is expected of one name by them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline import SEVERITIES, Config, Duration, normal_severity, read_schedule, read_zone

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _expected(text: str) -> str:
    read_schedule(text)
    return text


def _zone(name: str) -> str:
    read_zone(name)
    return name


def _severity(word: str) -> str:
    if (severity := normal_severity(word)) not in SEVERITIES:
        raise ValueError(f"one of {', '.join(SEVERITIES)} is expected")
    return severity


_Every = Annotated[str, AfterValidator(_expected)]
_Severity = Annotated[str, AfterValidator(_severity)]


class NameConfig(Config):
    """What is expected of one name; what it does not say is as beside `names`."""

    every: _Every | None = Field(default=None, description="How often it calls: an interval, or a cron line.")
    grace: Duration | None = Field(default=None, description="How much later than that it is late.")
    longest: Duration | None = Field(default=None, description="How long it may take from its start to its end.")
    severity: _Severity | None = Field(default=None, description="How severe it is when it is late or has failed.")


def _named(value: Any) -> Any:
    if isinstance(value, list):
        value = dict.fromkeys(map(str, value))
    if not isinstance(value, dict):
        return value
    return {name: {} if one is None else {"every": one} if isinstance(one, str) else one for name, one in value.items()}


_Names = dict[Annotated[str, Field(pattern=f"^{NAME}$")], NameConfig | str | None] | list[str]


class HeartbeatConfig(Config):
    """The options of `heartbeat`."""

    names: Annotated[
        dict[Annotated[str, Field(pattern=f"^{NAME}$")], NameConfig], BeforeValidator(_named, json_schema_input_type=_Names)
    ] = Field(default_factory=dict, description="What is watched: each name with what is expected of it, or how often it calls.")
    any: bool = Field(default=False, description="Watch whatever calls, from its first call on.")
    every: _Every | None = Field(default=None, description="How often each calls: an interval, or a cron line.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(default="UTC", description="The time zone of cron lines.")
    grace: Duration = Field(default=timedelta(minutes=1), description="How much later than that it is late.")
    longest: Duration | None = Field(default=None, description="How long each may take from its start to its end.")
    severity: _Severity = Field(default="error", description="How severe it is when one is late or has failed.")
    forget: Duration = Field(
        default=timedelta(days=30), description="With `any`: how long one that is late is watched for, unless it calls."
    )

    @model_validator(mode="after")
    def _complete(self) -> HeartbeatConfig:
        if not self.names and not self.any:
            raise ValueError("names are missing: list them, or say 'any: true'")
        for name in (name for name, one in self.names.items() if one.every is None and self.every is None):
            raise ValueError(f"names.{name}: 'every' is missing, here or beside 'names'")
        if self.any and self.every is None:
            raise ValueError("'any' needs 'every'")
        return self
