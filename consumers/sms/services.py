"""Twilio, Vonage and Clickatell: how each is told of an SMS, and what its answer says."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from pydantic import SecretStr

from consumers.sms.options import SmsConfig
from pipeline import HttpRequest, is_gsm

A = TypeVar("A")


class Sent(NamedTuple):
    """What a service answered of an SMS: its id and its price, or the code of an error and its text."""

    id: str = ""
    price: str = ""
    code: str = ""
    text: str = ""
    ids: tuple[str, ...] = ()
    """Of several parts, each one's."""


class _Twilio:
    temporary: ClassVar = frozenset({"14107", "20429", "21611", "30001", "63017", "63038"})

    class Answer(msgspec.Struct):
        sid: str | None = None
        price: str | None = None
        price_unit: str | None = None
        code: int | None = None
        message: str | None = None
        error_code: int | None = None
        error_message: str | None = None

    @staticmethod
    def request(config: SmsConfig, number: str, text: str) -> HttpRequest:
        service = re.fullmatch("MG[0-9a-fA-F]{32}", config.from_)
        form = {"To": number, "MessagingServiceSid" if service else "From": config.sender("+"), "Body": text}
        if config.callback is not None:
            form["StatusCallback"] = config.callback.get_secret_value()
        url = config.url("https://api.twilio.com", f"/2010-04-01/Accounts/{quote(config.account, safe='')}/Messages.json")
        return _form(url, form, config.key_sid or config.account, config.token)

    @staticmethod
    def question(config: SmsConfig) -> HttpRequest:
        url = config.url(
            "https://api.twilio.com", f"/2010-04-01/Accounts/{quote(config.account, safe='')}/Messages.json?PageSize=1"
        )
        return _asked(url, config.key_sid or config.account, config.token)

    @staticmethod
    def told(_answer: dict[str, Any]) -> str:
        return "Twilio knows the account"

    @classmethod
    def sent(cls, body: bytes) -> Sent | None:
        answer = _read(body, cls.Answer) or cls.Answer()
        code, text = answer.code or answer.error_code, answer.message or answer.error_message or ""
        if code:
            return Sent(code=str(code), text=text)
        price = f"{answer.price} {answer.price_unit or ''}".strip() if answer.price else ""
        return Sent(answer.sid, price) if answer.sid else None


class _Vonage:
    temporary: ClassVar = frozenset({"1", "5", "9", "10"})

    class Part(msgspec.Struct, rename={"id": "message-id", "price": "message-price", "error": "error-text"}):
        status: str
        id: str = ""
        price: str = ""
        error: str = ""

    class Answer(msgspec.Struct):
        messages: list[_Vonage.Part]

    @staticmethod
    def request(config: SmsConfig, number: str, text: str) -> HttpRequest:
        form = {"to": number[1:], "from": config.sender(""), "text": text, "type": "text" if is_gsm(text) else "unicode"}
        if config.callback is not None:
            form |= {"callback": config.callback.get_secret_value(), "status-report-req": "true"}
        return _form(config.url("https://rest.nexmo.com", "/sms/json"), form, config.account, config.token)

    @staticmethod
    def question(config: SmsConfig) -> HttpRequest:
        return _asked(config.url("https://rest.nexmo.com", "/account/get-balance"), config.account, config.token)

    @staticmethod
    def told(answer: dict[str, Any]) -> str:
        return f"Vonage knows the account; its balance is {answer.get('value')} EUR"

    @classmethod
    def sent(cls, body: bytes) -> Sent | None:
        answer = _read(body, cls.Answer)
        if answer is None or not answer.messages:
            return None
        part = next((part for part in answer.messages if part.status != "0"), answer.messages[0])
        price = ", ".join(f"{part.price} EUR" for part in answer.messages if part.price)
        ids = tuple(part.id for part in answer.messages)
        return Sent(part.id, price, "" if part.status == "0" else part.status, part.error, ids)


class _Clickatell:
    temporary: ClassVar = frozenset({"18", "19", "20", "43"})

    class Error(msgspec.Struct):
        code: int
        description: str = ""

    class Sms(msgspec.Struct, rename="camel"):
        accepted: bool
        api_message_id: str | None = None
        error: _Clickatell.Error | str | None = None

    class Answer(msgspec.Struct):
        messages: list[_Clickatell.Sms] = []
        error: _Clickatell.Error | str | None = None

    @staticmethod
    def request(config: SmsConfig, number: str, text: str) -> HttpRequest:
        sms = {"channel": "sms", "to": number[1:], "content": text} | ({"from": config.sender("")} if config.from_ else {})
        headers = {"content-type": "application/json", "authorization": config.token.get_secret_value()}
        url = config.url("https://platform.clickatell.com", "/v1/message")
        return HttpRequest(url, msgspec.json.encode({"messages": [sms]}), headers=headers)

    @staticmethod
    def question(config: SmsConfig) -> HttpRequest:
        url = config.url("https://platform.clickatell.com", "/public-client/balance")
        return HttpRequest(url, method="GET", headers={"authorization": config.token.get_secret_value()})

    @staticmethod
    def told(answer: dict[str, Any]) -> str:
        return f"Clickatell knows the key; its balance is {answer.get('balance')} {answer.get('currency', '')}".rstrip()

    @classmethod
    def sent(cls, body: bytes) -> Sent | None:
        answer = _read(body, cls.Answer) or cls.Answer()
        sms = answer.messages[0] if answer.messages else None
        if error := answer.error or (sms and sms.error):
            return (
                Sent(code="unknown", text=error) if isinstance(error, str) else Sent(code=str(error.code), text=error.description)
            )
        return Sent(sms.api_message_id or "") if sms and sms.accepted else None


Service = type[_Twilio] | type[_Vonage] | type[_Clickatell]
SERVICES: Final[dict[str, Service]] = {"twilio": _Twilio, "vonage": _Vonage, "clickatell": _Clickatell}
"""Each makes the `request` that sends a text to a number, and reads out of an answer what was `sent`, None where it does not
say. `temporary` are its codes for what may pass. `question` changes nothing; `told` says in a line what its answer means."""


def _form(url: str, form: Mapping[str, str], user: str, token: SecretStr) -> HttpRequest:
    headers = {"content-type": "application/x-www-form-urlencoded", **_basic(user, token)}
    return HttpRequest(url, urlencode(form).encode(), headers=headers)


def _asked(url: str, user: str, token: SecretStr) -> HttpRequest:
    return HttpRequest(url, method="GET", headers=_basic(user, token))


def _basic(user: str, token: SecretStr) -> dict[str, str]:
    basic = b64encode(f"{user}:{token.get_secret_value()}".encode()).decode()
    return {"authorization": f"Basic {basic}"}


def _read(body: bytes, kind: type[A]) -> A | None:
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, RecursionError):
        return None
