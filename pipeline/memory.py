"""What may be forgotten: what filters and consumers remember, in the store's database or in Redis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from sqlalchemy import and_, bindparam, case, delete, func, or_, select, tuple_, update

from pipeline.errors import ConfigError, TemporaryError
from pipeline.plugin import Memory
from pipeline.store.database import Database
from pipeline.store.direct import Direct
from pipeline.store.tables import insert, members, memory, to_number

PREFIX: Final = "siftbell:memory:"
"""What all keys in Redis begin with."""
_REDIS: Final = ("redis", "rediss", "unix")
_WAIT_SECONDS: Final = 3
_CHUNK: Final = 1000
_MOST: Final = 200_000
_MEMBERS: Final = 1000
"""Members that a key may have."""

_FIRST: Final = """
local asker = redis.call('GET', KEYS[1])
if asker == false then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
return (asker ~= '' and asker == ARGV[1]) and 1 or 0
"""
_COUNT: Final = """
local told = KEYS[2] and redis.call('GET', KEYS[2])
if told then
  return tonumber(told)
end
local count = redis.call('INCR', KEYS[1])
if count == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
if KEYS[2] then
  redis.call('SET', KEYS[2], count, 'PX', ARGV[1])
end
return count
"""

_SWAP: Final = """
local kept = redis.call('GET', KEYS[1])
if (ARGV[1] == 'nothing' and kept ~= false) or (ARGV[1] ~= 'nothing' and kept ~= ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""

_ADD: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], last[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
_MEMBERS_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
"""

SLACK: Final = timedelta(milliseconds=500)
"""So much of what a rate allowed, and was not used, can be made up for."""
_RESERVE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, patience, slack = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local again, fresh = tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('HMGET', KEYS[1], 'next', 'line')
local turn = math.max(tonumber(known[1]) or 0, now - slack)
local line = tonumber(known[2]) or 0
local waiting = line > now and line > turn
local room = math.max(0, math.floor((now + patience - turn) / interval) + 1)
local granted = math.min(room, waiting and again or again + fresh)
local after = turn + granted * interval
line = math.max(line, after)
local ending = line + (again + fresh - granted) * interval
redis.call('HSET', KEYS[1], 'next', string.format('%.0f', after), 'line', string.format('%.0f', ending))
redis.call('PEXPIRE', KEYS[1], math.ceil((ending - now + slack) / 1000) + 1)
return {granted, string.format('%.0f', turn - now), string.format('%.0f', line - now)}
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to `MemoryBackend.reserve`: times from now on, each further message an interval later."""

    granted: int
    """So many may go, those that come again before the others."""
    first: timedelta
    """When the first of them may go; it may be past."""
    line: timedelta
    """When about the first of the others can hope for its turn."""


class MemoryBackend(Protocol):
    """Where the memories of all steps are. Safe with threads, and after fork. Methods may raise TemporaryError."""

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory.

        With the id of the message that is filtered as `asker`, `first` and `count` give a message that comes again,
        because its worker died or the broker was away, the same answer for a key as before: else it would be taken for
        its own duplicate, or be counted until there are too many of it.
        """

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give messages of a step their turns, one in each interval, over all who ask.

        Only turns within `patience` are given. The others stand in a line and ask `again` when their turn comes near;
        nothing is reserved for them, but as long as there is a line none that is `fresh` is given a turn.
        """

    def purge(self) -> int:
        """Delete what is over, up to 200,000 entries; give their number. Called now and then; asks the server in any case."""

    def close(self) -> None:
        """Close the connections."""


def open_memory(url: str, *, now: Callable[[], datetime] | None = None) -> MemoryBackend:
    """Give the memory at a URL: Redis (`redis://`, `rediss://`, `unix://`), or else a database as the store takes it.

    `now` is the clock that windows are measured by; Redis goes by its server's. Nothing is opened yet. Raises
    ConfigError for a URL that cannot be used, or whose driver is missing.
    """
    if urlsplit(url).scheme in _REDIS:
        return RedisMemory(url)
    return SqlMemory(url, now=now or _utc_now)


class SqlMemory:
    """The memory in the store's database; a commit does not wait for the disk, as what it holds may be forgotten."""

    def __init__(self, url: str, *, now: Callable[[], datetime]) -> None:
        self._database = Database(url, durable=False)
        self._now = now

    def migrate(self) -> None:
        """Make or change the tables, where the database is not the store's."""
        from pipeline.store.migrate import migrate  # noqa: PLC0415 - as in `Store.migrate`

        migrate(self._database)

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory."""
        return _Scoped(self, (pipeline, step), asker)

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give turns; what is stored is when the next turn is (`count`), and where the line ends (`until`, and the slack)."""
        digest = _rate_digest(pipeline, step, interval)
        known = select(memory.c.count, memory.c.until).where(memory.c.digest == digest).with_for_update()
        with self._database.writing() as connection:
            first = insert(memory, connection.dialect.name).values(digest=digest, until=0, count=0, asker="")
            connection.execute(first.on_conflict_do_nothing())
            turn, until = connection.execute(known).one()
            now = to_number(self._now())  # not before it was this caller's turn to ask: that may have taken a while
            turn, line = max(turn, now - _number(SLACK)), until - _number(SLACK)
            room = max(0, (now + _number(patience) - turn) // _number(interval) + 1)
            granted = min(room, again if line > max(now, turn) else again + fresh)
            after = turn + granted * _number(interval)
            line = max(line, after)
            ending = line + (again + fresh - granted) * _number(interval)
            changed = update(memory).where(memory.c.digest == digest)
            connection.execute(changed.values(count=after, until=ending + _number(SLACK)))
        return Reservation(granted, timedelta(microseconds=turn - now), timedelta(microseconds=line - now))

    def purge(self) -> int:
        """Delete what is over, a thousand rows in each transaction."""
        before, total = to_number(self._now()), 0
        over = select(memory.c.digest).where(memory.c.until <= before).limit(_CHUNK)
        expired = select(members.c.digest, members.c.member).where(members.c.until <= before).limit(_CHUNK)
        expired = expired.with_for_update(skip_locked=True)  # who adds a member deletes those of its key that are over, too
        for gone in (
            delete(memory).where(memory.c.digest.in_(over)),
            delete(members).where(tuple_(members.c.digest, members.c.member).in_(expired)),
        ):
            while total < _MOST:
                with self._database.writing() as connection:
                    count = connection.execute(gone).rowcount
                total += count
                if count < _CHUNK:
                    break
        return total

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def first(self, digest: str, within: timedelta, asker: str) -> bool:
        """Start a window where there is none; say whether this asker started it."""
        now = self._now()
        row = {"digest": digest, "until": to_number(now + within), "count": 1, "asker": asker, "now": to_number(now)}
        with self._database.writing() as connection:
            return connection.execute(_first_upsert(connection.dialect.name), row).scalar() is not None

    def count(self, digest: str, within: timedelta, asked: str | None) -> int:
        """Count up in a window, starting it where there is none; or give again what was noted under `asked`."""
        now = self._now()
        told = select(memory.c.count).where(memory.c.digest == asked, memory.c.until > to_number(now))
        row = {"digest": digest, "until": to_number(now + within), "count": 1, "asker": "", "now": to_number(now)}
        with self._database.writing() as connection:
            if asked and (before := connection.execute(told).scalar()) is not None:
                return int(before)
            count = int(connection.execute(_count_upsert(connection.dialect.name), row).scalar_one())
            if asked:
                connection.execute(_told_upsert(connection.dialect.name), row | {"digest": asked, "count": count})
            return count

    def remember(self, digest: str, value: str, within: timedelta) -> None:
        """Keep a text, which stands where a window has its asker."""
        row = {"digest": digest, "until": to_number(self._now() + within), "count": 0, "asker": value}
        with self._database.writing() as connection:
            connection.execute(_told_upsert(connection.dialect.name), row)

    def recall(self, digest: str) -> str | None:
        """Give the text, or None where there is none or its time is over."""
        with self._database.reading() as connection:
            found = _RECALL.rows(connection, {"digest": digest, "now": to_number(self._now())})
        return str(found[0][0]) if found else None

    def swap(self, digest: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected there."""
        now = self._now()
        row = {"digest": digest, "until": to_number(now + within), "count": 0, "asker": new, "now": to_number(now)}
        with self._database.writing() as connection:
            found = _NEW.rows(connection, row) if old is None else _SWAPPED.rows(connection, row | {"old": old})
        return bool(found)

    def forget(self, *digests: str) -> None:
        """Delete windows and texts."""
        with self._database.writing() as connection:
            connection.execute(delete(memory).where(memory.c.digest.in_(digests)))
            connection.execute(delete(members).where(members.c.digest.in_(digests)))

    def add(self, digest: str, member: str, within: timedelta) -> list[str]:
        """Make a text a member, let those beyond the bound go, and give all there are."""
        now = self._now()
        row = {"digest": digest, "member": member, "until": to_number(now + within)}
        mine = members.c.digest == digest
        late = select(members.c.member).where(mine).order_by(members.c.until.desc(), members.c.member).offset(_MEMBERS)
        with self._database.writing() as connection:
            if (
                connection.dialect.name == "postgresql"
            ):  # or two at once would not see one another; SQLite has one writer at a time
                connection.execute(select(func.pg_advisory_xact_lock(int(digest[:15], 16))))
            connection.execute(_member_upsert(connection.dialect.name), row)
            connection.execute(delete(members).where(mine, or_(members.c.until <= to_number(now), members.c.member.in_(late))))
            return list(connection.execute(_members_now(digest, now)).scalars())

    def remove(self, digest: str, member: str) -> None:
        """Let a text be no member any more."""
        with self._database.writing() as connection:
            connection.execute(delete(members).where(members.c.digest == digest, members.c.member == member))

    def members(self, digest: str) -> list[str]:
        """Give the members."""
        with self._database.reading() as connection:
            return list(connection.execute(_members_now(digest, self._now())).scalars())


class RedisMemory:
    """The memory in Redis, which forgets what is over by itself."""

    def __init__(self, url: str) -> None:
        try:
            from redis import Redis, RedisError  # noqa: PLC0415 - an extra that only this class needs
            from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
            from redis.retry import Retry  # noqa: PLC0415 - as above
        except ImportError as error:
            raise ConfigError('the memory needs: pip install "siftbell[redis]"') from error
        self._error = RedisError
        try:
            parts = urlsplit(url)
            self._place = f"redis at {parts.hostname}:{parts.port or 6379}" if parts.hostname else f"redis at {parts.path}"
            self._redis = Redis.from_url(
                url,
                socket_timeout=_WAIT_SECONDS,
                socket_connect_timeout=_WAIT_SECONDS,
                health_check_interval=15,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            raise ConfigError("the memory's URL: redis://HOST:PORT/NUMBER is expected") from None
        self._first = self._redis.register_script(_FIRST)
        self._count = self._redis.register_script(_COUNT)
        self._reserve = self._redis.register_script(_RESERVE)
        self._add = self._redis.register_script(_ADD)
        self._members = self._redis.register_script(_MEMBERS_NOW)
        self._swap = self._redis.register_script(_SWAP)

    def scoped(self, pipeline: str, step: str, asker: str = "") -> Memory:
        """Give a step's memory."""
        return _Scoped(self, (pipeline, step), asker)

    def reserve(
        self, pipeline: str, step: str, interval: timedelta, patience: timedelta, *, again: int, fresh: int
    ) -> Reservation:
        """Give turns."""
        sizes = [_number(interval), _number(patience), _number(SLACK), again, fresh]
        with self._translated():
            granted, first, line = self._reserve(keys=[PREFIX + _rate_digest(pipeline, step, interval)], args=sizes)
        return Reservation(int(granted), timedelta(microseconds=int(first)), timedelta(microseconds=int(line)))

    def purge(self) -> int:
        """Ask the server for a sign of life; there is nothing to delete."""
        with self._translated():
            self._redis.ping()
        return 0

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def first(self, digest: str, within: timedelta, asker: str) -> bool:
        """Start a window where there is none; say whether this asker started it."""
        with self._translated():
            return bool(self._first(keys=[PREFIX + digest], args=[asker, _milliseconds(within)]))

    def count(self, digest: str, within: timedelta, asked: str | None) -> int:
        """Count up in a window, starting it where there is none; or give again what was noted under `asked`."""
        keys = [PREFIX + digest, *([PREFIX + asked] if asked else [])]
        with self._translated():
            return int(self._count(keys=keys, args=[_milliseconds(within)]))

    def remember(self, digest: str, value: str, within: timedelta) -> None:
        """Keep a text."""
        with self._translated():
            self._redis.set(PREFIX + digest, value, px=_milliseconds(within))

    def recall(self, digest: str) -> str | None:
        """Give the text, or None where there is none."""
        with self._translated():
            kept = self._redis.get(PREFIX + digest)
        return kept.decode() if isinstance(kept, bytes) else kept

    def swap(self, digest: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep a text in place of the one that is expected there."""
        expected = ["nothing", ""] if old is None else ["text", old]
        with self._translated():
            return bool(self._swap(keys=[PREFIX + digest], args=[*expected, new, _milliseconds(within)]))

    def forget(self, *digests: str) -> None:
        """Delete windows and texts."""
        with self._translated():
            self._redis.delete(*(PREFIX + digest for digest in digests))

    def add(self, digest: str, member: str, within: timedelta) -> list[str]:
        """Make a text a member, let those beyond the bound go, and give all there are."""
        with self._translated():
            return _texts(self._add(keys=[PREFIX + digest], args=[member, _milliseconds(within), _MEMBERS]))

    def remove(self, digest: str, member: str) -> None:
        """Let a text be no member any more."""
        with self._translated():
            self._redis.zrem(PREFIX + digest, member)

    def members(self, digest: str) -> list[str]:
        """Give the members."""
        with self._translated():
            return _texts(self._members(keys=[PREFIX + digest]))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise TemporaryError(f"the memory ({self._place}) is away: {type(error).__name__}") from error


class _Scoped:
    """One step's memory. Keys are stored as digests: they may be long, and may hold what is nobody's business."""

    def __init__(self, backend: SqlMemory | RedisMemory, place: tuple[str, str], asker: str) -> None:
        self._backend = backend
        self._place = place
        self._asker = asker

    def first(self, key: str, within: timedelta) -> bool:
        return self._backend.first(self._digest("first", key), within, self._asker)

    def count(self, key: str, within: timedelta) -> int:
        asked = self._digest("asked", f"{self._asker}\0{key}") if self._asker else None
        return self._backend.count(self._digest("count", key), within, asked)

    def remember(self, key: str, value: str, within: timedelta) -> None:
        self._backend.remember(self._digest("text", key), value, within)

    def recall(self, key: str) -> str | None:
        return self._backend.recall(self._digest("text", key))

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:
        return self._backend.swap(self._digest("text", key), old, new, within)

    def forget(self, key: str) -> None:
        self._backend.forget(*(self._digest(kind, key) for kind in ("first", "count", "text", "members")))

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:
        return sorted(self._backend.add(self._digest("members", key), member, within))

    def remove(self, key: str, member: str) -> None:
        self._backend.remove(self._digest("members", key), member)

    def members(self, key: str) -> Sequence[str]:
        return sorted(self._backend.members(self._digest("members", key)))

    def _digest(self, kind: str, key: str) -> str:
        names = "\0".join((*self._place, kind, key)).encode(errors="surrogatepass")
        return blake2b(names, digest_size=16).hexdigest()


@cache
def _first_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    over = memory.c.until <= bindparam("now")
    mine = and_(memory.c.asker != "", memory.c.asker == statement.excluded.asker)
    changed = {"until": case((over, statement.excluded.until), else_=memory.c.until), "asker": statement.excluded.asker}
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed, where=or_(over, mine)).returning(
        memory.c.digest
    )


def _recall(_dialect: str) -> Any:
    return select(memory.c.asker).where(memory.c.digest == bindparam("digest"), memory.c.until > bindparam("now"))


def _swap(_dialect: str) -> Any:
    there = and_(memory.c.digest == bindparam("digest"), memory.c.asker == bindparam("old"), memory.c.until > bindparam("now"))
    changed: dict[str, Any] = {name: bindparam(name) for name in ("asker", "until")}
    return update(memory).where(there).values(changed).returning(memory.c.digest)


def _new_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    changed = {name: statement.excluded[name] for name in ("until", "count", "asker")}
    over = memory.c.until <= bindparam("now")
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed, where=over).returning(memory.c.digest)


@cache
def _count_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    over = memory.c.until <= bindparam("now")
    changed = {
        "until": case((over, statement.excluded.until), else_=memory.c.until),
        "count": case((over, 1), else_=memory.c.count + 1),
    }
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed).returning(memory.c.count)


@cache
def _told_upsert(dialect: str) -> Any:
    statement = insert(memory, dialect).values(_values())
    changed = {name: statement.excluded[name] for name in ("until", "count", "asker")}
    return statement.on_conflict_do_update(index_elements=("digest",), set_=changed)


@cache
def _member_upsert(dialect: str) -> Any:
    statement = insert(members, dialect).values({column.name: bindparam(column.name) for column in members.c})
    return statement.on_conflict_do_update(index_elements=("digest", "member"), set_={"until": statement.excluded.until})


def _members_now(digest: str, now: datetime) -> Any:
    return select(members.c.member).where(members.c.digest == digest, members.c.until > to_number(now))


def _texts(found: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else text for text in found]


_RECALL: Final = Direct(_recall)
_SWAPPED: Final = Direct(_swap)
_NEW: Final = Direct(_new_upsert)


def _values() -> dict[str, Any]:
    return {column.name: bindparam(column.name) for column in memory.c}


def _rate_digest(pipeline: str, step: str, interval: timedelta) -> str:
    """Name a rate; another rate begins anew, for its predecessor's line would be measured by the wrong interval."""
    return blake2b("\0".join((pipeline, step, "rate", str(interval))).encode(), digest_size=16).hexdigest()


def _number(time: timedelta) -> int:
    """Give a time in microseconds, at least one."""
    return max(1, time // timedelta(microseconds=1))


def _milliseconds(within: timedelta) -> int:
    return max(1, math.ceil(within / timedelta(milliseconds=1)))


def _utc_now() -> datetime:
    return datetime.now(UTC)
