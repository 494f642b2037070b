"""What the services say later of an SMS, and how it is proved that they say it."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from consumers.sms.options import SmsConfig
from pipeline import Request, RequestError, Told

_ARRIVED: Final = {
    **dict.fromkeys(("delivered", "read"), True),
    **dict.fromkeys(("undelivered", "failed", "canceled", "expired", "rejected", "deleted"), False),
}
_THERE: Final = (5, 6)
"""Clickatell's codes of an SMS that its phone has acknowledged, and of what was read."""
_EMULATED: Final = 24
_GAVE_UP: Final = 20
"""Clickatell's codes from here on say that an SMS does not arrive, save that of one that was never to go out."""


def told(config: SmsConfig, request: Request) -> list[Told]:
    """Read a call of the service. Raises `RequestError` where it is not the service's, or cannot be read."""
    if config.callback is None:
        raise RequestError("no `callback` is configured here", status=404)
    url = config.callback.get_secret_value()
    if config.via == "twilio":
        form = request.form()
        _prove(_signed_by_twilio(config, url, form, request.headers.get("x-twilio-signature", "")))
        return [_told(form, reference="MessageSid", status="MessageStatus", error="ErrorCode")]
    query = parse_qsl(urlsplit(url).query)
    _prove(
        config.provable
        and all(hmac.compare_digest(request.query.get(name, "").encode(), value.encode()) for name, value in query)
    )
    body = request.json() if request.content_type == "application/json" else request.form()
    if not isinstance(body, dict):
        raise RequestError("an object is expected", status=422)
    if config.via == "clickatell":
        return list(_told_by_clickatell(body))
    return [_told(body, reference="messageId", status="status", error="err-code")]


def _told_by_clickatell(body: Mapping[str, object]) -> Iterator[Told]:
    """Read the updates of a call of One API, of one channel or several."""
    event = body.get("event")
    updates = event.get("messageStatusUpdate") if isinstance(event, dict) else None
    if not isinstance(updates, list):
        raise RequestError("event.messageStatusUpdate: a list is expected", status=422)
    for index, update in enumerate(updates):
        found = update if isinstance(update, dict) else {}
        reference, status, code = found.get("messageId"), found.get("status"), found.get("statusCode")
        if not isinstance(reference, str) or not isinstance(status, str) or not reference or not isinstance(code, int):
            where = f"event.messageStatusUpdate[{index}]"
            raise RequestError(f"{where}: messageId, statusCode and status are expected", status=422)
        gave_up = code >= _GAVE_UP and code != _EMULATED
        text = f"{status.lower()}, error {code}" if gave_up else status.lower()
        yield Told(reference, text, False if gave_up else code in _THERE or None)


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


def _told(body: Mapping[str, object], *, reference: str, status: str, error: str) -> Told:
    found = {name: str(body.get(name) or "") for name in (reference, status, error, "price")}
    if not found[reference] or not found[status]:
        raise RequestError(f"{reference} and {status} are expected", status=422)
    code = f", error {found[error]}" if found[error] not in ("", "0") else ""
    price = f", {found['price']} EUR" if found["price"] else ""
    return Told(found[reference], f"{found[status]}{code}{price}", _ARRIVED.get(found[status].lower()))
