"""Where messages go: the batches that start them on their way through a pipeline, and those that bring them to a consumer."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engine.batch import DELIVER_QUEUE, MAX_AT_ONCE, MAX_DELIVER, MAX_PROCESS, PROCESS_QUEUE, Batch, split
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.written import Written, divide
from pipeline.message import Message
from pipeline.spec.model import ConsumerStep


def incoming(pipeline: Pipeline, messages: Sequence[Message]) -> list[Batch]:
    """Give the batches that start messages on their way through a pipeline."""
    return [first_batch(pipeline, part) for part in split(messages, most_at_first(pipeline))]


def most_at_first(pipeline: Pipeline) -> int:
    """Give how many messages a batch may have that starts them on their way."""
    return MAX_PROCESS if pipeline.straight is None else _most(pipeline.straight)


def first_batch(pipeline: Pipeline, messages: list[Message]) -> Batch:
    """Give the batch that starts these messages on their way: to the filters, or straight to the consumer."""
    spec = pipeline.spec
    if (step := pipeline.straight) is not None:
        return _deliver(spec.name, step, messages, revision=spec.revision)
    queue = (spec.filters[0].queue if spec.filters else None) or PROCESS_QUEUE
    return Batch(job="process", queue=queue, pipeline=spec.name, messages=messages, revision=spec.revision)


def delivery(
    pipeline: str,
    step: ConsumerStep,
    messages: Sequence[Message],
    *,
    revision: str,
    attempt: int = 1,
    written: Sequence[Written] | None = None,
) -> list[Batch]:
    """Give the batches that bring messages to a consumer; those that are written already are only put on the queue."""
    parts = split(messages, _most(step)) if written is None else divide(written, _most(step))
    return [_deliver(pipeline, step, part, revision=revision, attempt=attempt) for part in parts]


def _most(step: ConsumerStep) -> int:
    return MAX_AT_ONCE if step.batches else MAX_DELIVER


def _deliver(pipeline: str, step: ConsumerStep, messages: list[Message], *, revision: str, attempt: int = 1) -> Batch:
    return Batch(
        job="deliver",
        queue=DELIVER_QUEUE.format(step.queue),
        pipeline=pipeline,
        step=step.label,
        messages=messages,
        attempt=attempt,
        revision=revision,
    )
