"""How a batch looks as a task of Celery's: its JSON is the body, under a content type of its own, and read where it is run."""

from __future__ import annotations

from typing import Any, Final

from kombu import serialization

from pipeline.engine.batch import Batch, is_for_consumers

CONTENT_TYPE: Final = "application/vnd.siftbell.batch+json"
ENCODING: Final = "binary"
"""Bytes that nobody on the way is to decode."""
_NAME: Final = "siftbell-batch"


def register() -> None:
    """Make kombu and Celery understand the content type. May be called again."""
    serialization.register(_NAME, None, _arguments, CONTENT_TYPE, ENCODING)  # type: ignore[arg-type] # the stubs know of text only


def headers(number: str, batch: Batch) -> dict[str, Any]:
    """Give what Celery needs to know of a task; what it may log instead of the arguments is `argsrepr`.

    What is filtered where it is delivered is a delivery to Celery: the time limit of filters would be too short for it.
    """
    told = f"[messages of {batch.pipeline}]"
    task = "deliver" if is_for_consumers(batch.queue) else batch.job
    return {"id": number, "task": f"siftbell.{task}", "argsrepr": told, "kwargsrepr": "{}"}


def _arguments(body: bytes) -> tuple[list[bytes], dict[str, Any], dict[str, Any]]:
    """Give args, kwargs and what Celery calls the embed: links to other tasks."""
    return [body], {}, {}
