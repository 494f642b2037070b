"""Tells when something did not call in time, and when it is back: for cron jobs, backups, agents and whole monitoring systems.

What is watched calls `/in/PIPELINE/heartbeat/NAME` with GET, HEAD or POST, when it has done its work or as long as it is well:

```sh
0 3 * * *  backup.sh && curl -fsS -m 10 --retry 5 -H "X-API-Key: $KEY" http://siftbell:8025/in/watch/heartbeat/backup
```

The key needs the scope `intake`. A client that sets no headers can have it as a password: `http://any:KEY@siftbell:8025/in/…`.

```yaml
name: watch
producers:
  - heartbeat:
      names:
        backup: {every: 0 3 * * *, grace: 2h, longest: 4h, severity: critical}
        mail-queue: 5m
      timezone: Europe/Berlin
consumers:
  - log
```

`every` is an interval, counted from the last call, or a cron line with the times at which a call is due; a call up to half a
minute early counts. `grace` later it is late, and a message says so, with the status firing; the next call gives one with the
status resolved and the same key, `heartbeat/NAME`. A name that never called is late so long after Siftbell first watched it.
Names that are not listed are answered 404, unless `any: true` takes every one, with the options beside it:

```yaml
name: agents
producers:
  - heartbeat: {any: true, every: 1m, grace: 2m, forget: 7d}
consumers:
  - log
```

**Signals**: `NAME/fail` says that it went wrong, which is told at once; so does an exit code, as in `NAME/$?`, other than 0. What
is posted with it becomes the text. `NAME/start` says that work has begun: with `longest`, a message says when it has not
ended so long after.

**A monitoring system itself** is watched by an alert that always fires, as Prometheus' Watchdog: a receiver of Alertmanager posts
it to `/in/PIPELINE/heartbeat/watchdog` every `repeat_interval`; have `send_resolved: false` there.

Calls are in the store before they are answered; without the store the answer is 503, so let clients try again. A clock looks
every ten seconds, or by the step's `schedule:`. Time in which no clock was there does not count, as calls could not be heard
then: a warning comes so much later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from pipeline import Message, Note, PollingProducer, Request, RequestError, WebhookProducer
from pipeline import now as _now
from producers.heartbeat.options import NAME, HeartbeatConfig, NameConfig
from producers.heartbeat.telling import Expectation, Signal, State, moment, tell_back, tell_failed, tell_late, tell_long

GAP: Final = 10.0
"""Seconds between two polls: from three times as many on, and three times the last gap, no clock was there."""
AHEAD: Final = 3600.0
"""Seconds that the clocks of machines may be apart: what was noted for later than that does not count, or nobody would be late
until then."""
MOST_TEXT: Final = 4000
_CODE: Final = re.compile(r"\d{1,3}")


class _Cursor(msgspec.Struct):
    at: float
    gap: float = 0
    names: dict[str, State] = {}


class Heartbeat(WebhookProducer[HeartbeatConfig], PollingProducer[HeartbeatConfig]):
    """Tells when something did not call in time, and when it is back."""

    methods = ("GET", "HEAD", "POST")
    below = "/NAME"
    usual_schedule = "10s"

    def open(self) -> None:
        """Make ready."""
        self._expected = {name: Expectation(self.config, own) for name, own in self.config.names.items()}
        self._other = Expectation(self.config, NameConfig()) if self.config.any else None

    def status_for(self, path: str) -> int | None:  # noqa: ARG002 - the name is judged with the rest
        """Take whatever comes: `receive` says what is wrong with a name."""
        return 202

    def receive(self, request: Request) -> Iterable[Note]:
        """Note a call; raises `RequestError` (404) for a name that is not watched."""
        name, _, signal = "/".join(request.path.split("/")[4:]).partition("/")
        if not name:
            raise RequestError("a name is missing: call /in/PIPELINE/PRODUCER/NAME", status=404)
        if name not in self._expected and (self._other is None or not re.fullmatch(NAME, name)):
            raise RequestError("no heartbeat of that name is expected here", status=404)
        code = int(signal) if _CODE.fullmatch(signal) else None
        if code is None and signal not in ("", "start", "fail"):
            raise RequestError("after the name, 'start', 'fail' or an exit code is expected", status=404)
        kind = "fail" if code or signal == "fail" else signal if code is None else ""
        text = request.body.decode(errors="replace").replace("\0", "").strip()[-MOST_TEXT:] if kind == "fail" else ""
        called = Signal(_now().timestamp(), text, code)
        return [Note(f"{name}/{kind}", msgspec.json.encode(called).decode())]

    def poll(self, cursor: str | None) -> Iterable[tuple[Message | None, str]]:
        """Give what has changed: who is late or has failed, and who is back. The cursor is what was told."""
        now = _now()
        kept = msgspec.json.decode(cursor, type=_Cursor) if cursor else _Cursor(now.timestamp())
        gap, notes = now.timestamp() - kept.at, self.notes()
        heard = _heard(notes, now.timestamp() + AHEAD)
        away = gap if gap > 3 * max(GAP, kept.gap) else 0.0
        kept.at, kept.gap = now.timestamp(), gap
        kept.names = {name: kept.names.get(name) or State(now.timestamp()) for name in self._watched(kept, heard, now)}
        for state in kept.names.values():
            state.away += away
            state.put_right(now.timestamp(), AHEAD)
        if self._other is not None and (old := {key: text for key, text in notes.items() if _name(key) not in kept.names}):
            self.drop_notes(old)
        for name, state in kept.names.items():
            for message in self._news(name, state, heard.get(name, {}), now):
                yield message, _text(kept)
        yield None, _text(kept)

    def _watched(self, kept: _Cursor, heard: Mapping[str, Mapping[str, Signal]], now: datetime) -> Iterator[str]:
        yield from self._expected
        for name, signals in heard.items() if self._other is not None else ():
            silent = now.timestamp() - max((signal.at for signal in signals.values()), default=0)
            waits = name in kept.names and not kept.names[name].told  # nobody is forgotten untold
            if name not in self._expected and (waits or silent < self.config.forget.total_seconds()):
                yield name

    def _news(self, name: str, state: State, heard: Mapping[str, Signal], now: datetime) -> Iterator[Message]:
        expected = self._expected.get(name) or self._other
        assert expected is not None
        signals = [("failed", heard["fail"])] if "fail" in heard else []
        signals += [("ok", heard[""])] if "" in heard else []
        for kind, signal in sorted(signals, key=lambda one: one[1].at):
            if signal.at <= getattr(state, kind):
                continue
            setattr(state, kind, signal.at)
            state.since, state.away = signal.at, 0
            told, state.told = state.told, "failed" if kind == "failed" else ""
            if told != state.told:
                yield tell_failed(name, signal, expected) if kind == "failed" else tell_back(name, told, signal, expected)
        if state.told:
            return
        start = heard.get("start")
        if start is not None and expected.longest is not None and start.at > max(state.ok, state.failed):
            end = moment(start.at + state.away) + expected.longest
            if now >= end:
                state.told = "long"
                yield tell_long(name, start, end, expected)
                return
        if now >= (due := expected.late(state)):
            state.told = "late"
            yield tell_late(name, state, due, expected)


def _name(key: str) -> str:
    return key.partition("/")[0]


def _heard(notes: Mapping[str, str], before: float) -> dict[str, dict[str, Signal]]:
    """Give the last call of each kind, by name."""
    heard: dict[str, dict[str, Signal]] = {}
    for key, text in notes.items():
        name, _, kind = key.partition("/")
        signals, signal = heard.setdefault(name, {}), msgspec.json.decode(text, type=Signal)
        if signal.at <= before:
            signals[kind] = signal
    return heard


def _text(kept: _Cursor) -> str:
    return msgspec.json.encode(kept).decode()
