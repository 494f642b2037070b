"""A worker as the tests of traps start it: our app and tasks, but a runner that does what a batch's pipeline says.

Arguments: broker's URL, settings that differ (JSON), pool, file to write to, what a lost batch does (`fail`, `note`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from celery.worker.request import Request

from pipeline import TemporaryError
from pipeline.engine.batch import Batch, decode
from pipeline.queue.app import add_tasks, make_app
from pipeline.queue.brokers import broker
from pipeline.queue.consuming import add_steps


class Runner:
    """Notes each batch, then works: sleeps, dies, fails."""

    def __init__(self, file: Path, lost: str) -> None:
        self._file = file
        self._lost = lost

    def note(self, text: str) -> None:
        with self._file.open("a") as file:
            file.write(text + "\n")

    def read(self, text: str) -> Batch:
        return decode(text)

    def run(self, batch: Batch) -> None:
        self.note(batch.pipeline)
        if batch.pipeline == "sleep":
            time.sleep(60)
        if batch.pipeline == "fail":
            raise TemporaryError("the store is away")
        if batch.pipeline == "die":
            os.kill(os.getpid(), signal.SIGKILL)

    def lost(self, batch: object) -> None:
        self.note("lost")
        if self._lost == "fail":
            raise TemporaryError("the store is away")


def main(url: str, changed: str, pool: str, file: str, lost: str) -> None:
    app = make_app(broker(url), ["t"])
    told = json.loads(changed)
    plain = told.pop("on_failure", "ours") == "celery's"
    app.conf.update(told)
    runner = Runner(Path(file), lost)
    add_tasks(app, lambda: runner)  # type: ignore[arg-type,return-value] # a stand-in
    add_steps(app, [], ["t"])
    for task in app.tasks.values():
        if plain and task.name.startswith("siftbell."):
            task.Request = type("Request", (task.Request,), {"on_failure": Request.on_failure})
        task.acks_late = app.conf.task_acks_late  # these two were read from the settings when the tasks were made
        task.reject_on_worker_lost = app.conf.task_reject_on_worker_lost
    app.Worker(pool_cls=pool, concurrency=2, loglevel="WARNING", without_gossip=True, without_mingle=True, quiet=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
