"""The filters of templates: Jinja2's, each counted and bounded, and a few of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2
import msgspec
from jinja2 import pass_context
from jinja2.runtime import Context, markup_join

from pipeline.errors import PermanentError
from pipeline.template.bounds import bound, format_cost, length, size, spend
from pipeline.units import format_duration

_NAMES: Final = (  # noqa: SIM905 - one name a line would be a page
    "abs capitalize center count d default dictsort e escape first float forceescape format groupby indent int items join "
    "last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum "
    "title trim truncate unique upper urlencode wordcount"
).split()  # fmt: skip


def bounded_filters(plain: jinja2.Environment) -> dict[str, Callable[..., Any]]:
    """Give the filters by name; those of Jinja2 are called as `plain` has them. Names that begin with `_` are ours alone."""
    filters = {name: pass_context(partial(_bounded, plain, name)) for name in _NAMES}
    return filters | {
        "_each": _each,
        "_concatenated": _concatenated,
        "duration": _duration,
        "localtime": _localtime,
        "tojson": _tojson,
    }


def _bounded(plain: jinja2.Environment, name: str, context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Call one of Jinja2's filters and count what it makes, beforehand where that can be told."""
    bound(args, kwargs)
    if isinstance(value, str):
        spend(context, 1)
    elif isinstance(value, (list, tuple, dict)):
        spend(context, 1 + size(value))
    else:
        spend(context, 1)
        value = _each(context, value) if isinstance(value, Iterator) else value
    before: Callable[..., int] | None = _COSTS.get(name)
    if before is not None:
        value = [*value] if name == "join" and isinstance(value, Iterator) else value
        spend(context, before(value, *args, **kwargs))
    result = plain.call_filter(name, value, args, kwargs, context=context)
    spend(context, length(result))
    return result


def _replace_cost(value: Any, old: Any = "", new: Any = "", *_args: Any, **_kwargs: Any) -> int:
    return str(value).count(str(old)) * len(str(new))


def _join_cost(value: Any, d: Any = "", *_args: Any, **_kwargs: Any) -> int:
    items = value if isinstance(value, (list, tuple, dict)) else ()
    return sum(size(item) for item in items) + len(items) * len(str(d))


def _indent_cost(value: Any, width: Any = 4, *_args: Any, **_kwargs: Any) -> int:
    return (str(value).count("\n") + 1) * (width if isinstance(width, int) else len(str(width)))


def _sum_cost(_value: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, (int, float)):
        raise PermanentError("sum adds numbers")
    return 1 + len(str(attribute))


_COSTS: Final[dict[str, Callable[..., int]]] = {
    "format": lambda value, *args, **kwargs: format_cost(str(value), kwargs or args),
    "indent": _indent_cost,
    "join": _join_cost,
    "replace": _replace_cost,
    "sum": _sum_cost,
}


@pass_context
def _each(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        spend(context, 1)
        yield value


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    spend(context, sum(size(value) for value in values))
    texts = [written(context, value) for value in values]
    return markup_join(texts) if context.eval_ctx.autoescape else "".join(map(str, texts))


@pass_context
def written(context: Context, value: Any) -> Any:
    """Give what stands in the text for a value."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, (dict, list, tuple)):
        return _tojson(context, value)
    return value


@pass_context
def _tojson(context: Context, value: Any, indent: int = 0) -> str:
    bound((indent,), {})
    if isinstance(value, jinja2.Undefined):
        str(value)
    spend(context, size(value))
    encoded = msgspec.json.encode([*value] if isinstance(value, Iterator) else value)
    if indent:
        encoded = msgspec.json.format(encoded, indent=min(indent, 8))
    return encoded.decode()


def _localtime(value: datetime, zone: str) -> datetime:
    """Give the same moment in a time zone such as Europe/Berlin."""
    try:
        return value.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        raise PermanentError(f"there is no time zone '{zone[:50]}'") from None


def _duration(value: Any) -> str:
    """Write a number of seconds, or the difference of two times, as 1h30m."""
    return format_duration(value if isinstance(value, timedelta) else timedelta(seconds=float(value)))
