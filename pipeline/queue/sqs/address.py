"""Reads `sqs://` URLs, and maps the names of queues to those that SQS allows."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEME: Final = "siftbell-sqs"
"""The scheme of this transport's URLs inside Celery; `sqs` is kombu's own transport."""

OURS: Final = "aws"
"""Stands for the host in a URL without one, where botocore finds the endpoint."""

WAIT: Final = 5
VISIBILITY: Final = 30
LONGEST_NAME: Final = 80
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_OPTIONS: Final = ("region", "tls", "wait", "visibility")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a transport is told. What is not told, botocore finds as any AWS client does (environment, files, roles).

    A claim lasts for `visibility` seconds after the last heartbeat, which comes every quarter of it. A worker asks for
    messages with requests of at most `wait` seconds: the longer, the fewer requests of an idle worker, and the longer
    its end, which waits for the last ones.
    """

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    region: str | None = None
    wait: int = WAIT
    visibility: int = VISIBILITY
    prefix: str = "siftbell-"


def read_settings(url: str) -> Settings:
    """Read `sqs://[KEY:SECRET@][HOST[:PORT]][?region=…&tls=true&wait=…&visibility=…]`; raises ValueError for what is wrong."""
    parts = urlsplit(url)
    told = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    unknown = sorted(set(told) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"sqs: no option is called '{unknown[0]}'; there are {', '.join(_OPTIONS)}")
    endpoint = None
    if parts.hostname and parts.hostname != OURS:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        endpoint = f"{'https' if told.get('tls') == 'true' else 'http'}://{host}" + (f":{parts.port}" if parts.port else "")
    return Settings(
        key=unquote(parts.username or "") or None,
        secret=unquote(parts.password or "") or None,
        endpoint=endpoint,
        region=told.get("region"),
        wait=_seconds(told, "wait", WAIT, 1, 20),
        visibility=_seconds(told, "visibility", VISIBILITY, 4, 3600),
    )


def _seconds(told: dict[str, str], name: str, usual: int, least: int, most: int) -> int:
    text = told.get(name, str(usual))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"sqs: '{name}' is a number of seconds from {least} to {most}")
    return int(text)


def shown_url(settings: Settings) -> str:
    """Give the URL that Celery is told and may show: without the credentials."""
    place = urlsplit(settings.endpoint).netloc if settings.endpoint else OURS
    return f"{SCHEME}://{place}"


def sqs_name(prefix: str, queue: str) -> str:
    """Give the name on SQS, which takes letters, digits, '-' and '_'; two queues never have the same one.

    '_' becomes '__' and '.' becomes '_-', so `out.telegram` is `siftbell-out_-telegram`. What is then longer than SQS takes
    is cut, and ends in '_h' and a hash of the whole.
    """
    if not _NAME.fullmatch(queue):
        raise ValueError(f"'{queue}' cannot be a queue on SQS: letters, digits, '.', '-' and '_' can stand in its name")
    name = prefix + queue.replace("_", "__").replace(".", "_-")
    if len(name) <= LONGEST_NAME:
        return name
    tail = f"_h{hashlib.sha256(queue.encode()).hexdigest()[:20]}"
    return name[: LONGEST_NAME - len(tail)].rstrip("_") + tail
