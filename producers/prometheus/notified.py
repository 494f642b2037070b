"""What Alertmanager's webhook posts, version 4: a notification about several alerts."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pipeline import Message, Problem, Request, RequestError
from producers.prometheus.alerts import fingerprint, message_of, moment, problem_of, storable

_DEPTH: Final = 16
"""How deep a field or an alert of a body may nest that cannot be read as a whole."""


class _Alert(msgspec.Struct, rename="camel"):
    labels: dict[str, str]
    status: str = "firing"
    annotations: dict[str, str] = {}
    starts_at: str = ""
    ends_at: str = ""
    generator_url: str = msgspec.field(name="generatorURL", default="")
    fingerprint: str = ""


def notified(request: Request) -> list[Message]:
    """Give the messages of a notification's alerts; raises `RequestError` that names each alert that cannot be read.

    It hands over the others: Alertmanager would not send them again before one of the group changes.
    """
    if request.content_type not in ("application/json", ""):
        raise RequestError(f"Alertmanager sends application/json, this is {request.content_type}", status=415)
    body = _body(request)
    if not isinstance(body, dict) or body.get("version") != "4":
        text = 'this is not Alertmanager\'s webhook, version 4: an object with version "4" and a list of alerts is expected'
        raise RequestError(text, status=400, problems=[Problem("version", 'the text "4" is expected')])
    if not isinstance(body.get("alerts"), list):
        raise RequestError("alerts: a list is expected", status=422, problems=[Problem("alerts", "a list is expected")])
    shared = {name: value for name, value in body.items() if name != "alerts"}
    messages, problems = [], []
    for index, alert in enumerate(body["alerts"]):
        try:
            messages.append(_message(alert, shared))
        except ValueError as error:
            problems.append(problem_of(f"alerts[{index}]", error, alert))
    if problems:
        text = f"{len(problems)} of {len(body['alerts'])} alerts cannot be read"
        raise RequestError(text, status=422, problems=problems, accepted=messages)
    return messages


def _body(request: Request) -> Any:
    """Read the body; where that cannot be, each field and each alert of it alone, so that a bad one costs no other."""
    try:
        return request.json()
    except RequestError as error:
        try:
            fields = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
            alerts = msgspec.json.decode(fields.pop("alerts"), type=list[msgspec.Raw])
        except (ValueError, RecursionError, KeyError):
            raise error from None
    kept = {name: value for name, raw in fields.items() if not isinstance(value := _read(raw), ValueError)}
    return storable(kept, _DEPTH + 1) | {"alerts": [_read(raw) for raw in alerts]}


def _read(raw: msgspec.Raw) -> Any:
    """Read a part of the body; a ValueError where it cannot be read."""
    try:
        return storable(msgspec.json.decode(raw), _DEPTH)
    except (ValueError, RecursionError) as error:
        return ValueError(str(error))


def _message(raw: Any, shared: dict[str, Any]) -> Message:
    if isinstance(raw, ValueError):
        raise raw
    alert = msgspec.convert(raw, _Alert)
    if not alert.labels:
        raise ValueError("labels: at least one is expected")
    if alert.status not in ("firing", "resolved"):
        raise ValueError("status: firing or resolved is expected")
    resolved = alert.status == "resolved"
    since = moment("endsAt", alert.ends_at) if resolved else moment("startsAt", alert.starts_at)
    external = shared.get("externalURL")
    return message_of(
        alert.labels,
        alert.annotations,
        "resolved" if resolved else "firing",
        source=external if isinstance(external, str) and external else "alertmanager",
        key=alert.fingerprint or fingerprint(alert.labels),
        url=alert.generator_url,
        data={**shared, **raw},
        **({"time": since} if since else {}),
    )
