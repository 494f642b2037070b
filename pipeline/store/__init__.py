"""What must survive: records, held messages, dead letters, cursors, schedules and keys, in SQL."""

from pipeline.store.database import StoreAway
from pipeline.store.rows import ApiKey, Claim, DeadLetter, Held, Outcome, Record, Why
from pipeline.store.store import Store

__all__ = ["ApiKey", "Claim", "DeadLetter", "Held", "Outcome", "Record", "Store", "StoreAway", "Why"]
