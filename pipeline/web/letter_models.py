"""The shapes in which the API takes and gives dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

MOST_REFUSED: Final = 100
"""Refused letters named in one answer; the others are counted."""


class DeadLetterModel(BaseModel):
    """A message that was given up at a step."""

    message_id: str
    pipeline: str
    step: str
    error: str
    attempts: int
    at: datetime
    edited: datetime | None = Field(description="When the message was last changed here.")
    title: str
    place: str = Field(description="Where it stands in the list: what `before` and `after` take.")


class FullDeadLetterModel(DeadLetterModel):
    """The same with everything that is known."""

    traceback: str
    version: str = Field(description="What an edit has to name; another one after each change.")
    message: dict[str, Any]


class DeadLettersModel(BaseModel):
    """Dead letters, the newest first."""

    dead_letters: list[DeadLetterModel]
    next: str | None = Field(description="The next page's path and query, where there may be one.")


class GroupModel(BaseModel):
    """The dead letters of one pipeline, step and kind of error: texts that differ in numbers, ids and addresses only."""

    group: str = Field(description="What `group` takes.")
    pipeline: str
    step: str
    count: int
    first: datetime
    last: datetime
    error: str = Field(description="The newest one's.")
    example: str = Field(description="The newest one's message id.")


class GroupsModel(BaseModel):
    """Groups, the largest first."""

    groups: list[GroupModel]
    total: int = Field(description="How many groups there are.")


class EditModel(BaseModel):
    """What becomes of a message before it is redriven."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(description="The letter's `version` as it was read.")
    message: dict[str, Any] = Field(description="The whole message; its id stays.")


class SelectionModel(BaseModel):
    """Which dead letters are meant: those for which all that is given holds. Times: ISO 8601, or `2h` for so long ago."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str | None = None
    step: str | None = Field(None, description="The label of a consumer or filter.")
    error: str | None = Field(None, description="A part of the error, in whatever case.")
    group: str | None = None
    since: str | None = None
    until: str | None = Field(None, description="Only those given up before.")
    ids: list[str] = Field([], max_length=1000, description="Message ids.")
    all: bool = Field(False, description="Needed where nothing else says which.")
    limit: int = Field(1000, ge=1, le=10_000, description="At most so many are looked at in this request.")
    after: str | None = Field(None, description="The `place` to go on behind.")


class RedriveModel(SelectionModel):
    """Which dead letters are to be redriven, and how."""

    rate: str | None = Field(None, description="Bring back no more than so many, such as `50/s`.", examples=["50/s"])
    start: datetime | None = Field(None, description="When the first one is due; unset: now.")
    dry_run: bool = Field(False, description="Change nothing.")


class RefusedModel(BaseModel):
    """A dead letter that stays."""

    message_id: str
    pipeline: str
    step: str
    reason: str


class MovedModel(BaseModel):
    """What one request did. Post `next` to the same path to go on."""

    moved: int
    refused: int = Field(description="How many stay.")
    reasons: list[RefusedModel] = Field(description=f"Why they stay, for the first {MOST_REFUSED}.")
    remaining: int = Field(description="How many of the selection have not been looked at yet.")
    next: dict[str, Any] | None = Field(description="The body of the request that goes on; null: all were looked at.")
