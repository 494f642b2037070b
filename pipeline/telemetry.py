"""Logs and metrics: what a process tells about itself, with every secret left out."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Any, Final, Literal

import structlog
from prometheus_client import Counter, Gauge, Histogram

ACCEPTED: Final = Counter("siftbell_messages_accepted_total", "Messages accepted from producers.", ["pipeline", "producer"])
REFUSED: Final = Counter(
    "siftbell_requests_refused_total", "Requests that the intake refused, by status.", ["pipeline", "status"]
)
SPOOLED: Final = Counter("siftbell_messages_spooled_total", "Messages accepted into the store while the broker was away.")
DECIDED: Final = Counter(
    "siftbell_messages_decided_total", "Decisions about messages, by step and outcome.", ["pipeline", "step", "outcome"]
)
FILTER_SECONDS: Final = Histogram("siftbell_filter_batch_seconds", "Time to filter one batch.", ["pipeline"])
DELIVERY_SECONDS: Final = Histogram(
    "siftbell_delivery_batch_seconds", "Time to give one batch to a consumer.", ["pipeline", "consumer"]
)
PUBLISH_SECONDS: Final = Histogram("siftbell_publish_seconds", "Time until the broker has confirmed what the intake published.")
HELD: Final = Gauge("siftbell_messages_held", "Messages that wait in the store.", multiprocess_mode="mostrecent")
DEAD: Final = Gauge("siftbell_dead_letters", "Messages that were given up.", multiprocess_mode="mostrecent")
CIRCUIT: Final = Gauge(
    "siftbell_circuit_state",
    "A consumer's circuit, as the clock sees it: 0 closed, 1 half-open, 2 open.",
    ["pipeline", "consumer"],
    multiprocess_mode="mostrecent",
)
CIRCUIT_CHANGES: Final = Counter(
    "siftbell_circuit_changes_total", "Circuits that opened, half-opened or closed.", ["pipeline", "consumer", "state"]
)
RATE_WAITS: Final = Counter(
    "siftbell_rate_waits_total", "Messages that were held because a consumer's rate was reached.", ["pipeline", "consumer"]
)
RESULTS: Final = Counter(
    "siftbell_results_total",
    "What other systems said later of deliveries, by step and result: under way, arrived, failed.",
    ["pipeline", "consumer", "result"],
)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def configure_logging(level: str, style: Literal["auto", "console", "json"], *, part: str = "") -> None:
    """Send the process's logs, structlog's and the standard library's, to stderr in one form.

    `auto` is `console` on a terminal and `json`, one object per line, elsewhere. Every line bears `part`, where it is
    set: the process's place in a process tree. On a console a line has the local time and no logger's name, save at
    level `debug`; control characters become spaces, for what somebody posted must not colour the terminal.
    """

    def name_part(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if part:
            event["part"] = part
        return event

    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    brief = console and level != "debug"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        *([] if brief else [structlog.stdlib.add_logger_name]),
        structlog.stdlib.add_log_level,
        name_part,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if brief else "iso", utc=not brief),
    ]
    # structlog's own choice of traceback prints local variables: request bodies, API keys.
    on_console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    rendered = (
        [_without_control, on_console] if console else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "httpx2", "httpcore2", "telegram", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # httpx writes whole URLs, a bot's token among them
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _without_control(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Keep each value on its line, and from commanding the terminal."""
    return {name: _CONTROL.sub(" ", value).strip() if isinstance(value, str) else value for name, value in event.items()}
