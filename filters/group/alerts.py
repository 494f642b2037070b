"""The alerts of a group: what is kept of each, and what becomes of one that is heard of again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from pipeline import SLACK, Message, Spell


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an alert."""

    identity: str
    starts: datetime
    ends: datetime
    """When it was over, or until when it counts as firing if nothing more is heard."""
    heard: datetime
    """When the last message about it came, by the clock of the worker that took it."""
    over: bool = False
    """Whether a message said that it is over."""
    assumed: bool = False
    """Whether `ends` is our own guess."""
    told: bool = False
    """Whether a notification has it as firing, and none has it as resolved since."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    title: str = ""
    text: str = ""
    severity: str = ""
    source: str = ""
    url: str = ""

    @property
    def changed(self) -> datetime:
        """Since when it is what it is."""
        return self.ends if self.over else self.starts

    def fires(self, moment: datetime) -> bool:
        """Say whether it fires at a moment; what is said to be over is, by whichever clock."""
        return not self.over and self.ends > moment


def alert_of(message: Message, spell: Spell, now: datetime) -> Alert:
    """Give what is kept of a message about an alert that comes `now`; title and text are not kept twice."""
    data = message.data if isinstance(message.data, Mapping) else {}
    given = data.get("annotations")
    annotations = {str(name): str(text) for name, text in given.items()} if isinstance(given, Mapping) else {}
    return Alert(
        identity=spell.identity,
        starts=spell.starts,
        ends=spell.ends,
        heard=now,
        over=spell.over,
        assumed=spell.assumed,
        labels=message.labels,
        annotations=annotations,
        title="" if annotations.get("summary") == message.title else message.title,
        text="" if annotations.get("description") == message.text else message.text,
        severity=message.severity,
        source=message.source,
        url=message.url,
    )


def merged(old: Alert, new: Alert) -> Alert | None:
    """Give what is known of an alert after another message about it; None where that came too late to change anything.

    As in Alertmanager the later message counts, times that overlap are one, and an end that is told is not brought forward
    by a message that still fires. Messages may overtake one another here: one that fires since before the known end
    loses against that end, and an end from before the known start loses against the start.
    """
    if new.over and not old.over and new.ends + SLACK < old.starts:
        return None
    if old.over and not new.over and new.starts <= old.ends and new.heard <= old.heard + SLACK:
        return None
    if new.heard < old.heard and new.over == old.over:
        old, new = msgspec.structs.replace(new, told=old.told), old
    overlaps = old.starts < new.ends < old.ends or old.starts < new.starts < old.ends
    changes: dict[str, Any] = {"told": old.told, "heard": max(old.heard, new.heard)}
    if overlaps:
        changes["starts"] = min(old.starts, new.starts)
        is_over = new.ends <= new.heard
        if old.ends > new.ends and (old.ends <= new.heard if is_over else not old.assumed):
            changes["ends"] = old.ends
    return msgspec.structs.replace(new, **changes)
