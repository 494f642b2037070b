"""The measures, in the order of the table. One module per group; each knows its own yardstick."""

from __future__ import annotations

from typing import Final

from benchmarks.measure import Measure
from benchmarks.measures.alerta import Alerta
from benchmarks.measures.alertmanager import Alertmanager
from benchmarks.measures.checking import Checking
from benchmarks.measures.deliveries import Deliveries
from benchmarks.measures.drain import DrainRabbitMQ, DrainRedis, DrainSqlite
from benchmarks.measures.filtering import Filtering
from benchmarks.measures.flood import Flood
from benchmarks.measures.intake import BulkRedis, BulkSqlite, IntakeRedis, IntakeSqlite
from benchmarks.measures.latency import LatencyRabbitMQ, LatencyRedis, LatencySqlite
from benchmarks.measures.memory import Memory
from benchmarks.measures.scale import HeldMessages, PipelinesRedis, PipelinesSqlite, Records
from benchmarks.measures.starting import Starting
from benchmarks.measures.workers import Workers

MEASURES: Final[tuple[type[Measure], ...]] = (
    DrainRedis,
    DrainRabbitMQ,
    DrainSqlite,
    Flood,
    Filtering,
    IntakeRedis,
    IntakeSqlite,
    BulkRedis,
    BulkSqlite,
    Alerta,
    Alertmanager,
    Deliveries,
    LatencyRedis,
    LatencyRabbitMQ,
    LatencySqlite,
    PipelinesRedis,
    PipelinesSqlite,
    HeldMessages,
    Records,
    Memory,
    Workers,
    Checking,
    Starting,
)
