"""Makes messages of whatever can post JSON, a form or CloudEvents: one message for an object, one each for an array's.

Post to `/in/PIPELINE/http` with `application/json` (an object, or an array of objects),
`application/x-www-form-urlencoded`, `multipart/form-data`, or CloudEvents 1.0: structured, in batches, or binary
(`ce-` headers). All of a request is accepted or nothing; the answer names every entry that is wrong.

A payload's `title`, `text`, `severity`, `status`, `labels`, `key`, `url`, `time`, `source` and `type` become the
message's. Where a payload has them elsewhere, `fields` says the path: `alert.summary`, `items[0].name`. `data` holds the
payload as it came. `severity` is understood in many words (`WARN`, `crit`, `P1`), `status` as firing or resolved (or
`ok`, `closed`, `recovered`), `time` as RFC 3339 or seconds or milliseconds since 1970, `labels` as an object of texts,
numbers and booleans; form fields called `labels.NAME` become labels. For CloudEvents, `data` is the whole event, so paths
begin with `data.`; without `fields` what stands in the event's `data` counts, then `subject` as the title.

Whoever posts needs an API key of Siftbell, or, where `hmac` is given, a signature of the body in a header.

```yaml
name: from-anywhere
producers:
  - http
  - http:
      fields: {title: check.name, text: check.output, severity: level, labels: tags, key: check.id}
      hmac: {secret: "${HOOK_SECRET:-unset}", header: X-Hub-Signature-256}
    as: checks
consumers:
  - log
```
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
from pydantic import AfterValidator, Field, SecretStr

from pipeline import Config, Message, Problem, Request, RequestError, WebhookProducer, normal_severity, parse_time

Name = Literal["title", "text", "severity", "status", "labels", "key", "url", "time", "source", "type"]
_NAMES: Final = ("title", "text", "severity", "status", "labels", "key", "url", "time", "source", "type")
_FIRING: Final = frozenset({"", "firing", "open", "alerting", "triggered", "problem", "critical", "warning", "active"})
_RESOLVED: Final = frozenset({"resolved", "ok", "closed", "recovered", "recovery", "inactive"})
_STEP: Final = re.compile(r"\[(\d{1,6})\]|\.?([^.\[\]]+)")


def _path(text: str) -> str:
    if not re.fullmatch(r"[^.\[\]]+(\[\d{1,6}\]|\.[^.\[\]]+)*", text):
        raise ValueError("a path such as alert.summary or items[0].name is expected")
    return text


class HmacConfig(Config):
    """How a request's signature is checked."""

    secret: SecretStr = Field(min_length=1, description="The key that both sides know.")
    header: str = Field(default="X-Signature-256", description="The header with the hex digest, with or without sha256=.")
    algorithm: Literal["sha256", "sha512"] = Field(default="sha256", description="The hash.")


class HttpConfig(Config):
    """The options of `http`."""

    fields: dict[Name, Annotated[str, AfterValidator(_path)]] = Field(
        default_factory=dict,
        description="Where in the payload a message's fields stand, as paths; the others by their own names.",
    )
    source: str = Field(default="http", min_length=1, description="The source of messages whose payload names none.")
    limit: int = Field(default=10_000, ge=1, description="How many messages a request may hold.")
    hmac: HmacConfig | None = Field(default=None, description="Ask for a signature of the body in place of an API key.")


class Http(WebhookProducer[HttpConfig]):
    """Makes messages of JSON, forms and CloudEvents that are posted."""

    @property
    def verifies_sender(self) -> bool:
        """True where signatures are checked."""
        return self.config.hmac is not None

    def receive(self, request: Request) -> Iterable[Message]:
        """Give a message for each object; raises `RequestError` that names every one that is wrong."""
        self._check_signature(request)
        payloads, listed, event = _payloads(request)
        if len(payloads) > self.config.limit:
            raise RequestError(f"more than {self.config.limit} messages in one request", status=413)
        messages: list[Message] = []
        problems: list[Problem] = []
        by_our_names = not (event or self.config.fields)
        now = datetime.now(UTC)
        for index, payload in enumerate(payloads):
            if by_our_names and (message := _plainly(payload, self.config.source, now)):
                messages.append(message)
                continue
            where = f"[{index}]" if listed else ""
            if not isinstance(payload, dict):
                problems.append(Problem(where, "an object is expected"))
                continue
            found, wrong = _Reader(self.config, payload, event=event).read()
            problems += [Problem(f"{where}.{name}".lstrip("."), text) for name, text in wrong]
            if not wrong:
                messages.append(Message(**{"source": self.config.source, **found}, data=payload))
        if problems:
            text = "; ".join(f"{problem.where or 'the body'}: {problem.text}" for problem in problems[:3])
            raise RequestError(f"{text}{' …' if len(problems) > 3 else ''}", status=422, problems=problems)
        return messages

    def _check_signature(self, request: Request) -> None:
        if (wanted := self.config.hmac) is None:
            return
        signature = request.headers.get(wanted.header.lower())
        if not signature:
            raise RequestError(f"a signature is expected in the header {wanted.header}", status=401)
        if not request.signed_by(wanted.secret.get_secret_value(), signature, algorithm=wanted.algorithm):
            raise RequestError(f"the signature in the header {wanted.header} does not fit the body", status=403)


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


def _plainly(payload: Any, source: str, now: datetime) -> Message | None:
    """Give the message of a `_Plain` payload, the one that `_Reader` would make: in a tenth of its time. None for any other."""
    try:
        plain = msgspec.convert(payload, _Plain)
        time = now if plain.time is None else _time(plain.time)
    except ValueError:
        return None
    return Message(
        source=plain.source or source,
        type=plain.type or "event",
        time=time,
        title=plain.title,
        text=plain.text,
        severity=normal_severity(plain.severity),
        status=plain.status,
        labels=plain.labels,
        key=plain.key,
        url=plain.url,
        data=payload,
    )


class _Reader:
    """Reads a message's fields out of one payload, and collects what is wrong."""

    def __init__(self, config: HttpConfig, payload: dict[str, Any], *, event: bool) -> None:
        self.config, self.payload, self.event = config, payload, event

    def read(self) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """Give the fields, and each problem as a path and a text."""
        found: dict[str, Any] = {}
        wrong = [*_event_problems(self.payload)] if self.event else []
        for name in _NAMES:
            path = self.config.fields.get(name, name)
            value = _at(self.payload, path) if name in self.config.fields or not self.event else self._of_event(name)
            try:
                if value is not None:
                    found[name] = _labels(value, path, wrong) if name == "labels" else _READERS.get(name, _text)(value)
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


def _at(payload: Any, path: str) -> Any:
    for index, name in _STEP.findall(path):
        if index:
            payload = payload[int(index)] if isinstance(payload, list) and int(index) < len(payload) else None
        else:
            payload = payload.get(name) if isinstance(payload, dict) else None
    return payload


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("a text is expected")  # noqa: TRY004 - reported with the other problems of the payload
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _status(value: Any) -> str:
    word = _text(value).strip().lower()
    if word not in _FIRING | _RESOLVED:
        raise ValueError("firing or resolved is expected")
    return "resolved" if word in _RESOLVED else "firing"


def _time(value: Any) -> Any:
    return parse_time(float(value) if isinstance(value, str) and re.fullmatch(r"\d{9,16}(\.\d+)?", value) else value)


def _labels(value: Any, path: str, wrong: list[tuple[str, str]]) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("an object of texts is expected")  # noqa: TRY004 - reported with the other problems of the payload
    wrong += [(f"{path}.{name}", "a text is expected") for name, inner in value.items() if isinstance(inner, (dict, list))]
    return {name: _text(inner) for name, inner in value.items() if inner is not None and not isinstance(inner, (dict, list))}


_READERS: Final[Mapping[str, Any]] = {"severity": lambda value: normal_severity(_text(value)), "status": _status, "time": _time}
