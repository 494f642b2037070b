"""Where plugins may connect to: public addresses, and of the private ones those that the process's settings allow.

It stands between a URL that somebody wrote into a pipeline and the networks that this process alone can reach
(docs/decisions/0027). What is judged is the address of each connection at the moment at which it is made: no answer of a name
server can change in between.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from pipeline.errors import PermanentError, PipelineError, TemporaryError

Network = IPv4Network | IPv6Network
SETTING: Final = "SIFTBELL_PRIVATE_NETWORKS"

_KINDS: Final = (
    ("a loopback address", ("127.0.0.0/8", "::1/128")),
    ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
    ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("an address behind a provider's NAT", ("100.64.0.0/10",)),
    ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
    ("an address of this host", ("0.0.0.0/8", "::/128")),
    (
        "a reserved address",
        (
            *(
                "192.0.0.0/24",
                "192.0.2.0/24",
                "192.88.99.0/24",
                "198.18.0.0/15",
                "198.51.100.0/24",
                "203.0.113.0/24",
                "240.0.0.0/4",
            ),
            *("2001::/23", "2001:db8::/32", "3fff::/20", "::/3", "4000::/2", "8000::/1"),
        ),
    ),
)
"""From the registries of special-purpose addresses, https://www.iana.org/assignments/iana-ipv4-special-registry and
iana-ipv6-special-registry; of IPv6 all but 2000::/3, which is what is given to anybody. The first that holds names an address."""
_REFUSED: Final = tuple((ip_network(network), kind) for kind, networks in _KINDS for network in networks)
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""Addresses of IPv6 that a NAT64 gateway turns into the IPv4 address in their last four bytes (RFC 6052)."""
_EVENTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOCAL: Final = ("127.0.0.1", "::1")


class Networks:
    """Public addresses, and `allowed` of the others."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def refusal(self, address: str) -> str:
        """Say what is wrong with connecting to an address; nothing where it is public or allowed."""
        try:
            found = _embedded(ip_address(address))
        except ValueError:
            return f"{address} is a name, and where it leads is not known: give its IP address"
        if any(found in network for network in self._allowed):
            return ""
        kind = next((kind for network, kind in _REFUSED if found in network), "")
        return f"{address} is {kind}; to allow it, add {str(found).partition('%')[0]} to {SETTING}" if kind else ""

    def refusal_of_host(self, host: str) -> str:
        """Say what is wrong with the host of a URL where that shows without asking for its addresses; else nothing."""
        if host == "localhost" or host.endswith(".localhost"):
            refusals = [self.refusal(address) for address in _LOCAL]
            return refusals[0] if all(refusals) else ""
        try:
            ip_address(host)
        except ValueError:
            return ""
        return self.refusal(host)

    @contextmanager
    def guard(self) -> Iterator[list[str]]:
        """Let no connection be made to an address that is refused by what runs inside, in this thread or task and its own tasks.

        It is for whatever connects by Python's sockets: an HTTP client, a mail client, an event loop of asyncio. Where something
        was refused and what runs inside raised, it raises `TemporaryError`, with the address and how to allow it: tomorrow a
        name may lead elsewhere, and settings may have changed. It gives the list of what was refused, for what keeps its errors.
        """
        if self is ANYWHERE:
            yield []
            return
        _watch()
        refused: list[str] = []
        token = _within.set((self, refused))
        try:
            _refuse_foreign_loop()
            yield refused
        except PipelineError:
            raise
        except Exception:
            if not refused:
                raise
            raise TemporaryError(refused[0]) from None
        finally:
            _within.reset(token)


ANYWHERE: Final = Networks((IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
"""No address is refused: outside of an engine, as in the test of a plugin."""

_within: ContextVar[tuple[Networks, list[str]] | None] = ContextVar("_within", default=None)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Give the address that is reached in the end: an IPv4 address may be written as one of IPv6 in several ways."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@cache
def _watch() -> None:
    """Have Python tell of each connection before it is made (PEP 578); it cannot be told to stop, and need not."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or (within := _within.get()) is None:
        return
    connection, address = arguments[0], arguments[1]
    if address is None or connection.family == socket.AF_UNIX:  # it is connected already, and was judged; it leads nowhere
        return
    networks, refused = within
    if refusal := networks.refusal(str(address[0])):
        refused.append(refusal)
        raise PermissionError(refusal)


def _refuse_foreign_loop() -> None:
    """Refuse an event loop whose connections Python does not tell of: uvloop makes them in C."""
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):
            raise PermanentError(f"on the event loop {type(loop).__name__} connections to private networks cannot be refused")
