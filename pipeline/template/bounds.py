"""What a rendering may cost: the work it may do, counted as it goes on, and the size of what is about to be made."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jinja2
from jinja2.nodes import EvalContext
from jinja2.runtime import Context

from pipeline.errors import PermanentError

MAX_WORK: Final = 2_000_000
"""How many characters a rendering may make and how many loop steps it may take, together."""
MAX_SECONDS: Final = 2.0
"""How many seconds of its thread's CPU time a rendering may take."""
_LOOK: Final = 32
"""Steps between two looks at the clock. The first one starts it: most renderings are done before."""
_MAX_NUMBER: Final = 2**17
_MAX_BITS: Final = 128


class Rendering(Context):
    """A rendering's names, and what it may still spend. Made for each rendering, without what only inheritance needs."""

    def __init__(self, environment: jinja2.Environment, eval_ctx: EvalContext, names: dict[str, Any]) -> None:
        self.environment = environment
        self.eval_ctx = eval_ctx
        self.parent = names
        self.vars = {}
        self.exported_vars = set()
        self.left = MAX_WORK
        self.calls = 0
        self.ends = 0.0

    def spend(self, work: int) -> None:
        """Count work that is about to be done or was done; raises PermanentError where it is too much."""
        self.left -= work
        self.calls += 1
        if self.left < 0 or (not self.calls % _LOOK and self._is_late()):
            raise PermanentError("it does too much work: more than a rendering may take")

    def _is_late(self) -> bool:
        now = time.thread_time()
        if self.calls == _LOOK:
            self.ends = now + MAX_SECONDS
        return now > self.ends


def spend(context: Context, work: int) -> None:
    """Count work where there is a rendering; Jinja2 also calls while it compiles."""
    if isinstance(context, Rendering):
        context.spend(work)


def length(value: Any) -> int:
    """Give how many characters or elements a value has at its top."""
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 0


def cost(operator: str, left: Any, right: Any) -> int:
    """Give the size of an operation's result before it is made; raises PermanentError for huge numbers."""
    if operator == "+":
        return length(left) + length(right)
    if operator == "%" and isinstance(left, str):
        return format_cost(left, right)
    if operator == "*" and (length(left) or length(right)):
        times = right if isinstance(right, int) else left
        return (length(left) or length(right)) * (times if isinstance(times, int) else 0)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if operator != "%" and bits > _MAX_BITS:
            raise PermanentError("it computes a number that is too large")
    return 1


def format_cost(text: str, values: Any) -> int:
    """Give the size of a text that is about to be formatted; raises PermanentError for huge widths."""
    if re.search(r"%[^%a-zA-Z]*(?:\*|\d{4})", text):
        raise PermanentError("it formats to a width that is too large")
    given: Sequence[Any] = values if isinstance(values, tuple) else [*values.values()] if isinstance(values, dict) else [values]
    return len(text) + 1000 * text.count("%") + text.count("%") * max((size(value) for value in given), default=0)


def size(value: Any) -> int:
    """Count the characters and elements of a value, as far as `MAX_WORK`."""
    found, stack = 0, [value]
    while stack and found <= MAX_WORK:
        item = stack.pop()
        found += 1 + length(item)
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            stack += item
    return found


def bound(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise PermanentError for arguments that ask for something huge."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise PermanentError(
                f"it asks for {value if abs(value) < 10**18 else 'too many'}: numbers there end at {_MAX_NUMBER}"
            )
        if isinstance(value, str) and re.search(r"%[^a-zA-Z%]*\d{4}", value):
            raise PermanentError("it formats to a width that is too large")
