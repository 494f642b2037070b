"""The secrets of a plugin's options: finds them, and masks them wherever they would show."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import AfterValidator, BaseModel, SecretBytes, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from pipeline.networks import ANYWHERE, Networks

MASK: Final = "***"
SHORTEST: Final = 4
"""Characters: a shorter secret is masked only where it is the whole text, for it may be part of any word."""
_LONG: Final = 6
"""Characters of a secret that is looked for in Base64, too: what a shorter one leaves there is no longer than a word."""


NETWORKS: Final = "networks"
"""What a validation's context says of where a URL may lead."""
REFUSED: Final = "refused_address"
"""The kind of error of a URL that leads elsewhere. Its text names the host, which is no secret."""


def _of_http(url: SecretStr, info: ValidationInfo) -> SecretStr:
    if not url.get_secret_value().startswith(("http://", "https://")):
        raise ValueError("a URL that begins with http:// or https:// is expected")
    networks: Networks = (info.context or {}).get(NETWORKS, ANYWHERE)
    try:
        host = urlsplit(url.get_secret_value()).hostname or ""
    except ValueError:
        return url  # what cannot be read as a URL leads nowhere, and is refused when a request is made of it
    if refusal := networks.refusal_of_host(host):
        raise PydanticCustomError(REFUSED, "{refusal}", {"refusal": refusal})
    return url


SecretUrl = Annotated[SecretStr, AfterValidator(_of_http)]
"""A URL of HTTP that nobody may see, as who knows it may post to it: the type of a plugin's option. It may lead to no private
network but those that the process's settings allow."""


def secrets_in(value: Any) -> Iterator[str]:
    """Give all secrets in a plugin's options, however deep they stand."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode(errors="replace")
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from secrets_in(inner)
    elif isinstance(value, Mapping):
        yield from secrets_in(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from secrets_in(inner)


def forms_of(secret: str) -> Iterator[str]:
    """Give a secret as it is written: itself, as in URLs and forms, and what it makes of the Base64 of a text that it is in."""
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    if len(secret) < _LONG:
        return
    for before in range(3):  # the same bytes give other characters, by what stands before them: `user:` in a login, say
        whole = b64encode(b"\0" * before + secret.encode(errors="replace")).decode().rstrip("=")
        yield whole[(0, 2, 3)[before] : -1]  # the last one is of what stands behind them too


def parts_of(secret: str) -> Iterator[str]:
    """Give what of a secret URL of HTTP is as secret as all of it: the path, as servers repeat it in an answer."""
    if not secret.startswith(("http://", "https://")):
        return
    try:
        parts = urlsplit(secret)
    except ValueError:
        return
    yield from (text for text in (parts.path, f"{parts.path}?{parts.query}") if len(text) > _LONG)


def masker(secrets: Iterable[str]) -> Callable[[str], str]:
    """Give a function that masks these secrets wherever they stand in a text, in any of their forms."""
    known = {form for secret in secrets for part in (secret, *parts_of(secret)) if part for form in forms_of(part)}
    anywhere = [re.escape(secret) for secret in sorted(known, key=len, reverse=True) if len(secret) >= SHORTEST]
    pattern = re.compile("|".join(anywhere)) if anywhere else None

    def mask(text: str) -> str:
        if text in known:
            return MASK
        return pattern.sub(MASK, text) if pattern else text

    return mask
