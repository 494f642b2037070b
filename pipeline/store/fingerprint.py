"""Which errors are the same to a person: those that differ in numbers, ids and addresses only."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_LONGEST: Final = 1000
"""Characters looked at: what follows is an answer's body or a list, and tells no other kind of error."""
_VARYING: Final = re.compile(
    r"""
    # A status tells what went wrong, and stays.
    (?P<kept>\b(?:answered|HTTP(?:/\d(?:\.\d)?)?|status(?:\ code)?:?)\ [1-5]\d\d\b | ^[1-5]\d\d(?=[:\ ]|$))
    # UUID
  | \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b
    # mail address
  | (?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}
    # IPv6
  | \[?(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])\]?(?::\d+)?
    # date and time
  | \b\d{4}-\d\d-\d\d(?:[T\ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|\ ?[+-]\d\d:?\d\d)?)?
    # address in memory, digest, trace id
  | \b0x[0-9a-f]+\b
  | \b(?=[a-f]*\d)[0-9a-f]{8,}\b
    # number, IPv4, port
  | \d+(?:[.,:]\d+)*
    """,
    re.VERBOSE | re.IGNORECASE,
)


def fingerprint(pipeline: str, step: str, error: str) -> str:
    """Give the id that the dead letters of a step share when their errors are the same to a person."""
    names = f"{pipeline}\0{step}\0{alike(error)}".encode(errors="surrogatepass")
    return blake2b(names, digest_size=6).hexdigest()


def alike(error: str) -> str:
    """Give an error's text with a # for each number, id and address; a status that was answered stays."""
    return _VARYING.sub(lambda found: found["kept"] or "#", error[:_LONGEST])
