"""Siftbell's embedded broker: a kombu transport on one SQLite file, for all processes of one machine, without a server."""

from pipeline.queue.sqlite.file import QueueFileError, WrongQueueFileError
from pipeline.queue.sqlite.transport import SCHEME, Settings, Transport, read_settings, register, url

__all__ = ["SCHEME", "QueueFileError", "Settings", "Transport", "WrongQueueFileError", "read_settings", "register", "url"]
