"""Sends messages to a queue of Amazon SQS, in batches of ten. Needs `pip install "siftbell[aws]"`.

```yaml
name: to-a-queue
producers:
  - prometheus
consumers:
  - sqs:
      queue: "${ALERTS_QUEUE:-https://sqs.eu-west-1.amazonaws.com/123456789012/alerts}"
```

The region is read from the queue's URL. Credentials are found as by any client of AWS: in the environment, in its files, by the
role of the machine; or give `profile`, or `access_key_id` and `secret_access_key`. They need the permission `sqs:SendMessage`.

Without `body` a message is sent as JSON, all its fields, which the producer `queue` reads again. Its severity, status, type and
source are attributes too; `attributes` and `number_attributes` say others, ten at most, of the types String and Number:

```yaml
name: orders
producers:
  - http
consumers:
  - sqs:
      queue: https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo
      body: '{"order": {{ data.order | default({}) | tojson }}}'
      attributes: {team: "{{ labels.team | default('none') }}"}
      number_attributes: {total: "{{ (data.order | default({})).total | default(0) }}"}
      group: "{{ data.customer | default('nobody') }}"
    ordered: true
```

A queue whose name ends in .fifo keeps the order within a message group: that is `group`, or else the message's key; a message
without one is a group of its own. `ordered: true` keeps Siftbell from sending a message before the one that is ahead of it. The
message's id is the deduplication id, so that one that comes again within five minutes is not doubled. With a queue that is not
FIFO a `group` is what SQS shares it out fairly by.

Each message has a result of its own. Throttling, 5xx, no answer and credentials that have expired are tried again; what SQS
refuses goes to the dead letters with its reason. So does a message of more than 1 MiB with its attributes; a queue may be set to
take less. Characters that SQS does not take (controls) are replaced by U+FFFD.

Protocol: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html, and the quotas in
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from pipeline import Aws, AwsEntryConfig, BatchConsumer, Message

_MOST: Final = 2**20


def _queue(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.strip("/"):
        raise ValueError("the URL of a queue is expected, such as https://sqs.eu-west-1.amazonaws.com/123456789012/alerts")
    return url


class SqsConfig(AwsEntryConfig):
    """The options of `sqs`."""

    shorthand: ClassVar[str | None] = "queue"

    queue: Annotated[str, AfterValidator(_queue)] = Field(description="The queue's URL; that of a FIFO queue ends in .fifo.")


class Sqs(BatchConsumer[SqsConfig]):
    """Sends messages to a queue of Amazon SQS."""

    def open(self) -> None:
        """Make the client; it connects with the first message. Raises `ConfigError` where no region is known."""
        parts = urlsplit(self.config.queue)
        self._aws = Aws("sqs", self.config, near=parts.hostname or "", base_url=f"{parts.scheme}://{parts.netloc}")

    def close(self) -> None:
        """Close the connections."""
        self._aws.close()

    def probe(self) -> str:
        """Ask for the queue's attributes."""
        return self._aws.probe("get_queue_attributes", QueueUrl=self.config.queue, AttributeNames=["QueueArn"])

    def consume_many(self, messages: Sequence[Message]) -> Mapping[str, Exception]:
        """Send the messages in batches; give the error of each that SQS did not take."""
        return self._aws.send_messages("send_message_batch", "Entries", messages, self._entry, _MOST, QueueUrl=self.config.queue)

    def preview(self, message: Message) -> object:
        """Give what is sent."""
        return self._entry(message)

    def _entry(self, message: Message) -> dict[str, Any]:
        config = self.config
        entry = {"MessageBody": config.message_body(message), "MessageAttributes": config.message_attributes(message)}
        return entry | config.message_group(message, fifo=config.queue.endswith(".fifo"))
