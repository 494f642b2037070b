"""The sandbox that templates run in: which names there are, and what a rendering may cost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from io import StringIO
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2
import msgspec
from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.runtime import Context, LoopContext, markup_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from pipeline.errors import PermanentError
from pipeline.units import format_duration

MAX_WORK: Final = 2_000_000
"""How many characters a rendering may make and how many loop steps it may take, together."""
MAX_SECONDS: Final = 2.0
"""How many seconds of its thread's CPU time a rendering may take."""
_MAX_NUMBER: Final = 2**16
_MAX_BITS: Final = 128
_FILTERS: Final = (  # noqa: SIM905 - one name a line would be a page
    "abs capitalize center count d default dictsort e escape first float forceescape format groupby indent int items join "
    "last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum "
    "title trim truncate unique upper urlencode wordcount"
).split()  # fmt: skip
_TEXT_METHODS: Final = (  # noqa: SIM905 - one name a line would be a page
    "capitalize count endswith find isdigit lower lstrip partition removeprefix removesuffix rfind rpartition rsplit "
    "rstrip split splitlines startswith strip title upper"
).split()  # fmt: skip
_METHODS: Final[dict[type, frozenset[str]]] = {
    str: frozenset(_TEXT_METHODS),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    datetime: frozenset({"date", "isoformat", "isoweekday", "strftime", "time", "timestamp", "weekday"}),
    timedelta: frozenset({"total_seconds"}),
    LoopContext: frozenset({"changed", "cycle"}),
}
_UNBOUNDED: Final = (
    nodes.AssignBlock, nodes.Block, nodes.CallBlock, nodes.EvalContextModifier, nodes.Extends, nodes.FilterBlock,
    nodes.FromImport, nodes.Import, nodes.Include, nodes.Macro, nodes.NSRef,
)  # fmt: skip
_WRONG: Final = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)


class NotATemplateError(Exception):
    """A text is not a template: the line, and where a name is unknown that name and the `known` ones."""

    def __init__(self, text: str, *, line: int = 1, name: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.line = line
        self.name = name
        self.known = sorted(known)


class _Context(Context):
    """A rendering's names, and what it may still spend."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.left = MAX_WORK
        self.ends = time.thread_time() + MAX_SECONDS
        self.calls = 0

    def spend(self, work: int) -> None:
        """Count work that is about to be done or was done; raises PermanentError where it is too much."""
        self.left -= work
        self.calls += 1
        if self.left < 0 or (not self.calls % 64 and time.thread_time() > self.ends):
            raise PermanentError("it does too much work: more than a rendering may take")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = _Context

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _spend(context, _cost(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        _bound(args, kwargs)
        result = super().call(context, function, *args, **kwargs)
        _spend(context, 1 + _length(result))
        return result

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """Leave `format` as the method it is, which `is_safe_attribute` then refuses; the filter is bounded."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return not callable(value) or any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())


class Compiled:
    """A compiled template."""

    def __init__(self, template: jinja2.Template, text: str) -> None:
        self._template = template
        self._text = text

    def render(self, names: Mapping[str, Any], max_length: int) -> str:
        """Give the text; raises PermanentError where it cannot be made within the bounds."""
        try:
            return "".join(self._chunks(names, max_length))
        except PermanentError as error:
            raise PermanentError(f"the template, line {self._line(error)}: {error}") from None
        except jinja2.UndefinedError as error:
            line = self._line(error)
            row = self._text.split("\n")[line - 1]
            raise PermanentError(f"the template, line {line}: {_what_is_missing(error, row)}") from None
        except _WRONG as error:
            raise PermanentError(f"the template, line {self._line(error)}: {str(error)[:200]}") from None

    def _chunks(self, names: Mapping[str, Any], max_length: int) -> Iterator[str]:
        context = self._template.new_context(dict(names))
        length = 0
        for chunk in self._template.root_render_func(context):
            length += len(chunk)
            _spend(context, len(chunk))
            if length > max_length:
                raise PermanentError(f"it gives more than {max_length} characters")
            yield chunk

    def _line(self, error: BaseException) -> int:
        line, trace = 1, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<template>":
                line = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def compile_template(text: str, *, escape: bool) -> tuple[Compiled, dict[str, int]]:
    """Give the compiled template, and the names it reads with the line of each. Raises NotATemplateError."""
    environment = _environment(escape=escape)
    try:
        tree = environment.parse(text)
        found = [*tree.find_all(nodes.Node)]
        _refuse_unknown(environment, found)
        lines = {node.name: node.lineno for node in reversed(found) if isinstance(node, nodes.Name)}
        generator = _Generator(environment)
        generator.visit(_Transformer().visit(tree))
        code = compile(generator.source.getvalue(), "<template>", "exec")
        names = {name: line for name, line in lines.items() if name in generator.read}
        return Compiled(environment.template_class.from_code(environment, code, environment.globals), text), names
    except jinja2.TemplateSyntaxError as error:
        raise NotATemplateError(str(error.message), line=error.lineno) from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
        raise NotATemplateError("it nests too deeply, or holds a number that is too long") from None


class _Generator(CodeGenerator):
    """Writes a template's code, and notes on the way which names it reads: Jinja2 itself generates it twice for that."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self.source = StringIO()
        self.read: set[str] = set()
        super().__init__(environment, None, "<template>", self.source)

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        loads = frame.symbols.loads.values()
        self.read |= {name for action, name in loads if name and action == VAR_LOAD_RESOLVE} - set(self.environment.globals)


class _Transformer(NodeTransformer):
    """Puts what Jinja2 itself does not let a sandbox intercept behind filters: loops and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja2 finds it by the node's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_each")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802 - Jinja2 finds it by the node's name
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concatenated")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)


@cache
def _environment(*, escape: bool) -> _Environment:
    plain = ImmutableSandboxedEnvironment(autoescape=escape, undefined=jinja2.StrictUndefined)
    environment = _Environment(
        autoescape=escape, undefined=jinja2.StrictUndefined, finalize=_written, keep_trailing_newline=True, cache_size=0
    )
    environment.globals = {"range": environment.globals["range"]}
    environment.filters = {name: pass_context(partial(_bounded, plain, name)) for name in _FILTERS}
    environment.filters |= {
        "_each": _each,
        "_concatenated": _concatenated,
        "duration": _duration,
        "localtime": _localtime,
        "tojson": _tojson,
    }
    return environment


def _refuse_unknown(environment: _Environment, tree: Sequence[nodes.Node]) -> None:
    for node in tree:
        if isinstance(node, _UNBOUNDED) or (isinstance(node, nodes.For) and node.recursive):
            raise NotATemplateError("macros, blocks, imports and recursive loops are not available here", line=node.lineno)
    for node in tree:
        if isinstance(node, nodes.Name) and node.name in ("self", "super", "caller", "varargs", "kwargs"):
            raise NotATemplateError(f"'{node.name}' is not available here", line=node.lineno, name=node.name)
    for kind, known, what in ((nodes.Filter, environment.filters, "filter"), (nodes.Test, environment.tests, "test")):
        for node in tree:
            if isinstance(node, kind) and (node.name not in known or node.name.startswith("_")):
                text = f"no {what} is called '{node.name}'"
                raise NotATemplateError(text, line=node.lineno, name=node.name, known=(name for name in known if name.isalpha()))


def _what_is_missing(error: jinja2.UndefinedError, row: str) -> str:
    found = re.search(r"has no (?:attribute|element) '?(.*?)'?$", str(error.message))
    if found is None:
        return str(error.message)
    path = re.search(rf"""[A-Za-z_][\w.]*(?:\.{re.escape(found[1])}\b|\[["']{re.escape(found[1])}["']\])""", row)
    return f"the message has no {path[0] if path else found[1]}; write | default(...) where it may be missing"


def _spend(context: Context, work: int) -> None:
    if isinstance(context, _Context):
        context.spend(work)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 0


def _cost(operator: str, left: Any, right: Any) -> int:
    """Give the size of an operation's result before it is made; raises PermanentError for huge numbers."""
    if operator == "+":
        return _length(left) + _length(right)
    if operator == "%" and isinstance(left, str):
        return _format_cost(left, right)
    if operator == "*" and (_length(left) or _length(right)):
        times = right if isinstance(right, int) else left
        return (_length(left) or _length(right)) * (times if isinstance(times, int) else 0)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if operator != "%" and bits > _MAX_BITS:
            raise PermanentError("it computes a number that is too large")
    return 1


def _format_cost(text: str, values: Any) -> int:
    if re.search(r"%[^%a-zA-Z]*(?:\*|\d{4})", text):
        raise PermanentError("it formats to a width that is too large")
    given: Sequence[Any] = values if isinstance(values, tuple) else [*values.values()] if isinstance(values, dict) else [values]
    return len(text) + 1000 * text.count("%") + text.count("%") * max((_size(value) for value in given), default=0)


def _size(value: Any) -> int:
    """Count the characters and elements of a value, as far as `MAX_WORK`."""
    size, stack = 0, [value]
    while stack and size <= MAX_WORK:
        item = stack.pop()
        size += 1 + _length(item)
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            stack += item
    return size


def _bound(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > _MAX_NUMBER * 2:
            raise PermanentError(
                f"it asks for {value if abs(value) < 10**18 else 'too many'}: numbers there end at {_MAX_NUMBER * 2}"
            )
        if isinstance(value, str) and re.search(r"%[^a-zA-Z%]*\d{4}", value):
            raise PermanentError("it formats to a width that is too large")


def _bounded(plain: jinja2.Environment, name: str, context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Call one of Jinja2's filters and count what it makes, beforehand where that can be told."""
    _bound(args, kwargs)
    if isinstance(value, Iterator):
        value = _each(context, value)
    _spend(context, 1 + (_size(value) if isinstance(value, (list, tuple, dict)) else 0))
    before: Callable[..., int] | None = _COSTS.get(name)
    if before is not None:
        value = [*value] if name == "join" and isinstance(value, Iterator) else value
        _spend(context, before(value, *args, **kwargs))
    result = plain.call_filter(name, value, args, kwargs, context=context)
    _spend(context, _length(result))
    return result


def _replace_cost(value: Any, old: Any = "", new: Any = "", *_args: Any, **_kwargs: Any) -> int:
    return str(value).count(str(old)) * len(str(new))


def _join_cost(value: Any, d: Any = "", *_args: Any, **_kwargs: Any) -> int:
    items = value if isinstance(value, (list, tuple, dict)) else ()
    return sum(_size(item) for item in items) + len(items) * len(str(d))


def _indent_cost(value: Any, width: Any = 4, *_args: Any, **_kwargs: Any) -> int:
    return (str(value).count("\n") + 1) * (width if isinstance(width, int) else len(str(width)))


def _sum_cost(_value: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, (int, float)):
        raise PermanentError("sum adds numbers")
    return 1 + len(str(attribute))


_COSTS: Final[dict[str, Callable[..., int]]] = {
    "format": lambda value, *args, **kwargs: _format_cost(str(value), kwargs or args),
    "indent": _indent_cost,
    "join": _join_cost,
    "replace": _replace_cost,
    "sum": _sum_cost,
}


@pass_context
def _each(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _spend(context, 1)
        yield value


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    _spend(context, sum(_size(value) for value in values))
    written = [_written(context, value) for value in values]
    return markup_join(written) if context.eval_ctx.autoescape else "".join(map(str, written))


@pass_context
def _written(context: Context, value: Any) -> Any:
    """Give what stands in the text for a value."""
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
    _bound((indent,), {})
    if isinstance(value, jinja2.Undefined):
        str(value)
    _spend(context, _size(value))
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
