"""The same work as a plain Celery chain of four tasks: three filters, and a delivery. `celery -A benchmarks.yardsticks.chain`.

Settings are those that Celery's documentation recommends for tasks that must not be lost: late acknowledgement, reject
on worker lost, results ignored, confirms and quorum queues on RabbitMQ.
"""

from __future__ import annotations

import os
from typing import Any, Final

from celery import Celery, chain
from celery.canvas import Signature

from benchmarks.work import plain_filters

URL: Final = os.environ["CHAIN_BROKER"]
FILE: Final = os.environ["CHAIN_FILE"]
"""Where deliveries go: a line each."""

app = Celery("chain", broker=URL)
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True, worker_prefetch_multiplier=4)
if URL.startswith("amqp"):
    app.conf.update(
        broker_transport_options={"confirm_publish": True},
        task_default_queue_type="quorum",
        worker_detect_quorum_queues=True,
    )

_severe, _known, _rendered = plain_filters()


@app.task
def severe(message: dict[str, Any]) -> dict[str, Any] | None:
    """Filter by severity and labels."""
    return _severe(message)


@app.task
def known(message: dict[str, Any]) -> dict[str, Any] | None:
    """Filter by the instance's name."""
    return _known(message)


@app.task
def rendered(message: dict[str, Any]) -> dict[str, Any] | None:
    """Write title and text."""
    return _rendered(message)


@app.task
def deliver(message: dict[str, Any]) -> None:
    """Append a line to the file."""
    with open(FILE, "a", encoding="utf-8") as file:  # noqa: PTH123 - the quickest way there is
        file.write(f"{message['key']} {message['title']}\n")


def steps(message: dict[str, Any]) -> Signature:
    """Give the four tasks for a message."""
    return chain(severe.s(message), known.s(), rendered.s(), deliver.s())
