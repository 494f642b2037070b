"""What other systems say later of a delivery."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, PrimaryKeyConstraint, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "results",
        Column("pipeline", Text, nullable=False),
        Column("step", Text, nullable=False),
        Column("reference", Text, nullable=False),
        Column("message_id", Text, nullable=False),
        Column("note", Text, nullable=False),
        Column("arrived", Boolean),
        Column("text", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        PrimaryKeyConstraint("pipeline", "step", "reference", name="results_pk"),
    )
    op.create_index("results_message", "results", ["message_id"])
    op.create_index("results_at", "results", ["at"])
