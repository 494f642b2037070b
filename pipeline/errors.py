"""The errors of the plugin API: each says what happens next to the message or the configuration, not what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class PipelineError(Exception):
    """What every error that Siftbell understands descends from."""


class ConfigError(PipelineError):
    """The configuration does not let it start. The text names the place and never repeats a value, which may be a secret."""


class TemporaryError(PipelineError):
    """It did not work now: the message is held and tried again.

    `retry_after` is the number of seconds the other side asked to wait, or None where it did not say; then the
    engine waits by its own backoff.
    """

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class PermanentError(PipelineError):
    """It will never work: the message goes to the dead letters with this text. At the intake: 4xx with this text."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request: `where` is a path into its body such as `[3].labels.team`, or a header's name."""

    where: str
    text: str


class RequestError(PermanentError):
    """A webhook producer refuses a request: the sender is answered `status` and the `problems`.

    400: the body cannot be read; 401 and 403: the sender is not known, or not allowed; 413: too large; 415: not a
    content type this producer reads; 422: readable, but not what it expects.

    `accepted` are the messages of the request that are accepted all the same, for a sender who does not come again: they are
    on the queue before it is answered. `answer` is what its protocol has as the body of such an answer, in place of ours: what
    JSON can hold.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 400,
        problems: Sequence[Problem] = (),
        accepted: Sequence[Any] = (),
        answer: Any = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.problems = tuple(problems)
        self.accepted = tuple(accepted)
        self.answer = answer
