"""Timelines of alerts, as Prometheus would post them, played to a real Alertmanager and to `group` or `inhibit`.

A timeline is a handful of alerts with the times for which each fires. All timelines are played at once, told apart by a label
that they are grouped by. Alerts are posted on full seconds, groups are looked at on half ones, so that none overtakes the other.

`PYTHONPATH=. .venv/bin/python tests/e2e/timelines.py` plays them to the real one, and records what it tells.
"""

from __future__ import annotations

import heapq
import json
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from trees import alertmanager_run, ask

from filters.group import Group, GroupConfig, state
from filters.inhibit import Inhibit, InhibitConfig
from pipeline import Dropped, Keep, Message, Opened, Request, Stay, Window, foreign_id, parse_time
from pipeline.present import Pretence, pretending
from pipeline.testing import Recollection
from producers.prometheus import Prometheus
from producers.prometheus.options import PrometheusConfig

WAIT: Final = 2.5
INTERVAL: Final = 5.0
REPEAT: Final = 13.0
RESOLVE_AFTER: Final = 6.0
TICK: Final = 1.0
"""Seconds by which a notification may come earlier or later and count as the same."""
RESEND: Final = 2
VALID: Final = 4 * RESEND
"""As Prometheus does: an alert counts as firing for four times as long as it takes to be sent again."""
LAST_START: Final = 44
END: Final = 56
"""The last second of a timeline at which something may happen."""
FASTER: Final = 1.6
"""A real Alertmanager is played a second of a timeline in so much less."""
SWEEP_AT: Final = 43.25
"""The second of a timeline at which empty groups are forgotten: Alertmanager does it each 30 seconds after its start."""
SWEEP: Final = 30 * FASTER
LEAD: Final = 30 - SWEEP_AT / FASTER
"""Seconds after its start at which the timelines begin."""
EQUAL: Final = ["timeline", "zone"]
SOURCE: Final = 'role=~"cause|both"'
TARGET: Final = 'role=~"effect|both"'


@dataclass
class Spell:
    """A time for which an alert fires: `told` ends with a word, `silent` without; `open` names no end; `old` began long ago."""

    start: int
    end: int
    how: str


@dataclass
class Line:
    """An alert of a timeline."""

    group: int
    role: str
    zone: str
    spells: list[Spell]


@dataclass
class Timeline:
    """Some alerts: grouped, with their ends (`told`) or without (`untold`), or each `alone`, as the filter `inhibit` has them."""

    seed: int
    kind: str
    lines: list[Line]

    def labels(self, index: int) -> dict[str, str]:
        line = self.lines[index]
        labels = {"alertname": "A", "timeline": str(self.seed), "group": str(line.group), "instance": str(index)}
        labels |= {name: value for name, value in (("role", line.role), ("zone", line.zone)) if value}
        return labels | {"kind": self.kind}

    def posts(self) -> list[tuple[float, int, float, float | None]]:
        """Give when which alert is posted, with its start and its end, in seconds since the beginning."""
        found: list[tuple[float, int, float, float | None]] = []
        for index, line in enumerate(self.lines):
            for number, spell in enumerate(line.spells):
                start = spell.start - 20 if spell.how == "old" else spell.start
                sent = [float(at) for at in range(spell.start, spell.end, RESEND)]
                if spell.how == "old":
                    sent[0] += 0.5  # its group is told at once: on a half second, as all are
                found += [(at, index, start, None if spell.how == "open" else int(at) + VALID) for at in sent]
                after = line.spells[number + 1].start if number + 1 < len(line.spells) else END
                over = range(spell.end, min(spell.end + 4 * RESEND, after), RESEND) if spell.how != "silent" else ()
                found += [(float(at), index, start, spell.end) for at in over]
        return sorted(post for post in found if post[0] <= END)


def generated(seed: int) -> Timeline:
    """Give the timeline of a seed."""
    chance = random.Random(seed)
    inhibited = chance.random() < 0.5
    old = not inhibited and chance.random() < 0.3
    groups = chance.choice((1, 1, 2))
    lines = []
    for index in range(chance.randint(1, 5)):
        role = chance.choice(("", "cause", "effect", "effect", "both")) if inhibited else ""
        zone = chance.choice(("", "a", "a", "b")) if inhibited else ""
        at, spells = chance.choice((0, 1, 2, 3, 5, 8, chance.randint(0, LAST_START))), []
        for number in range(chance.choice((1, 1, 2, 3, 4))):
            if at > LAST_START:
                break
            length = chance.choice((1, 2, 3, 6, 9, 14, 20, 30, 45))
            how = chance.choice(("told", "told", "told", "silent", "open"))
            if old and index == number == 0:
                at, how = 0, "old"
            spells.append(Spell(at, min(at + length, END), how))
            at += length + chance.choice((1, 2, 4, 7, 11))
        if spells:
            lines.append(Line(chance.randrange(groups) if index else 0, role, zone, spells))
    lines = lines or [Line(0, "", "", [Spell(0, 9, "told")])]
    if old:
        lines[1:] = [
            Line(line.group, "", "", [Spell(max(1, one.start), max(2, one.end), one.how) for one in line.spells])
            for line in lines[1:]
        ]
    return Timeline(seed, "told" if chance.random() < 0.8 else "untold", lines)


def generated_alone(seed: int) -> Timeline:
    """Give a timeline for alerts that are told one by one: no two things happen at once."""
    chance = random.Random(seed)
    free = list(range(1, END - 2))
    chance.shuffle(free)
    lines = []
    for index in range(chance.randint(2, 5)):
        role = chance.choice(("", "cause", "cause", "effect", "effect", "both"))
        moments = sorted(free.pop() for _ in range(2 * chance.choice((1, 1, 2, 3))))
        ends = ("told", "silent", "open") if role == "cause" else ("told",)
        spells = [Spell(start, end, chance.choice(ends)) for start, end in zip(moments[::2], moments[1::2], strict=True)]
        lines.append(Line(index, role, chance.choice(("", "a", "a", "b")), spells))
    return Timeline(seed, "alone", lines)


@dataclass
class Told:
    """A notification: when it came, of which group, and the status of each of its alerts, by their number."""

    at: float
    group: int
    alerts: dict[int, str]


RECORDED: Final = Path(__file__).parents[1] / "filters" / "alertmanager" / "timelines.json"
COUNT: Final = 300
ALONE: Final = 1001
"""The first seed of those that are told one by one."""
COUNT_ALONE: Final = 150


def chosen() -> list[Timeline]:
    """Give the timelines of the first seeds that leave nothing to chance."""
    found: list[Timeline] = []
    for seed in count(1):
        timeline = generated(seed)
        if not play(timeline).is_a_race:
            found.append(timeline)
        if len(found) == COUNT:
            break
    return found + [generated_alone(seed) for seed in range(ALONE, ALONE + COUNT_ALONE)]


def write_recorded(version: str, timelines: Sequence[Timeline], told: Sequence[Sequence[Told]]) -> None:
    rows = []
    for timeline, some in zip(timelines, told, strict=True):
        lines = [
            [line.group, line.role, line.zone, [[*vars(spell).values()] for spell in line.spells]] for line in timeline.lines
        ]
        answers = [[one.at, one.group, {str(index): status[0] for index, status in sorted(one.alerts.items())}] for one in some]
        rows.append(json.dumps([timeline.seed, timeline.kind, lines, answers], separators=(",", ":")))
    text = f'{{"alertmanager": "{version}", "timelines": [\n' + ",\n".join(rows) + "\n]}\n"
    RECORDED.write_text(text, encoding="utf-8")


def read_recorded() -> list[tuple[Timeline, list[Told]]]:
    """Give the recorded timelines, with what Alertmanager told of each."""
    found = []
    statuses = {"f": "firing", "r": "resolved"}
    for seed, kind, lines, answers in json.loads(RECORDED.read_text(encoding="utf-8"))["timelines"]:
        timeline = Timeline(seed, kind, [Line(*line[:3], [Spell(*spell) for spell in line[3]]) for line in lines])
        told = [Told(at, group, {int(index): statuses[one] for index, one in alerts.items()}) for at, group, alerts in answers]
        found.append((timeline, told))
    return found


def body(
    timelines: Sequence[Timeline],
    posts: Sequence[tuple[int, int, float, float | None]],
    begin: datetime,
    *,
    faster: float = 1,
) -> list[Any]:
    """Give what Prometheus would post: of each timeline (by its place) an alert, its start and its end."""
    told = []
    for place, index, start, end in posts:
        alert = {"labels": timelines[place].labels(index), "startsAt": (begin + timedelta(seconds=start / faster)).isoformat()}
        told.append(alert | ({} if end is None else {"endsAt": (begin + timedelta(seconds=end / faster)).isoformat()}))
    return told


def scheduled(timelines: Sequence[Timeline]) -> list[tuple[float, list[tuple[int, int, float, float | None]]]]:
    """Give all posts of all timelines, those of a moment together."""
    moments: dict[float, list[tuple[int, int, float, float | None]]] = {}
    for place, timeline in enumerate(timelines):
        for at, index, start, end in timeline.posts():
            moments.setdefault(at, []).append((place, index, start, end))
    return sorted(moments.items())


def alertmanager_yaml(port: int) -> str:
    wait, interval, repeat, resolve_after, look, hour = (
        f"{seconds / FASTER * 1000:.0f}ms" for seconds in (WAIT, INTERVAL, REPEAT, RESOLVE_AFTER, 0.5, 3600)
    )
    return f"""
global: {{resolve_timeout: {resolve_after}}}
route:
  receiver: all
  group_by: [timeline, group]
  group_wait: {wait}
  group_interval: {interval}
  repeat_interval: {repeat}
  routes:
    - {{receiver: firing, matchers: ['kind="untold"']}}
    - {{receiver: all, matchers: ['kind="alone"'], group_by: ["..."], group_wait: {look}, group_interval: {look},
       repeat_interval: {hour}}}
receivers:
  - {{name: all, webhook_configs: [{{url: "http://127.0.0.1:{port}/", send_resolved: true}}]}}
  - {{name: firing, webhook_configs: [{{url: "http://127.0.0.1:{port}/", send_resolved: false}}]}}
inhibit_rules:
  - source_matchers: ['{SOURCE}']
    target_matchers: ['{TARGET}']
    equal: [{", ".join(EQUAL)}]
"""


@contextmanager
def receiver() -> Iterator[tuple[int, list[tuple[float, Any]]]]:
    """Take what Alertmanager posts: give the port, and the list of what came when."""
    came: list[tuple[float, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            came.append((time.time(), json.loads(raw)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 500

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def play_alertmanager(binary: str, timelines: Sequence[Timeline], directory: Path) -> tuple[list[list[Told]], float]:
    """Play timelines to a real Alertmanager; give what it told of each, and by how many of their seconds a post was late."""
    with receiver() as (port, came), alertmanager_run(binary, alertmanager_yaml(port), directory) as url:
        begin = _started(directory / "log") + LEAD
        assert time.time() < begin, "it took too long until Alertmanager was ready"
        late = _post(url, timelines, begin)
        time.sleep(max(0.0, begin + END / FASTER - time.time()))
    return _sorted_out(timelines, came, begin), late


def _started(log: Path) -> float:
    """Give when Alertmanager's dispatcher began."""
    line = next(line for line in log.read_text().splitlines() if "Completed loading of configuration file" in line)
    return datetime.fromisoformat(line.split(" ", 1)[0].removeprefix("ts=")).timestamp()


def _post(url: str, timelines: Sequence[Timeline], begin: float) -> float:
    late = 0.0
    for at, posts in scheduled(timelines):
        alerts = body(timelines, posts, datetime.fromtimestamp(begin, UTC), faster=FASTER)
        time.sleep(max(0.0, begin + at / FASTER - time.time()))
        status, answer = ask(f"{url}/api/v2/alerts", body=alerts)
        assert status == 200, (status, answer)
        late = max(late, (time.time() - begin) * FASTER - at)
    return late


def _sorted_out(timelines: Sequence[Timeline], came: Sequence[tuple[float, Any]], begin: float) -> list[list[Told]]:
    places = {str(timeline.seed): place for place, timeline in enumerate(timelines)}
    told: list[list[Told]] = [[] for _ in timelines]
    for moment, payload in came:
        at = (moment - begin) * FASTER
        if at <= END:
            told[places[payload["groupLabels"]["timeline"]]].append(told_of(payload, at))
    return told


def told_of(payload: Any, at: float) -> Told:
    """Read a payload of Alertmanager's webhook, or the data of a message of `group`."""
    alerts = {int(alert["labels"]["instance"]): alert["status"] for alert in payload["alerts"]}
    return Told(round(at, 2), int(payload["groupLabels"]["group"]), alerts)


BEGIN: Final = datetime.fromtimestamp(SWEEP * 37_000_000 - SWEEP_AT, UTC)
"""Where `group` forgets them each so many seconds, it does so when Alertmanager does."""


def sweeping() -> Any:
    """Have `group` forget empty groups as seldom as an Alertmanager does for whom time runs faster."""
    return patch.object(state, "_SWEEP", timedelta(seconds=SWEEP))


def options(*, resolved: bool) -> dict[str, Any]:
    return {
        "by": ["labels.timeline", "labels.group"],
        "wait": timedelta(seconds=WAIT),
        "interval": timedelta(seconds=INTERVAL),
        "repeat": timedelta(seconds=REPEAT),
        "resolved": resolved,
        "resolve_after": timedelta(seconds=RESOLVE_AFTER),
        "inhibit": [{"source": SOURCE, "target": TARGET, "equal": EQUAL}],
    }


ALONE_OPTIONS: Final[dict[str, Any]] = {
    "rules": [{"source": SOURCE, "target": TARGET, "equal": EQUAL}],
    "check": timedelta(seconds=1),
    "resolve_after": timedelta(seconds=RESOLVE_AFTER),
}


@dataclass
class Play:
    """What the filter made of a timeline."""

    told: list[Told] = field(default_factory=list)
    looked: list[float] = field(default_factory=list)
    """When a group was looked at."""
    ids: set[str] = field(default_factory=set)
    """What a consumer has had, and would not get again."""

    def passed(self, at: float, message: Message) -> None:
        """Note what a consumer gets: a group, or an alert alone."""
        if "version" in message.data:
            self.told.append(told_of(message.data, at))
        elif message.id not in self.ids:
            self.ids.add(message.id)
            self.told.append(Told(at, int(message.labels["group"]), {int(message.labels["instance"]): message.status}))

    @property
    def is_a_race(self) -> bool:
        """Whether a group was looked at when alerts were posted: what comes first is left to chance."""
        return any(abs(at % 1 - 0.5) > 0.01 for at in self.looked)


def play(timeline: Timeline, *, late: float = 0.05) -> Play:
    """Play a timeline to its filter, with a clock that opens each window a little `late`."""
    moment = [BEGIN]
    memory = Recollection()
    plugin = Group(GroupConfig.model_validate(options(resolved=timeline.kind == "told")))
    if timeline.kind == "alone":
        plugin = Inhibit(InhibitConfig.model_validate(ALONE_OPTIONS))
    producer = Prometheus(PrometheusConfig())
    played, waiting = Play(), _Waiting()
    before = BEGIN - timedelta(minutes=1)  # `inhibit` knows whom it let pass since it began
    plugin.window(Message(source="before", time=before, labels={"role": "cause"}), before, memory)
    with pretending(Pretence(lambda: moment[0], lambda: foreign_id(moment[0], "timelines"), lambda low, _: low)), sweeping():
        for at, posts in [*scheduled([timeline]), (float(END), [])]:
            now = BEGIN + timedelta(seconds=at)
            while (opened := waiting.due_before(now, late)) is not None:
                key, messages, kept, due = opened
                memory.now = moment[0] = due + timedelta(seconds=late)
                given = Opened(key, messages, kept, due, moment[0], memory)
                _take(played, waiting, given, [*plugin.release(given)])
            memory.now = moment[0] = now
            for message in _received(producer, body([timeline], posts, BEGIN)):
                window = plugin.window(message, now, memory)
                if isinstance(window, Window):
                    waiting.put(message, window)
                else:
                    played.passed(at, message)
    return played


def _received(producer: Prometheus, alerts: list[Any]) -> list[Message]:
    request = Request(json.dumps(alerts).encode(), {"content-type": "application/json"}, path="/in/p/prometheus/api/v2/alerts")
    return [message for message in producer.receive(request) if isinstance(message, Message)] if alerts else []


def _take(played: Play, waiting: _Waiting, opened: Opened, out: list[Any]) -> None:
    at = (opened.now - BEGIN).total_seconds()
    if opened.kept is None or opened.due >= parse_time(opened.kept["due"]):
        played.looked.append((opened.due - BEGIN).total_seconds())
    assert [one for one in out if isinstance(one, Message | Keep | Dropped | Stay)], "nothing ends without a word"
    for one in out:
        if isinstance(one, Message):
            played.passed(at, one)
        elif isinstance(one, Keep):
            waiting.keep(opened.key, json.loads(json.dumps(one.value)), one.due)
        elif isinstance(one, Stay):
            waiting.stay(opened.key, one)


class _Waiting:
    """What the engine's store does for windows."""

    def __init__(self) -> None:
        self._messages: dict[str, dict[str, Message]] = {}
        self._dues: dict[str, datetime] = {}
        self._kept: dict[str, tuple[Any, datetime]] = {}
        self._left: set[str] = set()

    def put(self, message: Message, window: Window) -> None:
        waits = window.message or message
        if waits.id in self._left:
            return
        self._left.add(waits.id)
        self._messages.setdefault(window.key, {})[waits.id] = waits
        self._dues[window.key] = min(window.due, self._dues.get(window.key, window.due))

    def stay(self, key: str, stays: Stay) -> None:
        self._messages.setdefault(key, {})[stays.message.id] = stays.message
        self._dues[key] = min(stays.due, self._dues.get(key, stays.due))

    def keep(self, key: str, value: Any, due: datetime) -> None:
        self._kept[key] = (value, due)

    def due_before(self, now: datetime, late: float) -> tuple[str, list[Message], Any, datetime] | None:
        dues = dict(self._dues)
        for key, (_, due) in self._kept.items():
            dues[key] = min(due, dues.get(key, due))
        found = heapq.nsmallest(1, ((due, key) for key, due in dues.items() if due + timedelta(seconds=late) <= now))
        if not found:
            return None
        due, key = found[0]
        messages = self._messages.pop(key, {})
        self._dues.pop(key, None)
        kept, _ = self._kept.pop(key, (None, None))
        return key, [messages[one] for one in sorted(messages)], kept, due


def ends_by_itself(timeline: Timeline) -> set[int]:
    """Give the alerts that end without a word: `group` and Alertmanager make an end of that, `inhibit` does not."""
    return {index for index, line in enumerate(timeline.lines) if any(spell.how == "silent" for spell in line.spells)}


def differences(told: Sequence[Told], expected: Sequence[Told], *, but: Collection[int] = ()) -> list[str]:
    """Say in what two sequences of notifications differ, group by group; what comes in the last seconds is not looked at."""
    found = []
    for group in sorted({one.group for one in (*told, *expected)}.difference(but)):
        ours, theirs = ([one for one in some if one.group == group and one.at < END - TICK] for some in (told, expected))
        for one, other in zip(ours, theirs, strict=False):
            if abs(one.at - other.at) > TICK or one.alerts != other.alerts:
                found.append(f"group {group}: at {one.at} {one.alerts}, Alertmanager at {other.at} {other.alerts}")
                break
        else:
            if len(ours) != len(theirs):
                more = [*ours, *theirs][-1] if not ours or not theirs else (ours[len(theirs) :] + theirs[len(ours) :])[0]
                found.append(f"group {group}: {len(ours)} notifications, Alertmanager {len(theirs)}: {more.at} {more.alerts}")
    return found


def main() -> None:
    binary = "prometheus-alertmanager"
    version = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout.split()[2].rstrip(",")
    timelines = chosen()
    with tempfile.TemporaryDirectory() as directory:
        told, late = play_alertmanager(binary, timelines, Path(directory))
    assert late < 0.3, f"alerts were posted {late:.2f} s late"
    write_recorded(version, timelines, told)
    pairs = [(line, some, ends_by_itself(line) if line.kind == "alone" else ()) for line, some in read_recorded()]
    apart = [line.seed for line, some, but in pairs if differences(play(line).told, some, but=but)]
    print(f"{len(timelines)} timelines, {sum(map(len, told))} notifications of Alertmanager {version}; other ones here: {apart}")


if __name__ == "__main__":
    main()
