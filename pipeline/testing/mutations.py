"""Makes bad requests of good ones: one change to a body, its encoding or a header, at the choice of chance or of hypothesis."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qsl, quote_from_bytes

from pipeline.request import Request

T = TypeVar("T")

FRAGMENTS: Final = (
    *("null", "true", "0", "-1", "1.5", "1e308", "1e999", "NaN", "9223372036854775808", "9" * 400),
    *("[]", "{}", "[[[]]]", '[null, 1, "a", {}]', '{"": null}', '{"a\\u0000b": 1}'),
    *('""', '" "', '"null"', '"a\\u0000b"', '"\\ud800"', '"\\udfff\\ud83d"', '"\\u202e\\u2028\\r\\nX: y"'),
    *('"%s{{ 7 * 7 }}${HOME}"', '"http://[::1"', '"' + "x" * 70_000 + '"'),
    *('"2026-13-45T99:99:99Z"', '"0000-00-00T00:00:00Z"', '"9999-12-31T23:59:59-23:59"'),
    *("[" * 65 + "]" * 65, '{"a":' * 400 + "1" + "}" * 400, "[" * 20_000),
)
"""What is put in the place of a part of a body: JSON, or what somebody takes for it."""
CONTENT_TYPES: Final = (
    "application/json",
    "application/json; charset=utf-16",
    "application/json; charset=no-such-one",
    "Application/JSON ;;= ",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/plain",
    "image/png",
    "",
)
VALUES: Final = (
    "",
    " ",
    "0",
    "-1",
    "null",
    "ü\xff",
    "a" * 10_000,
    "sha256=",
    "t=,v1=",
    "Bearer ",
    "Basic !",
    "2026-13-45",
    "9" * 400,
)
"""What a header may hold instead of what it should."""
_PLACE: Final = "\x00the place of a fragment\x00"


class Choose(Protocol):
    """Picks one of several."""

    def __call__(self, of: Sequence[T], /) -> T:
        """Give one."""


def mutated(request: Request, choose: Choose) -> Request:
    """Give a request with one thing about it changed: a part of its body, the body's encoding, or a header."""
    way = choose(("part", "part", "part", "bytes", "header", "type"))
    if way == "header":
        return _with_other_header(request, choose)
    if way == "type":
        return replace(request, headers={**request.headers, "content-type": choose(CONTENT_TYPES)})
    return replace(request, body=mutated_body(request.body, choose, parts=way == "part"))


def mutated_body(body: bytes, choose: Choose, *, parts: bool = True) -> bytes:
    """Give a body with one thing changed: a part of it, where it is JSON or a form and `parts` are to be, else its bytes."""
    if parts:
        try:
            value = json.loads(body)
        except ValueError:
            return _other_form(body, choose) if b"=" in body else _other_bytes(body, choose)
        return mutated_value(value, choose)
    return _other_bytes(body, choose)


def mutated_value(value: Any, choose: Choose) -> bytes:
    """Give JSON of a value in which one part was replaced, left out, doubled, or named otherwise."""
    whole = [deepcopy(value)]
    owner, name = choose([*_places(whole)])
    if (change := choose(("replaced", "replaced", "left out", "doubled", "named otherwise"))) == "replaced" or owner is whole:
        owner[name] = _PLACE
        return json.dumps(whole[0]).replace(json.dumps(_PLACE), choose(FRAGMENTS)).encode()
    if isinstance(owner, list):
        if change == "left out":
            del owner[name]
        else:
            owner.insert(name, deepcopy(owner[name]))
    elif change == "doubled":  # the name twice in one object
        text = json.dumps({**owner, _PLACE: owner[name]}).replace(json.dumps(_PLACE), json.dumps(name))
        return _in_place(whole, owner, text)
    else:
        held = owner.pop(name)
        if change == "named otherwise":
            owner[choose((name.upper(), f"{name} ", "", "ü", "__proto__"))] = held
    return json.dumps(whole[0]).encode()


def lists_in(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Give the path of each list in a value of JSON that has an element, the value itself included."""
    if isinstance(value, list) and value:
        yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from ((name, *path) for path in lists_in(part))


def with_list(value: Any, path: Sequence[str | int], elements: Sequence[bytes]) -> bytes:
    """Give JSON of a value whose list at `path` has these elements, which are JSON each."""
    whole = [deepcopy(value)]
    owner: Any = whole
    *way, last = (0, *path)
    for name in way:
        owner = owner[name]
    owner[last] = _PLACE
    listed = b"[" + b", ".join(elements) + b"]"
    return json.dumps(whole[0]).encode().replace(json.dumps(_PLACE).encode(), listed)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give each list or object in a value, with each index or name in it."""
    for name, inner in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
        yield value, name
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _in_place(whole: list[Any], owner: Any, text: str) -> bytes:
    """Write a value in which one object is written as `text`."""
    for holder, name in _places(whole):
        if holder[name] is owner:
            holder[name] = _PLACE
            break
    return json.dumps(whole[0]).replace(json.dumps(_PLACE), text).encode()


def _other_bytes(body: bytes, choose: Choose) -> bytes:
    at = choose(range(len(body) + 1))
    return choose(
        (
            body[:at],
            body[at:],
            body[:at]
            + choose((b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\\u0000", b'"', b"{", b"]", b"\r\n", b"\xf0\x9f"))
            + body[at:],
            body + body,
            b"\xef\xbb\xbf" + body,
            body.decode(errors="replace").encode("utf-16"),
            gzip.compress(body, mtime=0),
            b" " * 1000 + body,
            body + b"\x00",
        )
    )


def _other_form(body: bytes, choose: Choose) -> bytes:
    pairs = [(quote_from_bytes(name), quote_from_bytes(value)) for name, value in parse_qsl(body, keep_blank_values=True)]
    if not pairs:
        return _other_bytes(body, choose)
    at = choose(range(len(pairs)))
    name, value = pairs[at]
    other = choose(
        ((name, ""), (name, "%00"), (name, "%ff"), (name, "%zz"), (name, "%ED%A0%80"), ("", value), (name.upper(), value))
    )
    changed = choose(([], [other], [other, other], [(name, "x" * 70_000)], [(name, value), (name, value)]))
    return "&".join(f"{name}={value}" for name, value in (*pairs[:at], *changed, *pairs[at + 1 :])).encode()


def _with_other_header(request: Request, choose: Choose) -> Request:
    headers: Mapping[str, str] = request.headers
    if not headers:
        return request
    name = choose(sorted(headers))
    rest = {key: value for key, value in headers.items() if key != name}
    value = headers[name]
    other = choose((None, value.upper(), value[:-1], f"{value}, {value}", *VALUES))
    return replace(request, headers=rest if other is None else {**rest, name: other})
