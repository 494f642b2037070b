"""What the promise needs beyond the first tables."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    column,
    select,
    table,
    update,
)

from pipeline.store.fingerprint import fingerprint

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _records()
    _dead_letters()
    _circuits()
    _queues()
    _lanes()


def _records() -> None:
    """What became of replaced messages, and how many decisions each hour saw; those made before this are counted once."""
    op.add_column("records", Column("became", Text))
    op.create_table(
        "tallies",
        Column("hour", BigInteger, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("shard", Integer, nullable=False),
        Column("decided", BigInteger, nullable=False),
        Column("added", BigInteger, nullable=False),
        PrimaryKeyConstraint("hour", "pipeline", "step", "outcome", "shard", name="tallies_pk"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO tallies (hour, pipeline, step, outcome, shard, decided, added)"
        " SELECT at / 3600000000 * 3600000000, pipeline, step, outcome, 0, count(*), count(*) FROM records"
        " GROUP BY 1, pipeline, step, outcome"
    )


def _queues() -> None:
    """Which queues the configuration has had."""
    op.create_table(
        "queues",
        Column("name", Text, nullable=False),
        Column("used", BigInteger, nullable=False),
        PrimaryKeyConstraint("name", name="queues_pk"),
    )


def _lanes() -> None:
    """What stands in line for ordered consumers."""
    op.create_table(
        "lanes",
        Column("lane", Text, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("ready", BigInteger, nullable=False),
        Column("claim", Text),
        Column("worker", Text),
        Column("begun", Integer, nullable=False),
        Column("suspects", Integer, nullable=False),
        Column("deaths", Integer, nullable=False),
        Column("parked", Integer, nullable=False),
        PrimaryKeyConstraint("lane", name="lanes_pk"),
    )
    op.create_index("lanes_ready", "lanes", ["ready"])
    op.create_index("lanes_claim", "lanes", ["claim"])
    op.create_table(
        "lane_messages",
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
        Column("lane", Text, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("revision", Text, nullable=False),
        Column("message", Text, nullable=False),
        UniqueConstraint("pipeline", "step", "message_id", name="lane_messages_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("lane_messages_order", "lane_messages", ["lane", "id"])


def _circuits() -> None:
    """Which consumers are not called for the moment."""
    op.create_table(
        "circuits",
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("failures", BigInteger, nullable=False),
        Column("openings", Integer, nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("error", Text, nullable=False),
        Column("version", BigInteger, nullable=False),
        PrimaryKeyConstraint("pipeline", "step", name="circuits_pk"),
    )


def _dead_letters() -> None:
    """Groups of dead letters, those that are there included; and when one was edited."""
    op.add_column("dead_letters", Column("fingerprint", Text, nullable=False, server_default=""))
    op.add_column("dead_letters", Column("edited", BigInteger))
    connection = op.get_bind()
    letters = table("dead_letters", *(column(name) for name in ("message_id", "pipeline", "step", "error", "fingerprint")))
    key = (letters.c.message_id, letters.c.pipeline, letters.c.step)
    rows = [
        {"m": row.message_id, "p": row.pipeline, "s": row.step, "f": fingerprint(row.pipeline, row.step, row.error)}
        for row in connection.execute(select(*key, letters.c.error))
    ]
    if rows:
        this = and_(*(one == bindparam(name) for one, name in zip(key, "mps", strict=True)))
        connection.execute(update(letters).where(this).values(fingerprint=bindparam("f")), rows)
    op.create_index("dead_letters_group", "dead_letters", ["fingerprint", "pipeline", "step", "at"])
