"""Regular expressions that take time linear in the text: those of Rust's crate `regex`, the engine of CEL's `matches()`.

Pydantic's core has it too, and there a pattern stays compiled: CEL's binding compiles it anew for every message.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic_core import SchemaError, SchemaValidator, core_schema


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Give a function that says whether the pattern is found somewhere in a text; raises ValueError for what is none."""
    try:
        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
        return SchemaValidator(schema).isinstance_python
    except SchemaError:
        raise ValueError(f"'{pattern}' is not a regular expression") from None
