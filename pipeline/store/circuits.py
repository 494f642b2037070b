"""How the consumers' services are: the rows of `circuits`, one for each consumer that ever failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, and_, case, exists, func, literal, not_, select, update

from pipeline.store.rows import Circuit, CircuitState, Claim, Why
from pipeline.store.tables import chunks, circuits, clean, held, insert, records, to_number, to_time

PARKED: Final = "circuit"
"""The key of what waits for a circuit to close; what waits for its own next attempt has none."""
AT_ONCE: Final = 5000
"""Rows postponed in one go: nobody else's transaction waits for long."""
SLOWLY: Final = 1000
"""Messages that come back a hundred a second when a circuit closes; the rest comes a thousand a second."""
_SLOW_GAP: Final = timedelta(milliseconds=10)
_GAP: Final = timedelta(milliseconds=1)


def read(connection: Connection, pipeline: str, step: str) -> Circuit | None:
    """Give a consumer's circuit."""
    row = connection.execute(select(circuits).where(_at(pipeline, step))).first()
    return None if row is None else _circuit(row)


def read_all(connection: Connection) -> list[Circuit]:
    """Give all circuits."""
    return [_circuit(row) for row in connection.execute(select(circuits).order_by(circuits.c.pipeline, circuits.c.step))]


def change(connection: Connection, new: Circuit) -> bool:
    """Write a circuit over its version before; false where another was written meanwhile."""
    row = _row(new)
    statement = insert(circuits, connection.dialect.name)
    changed = {name: row[name] for name in row if name not in {"pipeline", "step"}}
    upsert = statement.on_conflict_do_update(
        index_elements=("pipeline", "step"), set_=changed, where=circuits.c.version == new.version - 1
    )
    # As in `schedules.claim`: the row count of an upsert is not sure.
    return connection.execute(upsert.returning(circuits.c.version), row).first() is not None


def postpone(connection: Connection, claims: Sequence[Claim], until: datetime, gone: datetime) -> None:
    """Let rows wait longer for the claims' consumer: the claimed ones, and as many of those that are due until then."""
    first = claims[0]
    known = and_(records.c.message_id == held.c.message_id, records.c.pipeline == held.c.pipeline, records.c.step == held.c.step)
    ending = exists().where(known, records.c.since.is_not(None), records.c.since <= to_number(gone))
    place = _waits(first.held.pipeline, first.held.step)
    mine = [and_(held.c.owner == first.owner, held.c.id.in_(ids)) for ids in chunks([claim.row for claim in claims])]
    for rows in (*mine, and_(held.c.owner.is_(None), held.c.ready < to_number(until))):
        # Rows that somebody works on are left out: waiting for them could be a deadlock, and they come back by themselves.
        locked = select(held.c.id).where(place, rows, not_(ending)).limit(AT_ONCE).with_for_update(skip_locked=True, of=held)
        later = {"due": to_number(until), "ready": to_number(until), "owner": None, "key": PARKED}
        connection.execute(update(held).where(held.c.id.in_(locked)).values(later))


def recall(connection: Connection, pipeline: str, step: str, now: datetime) -> None:
    """Bring forward what waits for a circuit, the oldest first, slowly at first."""
    parked = and_(_waits(pipeline, step), held.c.owner.is_(None), held.c.key == PARKED)
    locked = select(held.c.id, held.c.message_id).where(parked).with_for_update(skip_locked=True).subquery()
    place = func.row_number().over(order_by=locked.c.message_id).label("place")
    ranked = select(locked.c.id, place).subquery()
    start, fast = (literal(to_number(time), BigInteger) for time in (now, now + SLOWLY * _SLOW_GAP))
    rest = fast + (ranked.c.place - SLOWLY) * _number(_GAP)
    due = case((ranked.c.place <= SLOWLY, start + ranked.c.place * _number(_SLOW_GAP)), else_=rest)
    connection.execute(update(held).where(held.c.id == ranked.c.id).values(due=due, ready=due, key=""))


def wake(connection: Connection, pipeline: str, step: str, now: datetime) -> None:
    """Let the oldest of what waits for a circuit be due now."""
    parked = and_(_waits(pipeline, step), held.c.owner.is_(None), held.c.key == PARKED)
    oldest = select(held.c.id).where(parked).order_by(held.c.message_id).limit(1).with_for_update(skip_locked=True)
    sooner = and_(held.c.id.in_(oldest), held.c.due > to_number(now))
    connection.execute(update(held).where(sooner).values(due=to_number(now), ready=to_number(now)))


def _number(gap: timedelta) -> ColumnElement[int]:
    return literal(gap // timedelta(microseconds=1), BigInteger)


def _at(pipeline: str, step: str) -> ColumnElement[bool]:
    return and_(circuits.c.pipeline == pipeline, circuits.c.step == step)


def _waits(pipeline: str, step: str) -> ColumnElement[bool]:
    return and_(held.c.pipeline == pipeline, held.c.step == step, held.c.why == Why.RETRY.value)


def _row(circuit: Circuit) -> dict[str, Any]:
    return {
        "pipeline": circuit.pipeline,
        "step": circuit.step,
        "state": circuit.state.value,
        "failures": circuit.failures,
        "openings": circuit.openings,
        "since": to_number(circuit.since),
        "until": to_number(circuit.until),
        "error": clean(circuit.error),
        "version": circuit.version,
    }


def _circuit(row: Row[Any]) -> Circuit:
    return Circuit(
        pipeline=row.pipeline,
        step=row.step,
        state=CircuitState(row.state),
        failures=row.failures,
        openings=row.openings,
        since=to_time(row.since),
        until=to_time(row.until),
        error=row.error,
        version=row.version,
    )
