"""Takes alerts from Alertmanager: its webhook, version 4. One message for each alert of a notification.

The title is the annotation `summary`, else the label `alertname`; the text is `description`, else `message`; severity
and labels come from the labels; `key` is the fingerprint, the same for all messages about one alert; `status` is firing or
resolved, and `time` says since when. `url` leads to the expression in Prometheus, `source` is Alertmanager's address.
`data` holds the alert as it came, and with it what it shares with the others of its notification: `groupKey`,
`receiver`, `groupLabels`, `commonLabels`, `commonAnnotations` and whatever else stands there. In alertmanager.yml:

    receivers:
      - name: siftbell
        webhook_configs:
          - url: http://127.0.0.1:8025/in/from-alertmanager/prometheus
            http_config: {authorization: {credentials: YOUR-API-KEY}}

```yaml
name: from-alertmanager
producers:
  - prometheus
consumers:
  - log
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from pipeline import Message, NoOptions, Problem, Request, RequestError, WebhookProducer, normal_severity, parse_time


class _Alert(msgspec.Struct, rename="camel"):
    labels: dict[str, str]
    status: str = "firing"
    annotations: dict[str, str] = {}
    starts_at: str = ""
    ends_at: str = ""
    generator_url: str = msgspec.field(name="generatorURL", default="")
    fingerprint: str = ""


class Prometheus(WebhookProducer[NoOptions]):
    """Makes a message of each alert that Alertmanager's webhook (version 4) delivers."""

    _unset: ClassVar[str] = "0001-01-01T00:00:00"

    def receive(self, request: Request) -> Iterable[Message]:
        """Give the alerts' messages; raises `RequestError` that names each alert that cannot be read."""
        if request.content_type not in ("application/json", ""):
            raise RequestError(f"Alertmanager sends application/json, this is {request.content_type}", status=415)
        body = request.json()
        if not isinstance(body, dict) or body.get("version") != "4":
            text = 'this is not Alertmanager\'s webhook, version 4: an object with version "4" and a list of alerts is expected'
            raise RequestError(text, status=400, problems=[Problem("version", 'the text "4" is expected')])
        if not isinstance(body.get("alerts"), list):
            raise RequestError("alerts: a list is expected", status=422, problems=[Problem("alerts", "a list is expected")])
        shared = {name: value for name, value in body.items() if name != "alerts"}
        messages, problems = [], []
        for index, alert in enumerate(body["alerts"]):
            try:
                messages.append(self._message(alert, shared))
            except msgspec.ValidationError as error:
                problems.append(_problem(f"alerts[{index}]", str(error), alert))
            except ValueError as error:
                where, _, what = str(error).partition(": ")
                problems.append(Problem(f"alerts[{index}].{where}", what))
        if problems:
            raise RequestError(f"{len(problems)} of {len(body['alerts'])} alerts cannot be read", status=422, problems=problems)
        return messages

    def _message(self, raw: Any, shared: dict[str, Any]) -> Message:
        alert = msgspec.convert(raw, _Alert)
        if not alert.labels:
            raise ValueError("labels: at least one is expected")
        if alert.status not in ("firing", "resolved"):
            raise ValueError("status: firing or resolved is expected")
        resolved = alert.status == "resolved"
        since = self._moment("endsAt", alert.ends_at) if resolved else self._moment("startsAt", alert.starts_at)
        external = shared.get("externalURL")
        return Message(
            source=external if isinstance(external, str) and external else "alertmanager",
            type="alert",
            title=alert.annotations.get("summary") or alert.labels.get("alertname") or "alert",
            text=alert.annotations.get("description") or alert.annotations.get("message", ""),
            severity=normal_severity(alert.labels.get("severity", "")),
            status="resolved" if resolved else "firing",
            labels=alert.labels,
            key=alert.fingerprint or fingerprint(alert.labels),
            url=alert.generator_url,
            data={**shared, **raw},
            **({"time": since} if since else {}),
        )

    def _moment(self, name: str, text: str) -> Any:
        """Read a time; None where it is not set, which Alertmanager writes as the year 1."""
        if not text or text.startswith(self._unset):
            return None
        try:
            return parse_time(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _problem(place: str, text: str, alert: Any) -> Problem:
    """Put msgspec's complaint into our words, and its place into the alert's."""
    what, _, path = text.partition(" - at `$")
    missing = re.search(r"missing required field `(\w+)`", what)
    if missing:
        return Problem(f"{place}.{missing[1]}", "is required")
    where = path.rstrip("`")
    if where.endswith("[...]") and isinstance(alert, dict):
        where = where.removesuffix("[...]")
        wrong = next((name for name, value in alert[where[1:]].items() if not isinstance(value, str)), "")
        where = f"{where}.{wrong}"
    return Problem(f"{place}{where}", what.replace("`", "").lower().replace("expected ", "expected: "))


def fingerprint(labels: dict[str, str]) -> str:
    """Compute what Alertmanager calls an alert by: FNV-1a of 64 bits over its sorted labels."""
    value = 0xCBF29CE484222325
    for byte in b"".join(name.encode() + b"\xff" + labels[name].encode() + b"\xff" for name in sorted(labels)):
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"
