"""Takes alerts from Prometheus and Alertmanager, and asks a Prometheus server for alerts and for the series of a query.

One message for each alert, or series. The title is the annotation `summary`, else the label `alertname`; the text is
`description`, else `message`; severity and labels come from the labels; `key` is Alertmanager's fingerprint of the labels, the
same for all messages about one alert; `status` is firing or resolved, and `time` says since when. `url` leads to the
expression in Prometheus, `source` is the server's address, and `data` holds the alert.

**Alertmanager posts** its webhook, version 4. `data` holds with the alert what it shares with the others of its notification:
`groupKey`, `receiver`, `groupLabels` and whatever else stands there. In alertmanager.yml:

    receivers:
      - name: siftbell
        webhook_configs:
          - url: http://127.0.0.1:8025/in/from-prometheus/prometheus
            http_config: {authorization: {credentials: YOUR-API-KEY}}

**Prometheus posts** as to an Alertmanager, without one. In prometheus.yml:

    alerting:
      alertmanagers:
        - path_prefix: /in/from-prometheus/prometheus
          authorization: {credentials: YOUR-API-KEY}
          static_configs: [{targets: ["127.0.0.1:8025"]}]

```yaml
name: from-prometheus
producers:
  - prometheus
consumers:
  - log
```

Prometheus posts an alert again each minute while it fires, and for a quarter of an hour after. As long as it is the same time
that it fires, its labels and `startsAt` are the same, and so is the message's id: each consumer gets one message that is
firing and one that is resolved, while records of deliveries are kept (`SIFTBELL_RETENTION`, 7 days); after that it is told
once more what still fires. An alert whose `endsAt` has passed, by Siftbell's clock, is resolved. A Prometheus that was
started anew gives a new `startsAt`, as do two that watch the same: then the `key` is the same. One that dies resolves nothing:
`heartbeat` watches it. `amtool alert add --alertmanager.url=http://any:YOUR-API-KEY@127.0.0.1:8025/in/from-prometheus/prometheus`
works too; an alert without times is new each time.

These clients do not come again with what was refused, so alerts are judged one by one: the valid ones are accepted, and the
answer is 400, or 422 where a field is missing, and names the others. An alert has at most 64 KiB, a post 1 MiB
(`SIFTBELL_MAX_BODY`), of which Prometheus puts up to 256 alerts into one. Labels without a value are left out.

**Prometheus is asked** on a `schedule:`, where `url` names it: which alerts fire, and which no longer do. With `query` it is
a message for each series of an instant query when it appears, and a resolved one when it is gone; with `repeat: true` one for
each series at each poll. The query says what is wrong (`up == 0`), `labels` what stands in a rule's labels.

```yaml
name: asked
producers:
  - prometheus:
      url: "${PROMETHEUS:-http://127.0.0.1:9090}"
    schedule: 30s
  - prometheus:
      url: "${PROMETHEUS:-http://127.0.0.1:9090}"
      query: up == 0
      labels: {alertname: TargetDown, severity: critical}
      title: "{{ labels.instance }} of {{ labels.job }} cannot be scraped"
      resolve_after: 1m
    as: targets
    schedule: 30s
consumers:
  - log
```

What is asked for lacks the server's external labels, so its keys differ from those of posted alerts where there are some. After
a restart of Prometheus its alerts are gone for a moment: `resolve_after` lets that pass.

The protocols: prometheus.io/docs/alerting/latest/configuration (webhook_config), the OpenAPI document of Alertmanager's API v2,
and prometheus.io/docs/prometheus/latest/querying/api.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pipeline import Message, PermanentError, PollingProducer, Request, WebhookProducer
from producers.prometheus.asked import Asked
from producers.prometheus.notified import notified
from producers.prometheus.options import PrometheusConfig
from producers.prometheus.posted import PATH, posted


class Prometheus(WebhookProducer[PrometheusConfig], PollingProducer[PrometheusConfig]):
    """Makes a message of each alert that Alertmanager or Prometheus posts, or that Prometheus tells when it is asked."""

    asks_for: ClassVar[str | None] = "url"
    _asked: Asked | None = None

    def open(self) -> None:
        """Make ready to ask; the server is asked at a poll only."""
        if self.config.url is not None:
            self._asked = Asked(self.config)

    def close(self) -> None:
        """Close what is open."""
        if self._asked is not None:
            self._asked.close()

    def probe(self) -> str | None:
        """Ask the server for its version, where one is asked at all."""
        return self._asked.probe() if self._asked is not None else None

    def status_for(self, path: str) -> int | None:
        """Take what is posted to the producer itself, and to Alertmanager's path below it, whose clients expect 200."""
        return {"": 202, PATH: 200}.get(path)

    def receive(self, request: Request) -> Iterable[Message]:
        """Give the alerts' messages; raises `RequestError` that names those that cannot be read, and hands over the others."""
        listed = request.path.endswith(PATH) or request.body.lstrip().startswith(b"[")
        return posted(request) if listed else notified(request)

    def poll(self, cursor: str | None) -> Iterable[tuple[Message | None, str]]:
        """Ask, and give what is new and what is gone since the cursor."""
        if self._asked is None:
            raise PermanentError("there is nobody to ask: give the option `url`")
        return self._asked.poll(cursor)
