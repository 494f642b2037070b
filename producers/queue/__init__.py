"""Makes messages of what waits on queues of other systems: AMQP, Redis lists and streams, and SQS, also behind SNS.

A raw message is acknowledged only after Siftbell has it, durably. What cannot be read goes to the dead letters, as it came and
with the reason, and is acknowledged then. Any number of clocks may listen. A connection that fails is made anew after 5 seconds.

**AMQP 0-9-1** (RabbitMQ and its kin): `amqp://USER:PASSWORD@HOST:PORT/VHOST`, `amqps://` for TLS; its query may name a
`cacertfile`, a `certfile` and a `keyfile`. `queue` has to be there, unless `declare: true` makes it, durable; with `exchange`
it is bound to that by `routing_keys`. `exchange_type` makes the exchange as well.

```yaml
name: monitoring
producers:
  - queue:
      url: "${BROKER:-amqp://siftbell@rabbit.example.com/ops}"
      queue: siftbell.alerts
      declare: true
      exchange: monitoring
      routing_keys: ["alerts.#", "backup.failed"]
      labels: {route: routing_key, host: x-host}
consumers:
  - log
```

**Redis** 6.2 or newer, and Valkey, with the extra `redis`: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` for TLS.
What is taken off a `list` waits on another one, `LIST:siftbell:ID`, until it is acknowledged; what a listener held goes back
when it has given no sign of life for `claim_after`. A `stream` is read as the consumer group `group`, from its beginning where
the group is new; entries stay in the stream. An entry with one field has its body there, as has one with a `body_field`, whose
other fields are headers; else the entry itself is the object.

```yaml
name: from-redis
producers:
  - queue: {url: "${REDIS:-redis://redis.example.com/0}", list: alerts}
  - queue: {url: "${REDIS:-redis://redis.example.com/0}", stream: events, body_field: data, fields: {title: check.name}}
    as: events
consumers:
  - log
```

**SQS**, with the extra `aws`: the queue's `https://` URL, or `sqs:///NAME?region=REGION`; credentials as any client of AWS
finds them, or `KEY:SECRET@` before the host. A message is hidden from others for `visibility`, extended while it is worked
on, and deleted once it is ours. What SNS sent is taken out of its envelope; its signature (SignatureVersion 1 and 2) is
checked, by a certificate from AWS's own hosts. With `sns_topics` nothing else is believed, and a topic of another account
that asks for confirmation gets it.

```yaml
name: cloud-alarms
producers:
  - queue:
      url: https://sqs.eu-central-1.amazonaws.com/123456789012/alarms
      sns_topics: ["arn:aws:sns:eu-central-1:123456789012:alarms"]
      fields: {title: AlarmName, text: NewStateReason, status: NewStateValue}
consumers:
  - log
```

**Bodies** are JSON (an object, or an array of objects), CloudEvents 1.0 (structured, in batches, or binary with headers that
begin with `cloudEvents:`, `cloudEvents_`, `ce-` or `ce_`), or text. Fields are read as the producer `http` reads them. With
`body: auto` the content type says what a body is, or else whether it begins with a brace or a bracket. `labels` takes headers
(AMQP), attributes (SQS, SNS) or fields (a stream with `body_field`); `queue`, and of AMQP `routing_key` and `exchange`, are
among them. Properties or headers of AMQP that cannot be read are left out.

A message that comes again has the same id, and is not delivered twice where the record shows it: of AMQP with a `message_id`,
and of streams and SQS. What comes again from a Redis list, or from AMQP without a `message_id`, is a new message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import structlog

from pipeline import ListeningProducer, Message, PermanentError, PipelineError, Publish, TemporaryError
from producers.queue import amqp, redis_list, redis_stream
from producers.queue.delivery import Delivery, System
from producers.queue.options import QueueConfig
from producers.queue.reading import message_id, read

if TYPE_CHECKING:
    from producers.queue.sns import Sns

log = structlog.get_logger()

HELD_FOR: Final = 50.0
"""Seconds for which what was taken is held while Siftbell's own queue or store is away. Quorum queues and SQS count how often
they hand a message over, and drop it or set it aside then. Connections of AMQP live longer than that without a sign."""
_PAUSE: Final = 1.0

_Read = tuple[Delivery, list[Message]]


class Queue(ListeningProducer[QueueConfig]):
    """Takes messages from AMQP, Redis and SQS queues of other systems."""

    _sns: Sns | None = None

    def open(self) -> None:
        """Take the name by which a stream's group knows this plugin, and make ready what checks signatures."""
        self._name = uuid4().hex[:16]
        if self._of_sqs:
            from producers.queue.sns import Sns  # noqa: PLC0415 - of an extra

            self._sns = Sns(self.config)

    def close(self) -> None:
        """Close what signatures were checked by."""
        if self._sns is not None:
            self._sns.close()

    def probe(self) -> str:
        """Ask for the queue, and take nothing from it."""
        if self._of_sqs:
            from producers.queue.sqs import probe  # noqa: PLC0415 - of an extra

            return probe(self.config)
        if self.config.scheme in ("amqp", "amqps"):
            return amqp.probe(self.config)
        return redis_list.probe(self.config) if self.config.list else redis_stream.probe(self.config)

    def listen(self, publish: Publish, stopping: Callable[[], bool]) -> None:
        """Take what comes until it is time to stop; raises what the connection fails with, and is called again."""
        if stopping():
            return
        system = self._connected()
        try:
            while not stopping():
                if deliveries := system.receive():
                    system.acknowledge(self._surely_taken_over(publish, deliveries, stopping))
        finally:
            with suppress(PipelineError):  # what was not acknowledged comes again anyway
                system.close()

    @property
    def _of_sqs(self) -> bool:
        return self.config.scheme in ("sqs", "http", "https")

    def _connected(self) -> System:
        if self._of_sqs:
            from producers.queue.sqs import Sqs  # noqa: PLC0415 - of an extra

            return Sqs(self.config)
        if self.config.scheme in ("amqp", "amqps"):
            return amqp.Amqp(self.config)
        if self.config.list:
            return redis_list.RedisList(self.config)
        return redis_stream.RedisStream(self.config, self._name)

    def _surely_taken_over(
        self, publish: Publish, deliveries: Sequence[Delivery], stopping: Callable[[], bool]
    ) -> list[Delivery]:
        end = monotonic() + HELD_FOR
        while True:
            try:
                return self._taken_over(publish, deliveries)
            except TemporaryError as away:
                if stopping() or monotonic() > end:
                    raise
                log.warning("what was taken off a foreign queue waits for Siftbell's own", error=str(away))
                sleep(_PAUSE)

    def _taken_over(self, publish: Publish, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Publish what can be read, bury the rest; give what may be acknowledged."""
        good: list[_Read] = []
        bad: list[tuple[Delivery, str]] = []
        for delivery in deliveries:
            try:
                good.append((delivery, self._read(delivery)))
            except PermanentError as error:
                bad.append((delivery, str(error)))
            except TemporaryError as error:
                log.warning("a message was left on its queue", error=str(error))
        bad += _published(publish, good)
        for delivery, reason in bad:
            publish.bury(delivery.body, reason, message_id=message_id(delivery))
        return [delivery for delivery, _ in (*good, *bad)]

    def _read(self, delivery: Delivery) -> list[Message]:
        unwrapped = self._sns.unwrapped(delivery) if self._sns else delivery
        return read(unwrapped, self.config) if unwrapped else []


def _published(publish: Publish, good: list[_Read]) -> list[tuple[Delivery, str]]:
    """Publish all; where some are refused for good, each by itself, and those are taken out and given with the reason."""
    refused = []
    try:
        publish([message for _, messages in good for message in messages])
    except PermanentError:
        for delivery, messages in list(good):
            try:
                publish(messages)
            except PermanentError as error:
                good.remove((delivery, messages))
                refused.append((delivery, str(error)))
    return refused
