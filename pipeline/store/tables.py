"""The store's tables, and how values are written into them: times as microseconds since 1970 in UTC, messages as JSON text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    cast,
    func,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.message import Message

T = TypeVar("T")

metadata: Final = MetaData()

_RowId = BigInteger().with_variant(Integer(), "sqlite")

records: Final = Table(
    "records",
    metadata,
    Column("message_id", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("since", BigInteger),
    Column("reason", Text, nullable=False),
    # The ids of the messages that went on in its place, separated by blanks.
    Column("became", Text),
    PrimaryKeyConstraint("message_id", "pipeline", "step", name="records_pk"),
    Index("records_at", "at"),
    sqlite_with_rowid=False,
)

results: Final = Table(
    "results",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    # What the other side calls the delivery.
    Column("reference", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    # What the consumer noted, and what the other side said since.
    Column("note", Text, nullable=False),
    Column("arrived", Boolean),
    Column("text", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("pipeline", "step", "reference", name="results_pk"),
    Index("results_message", "message_id"),
    Index("results_at", "at"),
)

tallies: Final = Table(
    "tallies",
    metadata,
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

held: Final = Table(
    "held",
    metadata,
    Column("id", _RowId, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("due", BigInteger, nullable=False),
    # When the row can be claimed next: when it is due, or when the lease of its owner ends.
    Column("ready", BigInteger, nullable=False),
    Column("owner", Text),
    Column("key", Text, nullable=False),
    # A digest of pipeline, step and key where the row waits in a window: keys may be too long for an index.
    Column("window_id", Text),
    Column("attempt", Integer, nullable=False),
    Column("revision", Text, nullable=False),
    Column("message", Text, nullable=False),
    UniqueConstraint("pipeline", "step", "message_id", name="held_once"),
    Index("held_ready", "ready"),
    Index("held_why", "pipeline", "step", "why"),
    Index(
        "held_window",
        "window_id",
        sqlite_where=text("window_id IS NOT NULL"),
        postgresql_where=text("window_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

accepted: Final = Table(
    "accepted",
    metadata,
    # The order in which they were written.
    Column("id", _RowId, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    # When it was first worked on: the time that the filters saw.
    Column("at", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    UniqueConstraint("pipeline", "message_id", name="accepted_once"),
    Index("accepted_order", "pipeline", "at", "id"),
    sqlite_autoincrement=True,
)

dead_letters: Final = Table(
    "dead_letters",
    metadata,
    Column("message_id", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("message", Text, nullable=False),
    # The letters of one pipeline, step and kind of error share it; see `fingerprint.py`.
    Column("fingerprint", Text, nullable=False, server_default=""),
    Column("edited", BigInteger),
    PrimaryKeyConstraint("message_id", "pipeline", "step", name="dead_letters_pk"),
    Index("dead_letters_newest", "at", "message_id", "pipeline", "step"),
    Index("dead_letters_step", "pipeline", "step"),
    Index("dead_letters_group", "fingerprint", "pipeline", "step", "at"),
)

cursors: Final = Table(
    "cursors",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("cursor", Text, nullable=False),
    PrimaryKeyConstraint("pipeline", "producer", name="cursors_pk"),
)

notes: Final = Table(
    "notes",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("pipeline", "producer", "name", name="notes_pk"),
)

schedules: Final = Table(
    "schedules",
    metadata,
    Column("pipeline", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("occurrence", BigInteger, nullable=False),
    Column("owner", Text),
    Column("until", BigInteger, nullable=False),
    Column("finished", BigInteger),
    PrimaryKeyConstraint("pipeline", "producer", name="schedules_pk"),
)

circuits: Final = Table(
    "circuits",
    metadata,
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

lanes: Final = Table(
    "lanes",
    metadata,
    # A digest of pipeline, step and key: keys may be too long for an index.
    Column("lane", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    # When it can be claimed: when its first message is due, or when the lease of who has it ends.
    Column("ready", BigInteger, nullable=False),
    Column("claim", Text),
    Column("worker", Text),
    # How many messages the worker has of it; and, after a worker died, how many are given out one by one.
    Column("begun", Integer, nullable=False),
    Column("suspects", Integer, nullable=False),
    # How many workers died over its first message, as far as one can tell.
    Column("deaths", Integer, nullable=False),
    # 1 while it waits for its consumer's circuit.
    Column("parked", Integer, nullable=False),
    PrimaryKeyConstraint("lane", name="lanes_pk"),
    Index("lanes_ready", "ready"),
    Index("lanes_claim", "claim"),
)

lane_messages: Final = Table(
    "lane_messages",
    metadata,
    # The order in the lane: numbers grow, and none is given twice.
    Column("id", _RowId, primary_key=True),
    Column("lane", Text, nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("revision", Text, nullable=False),
    Column("message", Text, nullable=False),
    UniqueConstraint("pipeline", "step", "message_id", name="lane_messages_once"),
    Index("lane_messages_order", "lane", "id"),
    sqlite_autoincrement=True,
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    PrimaryKeyConstraint("name", name="api_keys_pk"),
    UniqueConstraint("digest", name="api_keys_digest"),
)

queues: Final = Table(
    "queues",
    metadata,
    Column("name", Text, nullable=False),
    # When it last was in the configuration of a worker that started.
    Column("used", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", name="queues_pk"),
)

memory: Final = Table(
    "memory",
    metadata,
    Column("digest", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("asker", Text, nullable=False),
    PrimaryKeyConstraint("digest", name="memory_pk"),
    Index("memory_until", "until"),
    sqlite_with_rowid=False,
)

members: Final = Table(
    "members",
    metadata,
    Column("digest", Text, nullable=False),
    Column("member", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    PrimaryKeyConstraint("digest", "member", name="members_pk"),
    Index("members_until", "until"),
    sqlite_with_rowid=False,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_decoder: Final = msgspec.json.Decoder(Message)


def to_number(time: datetime) -> int:
    """Give a time, which must bear a zone, as microseconds since 1970 in UTC."""
    return (time - _EPOCH) // _MICROSECOND


def to_time(number: int) -> datetime:
    """Give the time of a number of microseconds since 1970, in UTC."""
    return _EPOCH + number * _MICROSECOND


def to_json(message: Message) -> str:
    """Write a message as its column holds it: JSON in which a NUL is escaped, as PostgreSQL has none in its texts."""
    return msgspec.json.encode(message).decode()


def to_message(column: str) -> Message:
    """Read a message from its column; raises ValueError for what is none."""
    try:
        return _decoder.decode(column)
    except RecursionError as error:  # it was written where the stack was less deep
        raise ValueError(str(error)) from error


def clean(column: str) -> str:
    """Replace what the databases cannot hold in a text: NUL and lone surrogates."""
    return column.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def chunks(values: Sequence[T], size: int = 1000) -> Iterator[Sequence[T]]:
    """Cut a list into pieces that fit into one IN."""
    return (values[start : start + size] for start in range(0, len(values), size))


@cache
def insert(table: Table, dialect: str) -> Any:
    """Give an INSERT of all columns that knows ON CONFLICT; the two dialects' classes are alike, but share no type."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def given_texts(name: str, dialect: str) -> Any:
    """Give a column of texts that are handed over as one parameter, a JSON array of any length: the statement stays the same."""
    given = bindparam(name, type_=Text)
    texts = func.json_array_elements_text(cast(given, JSON)) if dialect == "postgresql" else func.json_each(given)
    return texts.table_valued("value").c.value
