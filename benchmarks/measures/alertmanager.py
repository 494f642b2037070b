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

SECONDS: Final = {"singly": 2.0, "hundreds": 1.0}
"""For how long alerts are posted in a turn; what is not delivered by then is waited for."""
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


@dataclass(slots=True)
class _Side:
    """Where alerts are posted to, and the body's template."""

    place: Path
    service: Sink
    url: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    loads: int = 1
    """The number of the next load."""

    def rate(self, many: int, seconds: float) -> float:
        """Post alerts, wait until the sink has all, and give how many a second came through."""
        before, began = self.service.count, time.monotonic()
        first = before + self.loads * _SPARE
        self.loads += 1
        load = drive(self.place, self.url, self.body, seconds=seconds, headers=self.headers, many=many, first=first)
        self.service.until(before + load.whole().accepted * many)
        self.service.until_quiet()  # requests that broke off at the end may have come through
        return (self.service.count - before) / (self.service.last - began)


class Alertmanager(Measure):
    """The same load by wrk, 64 clients in a closed loop, and the same sink, which answers at once; all on the same cores.

    Both run through a round, and what is not measured rests, which costs a tree on its embedded files 1 to 2 % of a core.

    Siftbell: `siftbell run` on its defaults, so on its embedded files, fsynced; no filters, as Alertmanager has none.
    Alertmanager: Debian's package on its defaults, alone; it holds alerts in memory, and keeps none over a crash.
    """

    name = "alertmanager"
    turns = 2
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

    @contextmanager
    def round(self) -> Iterator[None]:
        """Run both, for each target anew, and warm."""
        with ExitStack() as running:
            self._ours = {name: running.enter_context(self._siftbell(name)) for name in self.targets}
            self._theirs = {name: running.enter_context(self._alertmanager(name)) for name in self.targets}
            for side in (*self._ours.values(), *self._theirs.values()):
                side.rate(1, WARM_UP)
            yield

    def siftbell(self) -> Figures:
        """Give the alerts a second that came through Siftbell."""
        return {name: side.rate(MANY[name], SECONDS[name]) for name, side in self._ours.items()}

    def yardstick(self) -> Figures:
        """Give those that came through Alertmanager."""
        return {name: side.rate(MANY[name], SECONDS[name]) for name, side in self._theirs.items()}

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
