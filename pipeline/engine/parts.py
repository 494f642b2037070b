"""What a filter gave for one message: the parts that go on, and those that are buried."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.plugin import Buried, Dropped


def apart(given: Sequence[Message | Dropped | Buried]) -> tuple[list[Message], dict[int, str]]:
    """Give the parts of a message, and by its number why one of them is buried; raises `PermanentError` where none goes on."""
    if len(given) == 1 and isinstance(only := given[0], Message):  # so it is nearly always, and this is done for every message
        return [only], {}
    parts = [one for one in given if not isinstance(one, Dropped)]
    reasons = {index: one.reason for index, one in enumerate(parts) if isinstance(one, Buried)}
    if reasons and len(reasons) == len(parts):
        raise PermanentError("; ".join(reasons.values()))
    return [one.message if isinstance(one, Buried) else one for one in parts], reasons
