"""What a person makes of a message: read with the place of whatever is wrong, and with the id kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.engine.batch import refuse_unreadable
from pipeline.errors import PermanentError, Problem, RequestError
from pipeline.message import FIELDS, Message
from pipeline.registry import did_you_mean


def as_text(message: Message) -> str:
    """Give a message as the JSON that a person edits: every field in the order of `Message`, one a line."""
    plain = message.plain()
    whole = {name: plain.get(name, getattr(message, name)) for name in FIELDS}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def read_text(message: Message, text: str | bytes) -> Message:
    """Read what became of the JSON of a message; raises `RequestError` with every problem that is known."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _refusal([Problem(f"line {error.lineno}, column {error.colno}", error.msg)]) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _refusal([Problem("", f"not JSON: {error}")]) from None
    return read_value(message, value)


def read_value(message: Message, value: object) -> Message:
    """Read a message from what JSON can hold; one without an id gets that of `message`. Raises `RequestError`."""
    if not isinstance(value, dict):
        raise _refusal([Problem("", "an object is expected")])
    problems = [Problem(str(name), _unknown(str(name))) for name in value if name not in FIELDS]
    if value.get("id", message.id) != message.id:
        problems.append(Problem("id", f"it stays {message.id}"))
    if problems:
        raise _refusal(problems)
    try:
        fields = {name: inner for name, inner in value.items() if name != "data"}
        found = msgspec.convert({"id": message.id} | fields, Message).replace(data=value.get("data"))
        refuse_unreadable(found)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        raise _refusal([Problem(where.strip("`").lstrip("."), what)]) from None
    except PermanentError as error:
        raise _refusal([Problem("", str(error))]) from None
    return found


def set_fields(message: Message, changes: Mapping[str, str]) -> Message:
    """Set fields by their paths: `title`, `labels.NAME`, `data`, `data.a.b`; raises `RequestError`.

    A text is taken as it is; in `data`, what is JSON is taken as that.
    """
    value: Any = message.plain()
    for path, text in changes.items():
        first, *rest = path.split(".") if path.startswith("data.") else path.split(".", 1)
        place, name = value, first
        for part in rest:
            place = place.setdefault(name, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise _refusal([Problem(path, f"'{name}' is no object")])
            name = part
        place[name] = _json_or_text(text) if first == "data" else text
    return read_value(message, value)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _unknown(name: str) -> str:
    return f"a message has no such field: {did_you_mean(name, FIELDS) or 'it has ' + ', '.join(FIELDS)}"


def _refusal(problems: list[Problem]) -> RequestError:
    return RequestError("this is not a message", status=422, problems=problems)
