"""What the promise needs beyond the first tables."""

from __future__ import annotations

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change nothing yet."""
