"""Sends messages to Logstash, as events: over TCP, TLS, UDP, HTTP, Redis or Beats' protocol.

```yaml
name: to-logstash
producers:
  - prometheus
consumers:
  - logstash:
      url: "${LOGSTASH_URL:-beats://logstash.example.com:5044}"
      fields: {environment: "{{ labels.env | default('production') }}"}
```

What `url` begins with says how, and which input of Logstash is at the other end:

| url | input of Logstash | when an event counts as delivered |
|---|---|---|
| `beats://`, `beats+tls://` | `beats` | Logstash has acknowledged it |
| `http://`, `https://` | `http` | the answer is 2xx; `user:password@` in the URL is sent (Basic) |
| `redis://`, `rediss://` | `redis`, `data_type => list` | Redis has it; `key` is the list's |
| `tcp://`, `tls://` | `tcp`, `codec => json_lines` | the other side has read its batch, and ended the connection |
| `udp://` | `udp`, `codec => json` | it was sent: nobody tells whether it arrived |

Prefer `beats://`: it tells of each event, so that after a cut connection only those are sent again that were not acknowledged,
and a Logstash that has too much to do slows the sender down. Redis needs `pip install "siftbell[redis]"`.

TCP acknowledges nothing to a program. So each batch (up to 500 events) goes on a connection of its own, and is delivered when
Logstash, told that nothing more comes, has read to the end and ends it too. Where the connection is reset, nothing happens on it,
or it is answered, as an input of another kind does, the batch is sent again. A proxy in between that takes everything says so for
itself. With `confirm: false` a connection is kept for the next batches: before and after each it is looked at, and its bytes have
to reach the other machine. What that machine had not read when Logstash ended or died is lost then. Over TLS the same holds.

```yaml
name: to-a-tcp-input
producers:
  - http
consumers:
  - logstash:
      url: tls://logstash.example.com:5000
      ca_file: /etc/siftbell/ca.pem
      ecs: true
      data: false
```

UDP promises nothing. An event of more than 65,507 bytes goes without its payload and the end of its text; what does not fit then
goes to the dead letters. Where the other machine says that nobody listens, the events are tried again.

An event has `@timestamp`, `@version`, `message` (the title and the text), and of the message `id`, `source`, `type`, `title`,
`severity`, `status`, `labels`, `key`, `url` and `data`, the payload as it came. With `ecs: true` it has the names of the Elastic
Common Schema: `event.id`, `event.kind`, `event.provider`, `event.reference`, `event.original` (the payload as text), `log.level`,
`labels` (with _ for each dot), and `siftbell.type`, `.title`, `.status` and `.key`. `fields` adds more, or writes them anew. An
event that comes again has the same `id`: name the document by it (`document_id => "%{id}"`), and none is there twice.

Over HTTP up to 100 events go in a request, as an array; 408, 425, 429, 5xx and no answer are tried again, and a request that is
refused with 400, 413 or 422 is sent in halves. A private address needs `SIFTBELL_PRIVATE_NETWORKS` there, as with each consumer
that posts; `https://` trusts whom the system trusts. With all of them no answer, a connection that breaks off and a certificate
that does not hold are tried again.

Protocols: https://www.elastic.co/docs/reference/logstash/plugins/plugins-inputs-tcp and those beside it; Lumberjack 2 as in
https://github.com/logstash-plugins/logstash-input-beats/blob/main/PROTOCOL.md and its Java code; https://www.elastic.co/docs/reference/ecs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final, Protocol

import msgspec

from consumers.logstash.beats import Beats
from consumers.logstash.event import event, written
from consumers.logstash.lines import Datagrams, Event, Failures, Lines
from consumers.logstash.lists import Lists
from consumers.logstash.options import LogstashConfig
from pipeline import HttpBatchConsumer, HttpRequest, Message, PermanentError, TemporaryError

_PATIENCE: Final = 90.0
"""Seconds for a batch: the engine gives up after 120, and what was given up may yet arrive."""
_DATAGRAM: Final = 65_507
"""Bytes that a datagram of UDP over IPv4 has."""


class _Way(Protocol):
    """How events get to Logstash. Its methods block."""

    def send(self, events: Sequence[Event], until: float, /) -> Failures:
        """Send events; give an error for each that did not arrive, or raise one for all."""

    def probe(self) -> str | None:
        """Ask who is there."""

    def close(self) -> None:
        """Close what is open."""


class Logstash(HttpBatchConsumer[LogstashConfig]):
    """Sends messages to Logstash, as events."""

    total_timeout: ClassVar[float] = 20.0

    _way: _Way | None = None
    _threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Make ready; no connection is made yet. Raises `ConfigError` for certificates that cannot be read."""
        scheme = self.config.target.scheme
        if scheme.startswith("http"):
            return
        if scheme.startswith("redis"):
            self._way = Lists(self.config)
        elif scheme.startswith("beats"):
            self._way = Beats(self.config)
        else:
            self._way = Datagrams(self.config.target) if scheme == "udp" else Lines(self.config)
        self._threads = ThreadPoolExecutor(self.config.connections, thread_name_prefix="logstash")

    def close(self) -> None:
        """Let the threads end, and close the connections."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._way is not None:
            self._way.close()

    async def probe(self) -> str | None:
        """Open a connection to where the events go; ask Redis for its version. Of UDP nothing can be asked."""
        if self._way is None:
            return await super().probe()
        return await asyncio.to_thread(self._way.probe)

    def request_for(self, messages: Sequence[Message]) -> HttpRequest:
        """Give the request that delivers events over HTTP: an array of them."""
        body = msgspec.json.encode([msgspec.Raw(written(message, self.config)) for message in messages])
        return HttpRequest(self.config.url.get_secret_value(), body, headers={"content-type": "application/json"})

    async def consume_many(self, messages: Sequence[Message]) -> Mapping[str, Exception]:
        """Send the events; give the error of each that did not arrive."""
        if self._way is None:
            return await super().consume_many(messages)
        assert self._threads is not None
        failures: dict[str, Exception] = {}
        events: list[Event] = []
        most = _DATAGRAM if self.config.target.scheme == "udp" else None
        for message in messages:
            try:
                events.append((message.id, written(message, self.config, most)))
            except Exception as error:  # noqa: BLE001 - whatever one message is bad for costs no other
                failures[message.id] = error
        if events:
            until = time.monotonic() + _PATIENCE
            loop = asyncio.get_running_loop()
            try:
                failures |= await loop.run_in_executor(self._threads, self._way.send, events, until)
            except (TemporaryError, PermanentError) as error:
                failures |= dict.fromkeys((message_id for message_id, _ in events), error)
        return failures

    def preview(self, message: Message) -> object:
        """Give the event."""
        return event(message, self.config)
