"""What can go wrong between us and SQS."""

from __future__ import annotations

from kombu.exceptions import OperationalError


class SqsError(OperationalError):
    """SQS does not answer, or refuses; the text is one line without a secret."""


class NoQueueError(SqsError):
    """There is no such queue (any more)."""
