"""Publishing batches as Celery tasks, confirmed by the broker, within a bounded time."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery

from pipeline.engine.batch import Batch, encode
from pipeline.errors import TemporaryError
from pipeline.queue.app import make_app, make_queue
from pipeline.queue.brokers import CONFIRM, broker
from pipeline.settings import Settings


class CeleryQueue:
    """The broker as the engine sees it (`engine.batch.Queue`); may be used by several threads and after a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._quorum = app.conf.task_default_queue_type == "quorum"

    @classmethod
    def from_settings(cls, settings: Settings) -> CeleryQueue:
        """Make one for a process that only publishes; raises `ConfigError` for a broker that is not known."""
        return cls(make_app(broker(settings.broker_url)))

    def publish(self, batches: Sequence[Batch]) -> None:
        """Return when the broker has all batches; raises `TemporaryError` when it may not have them all."""
        try:
            with self._app.producer_or_acquire() as producer, producer.batch():
                for batch in batches:
                    self._app.send_task(
                        f"siftbell.{batch.job}",
                        args=[encode(batch)],
                        queue=make_queue(batch.queue, quorum=self._quorum),
                        producer=producer,
                        argsrepr=f"[{len(batch.messages)} messages of {batch.pipeline}]",
                        confirm_timeout=CONFIRM,
                    )
        except Exception as error:
            raise TemporaryError(f"the broker did not take the messages: {type(error).__name__}: {error}") from error

    def check(self) -> None:
        """Ask the broker whether it is there; raises `TemporaryError` where it is not."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
        except Exception as error:
            raise TemporaryError(f"the broker does not answer: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
