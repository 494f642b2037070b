"""What Twilio and Vonage say later of an SMS, and how it is proved that they say it."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from consumers.sms.options import SmsConfig
from pipeline import Request, RequestError, Told

SHORTEST: Final = 16
"""Characters of the query of a `callback` that is the only proof."""
_ARRIVED: Final = {
    **dict.fromkeys(("delivered", "read"), True),
    **dict.fromkeys(("undelivered", "failed", "canceled", "expired", "rejected", "deleted"), False),
}


def told(config: SmsConfig, request: Request) -> Told:
    """Read one call of the service. Raises `RequestError` where it is not the service's, or cannot be read."""
    if config.callback is None or config.via == "clickatell":
        raise RequestError("no `callback` is configured here", status=404)
    url = config.callback.get_secret_value()
    if config.via == "twilio":
        form = request.form()
        _prove(_signed_by_twilio(config, url, form, request.headers.get("x-twilio-signature", "")))
        return _told(form, reference="MessageSid", status="MessageStatus", number="To", error="ErrorCode")
    query = parse_qsl(urlsplit(url).query)
    proved = sum(len(value) for _, value in query) >= SHORTEST
    _prove(proved and all(hmac.compare_digest(request.query.get(name, "").encode(), value.encode()) for name, value in query))
    body = request.json() if request.content_type == "application/json" else request.form()
    if not isinstance(body, dict):
        raise RequestError("an object is expected", status=422)
    return _told(body, reference="messageId", status="status", number="msisdn", error="err-code")


def _signed_by_twilio(config: SmsConfig, url: str, form: Mapping[str, str], signature: str) -> bool:
    """Compare the signature: of the URL as it was given, with or without its login, then each field by name with its value."""
    secret = config.auth_token or (None if config.key_sid else config.token)
    if secret is None:
        return False
    parts = urlsplit(url)
    fields = "".join(name + form[name] for name in sorted(form))
    wanted = [
        b64encode(hmac.new(secret.get_secret_value().encode(), (given + fields).encode(), hashlib.sha1).digest())
        for given in {url, parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}
    ]
    return any(hmac.compare_digest(one, signature.encode()) for one in wanted)


def _prove(proved: bool) -> None:
    if not proved:
        raise RequestError("this was not sent by the service: see `callback` in the manual of sms", status=403)


def _told(body: Mapping[str, object], *, reference: str, status: str, number: str, error: str) -> Told:
    found = {name: str(body.get(name) or "") for name in (reference, status, number, error, "price")}
    if not found[reference] or not found[status]:
        raise RequestError(f"{reference} and {status} are expected", status=422)
    code = f", error {found[error]}" if found[error] not in ("", "0") else ""
    price = f", {found['price']} EUR" if found["price"] else ""
    return Told(found[reference], f"{found[status]}{code}{price}", _ARRIVED.get(found[status].lower()))
