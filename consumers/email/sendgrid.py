"""SendGrid: its request, and what its answers mean."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from email.headerregistry import Address
from typing import Any, Final

import msgspec

from consumers.email.addresses import Envelope, Failure
from consumers.email.mail import Mail
from consumers.email.options import EmailConfig
from pipeline import HttpRequest, PermanentError, TemporaryError

_TAKES: Final = 30 * 10**6
"""Bytes of a request."""


def write_request(config: EmailConfig, mail: Mail, envelope: Envelope, receivers: Mapping[str, Address]) -> HttpRequest:
    """Give the request that hands over a mail to those of the envelope who are among the receivers."""
    assert config.token is not None, "this is for via: sendgrid"
    left = ([one for one in people if one.addr_spec in receivers] for people in (envelope.to, envelope.cc, envelope.bcc))
    people = [*left]
    body = mail.fitting(_TAKES, lambda mail: _to_json(mail, *people))
    headers = {"content-type": "application/json", "authorization": f"Bearer {config.token.get_secret_value()}"}
    return HttpRequest(f"{_base(config)}/v3/mail/send", body, headers=headers)


def write_question(config: EmailConfig) -> HttpRequest:
    """Give the request that asks what the token may do."""
    assert config.token is not None, "this is for via: sendgrid"
    headers = {"authorization": f"Bearer {config.token.get_secret_value()}"}
    return HttpRequest(f"{_base(config)}/v3/scopes", method="GET", headers=headers)


def judged(error: Failure, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Give what an error means here: SendGrid says when its limit ends, and answers 401 when credits are used up."""
    reset = headers.get("x-ratelimit-reset", "")
    if isinstance(error, TemporaryError) and status == 429 and error.retry_after is None and re.fullmatch(r"\d{1,12}", reset):
        error.retry_after = min(max(float(reset) - time.time(), 0.0), 3600.0)
    if isinstance(error, PermanentError) and status == 401 and b"credits exceeded" in body:
        return TemporaryError(str(error))
    return error


def _base(config: EmailConfig) -> str:
    return (config.base_url or "https://api.sendgrid.com").rstrip("/")


def _to_json(mail: Mail, to: Iterable[Address], cc: Iterable[Address], bcc: Iterable[Address]) -> bytes:
    """Write it down as SendGrid has it, whose mails go to somebody: who is not shown gets one of their own."""
    named = {"to": [*map(_named, to)], "cc": [*map(_named, cc)], "bcc": [*map(_named, bcc)]}
    alone = [{"to": [one]} for one in (*named["cc"], *named["bcc"])]
    body: dict[str, Any] = {
        "personalizations": [{name: people for name, people in named.items() if people}] if named["to"] else alone,
        "from": _named(mail.sender),
        "subject": mail.subject,
        "content": [{"type": "text/plain", "value": mail.text}],
        "headers": {**mail.threading(), **mail.headers},
        "tracking_settings": {"click_tracking": {"enable": False}, "open_tracking": {"enable": False}},
    }
    if mail.html is not None:
        body["content"].append({"type": "text/html", "value": mail.html})
    if mail.reply_to is not None:
        body["reply_to"] = _named(mail.reply_to)
    if mail.attachments:
        body["attachments"] = [
            {"content": b64encode(content).decode(), "filename": name, "type": kind, "disposition": "attachment"}
            for name, kind, content in mail.attachments
        ]
    return msgspec.json.encode(body)


def _named(address: Address) -> dict[str, str]:
    named = {"email": address.addr_spec, "name": address.display_name}
    return {name: value for name, value in named.items() if value}
