r"""Publishes messages to the queues of other systems: AMQP exchanges, Redis lists and Redis streams.

**AMQP 0-9-1** (RabbitMQ and its kin): `amqp://USER:PASSWORD@HOST:PORT/VHOST`, `amqps://` for TLS; its query may name a
`cacertfile`, a `certfile` and a `keyfile`. A message goes to `exchange` by `routing_key`, a template; without an exchange
it goes to the queue that `routing_key` names. It is persistent, bears the message's id as `message_id`, and is done when the
server has confirmed it. What the server can route nowhere goes to the dead letters, as does what it refuses (no such
exchange, no permission, too large); a server that is away, is blocked or does not confirm is tried again.

```yaml
name: alerts-for-others
producers:
  - prometheus
consumers:
  - queue:
      url: "${BROKER:-amqp://siftbell@rabbit.example.com/ops}"
      exchange: alerts
      routing_key: "{{ severity or 'info' }}.{{ labels.team or 'nobody' }}"
      headers: {status: "{{ status }}"}
```

**Redis** and Valkey, with the extra `redis`: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` for TLS. `list` is
pushed to, a batch at once; `stream` gets an entry for each message, with the body in `body_field` and `headers` as its other
fields. `maxlen` drops the oldest, of a stream about. Redis has a message when it has answered; what is left of it after a
crash is as its persistence is set.

```yaml
name: to-streams
producers:
  - http
consumers:
  - queue: {url: "${REDIS:-redis://redis.example.com/0}", stream: alerts, maxlen: 100000, headers: {team: "{{ labels.team }}"}}
  - queue:
      url: "${REDIS:-redis://redis.example.com/0}"
      list: tickets
      body: '{"summary": {{ title | tojson }}, "queue": "ops"}'
    as: tickets
```

Without `body` the message is sent as JSON, all its fields, as the producer `queue` reads it. With `body`, a template is
rendered; write values into JSON by `tojson`. What is not JSON then, while `content_type` says it is, goes to the dead
letters. A message may come twice when a server is killed or a connection is cut: its id is the same then. For SQS there is
the consumer `sqs`. The key `queue:` by which other consumers name Siftbell's own queue cannot stand beside this plugin.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumers.queue.amqp import Amqp
from consumers.queue.options import QueueConfig
from consumers.queue.outgoing import Failures, Outgoing, write
from consumers.queue.redis import Redis
from pipeline import BatchConsumer, Message, PermanentError


class Queue(BatchConsumer[QueueConfig]):
    """Publishes messages to AMQP exchanges, Redis lists and Redis streams of other systems."""

    _way: Amqp | Redis | None = None

    def open(self) -> None:
        """Make ready; the server is connected to with the first message."""
        self._way = Amqp(self.config) if self.config.of_amqp else Redis(self.config)

    def close(self) -> None:
        """End the connection."""
        if self._way is not None:
            self._way.close()

    def probe(self) -> str:
        """Ask the server, and send nothing."""
        assert self._way is not None
        return self._way.probe()

    def consume_many(self, messages: Sequence[Message]) -> Failures:
        """Publish the messages; returns when the server has them, with what it does not have."""
        assert self._way is not None
        failures: Failures = {}
        batch: list[Outgoing] = []
        for message in messages:
            try:
                batch.append(write(message, self.config))
            except PermanentError as error:
                failures[message.id] = error
        return failures | self._way.send(batch) if batch else failures

    def preview(self, message: Message) -> object:
        """Give what would be published."""
        outgoing = write(message, self.config)
        shown = {"body": outgoing.body.decode(), "headers": outgoing.headers}
        if self.config.of_amqp:
            return {"exchange": self.config.exchange, "routing_key": outgoing.routing_key, **shown}
        return {"stream" if self.config.stream else "list": self.config.stream or self.config.list, **shown}
