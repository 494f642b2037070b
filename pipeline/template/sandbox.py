"""The sandbox that templates are compiled for and run in: which names, filters and methods there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from io import StringIO
from typing import Any, Final, cast

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from pipeline.errors import PermanentError
from pipeline.template.bounds import Rendering, bound, cost, length, spend
from pipeline.template.filters import bounded_filters, written

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


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        spend(context, cost(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        bound(args, kwargs)
        result = super().call(context, function, *args, **kwargs)
        spend(context, 1 + length(result))
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

    def __init__(self, environment: jinja2.Environment, template: jinja2.Template, text: str) -> None:
        self._environment = environment
        self._eval_ctx = nodes.EvalContext(environment)  # no template can change it: `_UNBOUNDED` has what would
        self._template = template
        self._text = text

    def render(self, names: dict[str, Any], max_length: int) -> str:
        """Give the text, where the names have these values; raises PermanentError where it cannot be made within the bounds."""
        try:
            return self._rendered(names, max_length)
        except PermanentError as error:
            raise PermanentError(f"the template, line {self._line(error)}: {error}") from None
        except jinja2.UndefinedError as error:
            line = self._line(error)
            row = self._text.split("\n")[line - 1]
            raise PermanentError(f"the template, line {line}: {_what_is_missing(error, row)}") from None
        except _WRONG as error:
            raise PermanentError(f"the template, line {self._line(error)}: {str(error)[:200]}") from None

    def _rendered(self, names: dict[str, Any], max_length: int) -> str:
        names |= self._environment.globals
        chunks: list[str] = []
        left = max_length
        for chunk in self._template.root_render_func(Rendering(self._environment, self._eval_ctx, names)):
            left -= len(chunk)
            if left < 0:
                raise PermanentError(f"it gives more than {max_length} characters")
            chunks.append(chunk)
        return "".join(chunks)

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
        return Compiled(environment, environment.template_class.from_code(environment, code, environment.globals), text), names
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
        autoescape=escape, undefined=jinja2.StrictUndefined, finalize=written, keep_trailing_newline=True, cache_size=0
    )
    environment.globals = {"range": environment.globals["range"]}
    environment.filters = bounded_filters(plain)
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
