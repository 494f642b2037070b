"""Addresses: how one is written, which ones a template may name, and those that a mail goes to."""

from __future__ import annotations

import re
from contextlib import suppress
from email.headerregistry import Address
from typing import Final, NamedTuple

import idna

from consumers.email.text import line
from pipeline import Message, PermanentError, Template, TemporaryError

_LONGEST: Final = 1_000
"""Characters of an address with its name; 320 is the most that the address itself may have."""
_ENTRY: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",;])+')
_PERSON: Final = re.compile(
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<name>[^"@:<>()\[\]\\]*?))\s*<(?P<boxed>[^<>]*)>|(?P<bare>\S+)', re.DOTALL
)
_VALUE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_LOCAL: Final = re.compile(r"(?!\.)(?!.*\.\.)[^\x00-\x20\x7f-\x9f\s@<>()\[\],;:\\\"]{1,64}(?<!\.)")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
NO_ADDRESS: Final = "an address is written as anna@example.com or Anna <anna@example.com>"

Failure = TemporaryError | PermanentError


class Envelope(NamedTuple):
    """Who gets a mail, and what is written in place of an address with what is wrong with it."""

    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    wrong: dict[str, PermanentError]

    def everybody(self) -> dict[str, Address]:
        """Give all of them by their address."""
        return {address.addr_spec: address for address in (*self.to, *self.cc, *self.bcc)}


def split_entries(text: str) -> list[str]:
    """Give the addresses in a text, whatever stands between them."""
    return [entry.strip() for entry in _ENTRY.findall(text) if entry.strip()]


def render_entries(template: Template, message: Message) -> list[str]:
    """Give what a template names. A value amid other text, such as a name, may not add an address to those that stand there."""
    entries, written = split_entries(template.render(message)), _VALUE.sub("x", template.text).strip()
    if written != "x" and "{%" not in written and len(entries) > len(split_entries(written)):
        raise PermanentError("a value in it would add an address; give values that name several an entry of their own")
    return entries


def read_address(text: str) -> Address:
    """Read an address, with its name where it has one; the domain is given in ASCII. Raises ValueError for what is none."""
    person = _PERSON.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    local, at, domain = ((person["boxed"] or person["bare"] or "") if person else "").strip().rpartition("@")
    with suppress(UnicodeError):  # idna's errors are of this class
        domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    if not person or not at or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise ValueError(NO_ADDRESS)
    name = person["name"] or re.sub(r"\\(.)", r"\1", person["quoted"] or "")
    return Address(line(name), local, domain)
