"""The SQS transport: one connection, whose channels hand out in the worker's event loop what their pollers fetched."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual

from pipeline.queue.sqs.address import SCHEME, Settings
from pipeline.queue.sqs.channel import Channel as SqsChannel
from pipeline.queue.sqs.errors import SqsError
from pipeline.queue.sqs.service import service


def register() -> None:
    """Make kombu and Celery understand `siftbell-sqs://` as a broker's URL. May be called again."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


class Transport(virtual.Transport):
    """One connection. Its transport option `settings` says where SQS is and how to use it."""

    Channel = SqsChannel
    default_port = None
    driver_type = "sqs"
    driver_name = "botocore"
    connection_errors = (*virtual.Transport.connection_errors, SqsError)
    implements = virtual.Transport.implements.extend(asynchronous=True, batch_publish=True, exchange_type=frozenset({"direct"}))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.settings: Settings = client.transport_options["settings"]
        self.service = service(self.settings)
        self._arrived = threading.Event()
        self._loop: Any = None
        self._ends: tuple[int, int] | None = None
        self._waking = threading.Lock()  # so that nobody writes to a descriptor that is closed, and may be another's by then

    def establish_connection(self) -> Transport:
        """Ask SQS whether it lets us in; raises SqsError, after which Celery tries again."""
        self.service.greet()
        super().establish_connection()
        return self

    def close_connection(self, connection: Any) -> None:
        """Hand back what is claimed."""
        super().close_connection(connection)
        self.unregister_from_event_loop(connection, self._loop)

    def verify_connection(self, connection: Any) -> bool:  # noqa: ARG002 - kombu's signature
        """Say whether the connection can be used: it holds no socket that could be dead."""
        return True

    def driver_version(self) -> str:
        """Return the version of botocore."""
        import botocore  # noqa: PLC0415 - of an extra

        return str(botocore.__version__)

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Deliver what has arrived, waiting at most `timeout` seconds for it, then raise TimeoutError; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._arrived.clear()
            if self._deliver_all():
                return
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("no message came in time")
            self._arrived.wait(left)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver messages in the worker's event loop until the connection is closed or unregistered."""
        self.unregister_from_event_loop(connection, self._loop)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        self._loop = loop
        self._ends = (reading, writing)
        loop.add_reader(reading, self._on_stir, reading)
        self.stir()

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:  # noqa: ARG002 - kombu's signature
        """Stop delivering in the event loop."""
        with self._waking:
            ends, self._ends, self._loop = self._ends, None, None
            if ends is not None:
                loop.remove_reader(ends[0])
                for end in ends:
                    os.close(end)

    def stir(self) -> None:
        """Note that messages arrived, or that there is room for them; any thread may call this."""
        self._arrived.set()
        with self._waking, suppress(BlockingIOError):  # a full pipe wakes the loop as well
            if self._ends is not None:
                os.write(self._ends[1], b"!")

    def _on_stir(self, reading: int) -> None:
        with suppress(BlockingIOError):
            os.read(reading, 4096)
        self._deliver_all()

    def _deliver_all(self) -> int:
        count = 0
        channels: list[Any] = list(self.channels or ())
        for channel in channels:
            count += channel.deliver()
            channel.stir()
        return count
