"""What is known of a heartbeat and expected of it, and the messages that tell of the difference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from pipeline import Message, Schedule, foreign_id, read_schedule, read_zone
from producers.heartbeat.options import HeartbeatConfig, NameConfig


class Signal(msgspec.Struct):
    """A call, as it is noted."""

    at: float
    text: str = ""
    code: int | None = None


class State(msgspec.Struct, omit_defaults=True):
    """What is known of a name, and was told; times as seconds since 1970."""

    since: float
    """When it last called, or was first watched."""
    away: float = 0
    """Seconds since then in which nobody could have heard it."""
    told: Literal["", "late", "failed", "long"] = ""
    ok: float = 0
    failed: float = 0

    def put_right(self, now: float, ahead: float) -> None:
        """Take times that are further ahead than clocks may be apart for now: they were noted while a clock was wrong."""
        self.since, self.ok, self.failed = (now if at > now + ahead else at for at in (self.since, self.ok, self.failed))


class Expectation:
    """What is expected of a name, the options beside `names` included."""

    def __init__(self, config: HeartbeatConfig, own: NameConfig) -> None:
        self.zone = read_zone(config.timezone)
        self.every = own.every or config.every or ""
        self.schedule: Schedule = read_schedule(self.every, self.zone)
        self.grace = config.grace if own.grace is None else own.grace
        self.longest = own.longest or config.longest
        self.severity = own.severity or config.severity

    def late(self, state: State) -> datetime:
        """Give when it is late."""
        return self.schedule.again(moment(state.since)) + self.grace + timedelta(seconds=state.away)

    def shown(self, at: float) -> str:
        """Write a time for people."""
        return f"{moment(at).astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"


def tell_late(name: str, state: State, at: datetime, expected: Expectation) -> Message:
    """Tell that it did not call in time."""
    last = f"The last call was at {expected.shown(state.since)}"
    never = f"It never called; it is watched since {expected.shown(state.since)}"
    called = bool(state.ok or state.failed)
    text = f"{last if called else never}, and is expected {_words(expected)}."
    last_call = moment(state.since).isoformat() if called else None
    return _message(name, "late", at, expected, f"{name} did not call in time", text, last=last_call)


def tell_failed(name: str, signal: Signal, expected: Expectation) -> Message:
    """Tell that it said so itself."""
    title = f"{name} failed" if signal.code is None else f"{name} failed with exit code {signal.code}"
    return _message(name, "failed", moment(signal.at), expected, title, signal.text, code=signal.code)


def tell_long(name: str, start: Signal, at: datetime, expected: Expectation) -> Message:
    """Tell that it began and has not ended."""
    text = f"It began at {expected.shown(start.at)}, and has told neither success nor failure."
    return _message(name, "long", at, expected, f"{name} takes longer than it may", text)


def tell_back(name: str, told: str, signal: Signal, expected: Expectation) -> Message:
    """Tell that it is well again, after what was told."""
    words = {"late": "called again", "failed": "works again", "long": "has ended"}[told]
    at = moment(signal.at)
    return _message(name, told, at, expected, f"{name} {words}", f"It called at {expected.shown(signal.at)}.", over=True)


def _message(
    name: str, what: str, at: datetime, expected: Expectation, title: str, text: str, *, over: bool = False, **data: Any
) -> Message:
    """Make the message; the same one has the same id, however often it is told."""
    return Message(
        id=foreign_id(at, "heartbeat", name, what, str(over)),
        source="heartbeat",
        type="heartbeat",
        time=at,
        title=title,
        text=text,
        severity=expected.severity,
        status="resolved" if over else "firing",
        labels={"heartbeat": name},
        key=f"heartbeat/{name}",
        data={"name": name, "state": "ok" if over else what, "every": expected.every, **data},
    )


def _words(expected: Expectation) -> str:
    plain = " " not in expected.every and not expected.every.startswith("@")
    return f"every {expected.every}" if plain else f"by the times {expected.every}"


def moment(seconds: float) -> datetime:
    """Give the time of so many seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
