"""The measures, in the order of the table. One module per group; each knows its own yardstick."""

from __future__ import annotations

from typing import Final

from benchmarks.measure import Measure
from benchmarks.measures.drain import DrainRabbitMQ, DrainRedis, DrainSqlite

MEASURES: Final[tuple[type[Measure], ...]] = (DrainRedis, DrainRabbitMQ, DrainSqlite)
