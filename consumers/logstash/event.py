"""A message as the event that Logstash works with."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

import msgspec

from consumers.logstash.options import LogstashConfig
from pipeline import Message, PermanentError, headline, shorten

_ECS: Final = "8.11.0"
_TITLE_KEPT: Final = 1000
_MARK: Final = " … (cut by Siftbell)"


def event(message: Message, config: LogstashConfig) -> dict[str, Any]:
    """Give the event, with the fields that are not empty. Raises `PermanentError` where a template fails."""
    time = message.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    made: dict[str, Any] = {"@timestamp": time, "@version": "1", "message": f"{headline(message)}\n{message.text}".strip()}
    made |= _in_ecs(message, data=config.data) if config.ecs else _plain(message, data=config.data)
    for name, template in config.fields.items():
        try:
            value = template.render(message)
        except PermanentError as error:
            raise PermanentError(f"fields.{name}: {error}") from None
        if value:
            made[name] = value
    if config.target.scheme.startswith("beats"):
        made["@metadata"] = {"beat": "siftbell", "version": "1", "type": "_doc"}  # what Logstash's example names indices by
    return made


def written(message: Message, config: LogstashConfig, most: int | None = None) -> bytes:
    """Give the event as JSON. What has more than `most` bytes loses its payload and the ends of its title and text."""
    body = msgspec.json.encode(event(message, config))
    if most is None or len(body) <= most:
        return body
    made = event(message.replace(title=shorten(message.title, _TITLE_KEPT), data=None), config)
    text = made["message"]
    room = len(text.encode())
    while len(body := msgspec.json.encode(made | {"message": shorten(text, room, unit="bytes", mark=_MARK)})) > most:
        if not room:
            raise PermanentError(f"the event takes {len(body)} bytes of the {most} of a datagram, even without its text")
        room = room * 3 // 4  # what a byte of the text takes in JSON differs: controls take six
    return body


def _plain(message: Message, *, data: bool) -> dict[str, Any]:
    fields = {
        name: getattr(message, name) for name in ("id", "source", "type", "title", "severity", "status", "labels", "key", "url")
    }
    return {name: value for name, value in fields.items() if value} | ({"data": message.data} if data and message.data else {})


def _in_ecs(message: Message, *, data: bool) -> dict[str, Any]:
    about = {
        "id": message.id,
        "kind": "alert" if message.type == "alert" else "event",
        "provider": message.source,
        "dataset": "siftbell",
        "reference": message.url,
        "original": msgspec.json.encode(message.data).decode() if data and message.data is not None else "",
    }
    own = {"type": message.type, "title": message.title, "status": message.status, "key": message.key}
    made: dict[str, Any] = {"ecs": {"version": _ECS}, "event": _filled(about), "siftbell": _filled(own)}
    if message.severity:
        made["log"] = {"level": message.severity}
    if message.labels:
        made["labels"] = {name.replace(".", "_"): value for name, value in message.labels.items()}
    return made


def _filled(fields: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}
