"""Reads the URL and the options of a connection to Redis or Valkey, and names the keys it uses there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "redis+socket": "unix"}
"""The schemes that are understood, and what redis-py calls each."""
OURS: Final = "siftbell-"
"""What our names of the schemes begin with, so that kombu's own transport keeps its names."""
PREFIX: Final = "siftbell:"
"""What all keys begin with where nothing else is said."""
PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""The endings of a queue's lists, as kombu has them for its priorities; what is on the first goes first."""


def alias(scheme: str) -> str:
    """Give our name of a scheme; kombu would split one with a plus."""
    return OURS + scheme.replace("+", "-")


def url(given: str) -> str:
    """Give the broker URL that makes kombu choose this transport. Raises ValueError for what is not one Redis server."""
    scheme, found, rest = given.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError(f"a Redis URL begins with {', '.join(f'{name}://' for name in SCHEMES)}")
    if ";" in rest or "," in urlsplit(f"//{rest}").netloc.rpartition("@")[2]:
        raise ValueError("one Redis server is needed, not several: Sentinel and Cluster are not supported")
    return f"{alias(scheme)}://{rest}"


class Settings(NamedTuple):
    """What a connection is told, by `transport_options`, or by its URL, which takes precedence.

    `prefix` begins all keys: two installations on one database need two. `beat` is the pause in seconds between two signs
    of life of an owner of claims; one without any for six of them is gone. `socket_timeout` bounds each command,
    `socket_connect_timeout` a connect, in seconds.
    """

    url: str
    prefix: str = PREFIX
    beat: float = 2.0
    socket_timeout: float = 5.0
    socket_connect_timeout: float = 2.0

    def place(self) -> str:
        """Give the URL without password and options, for the log."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"


def read_settings(address: str, options: Mapping[str, Any]) -> Settings:
    """Give the settings of a connection; options that are not ours are left to redis-py, which knows those of TLS."""
    told = {name: options[name] for name in Settings._fields if options.get(name) is not None}
    parts = urlsplit(address)
    theirs = {}
    for name, value in parse_qsl(parts.query):
        if name in Settings._fields and name != "url":
            told[name] = value
        else:
            theirs["db" if name == "virtual_host" else name] = value
    scheme = next(name for name in SCHEMES if alias(name) == parts.scheme)
    told["url"] = f"{SCHEMES[scheme]}://{parts.netloc}{parts.path}" + (f"?{urlencode(theirs)}" if theirs else "")
    for name in ("beat", "socket_timeout", "socket_connect_timeout"):
        if name in told:
            told[name] = float(told[name])
    return Settings(**told)


class Keys(NamedTuple):
    """The names of keys and channels under a prefix. A queue's name has no colon, so ours meet none of them."""

    prefix: str

    @property
    def owners(self) -> str:
        """The hash of all owners and the number of their signs of life."""
        return f"{self.prefix}queue:owners"

    @property
    def unreadable(self) -> str:
        """The list of items that no consumer could read or wanted."""
        return f"{self.prefix}queue:unreadable"

    def claims(self, owner: str) -> str:
        """The hash of what an owner has claimed."""
        return f"{self.prefix}queue:claims:{owner}"

    def bindings(self, exchange: str) -> str:
        """The set of an exchange's bindings."""
        return f"{self.prefix}queue:bindings:{exchange}"

    def bell(self, queue: str) -> str:
        """The channel that says that a queue has got something."""
        return f"{self.prefix}queue:bell:{queue}"

    def fanout(self, exchange: str) -> str:
        """The channel of a fanout exchange."""
        return f"{self.prefix}queue:fanout:{exchange}"

    def lists(self, queue: str) -> list[str]:
        """The lists of a queue, that with the first priority first."""
        return [f"{self.prefix}{queue}{ending}" for ending in PRIORITIES]
