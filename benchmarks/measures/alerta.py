"""The intake against the one of alerta-server, which does the same: it takes an alert and answers when it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar, Final

from harness.servers import free_port

from benchmarks.measure import Figures, Measure, Target
from benchmarks.measures.intake import SECONDS, WARM_UP, broker_of, serving
from benchmarks.workplace import Program, until_listens
from benchmarks.wrk import Load, drive, template
from benchmarks.yardsticks import alerta

FIRST: Final = 10**6
"""What the first number of the next round is ahead by: every alert is new."""


class Alerta(Measure):
    """Both take new alerts from 64 clients: one web process of Siftbell on its embedded file, two of alerta on PostgreSQL.

    alerta keeps its processes and its database through all rounds, so its tables are neither empty nor large.
    """

    name = "alerta"
    turns = 3
    targets: ClassVar = {
        "alerts": Target(
            measure="intake of new alerts/s, one web process, embedded file, fsynced",
            yardstick="`POST /alert` of alerta-server on PostgreSQL, uWSGI with two processes",
            at_least=60,
            aim=100,
        )
    }

    def prepare(self, closing: ExitStack) -> None:
        """Start alerta and its database."""
        postgres = self.place.server("postgres")
        closing.callback(self.place.stop, "postgres")
        self._directory = self.place.new("alerta")
        port = free_port()
        command, environment = alerta.command(self._directory, port, postgres.url(postgres.port))
        closing.enter_context(Program(command, self._directory, environment))
        until_listens(port, "alerta")
        self._url = f"http://127.0.0.1:{port}/alert"
        self._first = 0
        self._load(2 * WARM_UP)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Run Siftbell, new."""
        with serving(self.place.new("alerta-siftbell"), broker_of(self.place, "sqlite")) as self._web:
            yield

    def siftbell(self) -> Figures:
        """Give alerts a second that Siftbell accepts."""
        return {"alerts": self._web.take(SECONDS)}

    def yardstick(self) -> Figures:
        """Give alerts a second that alerta accepts."""
        return {"alerts": self._load(2 * SECONDS).rate}

    def _load(self, seconds: float) -> Load:
        self._first += FIRST
        return drive(self._directory, self._url, template(alerta.as_alert), seconds=seconds, first=self._first).whole()
