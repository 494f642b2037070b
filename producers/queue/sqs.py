"""SQS: a thread asks for messages and keeps them hidden from others until they are ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import structlog
from pydantic import SecretStr

from pipeline import Aws, AwsConfig, PipelineError, TemporaryError
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

log = structlog.get_logger()

_WAIT: Final = 0.5
_LONG_POLL: Final = 20
"""Seconds for which SQS lets a question wait: the most it does. Whoever stops meanwhile gives back what the answer brings."""
_AT_ONCE: Final = 10
_OF_AWS: Final = re.compile(r"([a-z0-9-]+\.)*(sqs\.[a-z0-9-]+|queue)\.amazonaws\.com(\.cn)?")


class Sqs:
    """A listener on one queue. The thread that asks ends by itself, at the latest when its question is answered."""

    def __init__(self, config: QueueConfig) -> None:
        self._config = config
        self._visibility = int(config.visibility.total_seconds())
        self._aws, self._url = _connected(config)
        self._name = self._url.rpartition("/")[2]
        self._came: SimpleQueue[list[Delivery] | PipelineError] = SimpleQueue()
        self._held: list[Delivery] = []
        self._settled, self._closing = Event(), Event()
        Thread(target=self._ask, name=f"sqs {self._name}", daemon=True).start()

    def receive(self) -> Sequence[Delivery]:
        """Give what the thread has got."""
        try:
            came = self._came.get(timeout=_WAIT)
        except Empty:
            return []
        if isinstance(came, PipelineError):
            raise came
        self._held = came
        return came

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete them. What else was received stays hidden for a while, and comes again."""
        self._held = []
        try:
            failures = self._each("delete_message_batch", deliveries)
        finally:
            self._settled.set()
        if failures:
            code = failures[0].get("Code", "")
            log.warning("messages were not deleted, and may come again", queue=self._name, messages=len(failures), code=code)

    def close(self) -> None:
        """Let others have at once what was not acknowledged."""
        self._closing.set()
        held, self._held = self._held, []
        with suppress(Empty):
            came = self._came.get_nowait()
            held += came if isinstance(came, list) else []
        self._give_back(held)
        self._settled.set()

    def _ask(self) -> None:
        try:
            while not self._closing.is_set():
                if not (found := self._received()):
                    continue
                if self._closing.is_set():
                    self._give_back(found)
                    break
                self._settled.clear()
                self._came.put(found)
                while not self._settled.wait(self._visibility / 3):
                    self._each("change_message_visibility_batch", found, VisibilityTimeout=self._visibility)
        except PipelineError as error:
            self._came.put(error)
        except Exception as error:  # noqa: BLE001 - botocore raises what its parsers do; a listener that is not told waits for ever
            self._came.put(TemporaryError(f"SQS: {type(error).__name__}"))
        finally:
            self._aws.close()

    def _received(self) -> list[Delivery]:
        found: list[Delivery] = []
        while len(found) < self._config.prefetch:
            room = min(_AT_ONCE, self._config.prefetch - len(found))
            answer = self._aws.call(
                "receive_message",
                QueueUrl=self._url,
                MaxNumberOfMessages=room,
                WaitTimeSeconds=0 if found else _LONG_POLL,
                VisibilityTimeout=self._visibility,
                MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
                MessageAttributeNames=["All"],
            )
            came = answer.get("Messages", ())
            found += [self._delivery(one) for one in came]
            if len(came) < room:
                break
        return found

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        with suppress(PipelineError):  # then they come back by themselves, later
            self._each("change_message_visibility_batch", deliveries, VisibilityTimeout=0)

    def _each(self, operation: str, deliveries: Sequence[Delivery], **more: Any) -> list[dict[str, Any]]:
        """Do the same with each, in batches; gives what SQS answers of those that it was not done with."""
        failed: list[dict[str, Any]] = []
        for start in range(0, len(deliveries), _AT_ONCE):
            some = deliveries[start : start + _AT_ONCE]
            entries = [{"Id": str(index), "ReceiptHandle": one.tag, **more} for index, one in enumerate(some)]
            failed += self._aws.call(operation, QueueUrl=self._url, Entries=entries).get("Failed", ())
        return failed

    def _delivery(self, found: dict[str, Any]) -> Delivery:
        attributes = found.get("MessageAttributes", {})
        headers = {name.lower(): str(one.get("StringValue", "")) for name, one in attributes.items()}
        told = found.get("Attributes", {})
        headers |= {"queue": self._name, "message-group-id": told.get("MessageGroupId", "")}
        time = datetime.fromtimestamp(int(told["SentTimestamp"]) / 1000, UTC) if "SentTimestamp" in told else None
        return Delivery(found["Body"].encode(), headers, f"{self._url}/{found['MessageId']}", time, found["ReceiptHandle"])


def _connected(config: QueueConfig) -> tuple[Aws, str]:
    """Give a client and the queue's URL: the one that the options hold, or that of a name, which SQS is asked for."""
    parts = urlsplit(config.url.get_secret_value())
    told = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    place = parts.netloc.rpartition("@")[2]
    https = parts.scheme == "https" or (parts.scheme == "sqs" and told.get("tls") == "true")
    origin = f"{'https' if https else 'http'}://{place}"
    base_url = None if not place or _OF_AWS.fullmatch(parts.hostname or "") else origin
    aws = Aws(
        "sqs",
        AwsConfig(
            region=config.region or told.get("region"),
            access_key_id=unquote(parts.username) if parts.username else None,
            secret_access_key=SecretStr(unquote(parts.password)) if parts.password else None,
        ),
        near=place or "",
        base_url=base_url,
        patience=_LONG_POLL + 10,
    )
    if parts.scheme != "sqs":
        return aws, f"{origin}{parts.path}"
    url: str = aws.call("get_queue_url", QueueName=unquote(parts.path.strip("/")))["QueueUrl"]
    return aws, url


def probe(config: QueueConfig) -> str:
    """Ask for the queue."""
    aws, url = _connected(config)
    try:
        names = ["ApproximateNumberOfMessages"]
        found = aws.call("get_queue_attributes", QueueUrl=url, AttributeNames=names).get("Attributes", {})
    finally:
        aws.close()
    return f"SQS, about {found.get(names[0], 0)} on the queue"
