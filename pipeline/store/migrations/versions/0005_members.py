"""The members of a key in the memory."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "members",
        Column("digest", Text, nullable=False),
        Column("member", Text, nullable=False),
        Column("until", BigInteger, nullable=False),
        PrimaryKeyConstraint("digest", "member", name="members_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("members_until", "members", ["until"])
