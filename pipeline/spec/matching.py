"""What a test expects of a value, and whether it is so: the value itself, a part of it, or `{matches: …}` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_MATCHERS: Final = ("matches", "contains", "absent")
MISSING: Final = object()
"""What stands where there is nothing."""


def refuse_unusable(wanted: Any, *, of_text: bool = False) -> str:
    """Say what is wrong with an expectation; empty where nothing is. A text is no mapping."""
    if of_text and isinstance(wanted, Mapping) and _matcher(wanted) is None:
        return "a text, or one of {contains: …}, {matches: …} and {absent: true}, is expected"
    if isinstance(wanted, Mapping) and (name := _matcher(wanted)) is not None:
        return _refuse_value(name, wanted[name])
    inner = wanted.values() if isinstance(wanted, Mapping) else wanted if isinstance(wanted, list) else ()
    return next(filter(None, map(refuse_unusable, inner)), "")


def _refuse_value(name: str, value: Any) -> str:
    if name == "absent":
        return "" if value is True else "absent: true is expected"
    if not isinstance(value, str):
        return f"{name}: a text is expected"
    try:
        re.compile(value if name == "matches" else "")
    except re.error as error:
        return f"matches: this is no regular expression: {error}"
    return ""


def fits(wanted: Any, seen: Any) -> bool:
    """Say whether a value is as expected: a mapping may have more than is named, a list may not."""
    if isinstance(wanted, Mapping):
        if (name := _matcher(wanted)) is not None:
            return _holds(name, wanted[name], seen)
        return isinstance(seen, Mapping) and all(fits(value, seen.get(key, MISSING)) for key, value in wanted.items())
    if seen is MISSING:
        return wanted is None
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(wanted) == len(seen) and all(map(fits, wanted, seen))
    if isinstance(wanted, bool) or isinstance(seen, bool):  # to Python True is 1
        return wanted is seen
    return bool(wanted == seen) or (isinstance(wanted, int | float) and seen == str(wanted))


def differing(wanted: Any, seen: Any, path: str) -> list[tuple[str, Any, Any]]:
    """Give what does not fit: where, what was expected and what is there; as deep inside of mappings as it can be told."""
    if fits(wanted, seen):
        return []
    if isinstance(wanted, Mapping) and isinstance(seen, Mapping) and _matcher(wanted) is None:
        deeper = ((key, value, seen.get(key, MISSING)) for key, value in wanted.items())
        return [one for key, value, there in deeper for one in differing(value, there, f"{path}.{key}")]
    return [(path, wanted, seen)]


def at_path(value: Any, path: str) -> Any:
    """Give what lies at a path such as `labels.team` or `data.alerts[0].id`; `MISSING` where there is nothing.

    A name with dots, as labels may have, is found where it stands as it is.
    """
    if not path:
        return value
    if isinstance(value, list):
        found = re.match(r"\[(\d+)\]\.?", path)
        return at_path(value[int(found[1])], path[found.end() :]) if found and int(found[1]) < len(value) else MISSING
    if not isinstance(value, Mapping):
        return MISSING
    if path in value:
        return value[path]
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    return at_path(value[name], path[len(name) :].removeprefix(".")) if name in value else MISSING


def _matcher(wanted: Mapping[Any, Any]) -> str | None:
    return next((name for name in _MATCHERS if list(wanted) == [name]), None)


def _holds(name: str, value: Any, seen: Any) -> bool:
    if name == "absent":
        return seen is MISSING or seen in (None, "", {}, [])
    if isinstance(seen, list) and name == "contains":
        return value in seen
    text = seen if isinstance(seen, str) else "" if seen is MISSING else str(seen)
    return value in text if name == "contains" else re.search(value, text) is not None
