"""An HTTP request as a webhook producer sees it, and the strict reading of its body."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pipeline.errors import Problem, RequestError

MAX_DEPTH: Final = 64
"""How deep the lists and objects of a JSON body may nest."""
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
        """Read the body as JSON: UTF-8, no NaN, no NUL, integers of 64 bits, nesting of at most `MAX_DEPTH`.

        Raises `RequestError` (400) that says what is wrong and where.
        """
        try:
            value = msgspec.json.decode(self.body)
        except RecursionError:
            raise RequestError(f"the body nests deeper than {MAX_DEPTH} levels") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RequestError(f"the body is not JSON: {error}") from None
        refuse_unstorable(value)
        return value

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
        elif isinstance(item, int) and not _MIN_INTEGER <= item <= _MAX_INTEGER:
            raise _refused(where, "is an integer of more than 64 bits")


def _refused(where: str, text: str) -> RequestError:
    short = where if len(where) <= 200 else f"{where[:200]}…"
    return RequestError(f"{short or 'the body'}: {text}", problems=[Problem(short, text)])
