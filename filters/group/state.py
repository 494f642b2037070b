"""What is known of a group between its notifications, and whether there is something to tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import msgspec

from filters.group.alerts import Alert, merged

_SWEEP: Final = timedelta(seconds=30)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seen:
    """The alerts of a group that are not silenced, at one moment."""

    firing: Sequence[Alert]
    resolved: Sequence[Alert]


class State(msgspec.Struct, omit_defaults=True):
    """A group: its alerts by identity, and what was last told of it."""

    due: datetime
    """When it is looked at next."""
    labels: dict[str, str] = {}
    """What its alerts have in common, by the names that they are grouped by."""
    alerts: dict[str, Alert] = {}
    firing: list[str] = []
    """What fired in the last notification."""
    resolved: list[str] = []
    """What was over in the last notification."""
    told: datetime | None = None
    """When the last notification was; None: there was none."""
    empty: datetime | None = None
    """When it is gone unless an alert comes; None while there is one."""

    @classmethod
    def read(cls, kept: object) -> Self:
        """Read what `write` gave."""
        return msgspec.convert(kept, cls)

    def write(self) -> object:
        """Give it as JSON has it."""
        written: object = msgspec.to_builtins(self)
        return written

    def take(self, alert: Alert, most: int) -> str:
        """Take what is heard of an alert; say in a few words why it is not taken, empty where it is."""
        old = self.alerts.get(alert.identity)
        if old is None and len(self.alerts) >= most:
            return "full"
        new = alert if old is None else merged(old, alert)
        if new is None:
            return "a later message about this alert came before it"
        self.alerts[alert.identity] = new
        return ""

    def seen(self, moment: datetime, silenced: Callable[[Alert], str]) -> Seen:
        """Give the alerts that may be told. What was told as firing is told as resolved, whatever silences it by then."""
        firing, resolved = [], []
        for alert in self.alerts.values():
            if alert.fires(moment):
                if not silenced(alert):
                    firing.append(alert)
            elif alert.told or not silenced(alert):
                resolved.append(alert)
        return Seen(firing, resolved)

    def has_news(self, seen: Seen, now: datetime, *, repeat: timedelta, with_resolved: bool) -> bool:
        """Say whether there is something to tell: Alertmanager's rules, one by one."""
        if not (seen.firing or seen.resolved):
            return False
        if self.told is None:
            return bool(seen.firing)
        if not {alert.identity for alert in seen.firing} <= set(self.firing):
            return True
        if not seen.firing:
            return bool(self.firing) or any(alert.told for alert in seen.resolved)
        if with_resolved and not {alert.identity for alert in seen.resolved} <= set(self.resolved):
            return True
        return now - self.told >= repeat

    def note(self, seen: Seen, now: datetime) -> None:
        """Note that this was told."""
        self.firing = sorted(alert.identity for alert in seen.firing)
        self.resolved = sorted(alert.identity for alert in seen.resolved)
        self.told = now
        for alert in seen.firing:
            self.alerts[alert.identity] = msgspec.structs.replace(alert, told=True)

    def is_over(self, now: datetime, due: datetime) -> bool:
        """Say whether the group is gone: one without alerts is forgotten at the next half minute, as in Alertmanager."""
        if self.alerts:
            self.empty = None
        elif self.empty is None:
            self.empty = now - (now - _EPOCH) % _SWEEP + _SWEEP
        return self.empty is not None and due >= self.empty

    def forget_resolved(self, moment: datetime) -> None:
        """Forget the alerts that are over: they were told, or nobody is to hear of them."""
        self.alerts = {identity: alert for identity, alert in self.alerts.items() if alert.fires(moment)}
