"""What the demo sends: Alertmanager webhooks as a real Alertmanager writes them, and plain JSON events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_UNSET: Final = "0001-01-01T00:00:00Z"
"""How Go writes a time that there is not: an alert that still fires has it as its end."""
_ALERTS: Final = (
    ("DiskFull", "critical", "db", "/var is {n} % full", "node_filesystem_avail_bytes < 5e9"),
    ("ReplicationLag", "warning", "db", "the replica is {n} s behind", "pg_replication_lag_seconds > 30"),
    ("HighLatency", "warning", "web", "p99 is {n} ms", "histogram_quantile(0.99, rate(http_seconds_bucket[5m])) > 0.5"),
    ("InstanceDown", "critical", "infra", "not scraped for {n} s", "up == 0"),
    ("BatchJobSlow", "info", "data", "the nightly run took {n} min", "batch_duration_seconds > 3600"),
    ("CertificateExpiry", "warning", "infra", "expires in {n} d", "probe_ssl_earliest_cert_expiry - time() < 14 * 86400"),
)
_EVENTS: Final = (
    ("deployment finished", "info"),
    ("disk full", "critical"),
    ("backup failed", "error"),
    ("login from a new device", "warning"),
    ("cache flushed", "debug"),
)


@dataclass(frozen=True, slots=True)
class Payload:
    """One request: where to (`pipeline/producer`), its body, and how many messages it makes."""

    intake: str
    body: bytes
    messages: int
    headers: Mapping[str, str] = field(default_factory=dict)


def payloads(now: datetime | None = None) -> Iterator[Payload]:
    """Give all requests of the demo, in the order in which they are sent: what fires first is resolved later."""
    now = now or datetime.now(UTC)
    groups = [_group(number) for number in range(72)]
    for number, group in enumerate(groups):
        yield _alertmanager(group, number, now - timedelta(minutes=7), resolved=None)
        yield _event("hello/http", number)
        yield _event("alerts/http", 1000 + number)
        if number % 3 == 0:
            yield _events("hello/http", 2000 + 10 * number, 10)
            urgent = 3001 + 5 * number + number % 2  # by `_EVENTS` critical or an error: the others wait for the morning there
            yield from [_event("team/http", urgent)] * 2  # what is said twice is told once
    for number, group in enumerate(groups):
        yield _alertmanager(group, number, now - timedelta(minutes=7), resolved=now)


def fingerprint(labels: Mapping[str, str]) -> str:
    """Give the 64-bit FNV-1a hash by which Prometheus and Alertmanager know a set of labels, in hex."""
    value = 0xCBF29CE484222325
    for name, text in sorted(labels.items()):
        for byte in b"%b\xff%b\xff" % (name.encode(), text.encode()):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def _group(number: int) -> list[dict[str, Any]]:
    """Give the alerts of one notification: one alert name in one cluster, one to nine instances."""
    name, severity, team, text, expression = _ALERTS[number % len(_ALERTS)]
    return [
        {
            "labels": {
                "alertname": name,
                "cluster": f"eu-{number // len(_ALERTS)}",
                "instance": f"{team}-{number:02d}-{index}.example.com:9100",
                "job": "node",
                "severity": severity,
                "team": team,
            },
            "annotations": {
                "description": f"{text.format(n=60 + (7 * number + index) % 40)} on {team}-{number:02d}-{index} <see & act>",
                "runbook_url": f"https://runbooks.example.com/{name}?cluster=eu&page=1",
                "summary": f"{name} on {team}-{number:02d}-{index}",
            },
            "expression": expression,
        }
        for index in range(1 + number % 9)
    ]


def _alertmanager(group: Sequence[Mapping[str, Any]], number: int, start: datetime, *, resolved: datetime | None) -> Payload:
    """Write a group as version 4 of the webhook, with the names, the order and the escapes of Go's encoder."""
    alerts = [
        {
            "status": "resolved" if resolved else "firing",
            "labels": alert["labels"],
            "annotations": alert["annotations"],
            "startsAt": _go_time(start, number + index),
            "endsAt": _go_time(resolved, number) if resolved else _UNSET,
            "generatorURL": f"http://prometheus.example.com:9090/graph?g0.expr={_quoted(alert['expression'])}&g0.tab=1",
            "fingerprint": fingerprint(alert["labels"]),
        }
        for index, alert in enumerate(group)
    ]
    labels = {name: group[0]["labels"][name] for name in ("alertname", "cluster")}
    body = {
        "receiver": "siftbell",
        "status": "resolved" if resolved else "firing",
        "alerts": alerts,
        "groupLabels": labels,
        "commonLabels": _common([alert["labels"] for alert in group]),
        "commonAnnotations": _common([alert["annotations"] for alert in group]),
        "externalURL": "http://alertmanager.example.com:9093",
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{labels["alertname"]}", cluster="{labels["cluster"]}"}}',
        "truncatedAlerts": 0,
    }
    return Payload("alerts/prometheus", _go_json(body), len(alerts), {"User-Agent": "Alertmanager/0.28.1"})


def _event(intake: str, number: int) -> Payload:
    return Payload(intake, json.dumps(_plain(number)).encode(), 1)


def _events(intake: str, first: int, count: int) -> Payload:
    return Payload(intake, json.dumps([_plain(first + index) for index in range(count)]).encode(), count)


def _plain(number: int) -> dict[str, Any]:
    title, severity = _EVENTS[number % len(_EVENTS)]
    return {
        "title": title,
        "severity": severity,
        "text": f"event number {number}, für Köln 🐻",
        "labels": {"host": f"app-{number % 7}", "number": str(number)},
        "url": f"https://status.example.com/events/{number}",
    }


def _common(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: text for name, text in maps[0].items() if all(one.get(name) == text for one in maps)}


def _go_time(moment: datetime, number: int) -> str:
    """Write a time as Go does: with as many digits as it has; every third has nanoseconds, the others milliseconds."""
    digits = f"{number * 7919 % 10**9:09d}" if number % 3 == 0 else f"{number * 37 % 1000:03d}"
    fraction = digits.rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + "Z"


def _quoted(text: str) -> str:
    from urllib.parse import quote_plus

    return quote_plus(text)


def _go_json(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{text}\n".encode()
