"""Where the secrets of a plugin's options show: in what is printed, raised, logged and warned of."""

from __future__ import annotations

import json
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import pytest

from pipeline import secrecy
from pipeline.secrecy import secrets_in

SHORTEST: Final = 6
"""Characters that a secret must have in a test's options: a shorter one would be found in any text."""
_PHASES: Final[tuple[Literal["setup", "call", "teardown"], ...]] = ("setup", "call", "teardown")
_KEYS: Final = "(api|access|auth|encryption|integration|license|private|secret|service|shared|signing)_?key"
_NAME: Final = re.compile(
    rf"(^|_)(token|password|passwd|pwd|passphrase|passcode|secret|credentials?|{_KEYS})s?$|(token|password)$", re.IGNORECASE
)


def sounds_secret(name: str) -> bool:
    """Say whether an option of this name holds a secret: `token`, `db_password`, `apiKey`, but not `token_url` or `key`."""
    return _NAME.search(name) is not None


def assert_no_secret(config: Any, shown: str) -> None:
    """Fail where a text holds one of the options' secrets, in any form; does not repeat it."""
    __tracebackhide__ = True
    if _shows(config, shown):
        pytest.fail("a secret shows")


@cache
def forms_of(secret: str) -> set[str]:
    """Give what tells a secret: itself, as URLs, JSON, hex and Base64 have it; of a URL its password, path and query."""
    parts = {secret, *_told_by_url(secret)}
    return {form for part in parts if len(part) >= SHORTEST for form in _written(part)} | {secret}


def assert_error_tells_no_secret(config: Any, error: BaseException) -> None:
    """Fail where an error, or one that it is shown with (`raise … from`), holds a secret."""
    __tracebackhide__ = True
    assert_no_secret(config, f"{error} {error!r} {''.join(traceback.format_exception(error))}")


@contextmanager
def watched(config: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Watch what is logged (every level), printed and warned of, and fail at the end where a secret is in it."""
    __tracebackhide__ = True
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        yield
    for one in warned:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    formatter = logging.Formatter()
    logged = [formatter.format(record) for phase in _PHASES for record in caplog.get_records(phase)]
    printed = capsys.readouterr()
    told = {"a log line": "\n".join(logged), "stdout": printed.out, "stderr": printed.err}
    told["a warning"] = "\n".join(str(one.message) for one in warned)
    where = [name for name, text in told.items() if _shows(config, text)]
    if where:
        pytest.fail(f"a secret shows in {', '.join(where)}")
    print(printed.out, end="")  # noqa: T201 - for pytest's report


def _shows(config: Any, text: str) -> bool:
    return any(form in text for secret in secrets_in(config) if secret for form in forms_of(secret))


def _told_by_url(secret: str) -> Iterator[str]:
    if "://" not in secret:
        return
    try:
        parts = urlsplit(secret)
    except ValueError:  # it only looks like one
        return
    yield unquote(parts.password or "")
    if parts.scheme in ("http", "https"):  # with others the path names a database, which errors may tell
        yield parts.path.strip("/")
        yield parts.query


def _written(text: str) -> Iterator[str]:
    yield from secrecy.forms_of(text)
    yield from (json.dumps(text)[1:-1], text.encode().hex())
