"""`siftbell keys`: makes, lists and revokes API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import DataOption, OutputOption, open_store
from pipeline.cli.output import Output, print_data, print_rows, say
from pipeline.errors import ConfigError

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


class Scope(StrEnum):
    """What a key is good for."""

    INTAKE = "intake"
    API = "api"


def _expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    from pipeline.units import parse_duration

    try:
        return datetime.now(UTC) + parse_duration(text)
    except (ValueError, OverflowError):
        raise Failure("--expires: a duration such as 12h or 90d is expected", Exit.USAGE) from None


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what uses it.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="intake: post messages; api: read and steer. [default: intake]")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it works, such as 90d; unset: until it is revoked.")] = None,
    *,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a key and print it: it cannot be shown again."""
    from pipeline.keys import create_key

    until = _expiry(expires)
    scopes = [one.value for one in scope or [Scope.INTAKE]]
    with open_store(data) as store:
        try:
            key = create_key(store, name, scopes, until)
        except ConfigError as error:
            raise Failure(str(error)) from None
    if output is not Output.TABLE:
        print_data({"name": name, "key": key, "scopes": sorted(scopes), "expires": until.isoformat() if until else None}, output)
        return
    print(key)
    say(f"the key '{name}' for {' and '.join(sorted(scopes))}; it cannot be shown again")


@keys.command("list")
def list_keys(*, data: DataOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the keys: what they are good for and until when, not the keys themselves."""
    with open_store(data) as store:
        found = store.keys()
    rows = [
        {
            "name": key.name,
            "prefix": key.prefix,
            "scopes": " ".join(sorted(key.scopes)),
            "created": f"{key.created:%Y-%m-%dT%H:%M:%SZ}",
            "expires": f"{key.expires:%Y-%m-%dT%H:%M:%SZ}" if key.expires else None,
        }
        for key in found
    ]
    print_rows(
        rows,
        ("name", "prefix", "scopes", "created", "expires"),
        output,
        empty="no keys; make one with `siftbell keys create NAME`",
    )


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="The key's name.")], *, data: DataOption = None) -> None:
    """Revoke a key: servers refuse it within 10 seconds."""
    from pipeline.keys import FRESH

    with open_store(data) as store:
        if not store.revoke_key(name):
            raise Failure(f"no key is called '{name}'", Exit.NOT_FOUND)
    say(f"the key '{name}' is revoked; servers refuse it within {FRESH:.0f} seconds")
