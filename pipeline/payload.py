"""Makes messages of the JSON, forms and CloudEvents that others send: by our names, or by paths that the options give."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
from pydantic import AfterValidator

from pipeline.errors import Problem, RequestError
from pipeline.message import Message, Proven, normal_severity, normal_status
from pipeline.present import now
from pipeline.request import Request
from pipeline.units import parse_time

_Name = Literal["title", "text", "severity", "status", "labels", "key", "url", "time", "source", "type"]
_NAMES: Final[tuple[_Name, ...]] = ("title", "text", "severity", "status", "labels", "key", "url", "time", "source", "type")
_STEP: Final = re.compile(r"\[(\d{1,6})\]|\.([^.\[\]]+)")
_STEPS: Final = re.compile(rf"(?:{_STEP.pattern})*")


def _path(text: str) -> str:
    if text.startswith("[") or not _STEPS.fullmatch(f".{text}"):
        raise ValueError("a path such as alert.summary or items[0].name is expected")
    return text


@lru_cache(maxsize=10_000)
def read_steps(path: str) -> tuple[str | int, ...]:
    """Give the way that a path such as `.items[0].name` goes: names of members, numbers of elements. Raises ValueError."""
    if not _STEPS.fullmatch(path):
        raise ValueError("a path such as data.alert.summary or data.items[0].name is expected")
    return tuple(int(number) if number else name for number, name in _STEP.findall(path))


def value_at(payload: Any, steps: Iterable[str | int]) -> Any:
    """Give what a way leads to in a payload; None where it leads nowhere."""
    for step in steps:
        if isinstance(step, int):
            payload = payload[step] if isinstance(payload, list) and step < len(payload) else None
        else:
            payload = payload.get(step) if isinstance(payload, dict) else None
    return payload


def read_field(name: str, value: Any) -> Any:
    """Give a payload's value as a message has it in a field, or in a label; raises ValueError for what cannot be one."""
    return _READERS.get(name, _text)(value)


FieldPaths = dict[_Name, Annotated[str, AfterValidator(_path)]]
"""Where in a payload a message's fields stand, as paths: the type of a plugin's option."""


def read_messages(
    request: Request, *, source: str, time: datetime | None = None, fields: FieldPaths | None = None, most: int = 10_000
) -> Sequence[Message]:
    """Give a message for each object of a request's body; raises `RequestError` that names every one that is wrong.

    The body is JSON (an object or an array of them), a form, or CloudEvents, as its content type and its `ce-` headers say.
    `source` and `time` are those of messages whose payload names none, `time` else now; more than `most` messages are refused.
    What it gives is a tuple.
    """
    fields = fields or {}
    time = time or now()
    if not fields and (plain := _all_plain(request, source, time, most)) is not None:
        return plain
    payloads, listed, event = _payloads(request)
    if len(payloads) > most:
        raise RequestError(f"more than {most} messages in one request", status=413)
    messages: list[Message] = []
    problems: list[Problem] = []
    by_our_names = not (event or fields)
    for index, payload in enumerate(payloads):
        if by_our_names and (message := _plainly(payload, source, time)):
            messages.append(message)
            continue
        where = f"[{index}]" if listed else ""
        if not isinstance(payload, dict):
            problems.append(Problem(where, "an object is expected"))
            continue
        found, wrong = _Reader(fields, payload, event=event).read()
        problems += [Problem(f"{where}.{name}".lstrip("."), text) for name, text in wrong]
        if not wrong:
            messages.append(Message(**{"source": source, "time": time, **found}, data=payload))
    if problems:
        text = "; ".join(f"{problem.where or 'the body'}: {problem.text}" for problem in problems[:3])
        raise RequestError(f"{text}{' …' if len(problems) > 3 else ''}", status=422, problems=problems)
    return tuple(messages)


def read_fields(payload: Any, fields: FieldPaths) -> dict[str, Any]:
    """Give the fields of a message that stand at these paths of a payload, and no others; raises ValueError."""
    if not isinstance(payload, dict):
        raise ValueError("an object is expected")  # noqa: TRY004 - what is wrong is the payload
    found, wrong = _Reader(fields, payload, event=False).read(fields)
    if wrong:
        raise ValueError("; ".join(f"{name}: {text}" for name, text in wrong[:3]))
    return found


class _Plain(msgspec.Struct, gc=False):
    """A payload under our names in which next to nothing needs to be understood first."""

    title: str = ""
    text: str = ""
    severity: str = ""
    status: Literal["firing", "resolved"] = "firing"
    labels: dict[str, str] = {}
    key: str = ""
    url: str = ""
    time: Any = None
    source: str = ""
    type: str = ""


class _PlainAlone(_Plain, gc=False, forbid_unknown_fields=True):
    """A `_Plain` payload that says nothing else: no part of it nests, and no number but its time can be too large."""

    time: str | float | None = None


_plain_list: Final = msgspec.json.Decoder(list[_PlainAlone])
_plain_one: Final = msgspec.json.Decoder(_PlainAlone)
_raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


def _all_plain(request: Request, source: str, time: datetime, most: int) -> Proven | None:
    """Give the messages of a body whose objects are all `_PlainAlone`, their payloads as JSON; None for any other.

    They are the messages that the long way makes. A payload of several lines, or with a NUL, goes that way.
    """
    if type(source) is not str or type(time) is not datetime or time.tzinfo is None:
        return None
    body = request.body
    if request.content_type not in ("application/json", "") or "ce-specversion" in request.headers or _unusual(body):
        return None
    try:
        if not body.startswith(b"["):
            return Proven((_message(_plain_one.decode(body), source, time, msgspec.Raw(body)),))
        plain = _plain_list.decode(body)
        if len(plain) > most:
            return None
        return Proven([_message(one, source, time, raw) for one, raw in zip(plain, _raw_list.decode(body), strict=True)])
    except (ValueError, RecursionError):
        return None


def _unusual(body: bytes) -> bool:
    return b"\n" in body or b"\r" in body or (b"\\" in body and b"\\u0000" in body)


def _plainly(payload: Any, source: str, time: datetime) -> Message | None:
    """Give the message of a `_Plain` payload, the one that `_Reader` would make: in a tenth of its time. None for any other."""
    try:
        return _message(msgspec.convert(payload, _Plain), source, time, payload)
    except ValueError:
        return None


def _message(plain: _Plain, source: str, time: datetime, data: Any) -> Message:
    return Message(
        source=plain.source or source,
        type=plain.type or "event",
        time=time if plain.time is None else _time(plain.time),
        title=plain.title,
        text=plain.text,
        severity=normal_severity(plain.severity),
        status=plain.status,
        labels=plain.labels,
        key=plain.key,
        url=plain.url,
        data=data,
    )


class _Reader:
    """Reads a message's fields out of one payload, and collects what is wrong."""

    def __init__(self, fields: FieldPaths, payload: dict[str, Any], *, event: bool) -> None:
        self.fields, self.payload, self.event = fields, payload, event

    def read(self, names: Iterable[_Name] = _NAMES) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Give the fields, and each problem as a path and a text."""
        found: dict[str, Any] = {}
        wrong = [*_event_problems(self.payload)] if self.event else []
        for name in names:
            path = self.fields.get(name, name)
            ours = name in self.fields or not self.event
            value = value_at(self.payload, read_steps(f".{path}")) if ours else self._of_event(name)
            try:
                if value is not None:
                    found[name] = _labels(value, path, wrong) if name == "labels" else read_field(name, value)
            except ValueError as error:
                wrong.append((path, str(error)))
        return {name: value for name, value in found.items() if value != "" or name not in ("source", "type")}, wrong

    def _of_event(self, name: str) -> Any:
        data = self.payload.get("data")
        inner = data.get(name) if isinstance(data, dict) else None
        if name in ("source", "type"):
            return self.payload.get(name)
        outer = {"title": self.payload.get("subject"), "time": self.payload.get("time")}.get(name)
        return outer if inner is None else inner


def _payloads(request: Request) -> tuple[list[Any], bool, bool]:
    """Give the request's payloads, whether they came as a list, and whether they are CloudEvents."""
    kind = request.content_type
    if kind == "application/cloudevents+json":
        return [request.json()], False, True
    if kind == "application/cloudevents-batch+json":
        batch = request.json()
        return (batch, True, True) if isinstance(batch, list) else ([None], False, True)
    if "ce-specversion" in request.headers:
        return [_binary_event(request)], False, True
    if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = request.form()
        labels = {name.removeprefix("labels."): value for name, value in form.items() if name.startswith("labels.")}
        rest = {name: value for name, value in form.items() if not name.startswith("labels.")}
        return [{**rest, "labels": labels} if labels else rest], False, False
    if kind in ("", "application/json") or kind.endswith("+json"):
        body = request.json()
        return (body, True, False) if isinstance(body, list) else ([body], False, False)
    raise RequestError(f"{kind[:100]} cannot be read here: send JSON, a form or CloudEvents", status=415)


def _binary_event(request: Request) -> dict[str, Any]:
    event: dict[str, Any] = {
        name.removeprefix("ce-"): unquote(value) for name, value in request.headers.items() if name.startswith("ce-")
    }
    if any("\0" in value for value in event.values()):
        raise RequestError("a ce- header holds a NUL character")
    if request.content_type in ("", "application/json") or request.content_type.endswith("+json"):
        return {**event, "data": request.json()} if request.body else event
    try:
        return {**event, "data": request.body.decode()}
    except UnicodeDecodeError:
        return {**event, "data_base64": base64.b64encode(request.body).decode()}


def _event_problems(event: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if event.get("specversion") != "1.0":
        yield "specversion", 'the text "1.0" is expected'
    for name in ("id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            yield name, "a text is required"


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("a text is expected")  # noqa: TRY004 - reported with the other problems of the payload
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _status(value: Any) -> str:
    word = _text(value)
    status = normal_status(word) if word.strip() else "firing"
    if status is None:
        raise ValueError("firing or resolved is expected")
    return status


def _time(value: Any) -> Any:
    return parse_time(float(value) if isinstance(value, str) and re.fullmatch(r"\d{9,16}(\.\d+)?", value) else value)


def _labels(value: Any, path: str, wrong: list[tuple[str, str]]) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("an object of texts is expected")  # noqa: TRY004 - reported with the other problems of the payload
    wrong += [(f"{path}.{name}", "a text is expected") for name, inner in value.items() if isinstance(inner, (dict, list))]
    return {name: _text(inner) for name, inner in value.items() if inner is not None and not isinstance(inner, (dict, list))}


_READERS: Final[Mapping[str, Any]] = {"severity": lambda value: normal_severity(_text(value)), "status": _status, "time": _time}
