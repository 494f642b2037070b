"""SQS itself: the few calls we make of it, in tens where it takes tens, each bounded in time, its errors in one line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kombu.log import get_logger

from pipeline.queue.sqs.address import Settings, sqs_name
from pipeline.queue.sqs.errors import NoQueueError, SqsError
from pipeline.queue.sqs.wire import MOST_BYTES

logger = get_logger(__name__)

CONNECT: Final = 2
ANSWER: Final = 3
"""Seconds to connect and to wait for an answer, unless something is to be waited for; what changes something is tried twice."""
FRESH: Final = 5.0
"""Seconds for which an answer of SQS also answers the question whether it is there."""
AT_ONCE: Final = 10
"""Messages that SQS takes or gives in one request."""
RETENTION: Final = 14 * 24 * 3600
"""Seconds for which a queue that we create keeps a message: all that SQS allows; its own default drops them after 4 days."""
FAILURES: Final = "failures"
"""The message attribute in which a message that was handed back bears how often it was delivered in vain before."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A message that this process received: nobody else gets it while the claim is extended."""

    queue: str
    url: str
    handle: str
    body: str
    failures: int
    """How often it was delivered before, and neither acknowledged nor handed back in an orderly way."""
    redelivered: bool


class Service:
    """SQS as one process sees it; used by all its connections and threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._urls: dict[str, str] = {}
        self._clients: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()
        self._answered = float("-inf")

    def greet(self) -> None:
        """Ask SQS whether it is there and lets us in, where it did not answer just now; raises SqsError."""
        if time.monotonic() - self._answered > FRESH:
            try:
                self._call("get_queue_url", tries=1, QueueName=sqs_name(self.settings.prefix, "in"))
            except NoQueueError:
                return

    def url(self, queue: str) -> str:
        """Give the queue's URL; creates the queue where there is none."""
        if queue not in self._urls:
            name = sqs_name(self.settings.prefix, queue)
            try:
                found = self._call("get_queue_url", tries=1, QueueName=name)
            except NoQueueError:
                attributes = {
                    "VisibilityTimeout": str(self.settings.visibility),
                    "MessageRetentionPeriod": str(RETENTION),
                    "MaximumMessageSize": str(MOST_BYTES),
                }
                found = self._call("create_queue", QueueName=name, Attributes=attributes)
            self._urls[queue] = found["QueueUrl"]
        return self._urls[queue]

    def send(self, queue: str, messages: Sequence[tuple[str, int | None]]) -> None:
        """Put messages, each a body and the failures it bears, on the queue; raises SqsError when some may not be there."""
        entries: list[dict[str, Any]] = []
        for body, failures in messages:
            entry: dict[str, Any] = {"MessageBody": body}
            if failures is not None:
                entry["MessageAttributes"] = {FAILURES: {"DataType": "Number", "StringValue": str(failures)}}
            entries.append(entry)
        for part in _portions(entries):
            try:
                failed = self._batch("send_message_batch", queue, part)
            except NoQueueError:  # it was deleted, and is made again
                failed = self._batch("send_message_batch", queue, part)
            if failed:
                failed = self._batch("send_message_batch", queue, [part[index] for index in failed])
            if failed:
                why = next(iter(failed.values()))
                raise SqsError(f"SQS refused {len(failed)} of {len(part)} messages for queue '{queue}': {_reason(why)}")

    def receive(self, queue: str, most: int, wait: int) -> list[Claim]:
        """Claim up to `most` messages (10 at most), waiting for the first for up to `wait` seconds."""
        url = self.url(queue)
        answer = self._call(
            "receive_message",
            queue,
            tries=1,
            patience=wait + ANSWER,
            QueueUrl=url,
            MaxNumberOfMessages=min(most, AT_ONCE),
            WaitTimeSeconds=wait,
            VisibilityTimeout=self.settings.visibility,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            MessageAttributeNames=[FAILURES],
        )
        return [_claim(queue, url, found) for found in answer.get("Messages", ())]

    def delete(self, claims: Sequence[Claim]) -> None:
        """Remove up to ten messages from their queue; one whose claim has ended may come again, and is logged."""
        queue = claims[0].queue
        for failure in self._batch("delete_message_batch", queue, [{"ReceiptHandle": one.handle} for one in claims]).values():
            if not failure.get("SenderFault"):
                raise SqsError(f"SQS did not remove a message of queue '{queue}': {_reason(failure)}")
            logger.warning("a message of queue %s was not removed, and may come again: %s", queue, _reason(failure))

    def extend(self, claims: Sequence[Claim], seconds: int) -> list[Claim]:
        """Have up to ten claims on one queue end in so many seconds; gives those that had ended already."""
        entries = [{"ReceiptHandle": claim.handle, "VisibilityTimeout": seconds} for claim in claims]
        failed = self._batch("change_message_visibility_batch", claims[0].queue, entries)
        return [claims[index] for index, failure in failed.items() if failure.get("SenderFault")]

    def size(self, queue: str) -> int:
        """Give about how many messages wait on the queue."""
        answer = self._call(
            "get_queue_attributes", queue, QueueUrl=self.url(queue), AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def purge(self, queue: str) -> None:
        """Remove all messages."""
        self._call("purge_queue", queue, QueueUrl=self.url(queue))

    def drop(self, queue: str) -> None:
        """Remove the queue."""
        self._call("delete_queue", queue, QueueUrl=self.url(queue))
        self._urls.pop(queue, None)

    def _batch(self, operation: str, queue: str, entries: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Give what failed, by its index."""
        named = [entry | {"Id": str(index)} for index, entry in enumerate(entries)]
        answer = self._call(operation, queue, QueueUrl=self.url(queue), Entries=named)
        return {int(failure["Id"]): failure for failure in answer.get("Failed", ())}

    def _call(
        self, operation: str, queue: str = "", *, tries: int = 2, patience: int = ANSWER, **parameters: Any
    ) -> dict[str, Any]:
        from botocore.exceptions import ClientError, NoRegionError  # noqa: PLC0415 - of an extra

        try:
            answer: dict[str, Any] = getattr(self._client(tries, patience), operation)(**parameters)
        except ClientError as error:
            raise self._refusal(operation, queue, error.response.get("Error", {})) from None
        except Exception as error:  # noqa: BLE001 - besides its own, botocore raises those of the parsers of an odd answer
            self._answered = float("-inf")
            hint = " Set AWS_DEFAULT_REGION, or sqs://?region=NAME" if isinstance(error, NoRegionError) else ""
            raise SqsError(f"SQS{self._place()}: {_line(error)}{hint}") from None
        self._answered = time.monotonic()
        return answer

    def _refusal(self, operation: str, queue: str, error: dict[str, Any]) -> SqsError:
        code = str(error.get("Code", ""))
        if code.rpartition(".")[2] in {"NonExistentQueue", "QueueDoesNotExist"}:
            self._answered = time.monotonic()
            self._urls.pop(queue, None)  # created again when it is next asked for
            return NoQueueError(f"SQS{self._place()} has no queue '{queue}'")
        self._answered = float("-inf")
        return SqsError(f"SQS{self._place()} refused {operation}: {_reason(error)}")

    def _place(self) -> str:
        return f" at {self.settings.endpoint}" if self.settings.endpoint else ""

    def _client(self, tries: int, patience: int) -> Any:
        """Give a client that asks so many times, and waits so many seconds for each answer."""
        with self._lock:
            if (tries, patience) not in self._clients:
                self._clients[tries, patience] = self._new_client(tries, patience)
            return self._clients[tries, patience]

    def _new_client(self, tries: int, patience: int) -> Any:
        from botocore.config import Config  # noqa: PLC0415 - of an extra

        from pipeline.aws.session import new_session  # noqa: PLC0415 - of an extra

        told = self.settings
        config = Config(
            connect_timeout=CONNECT,
            read_timeout=patience,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=64,
            tcp_keepalive=True,
        )
        session = new_session()
        return session.create_client(
            "sqs",
            aws_access_key_id=told.key,
            aws_secret_access_key=told.secret,
            endpoint_url=told.endpoint,
            region_name=told.region or session.get_config_variable("region") or ("us-east-1" if told.endpoint else None),
            config=config,
        )


class Services:
    """The services of this process, one for each settings: a client takes 13 to 50 ms to make, and knows the queues' URLs."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self, settings: Settings) -> Service:
        """Give this process's service."""
        with self._lock:
            return self._made.setdefault(settings, Service(settings))

    def _forget(self) -> None:
        """Start anew, in a child too: its parent's sockets and locks are no good there."""
        self._lock = threading.Lock()
        self._made: dict[Settings, Service] = {}


service: Final[Callable[[Settings], Service]] = Services()


def _claim(queue: str, url: str, found: dict[str, Any]) -> Claim:
    handed_back = found.get("MessageAttributes", {}).get(FAILURES, {}).get("StringValue", "")
    before = int(found.get("Attributes", {}).get("ApproximateReceiveCount", 1)) - 1
    failures = before + (int(handed_back) if handed_back.isdecimal() else 0)  # somebody else may write anything there
    return Claim(queue, url, found["ReceiptHandle"], found["Body"], failures, bool(before or handed_back))


def _portions(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut what is to be sent into what one request takes."""
    part: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        weight = len(entry["MessageBody"]) + 64
        if part and (len(part) == AT_ONCE or size + weight > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += weight
    if part:
        yield part


def by_queue(claims: Sequence[Claim]) -> Iterator[list[Claim]]:
    """Sort claims into those that one request may name: of one queue, ten at most."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.queue, []).append(claim)
    for of_queue in found.values():
        for start in range(0, len(of_queue), AT_ONCE):
            yield of_queue[start : start + AT_ONCE]


def _reason(error: dict[str, Any]) -> str:
    return f"{error.get('Code', 'unknown')}: {_line(error.get('Message', ''))}"


def _line(error: object) -> str:
    """Give the first line: what AWS says of a wrong signature goes on with the whole request."""
    return str(error).strip().partition("\n")[0][:300]
