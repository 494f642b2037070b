"""How a payload is posted in a simulation: what its sender is answered, and what its producer makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.engine.pipeline import Pipeline
from pipeline.errors import PermanentError, Problem, RequestError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import Note, WebhookProducer
from pipeline.request import Request
from pipeline.spec.model import ProducerStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sender of a payload is answered, and the messages of it that were accepted."""

    status: int
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    messages: tuple[Message, ...] = ()


def post(pipeline: Pipeline, step: ProducerStep, request: Request, *, real: bool) -> tuple[Answer, list[Message | Note]]:
    """Hand a request to a producer as the intake does; raises `PermanentError` for one that takes none.

    `real` says whether the pipeline has the producer itself; where it has a fake, a real one is made for this once.
    """
    if not issubclass(step.type, WebhookProducer):
        raise PermanentError(f"producer '{step.label}' of pipeline '{pipeline.spec.name}' takes no payloads")
    with _opened(pipeline, step, real=real) as producer:
        return _received(producer, f"/in/{pipeline.spec.name}/{step.label}", request)


@contextmanager
def _opened(pipeline: Pipeline, step: ProducerStep, *, real: bool) -> Iterator[WebhookProducer[Any]]:
    if real:
        producer: Any = pipeline.plugin(step)
        yield producer
        return
    producer = step.build()
    producer.open()
    try:
        yield producer
    finally:
        producer.close()


def _received(producer: WebhookProducer[Any], root: str, request: Request) -> tuple[Answer, list[Message | Note]]:
    status = producer.status_for(request.path.removeprefix(root) if request.path.startswith(root) else "")
    if status is None:
        return Answer(status=404, reason=f"there is nothing at {request.path}"), []
    try:
        return Answer(status=status), list(producer.receive(request))
    except RequestError as error:
        code = error.status if 400 <= error.status < 500 else 422
        return Answer(status=code, reason=str(error), problems=tuple(error.problems)), list(error.accepted)
    except PermanentError as error:
        return Answer(status=422, reason=str(error)), []
    except TemporaryError as error:
        return Answer(status=503, reason=str(error)), []
