"""An HTTP request as a webhook producer sees it, and the strict reading of its body."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from pipeline.errors import Problem, RequestError

MAX_DEPTH: Final = 64
"""How deep the lists and objects of a JSON body may nest."""
MAX_FORM_FIELDS: Final = 1000
"""How many fields a form may have."""
_MAX_INTEGER: Final = 2**64 - 1
_MIN_INTEGER: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class Request:
    """What was posted to `/in/{pipeline}/{producer}`: header names in lower case, the body as bytes."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/"

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case; empty where none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Read the body as JSON: UTF-8, no NaN, no NUL, numbers of 64 bits, nesting of at most `MAX_DEPTH`.

        Where an object has a name twice, the last one counts, as in most readers of JSON. Raises `RequestError` (400)
        that says what is wrong and where.
        """
        if not self.body.strip():
            raise RequestError("the body is empty: JSON is expected")
        try:
            value = msgspec.json.decode(self.body)
        except RecursionError:
            raise RequestError(f"the body nests deeper than {MAX_DEPTH} levels") from None
        except UnicodeDecodeError:
            raise RequestError("the body is not JSON: it is not UTF-8") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise RequestError(f"the body is not JSON: {error}") from None
        nul = b"\\" in self.body and b"\\u0000" in self.body  # the first is fifty times as fast, and mostly tells
        if nul or not _fits(value, MAX_DEPTH):  # else there is nothing to refuse, and no walk to find it
            refuse_unstorable(value)
        return value

    def form(self) -> dict[str, str]:
        """Read the body as a form: `application/x-www-form-urlencoded`, or `multipart/form-data` without files; UTF-8.

        Raises `RequestError` (400) that says what is wrong: a field that stands there twice (which one counts would be
        a guess), a file, a NUL, more than `MAX_FORM_FIELDS` fields.
        """
        try:
            if self.content_type == "multipart/form-data":
                pairs = _multipart(self.headers["content-type"], self.body)
            else:
                pairs = parse_qsl(
                    self.body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
                )
        except (FormParserError, ValueError) as error:
            raise RequestError(f"the body is not a form: {str(error)[:200]}") from None
        form: dict[str, str] = {}
        for name, value in pairs:
            if name in form:
                raise _refused(name, "stands there twice")
            form[name] = value
        refuse_unstorable(form)
        return form

    def signed_by(self, secret: str, signature: str, *, algorithm: str = "sha256") -> bool:
        """Say whether `signature` (hex, with or without `sha256=` before it) is the body's HMAC; compared in constant time."""
        wanted = hmac.new(secret.encode(), self.body, getattr(hashlib, algorithm)).hexdigest()
        given = signature.removeprefix(f"{algorithm}=").strip().lower()
        return hmac.compare_digest(wanted.encode(), given.encode())


def refuse_unstorable(value: Any) -> None:
    """Raise `RequestError` (400) for what a queue or a database may refuse later: NUL, huge integers, deep nesting."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        where, item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _refused(where, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, str):
            if "\0" in item:
                raise _refused(where, "holds a NUL character")
        elif isinstance(item, dict):
            if any("\0" in name for name in item):
                raise _refused(where, "has a field whose name holds a NUL character")
            stack += [(f"{where}.{name}" if where else name, inner, depth + 1) for name, inner in item.items()]
        elif isinstance(item, list):
            stack += [(f"{where}[{index}]", inner, depth + 1) for index, inner in enumerate(item)]
        elif isinstance(item, float) and not math.isfinite(item):
            raise _refused(where, "is a number that is too large")
        elif isinstance(item, int) and not _MIN_INTEGER <= item <= _MAX_INTEGER:
            raise _refused(where, "is an integer of more than 64 bits")


def _fits(value: Any, room: int) -> bool:
    """Say that a value read from JSON nests no deeper than `room` levels and holds no integer that may be refused."""
    kind = type(value)
    if kind is dict or kind is list:
        if not room:
            return False
        for inner in value.values() if kind is dict else value:
            if type(inner) is not str and not _fits(inner, room - 1):
                return False
        return True
    return kind is not int or _MIN_INTEGER <= value <= _MAX_INTEGER


def _multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise ValueError("its content-type names no boundary")
    parts: list[tuple[bytearray, bytearray]] = []  # of each part: its content-disposition, its value
    header = bytearray()
    ended: list[bool] = []

    def begin() -> None:
        if len(parts) == MAX_FORM_FIELDS:
            raise ValueError(f"more than {MAX_FORM_FIELDS} fields")
        parts.append((bytearray(), bytearray()))

    def name_part(data: bytes, start: int, end: int) -> None:
        header.extend(data[start:end])

    def value_part(data: bytes, start: int, end: int) -> None:
        if header.lower() == b"content-disposition":
            parts[-1][0].extend(data[start:end])

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_begin": header.clear,
            "on_header_field": name_part,
            "on_header_value": value_part,
            "on_part_data": lambda data, start, end: parts[-1][1].extend(data[start:end]),
            "on_end": lambda: ended.append(True),
        },
    )
    parser.write(body)
    parser.finalize()
    if not ended:
        raise ValueError("it breaks off")
    return [_field(bytes(disposition), bytes(value)) for disposition, value in parts]


def _field(disposition: bytes, value: bytes) -> tuple[str, str]:
    kind, options = parse_options_header(disposition)
    if kind != b"form-data" or b"name" not in options:
        raise ValueError("a part is no field of a form")
    if b"filename" in options:
        raise ValueError("files are not accepted")
    return options[b"name"].decode(), value.decode()


def _refused(where: str, text: str) -> RequestError:
    short = where if len(where) <= 200 else f"{where[:200]}…"
    return RequestError(f"{short or 'the body'}: {text}", problems=[Problem(short, text)])
