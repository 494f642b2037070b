"""A plugin's `probe` as `siftbell check --connect` calls it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Final

from pipeline.errors import PermanentError, TemporaryError
from pipeline.testing.secrecy import assert_error_tells_no_secret, assert_no_secret

LONGEST: Final = 200
"""Characters of the line that a probe gives."""


def probed(plugin: Any) -> str | TemporaryError | PermanentError | None:
    """Give what a probe says or raises; what belongs to its loop is closed."""
    try:
        called = plugin.probe()
        found: str | None = asyncio.run(_awaited(plugin, called)) if inspect.isawaitable(called) else called
    except (TemporaryError, PermanentError) as error:
        return error
    return found


def assert_probe(config: Any, found: object) -> None:
    """Fail where this is not what a probe may give, or holds a secret."""
    __tracebackhide__ = True
    if isinstance(found, (TemporaryError, PermanentError)):
        assert_error_tells_no_secret(config, found)
    elif found is not None:
        assert isinstance(found, str), f"a probe gives a text or None, not {type(found).__name__}"
        assert 0 < len(found) <= LONGEST, f"a probe gives a short line: {LONGEST} characters at most"
        assert found.isprintable(), "a probe gives one line"
        assert_no_secret(config, found)


async def _awaited(plugin: Any, called: Any) -> Any:
    try:
        return await called
    finally:
        if hasattr(plugin, "aclose"):
            await plugin.aclose()
