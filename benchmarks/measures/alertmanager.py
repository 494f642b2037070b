"""New alerts to a webhook: Siftbell against Alertmanager, from the first post to the last alert that the sink has seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from harness.servers import free_port, program

from benchmarks.measure import Figures, Measure, Target
from benchmarks.siftbell import PIPELINE, pipeline_file
from benchmarks.sink import Sink, sink
from benchmarks.work import alert
from benchmarks.workplace import Program, until_listens
from benchmarks.wrk import drive, template

SECONDS: Final = {"singly": 4.0, "hundreds": 2.0}
"""For how long alerts are posted; what is not delivered by then is waited for."""
MANY: Final = {"singly": 1, "hundreds": 100}
"""Alerts in one request: both sides are sent arrays."""
WARM_UP: Final = 1.0
"""Seconds of posts, one alert each, before the measurement."""
_SPARE: Final = 10_000
"""Numbers left out behind a load, which may have sent some that were not answered."""
_CONFIG: Final = """\
route:
  receiver: sink
  group_by: ['...']
  group_wait: 0s
receivers:
  - name: sink
    webhook_configs:
      - url: {url}
"""
"""Each alert is a group of its own, told at once: so Alertmanager, like Siftbell, makes one request of each alert."""


@dataclass(frozen=True, slots=True)
class _Side:
    """Where alerts are posted to, and the body's template."""

    place: Path
    service: Sink
    url: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    def rate(self, name: str, scale: float) -> float:
        """Post alerts, and give how many a second came through."""
        first = self._post(1, max(1.0, WARM_UP * scale), 0)
        began = time.monotonic()
        self._post(MANY[name], max(1.0, SECONDS[name] * scale), first)
        return (self.service.count - first) / (self.service.last - began)

    def _post(self, many: int, seconds: float, before: int) -> int:
        """Post, wait until the sink has all, and give what it has: requests that broke off at the end may have come through."""
        load = drive(self.place, self.url, self.body, seconds=seconds, headers=self.headers, many=many, first=before + _SPARE)
        self.service.until(before + load.whole().accepted * many)
        self.service.until_quiet()
        return self.service.count


class Alertmanager(Measure):
    """The same load by wrk, 64 clients in a closed loop, and the same sink, which answers at once; all on the same cores.

    Siftbell: `siftbell run` on its defaults, so on its embedded files, fsynced; no filters, as Alertmanager has none.
    Alertmanager: Debian's package on its defaults, alone; it holds alerts in memory, and keeps none over a crash.
    """

    name = "alertmanager"
    targets: ClassVar = {
        "singly": Target(
            measure="new alerts/s from intake to webhook, one in a request",
            yardstick="Alertmanager, each alert a group of its own, no wait",
            at_least=1,
            aim=2,
        ),
        "hundreds": Target(
            measure="new alerts/s from intake to webhook, a hundred in a request",
            yardstick="Alertmanager, each alert a group of its own, no wait",
            at_least=1,
            aim=2,
        ),
    }

    def prepare(self, closing: ExitStack) -> None:  # noqa: ARG002 - there is nothing to close
        """See that Alertmanager is there."""
        self._program = program("prometheus-alertmanager", "prometheus-alertmanager")

    def siftbell(self) -> Figures:
        """Give the alerts a second that came through Siftbell."""
        figures = {}
        for name in self.targets:
            with self._siftbell(name) as side:
                figures[name] = side.rate(name, self.scale)
        return figures

    def yardstick(self) -> Figures:
        """Give those that came through Alertmanager."""
        figures = {}
        for name in self.targets:
            with self._alertmanager(name) as side:
                figures[name] = side.rate(name, self.scale)
        return figures

    @contextmanager
    def _siftbell(self, name: str) -> Iterator[_Side]:
        place = self.place.new(f"{self.name}-siftbell-{name}")
        with sink(place) as service, self.place.tree(place, pipeline_file(f"webhook: {service.url}", filters="")) as tree:
            headers = {"Authorization": f"Bearer {tree.ready['key']}"}
            yield _Side(place, service, f"{tree.ready['url']}/in/{PIPELINE}/http", template(alert), headers)

    @contextmanager
    def _alertmanager(self, name: str) -> Iterator[_Side]:
        place = self.place.new(f"{self.name}-alertmanager-{name}")
        port = free_port()
        config = place / "alertmanager.yml"
        options = [f"--config.file={config}", f"--storage.path={place / 'data'}"]
        options += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
        with sink(place) as service:
            config.write_text(_CONFIG.format(url=service.url))
            with Program([self._program, *options], place):
                until_listens(port, "Alertmanager")
                yield _Side(place, service, f"http://127.0.0.1:{port}/api/v2/alerts", template(_posted))


def _posted(number: int) -> dict[str, Any]:
    """Give the same alert as Alertmanager takes it."""
    ours = alert(number)
    return {
        "labels": {**ours["labels"], "severity": ours["severity"], "key": ours["key"]},
        "annotations": {"summary": ours["title"], "description": ours["text"]},
        "generatorURL": ours["url"],
    }
