"""The first tables."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Text, UniqueConstraint, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    _decisions()
    _held()
    _clock()
    _others()


def _decisions() -> None:
    op.create_table(
        "records",
        Column("message_id", Text, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("outcome", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("since", BigInteger),
        Column("reason", Text, nullable=False),
        PrimaryKeyConstraint("message_id", "pipeline", "step", name="records_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("records_at", "records", ["at"])
    op.create_table(
        "dead_letters",
        Column("message_id", Text, nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("error", Text, nullable=False),
        Column("traceback", Text, nullable=False),
        Column("message", Text, nullable=False),
        PrimaryKeyConstraint("message_id", "pipeline", "step", name="dead_letters_pk"),
    )
    op.create_index("dead_letters_newest", "dead_letters", ["at", "message_id", "pipeline", "step"])
    op.create_index("dead_letters_step", "dead_letters", ["pipeline", "step"])


def _held() -> None:
    op.create_table(
        "held",
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("why", Text, nullable=False),
        Column("due", BigInteger, nullable=False),
        Column("ready", BigInteger, nullable=False),
        Column("owner", Text),
        Column("key", Text, nullable=False),
        Column("window_id", Text),
        Column("attempt", Integer, nullable=False),
        Column("revision", Text, nullable=False),
        Column("message", Text, nullable=False),
        UniqueConstraint("pipeline", "step", "message_id", name="held_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("held_ready", "held", ["ready"])
    op.create_index("held_why", "held", ["pipeline", "step", "why"])
    some = text("window_id IS NOT NULL")
    op.create_index("held_window", "held", ["window_id"], sqlite_where=some, postgresql_where=some)


def _clock() -> None:
    op.create_table(
        "cursors",
        Column("pipeline", Text, nullable=False),
        Column("producer", Text, nullable=False),
        Column("cursor", Text, nullable=False),
        PrimaryKeyConstraint("pipeline", "producer", name="cursors_pk"),
    )
    op.create_table(
        "schedules",
        Column("pipeline", Text, nullable=False),
        Column("producer", Text, nullable=False),
        Column("occurrence", BigInteger, nullable=False),
        Column("owner", Text),
        Column("until", BigInteger, nullable=False),
        Column("finished", BigInteger),
        PrimaryKeyConstraint("pipeline", "producer", name="schedules_pk"),
    )


def _others() -> None:
    op.create_table(
        "api_keys",
        Column("name", Text, nullable=False),
        Column("prefix", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("scopes", Text, nullable=False),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger),
        PrimaryKeyConstraint("name", name="api_keys_pk"),
        UniqueConstraint("digest", name="api_keys_digest"),
    )
    op.create_table(
        "memory",
        Column("digest", Text, nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("asker", Text, nullable=False),
        PrimaryKeyConstraint("digest", name="memory_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("memory_until", "memory", ["until"])
