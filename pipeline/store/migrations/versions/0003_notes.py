"""What producers that are posted to have noted, for when they are polled."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, PrimaryKeyConstraint, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "notes",
        Column("pipeline", Text, nullable=False),
        Column("producer", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("text", Text, nullable=False),
        PrimaryKeyConstraint("pipeline", "producer", "name", name="notes_pk"),
    )
