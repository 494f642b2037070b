"""What Prometheus posts to an Alertmanager: `/api/v2/alerts`, with the rules that Alertmanager has for it.

A client of this path does not come again with what was refused, so each alert is judged alone, and those that are valid are
accepted whatever the others are.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from pipeline import Message, Problem, Request, RequestError, foreign_id
from pipeline import now as present
from producers.prometheus.alerts import fingerprint, message_of, moment, problem_of, without_nul

PATH: Final = "/api/v2/alerts"
LARGEST: Final = 64 * 1024
"""Bytes of an alert: a message has some of it twice, and no queue takes messages of any size."""
_URI: Final = re.compile(r"(/|[A-Za-z][A-Za-z0-9+.-]*:)[^\s\x00-\x1f\x7f]*")


class _Alert(msgspec.Struct, rename="camel"):
    labels: dict[str, str]
    annotations: dict[str, str] | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    generator_url: str | None = msgspec.field(name="generatorURL", default=None)


class _SchemaError(ValueError):
    """What Alertmanager refuses with 422, before it looks at labels and times."""


def posted(request: Request) -> list[Message]:
    """Give the alerts' messages; raises `RequestError` that names each alert that is not valid, and hands over the others.

    415: it is no JSON; 400: the body or an alert cannot be read, or is not valid; 422: the path's schema asks for more.
    """
    if request.content_type not in ("application/json", ""):
        raise _refused(415, f"application/json is expected, this is {request.content_type}")
    alerts = _alerts(request.body)
    now = present()
    messages: dict[tuple[str, ...], Message] = {}
    problems: list[Problem] = []
    status = 400
    for index, raw in enumerate(alerts):
        try:
            message, identity = _message(raw, now)
        except (ValueError, RecursionError) as error:
            if isinstance(error, _SchemaError) or "missing required field" in str(error):
                status = 422
            problems.append(problem_of(f"[{index}]", ValueError(str(error))))
        else:
            messages[identity] = message
    if problems:
        text = "; ".join(f"{problem.where}: {problem.text}" for problem in problems[:3])
        text += f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        answer = text if status == 400 else {"code": 602, "message": text}
        raise RequestError(text, status=status, problems=problems, accepted=[*messages.values()], answer=answer)
    return [*messages.values()]


def _alerts(body: bytes) -> list[msgspec.Raw]:
    if not body.strip():
        raise _refused(422, "the body is empty: a list of alerts is expected", code=602)
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise _refused(400, "a list of alerts is expected") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(400, f"the body is not JSON: {error}") from None


def _refused(status: int, text: str, *, code: int | None = None) -> RequestError:
    """Refuse a request, with the body that Alertmanager's clients expect."""
    return RequestError(text, status=status, answer={"code": code or status, "message": text})


def _message(raw: msgspec.Raw, now: datetime) -> tuple[Message, tuple[str, ...]]:
    """Give an alert's message, and what it is the same as: an alert is its labels, and fires anew where it starts anew."""
    if len(raw) > LARGEST:
        raise ValueError(f"an alert has at most {LARGEST} bytes")
    alert = msgspec.json.decode(raw, type=_Alert)
    labels = {name: text for name, text in without_nul(alert.labels).items() if text}
    if not labels:
        raise ValueError("labels: at least one label pair is required")
    if "" in labels:
        raise ValueError("labels: a label has no name")
    if alert.generator_url and not _URI.fullmatch(alert.generator_url):
        raise _SchemaError("generatorURL: a URI is expected")
    begun, ends = moment("startsAt", alert.starts_at), moment("endsAt", alert.ends_at)
    starts = begun or ends or now
    if ends is not None and ends < starts:
        raise ValueError("startsAt: start time must be before end time")
    resolved = ends is not None and ends <= now
    status: Final = "resolved" if resolved else "firing"
    annotations = without_nul(alert.annotations)
    identity = (key := fingerprint(labels), status, starts.isoformat())
    message = message_of(
        labels,
        annotations,
        status,
        source=_source(alert.generator_url or ""),
        key=key,
        url=alert.generator_url or "",
        time=ends if resolved else starts,
        data={"labels": labels, "annotations": annotations, **_rest(alert)},
        **({"id": foreign_id(starts, "prometheus", *identity)} if begun or ends else {}),
    )
    return message, identity


def _rest(alert: _Alert) -> dict[str, str]:
    fields = {"startsAt": alert.starts_at, "endsAt": alert.ends_at, "generatorURL": alert.generator_url}
    return {name: value for name, value in fields.items() if value}


def _source(generator: str) -> str:
    """Give the address of the Prometheus that an alert comes from, which its link begins with."""
    try:
        parts = urlsplit(generator)
    except ValueError:
        return "prometheus"
    server = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{server}" if parts.scheme in ("http", "https") and server else "prometheus"
