"""Where messages go: the batches that start them on their way through a pipeline, and those that bring them to a consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.engine.batch import DELIVER_QUEUE, MAX_AT_ONCE, MAX_DELIVER, MAX_PROCESS, PROCESS_QUEUE, Batch, split
from pipeline.engine.decisions import Decisions
from pipeline.engine.pipeline import Pipeline
from pipeline.engine.written import Written, divide
from pipeline.message import Message
from pipeline.spec.model import ConsumerStep, FilterStep
from pipeline.store.rows import Outcome

FEW: Final = 16
"""Messages that are filtered where they are delivered, at most: the way over a queue and a process of filters costs more then."""
FEW_BYTES: Final = 32 * 1024
"""Their bytes as JSON, at most: those who filter there also call the other consumers."""


def incoming(pipeline: Pipeline, messages: Sequence[Message]) -> list[Batch]:
    """Give the batches that start messages on their way through a pipeline."""
    return [first_batch(pipeline, part) for part in split(messages, most_at_first(pipeline))]


def most_at_first(pipeline: Pipeline) -> int:
    """Give how many messages a batch may have that starts them on their way."""
    return MAX_PROCESS if pipeline.straight is None else _most(pipeline.straight)


def first_batch(pipeline: Pipeline, messages: list[Message], *, few: bool = False) -> Batch:
    """Give the batch that starts these messages on their way: to the filters, or to the consumer, where `few` may be filtered."""
    spec = pipeline.spec
    if (step := pipeline.straight) is not None:
        return _deliver(spec.name, step, messages, revision=spec.revision)
    if few and (step := pipeline.filters_there) is not None:
        queue = DELIVER_QUEUE.format(step.queue)
    else:
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


def to_filter(pipeline: Pipeline, step: FilterStep, messages: Sequence[Message], batch: Batch) -> list[Batch]:
    """Give the batches that bring what is left of one to a filter with a queue of its own."""
    onward = batch.replace(step=pipeline.before(step.label), queue=step.queue or PROCESS_QUEUE, attempt=1, deaths=0, claim="")
    return [onward.replace(messages=part) for part in split(messages, MAX_PROCESS)]


def to_consumers(
    pipeline: Pipeline,
    messages: Sequence[Message],
    written: Sequence[Written] | None,
    batch: Batch,
    decisions: Decisions,
) -> list[Batch]:
    """Give the batches that bring what the filters left of one to the consumers that want it, and record who does not.

    `written` are all messages as JSON, where that is known.
    """
    batches = []
    for step in pipeline.spec.consumers:
        wanted = [message for message in messages if step.when is None or step.when.matches(message)]
        if step.when is not None and len(wanted) < len(messages):
            kept = {message.id for message in wanted}
            for message in messages:
                if message.id not in kept:
                    reason = f"by when: {step.when.text} at {step.position}"
                    decisions.record(message, step.label, Outcome.DROPPED, reason=reason)
        all_of_them = written if len(wanted) == len(messages) else None
        batches += delivery(batch.pipeline, step, wanted, revision=batch.revision, written=all_of_them)
    return batches


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
