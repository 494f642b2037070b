"""Amazon SQS as a broker that holds the promise: a kombu transport over botocore whose claims live as long as their process."""

from pipeline.queue.sqs.address import SCHEME, Settings, read_settings, shown_url, sqs_name
from pipeline.queue.sqs.errors import SqsError
from pipeline.queue.sqs.transport import Transport, register
from pipeline.queue.sqs.wire import LARGEST

__all__ = ["LARGEST", "SCHEME", "Settings", "SqsError", "Transport", "read_settings", "register", "shown_url", "sqs_name"]
