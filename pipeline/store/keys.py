"""The API keys: the rows of `api_keys`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, select

from pipeline.errors import ConfigError
from pipeline.store.rows import ApiKey
from pipeline.store.tables import api_keys, insert, to_number, to_time


def write_key(connection: Connection, key: ApiKey) -> None:
    """Add a key. Raises ConfigError where its name, or the key itself, is there already."""
    row = {
        "name": key.name,
        "prefix": key.prefix,
        "digest": key.digest,
        "scopes": " ".join(sorted(key.scopes)),
        "created": to_number(key.created),
        "expires": None if key.expires is None else to_number(key.expires),
    }
    statement = insert(api_keys, connection.dialect.name).on_conflict_do_nothing()
    if connection.execute(statement.returning(api_keys.c.name), row).first() is None:
        raise ConfigError(f"there is an API key {key.name!r} already: choose another name, or revoke that one")


def read_key(connection: Connection, digest: str) -> ApiKey | None:
    """Give the key of this digest."""
    row = connection.execute(select(api_keys).where(api_keys.c.digest == digest)).one_or_none()
    return None if row is None else _key(row)


def list_keys(connection: Connection) -> list[ApiKey]:
    """Give all keys, by name."""
    return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.name))]


def delete_key(connection: Connection, name: str) -> bool:
    """Delete a key; say whether it was there."""
    return bool(connection.execute(delete(api_keys).where(api_keys.c.name == name)).rowcount)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        name=row.name,
        prefix=row.prefix,
        digest=row.digest,
        scopes=frozenset(row.scopes.split()),
        created=to_time(row.created),
        expires=None if row.expires is None else to_time(row.expires),
    )
