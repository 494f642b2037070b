"""The processes of a worker that filters: each has its next batch at once."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

ROOM: Final = 1024 * 1024
"""Bytes that a process's pipe holds where the system allows it: a batch as a task, whole. Linux gives 64 KB."""


class _Pool(AsynPool):
    _all_inqueues: set[int]
    _cache: dict[int, Any]
    outbound_buffer: Collection[Any]
    _quick_put: Callable[[Any], None]

    def create_process_queues(self) -> Any:
        queues = super().create_process_queues()
        with suppress(AttributeError, OSError):  # only Linux has it, and it has a limit for each user
            fcntl.fcntl(queues[0]._writer.fileno(), fcntl.F_SETPIPE_SZ, ROOM)  # noqa: SLF001 - billiard shows it to nobody
        return queues

    def flush(self) -> None:
        """Drop what no process has yet, for it comes again; what one was given goes on, and its end is told.

        Celery also drops what was given and not yet confirmed. When the worker ends, nobody reads that result then, and the
        process waits half a minute for its reader.
        """
        waiting = list(self.outbound_buffer)
        given = {
            number: (job, job._write_to)  # noqa: SLF001 - billiard shows it to nobody
            for number, job in self._cache.items()
            if not job.accepted() and job not in waiting
        }
        super().flush()
        self._cache.update({number: job for number, (job, process) in given.items() if process and process.is_alive()})

    def _create_write_handlers(self, hub: Any, **options: Any) -> None:
        super()._create_write_handlers(hub, **options)  # type: ignore[misc] # celery-types leaves it out
        put = self._quick_put

        def put_at_once(job: Any) -> None:
            put(job)
            hub.consolidate_callback(list(self._all_inqueues))

        self._quick_put = put_at_once


class Processes(TaskPool):
    """Celery's pool of processes, without its round of the loop between a batch's start and its way to an idle process.

    In that round the worker fetches from the broker what it has room for: milliseconds, in which the process stands idle.
    """

    Pool = _Pool
