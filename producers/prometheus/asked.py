"""What a Prometheus server is asked on a schedule: the alerts that fire, or the series of a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import structlog

from pipeline import Fetcher, Message, PermanentError, Template, foreign_id, normal_severity, parse_time, shorten
from producers.prometheus.alerts import fingerprint, message_of, without_nul
from producers.prometheus.options import PrometheusConfig
from producers.prometheus.places import Place, Seen

log = structlog.get_logger()


class _Alert(msgspec.Struct, rename="camel"):
    labels: dict[str, str]
    state: str
    active_at: str
    annotations: dict[str, str] = {}


class _Alerts(msgspec.Struct):
    alerts: list[_Alert]


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str] | None = None
    histogram: tuple[float, dict[str, Any]] | None = None


class Asked:
    """Asks one server, and tells what is new and what is gone since a cursor."""

    def __init__(self, config: PrometheusConfig) -> None:
        assert config.url is not None
        self._config = config
        self._url = config.url
        self._fetcher = Fetcher(config, headers=config.headers(), tls=config.tls(), timeout=config.timeout.total_seconds())

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def probe(self) -> str:
        """Ask the server which version it is."""
        about = self._ask("status/buildinfo")
        return f"Prometheus {about.get('version', '')}".strip() if isinstance(about, dict) else "Prometheus"

    def poll(self, cursor: str | None) -> Iterator[tuple[Message | None, str]]:
        """Give what is new and what is gone, in the order of their times."""
        place = Place.read(cursor)
        now = datetime.now(UTC)
        there = self._alerts(place) if self._config.query is None else self._series(self._config.query, place, now)
        told = False
        for key, seen, status in self._changes(place, there, now):
            told = True
            yield self._message(key, seen, status, now), place.text()
        if self._config.repeat:
            place.seen.clear()
        place.settle()
        place.count += told
        if place.text() != cursor:
            yield None, place.text()

    def _changes(
        self, place: Place, there: Mapping[str, Seen], now: datetime
    ) -> Iterator[tuple[str, Seen, Literal["firing", "resolved"]]]:
        """Go through what is to be told, and note each in the place just before."""
        for key, seen in sorted(there.items(), key=lambda item: (item[1].since, item[0])):
            before = place.seen.get(key)
            if before is None or before.occasion != seen.occasion:
                place.put(key, Seen(occasion=seen.occasion) if self._config.repeat else seen)
                yield key, seen, "firing"
            elif before.gone:
                place.put(key, msgspec.structs.replace(before, gone=""))
        for key in [] if self._config.repeat else [key for key in place.seen if key not in there]:
            seen = place.seen[key]
            gone = parse_time(seen.gone) if seen.gone else now
            if now - gone < self._config.resolve_after:
                place.put(key, msgspec.structs.replace(seen, gone=gone.isoformat()))
                continue
            place.forget(key)
            yield key, seen, "resolved"

    def _alerts(self, place: Place) -> dict[str, Seen]:
        there = {}
        for alert in self._read(self._ask("alerts"), _Alerts).alerts:
            if alert.state != "firing":
                continue
            labels, annotations = without_nul(alert.labels), without_nul(alert.annotations)
            self._time(alert.active_at)
            key = fingerprint(labels)
            before = place.seen.get(key)
            occasion = before.occasion if before and before.since == alert.active_at else f"{alert.active_at} {place.count}"
            there[key] = Seen(labels, annotations, occasion=occasion, since=alert.active_at)
        return there

    def _series(self, query: str, place: Place, now: datetime) -> dict[str, Seen]:
        answer = self._ask("query", query=query, timeout=f"{self._config.timeout.total_seconds():g}s")
        there = {}
        for series in self._read(_vector(answer), list[_Series]):
            metric = without_nul(series.metric)
            key = fingerprint({**metric, "__query__": query})
            at, value = series.value or series.histogram or (now.timestamp(), None)
            labels = {name: text for name, text in metric.items() if name != "__name__"}
            data = {"query": query, "metric": metric, "value": _number(value) if isinstance(value, str) else value}
            occasion = place.seen[key].occasion if key in place.seen else str(place.count)
            there[key] = Seen(labels, {}, data, occasion=occasion, since=self._time(at).isoformat())
        return there

    def _message(self, key: str, seen: Seen, status: Literal["firing", "resolved"], now: datetime) -> Message:
        query = self._config.query
        since = parse_time(seen.since)
        unique = (self._url, query or "", key, status, seen.occasion)
        message = message_of(
            seen.labels,
            seen.annotations,
            status,
            source=self._url,
            key=key,
            url=f"{self._url}/graph?g0.expr={quote(query)}" if query is not None else f"{self._url}/alerts",
            time=since if status == "firing" else now,
            data=seen.data or {"labels": seen.labels, "annotations": seen.annotations, "activeAt": seen.since},
            id=foreign_id(since if query is None else None, "prometheus", *unique),
        )
        told_by_a_query = "metric" in seen.data  # a cursor may be of the time before the options had one
        return self._worded(message) if told_by_a_query else message

    def _worded(self, message: Message) -> Message:
        """Give the message of a series the words that it lacks, and those of the templates."""
        metric, config = message.data["metric"], self._config
        braces = ",".join(f'{name}="{text}"' for name, text in sorted(message.labels.items()))
        named = f"{metric.get('__name__', '')}{{{braces}}}" if braces else metric.get("__name__", "")
        text = f"{message.data['query']}\nvalue: {message.data['value']}"
        message = message.replace(title=shorten(named or " ".join(message.data["query"].split()), 200), text=text)
        labels = {name: text for name, template in config.labels.items() if (text := _rendered(name, template, message))}
        message = message.replace(labels=message.labels | labels)
        if message.labels.get("alertname"):
            message = message.replace(title=message.labels["alertname"])
        words = {"severity": message.labels.get("severity", "")}
        for name in ("title", "text", "severity"):
            template = getattr(config, name)
            if template is not None and (text := _rendered(name, template, message)):
                words[name] = text if name == "text" else " ".join(text.split())
        return message.replace(**words | {"severity": normal_severity(words["severity"])})

    def _ask(self, path: str, **query: str) -> Any:
        answer = self._fetcher.get(f"{self._url}/api/v1/{path}", query).json()
        if not isinstance(answer, dict) or answer.get("status") != "success":
            raise PermanentError(f"{self._url} answers, but not as a Prometheus server does")
        return answer.get("data")

    def _read(self, data: Any, kind: Any) -> Any:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            raise PermanentError(f"{self._url} answers, but not as a Prometheus server does: {error}") from None

    def _time(self, value: Any) -> datetime:
        try:
            return parse_time(value)
        except ValueError as error:
            raise PermanentError(f"{self._url} answers, but not as a Prometheus server does: {error}") from None


def _vector(data: Any) -> Any:
    """Give the series of an answer to a query: a scalar is one without labels."""
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return [{"metric": {}, "value": result}]
    if kind != "vector":
        raise PermanentError(f"query: its result is a {kind}; one that gives an instant vector is expected")
    return result


def _number(text: str) -> int | float | str:
    """Give a sample's value, which Prometheus writes as a text, as a number where JSON has it."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not isfinite(value):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _rendered(name: str, template: Template, message: Message) -> str:
    try:
        return template.render(message)
    except PermanentError as error:
        log.warning("a template failed", field=name, error=str(error))
        return ""
