"""Messages as they were accepted, for pipelines that keep them."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Text, UniqueConstraint

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "accepted",
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), nullable=False),
        Column("pipeline", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("message", Text, nullable=False),
        PrimaryKeyConstraint("id"),
        UniqueConstraint("pipeline", "message_id", name="accepted_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("accepted_order", "accepted", ["pipeline", "at", "id"])
