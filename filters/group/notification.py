"""The one message for a group, with the alerts in the shape of Alertmanager's webhook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import msgspec

from filters.group.alerts import Alert
from filters.group.state import Seen
from pipeline import Message, PermanentError, Template, gravity, headline

_OPEN: Final = "0001-01-01T00:00:00Z"
"""How Alertmanager writes the end of what has none."""

TITLE: Final = Template(
    """\
{% set name = data.commonTitle or labels.alertname | default("", true) -%}
{% set others = data.groupLabels | dictsort | rejectattr(0, "equalto", "alertname") | map("last") | select | join(" ") -%}
{% set counts = data.counts -%}
{% if data.alerts | length == 1 -%}
{{ name or others or "alert" }}
{%- else -%}
{{ [name, others] | select | join(", ") or "alerts" }}:
{%- if counts.firing %} {{ counts.firing }} firing{% else %} {{ counts.resolved }} alerts{% endif %}
{%- if counts.firing and counts.resolved %}, {{ counts.resolved }} resolved{% endif %}
{%- endif %}"""
)
TEXT: Final = Template(
    """\
{% for alert in data.alerts[:20] -%}
{{ "\N{BALLOT X}" if alert.status == "firing" else "\N{CHECK MARK}" }}
{{- " " ~ (alert.title or alert.labels.alertname | default("alert")) }}
{%- set own = alert.ownLabels.values() | reject("in", alert.title) | join(", ") %}
{%- if own %} ({{ own }}){% endif %}
{%- if alert.text %}: {{ alert.text.split("\\n")[0] }}{% endif %}
{% endfor -%}
{% if data.alerts | length > 20 %}and {{ data.alerts | length - 20 }} more
{% endif -%}
{% if data.truncatedAlerts %}{{ data.truncatedAlerts }} more wait, as the group is full
{% endif %}"""
)


def group_key(labels: Mapping[str, str]) -> str:
    """Give the key of a group's messages, which is the same for all of them."""
    return blake2b(msgspec.json.encode(["group", *labels.items()]), digest_size=8).hexdigest()


def notification(labels: Mapping[str, str], seen: Seen, moment: datetime, *, waiting: int) -> Message:
    """Give the message for a group, without a title and a text; `waiting` alerts had no room in it."""
    alerts = [*_sorted(seen.firing), *_sorted(seen.resolved)]
    grouped = {name.removeprefix("labels."): value for name, value in labels.items()}
    common = _common(alert.labels for alert in alerts)
    annotations = _common(alert.annotations for alert in alerts)
    titles = {_title(alert) for alert in alerts}
    listed = [_listed(alert, moment, common) for alert in alerts]
    about = seen.firing or seen.resolved
    data = {
        "version": "4",
        "groupKey": f"{{}}:{{{', '.join(f'{name}={msgspec.json.encode(value).decode()}' for name, value in grouped.items())}}}",
        "status": "firing" if seen.firing else "resolved",
        "groupLabels": grouped,
        "commonLabels": common,
        "commonAnnotations": annotations,
        "commonTitle": titles.pop() if len(titles) == 1 else "",
        "counts": {"firing": len(seen.firing), "resolved": len(seen.resolved)},
        "truncatedAlerts": waiting,
        "alerts": listed,
    }
    return Message(
        source=_only({alert.source for alert in alerts}) or "group",
        type="alert",
        time=min(alert.starts for alert in seen.firing) if seen.firing else max(alert.ends for alert in seen.resolved),
        severity=max((alert.severity for alert in about), key=gravity),
        status="firing" if seen.firing else "resolved",
        labels={**common, **{name: value for name, value in grouped.items() if value}},
        key=group_key(labels),
        url=_only({alert.url for alert in about}) or next((alert.url for alert in _sorted(about) if alert.url), ""),
        data=data,
    )


def written(message: Message, title: Template, text: Template) -> Message:
    """Give the message with a title and a text. Where a template fails the shipped one is taken, and the text says why."""
    failures = []
    rendered = []
    for name, template, shipped in (("title", title, TITLE), ("text", text, TEXT)):
        try:
            rendered.append(template.render(message))
        except PermanentError as error:
            failures.append(f"({name}: {error})")
            rendered.append(_shipped(shipped, message))
    return message.replace(title=" ".join(rendered[0].split()), text="\n".join([rendered[1].strip(), *failures]).strip())


def _shipped(template: Template, message: Message) -> str:
    """Write what is shipped; an alert may be too long even for that."""
    try:
        return template.render(message)
    except PermanentError:
        return headline(message)


def _sorted(alerts: Iterable[Alert]) -> list[Alert]:
    """Put the worst first, then the oldest."""
    return sorted(alerts, key=lambda alert: (-gravity(alert.severity), alert.starts, alert.identity))


def _listed(alert: Alert, moment: datetime, common: Mapping[str, str]) -> dict[str, Any]:
    """Give an alert as Alertmanager's webhook has it, with what a text needs beside that."""
    firing = alert.fires(moment)
    return {
        "status": "firing" if firing else "resolved",
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": _time(alert.starts),
        "endsAt": _OPEN if firing else _time(alert.ends),
        "generatorURL": alert.url,
        "fingerprint": alert.identity,
        "title": _title(alert),
        "text": alert.text or alert.annotations.get("description", ""),
        "severity": alert.severity,
        "ownLabels": {name: value for name, value in alert.labels.items() if name not in common},
    }


def _title(alert: Alert) -> str:
    return alert.title or alert.annotations.get("summary", "")


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _common(texts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Give what is the same in all of them."""
    first, *others = list(texts)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _only(values: set[str]) -> str:
    return next(iter(values)) if len(values) == 1 else ""
