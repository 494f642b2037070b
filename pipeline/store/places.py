"""Where a message waits: what is held of it, and where it stands in line."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from pipeline.store.rows import Held, Why
from pipeline.store.tables import clean, lane_messages, lanes, to_message, to_time
from pipeline.store.waiting import read_held


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A message that waits. Where it stands in line, `ahead` messages of its key come before it, `first` the first of all."""

    held: Held
    ahead: int = 0
    first: str = ""


def read_standings(connection: Connection, message_id: str, places: Collection[tuple[str, str]]) -> list[Standing]:
    """Give where a message waits among these places (pipeline and step); each costs two looks into an index."""
    found = [Standing(held=held) for held in read_held(connection, message_id, places)]
    columns = (lane_messages, lanes.c.ready)
    for pipeline, step in sorted(set(places)):
        here = and_(lane_messages.c.pipeline == clean(pipeline), lane_messages.c.step == clean(step))
        query = select(*columns).join(lanes, lanes.c.lane == lane_messages.c.lane)
        query = query.where(here, lane_messages.c.message_id == clean(message_id))
        found += [_in_line(connection, row) for row in connection.execute(query)]
    return found


def _in_line(connection: Connection, row: Row[Any]) -> Standing:
    before = and_(lane_messages.c.lane == row.lane, lane_messages.c.id < row.id)
    ahead = connection.execute(select(func.count()).where(before)).scalar_one()
    first = connection.execute(select(lane_messages.c.message_id).where(before).order_by(lane_messages.c.id).limit(1)).scalar()
    message = to_message(row.message)
    held = Held(
        message=message,
        pipeline=row.pipeline,
        step=row.step,
        why=Why.ORDER,
        due=to_time(row.ready),
        key=message.key,
        attempt=row.attempt,
        revision=row.revision,
    )
    return Standing(held=held, ahead=ahead, first=first or "")
