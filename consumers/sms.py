r"""Sends messages as SMS, through Twilio, Vonage or Clickatell.

```yaml
name: night
producers:
  - prometheus
consumers:
  - sms:
      via: twilio
      account: "${TWILIO_ACCOUNT_SID:-unset}"
      token: "${TWILIO_AUTH_TOKEN:-unset}"
      from: "+15005550006"
      to: ["+4915112345678", "{{ labels.phone | default('') }}"]
    when: severity == "critical"
    rate: 30/m
```

| `via` | `account` | `token` | `from` |
|---|---|---|---|
| `twilio` | Account SID | Auth Token | a number, a name or a Messaging Service (`MG…`) |
| `vonage` | API key | API secret | a number or a name |
| `clickatell` | | API key of a One API integration | a number, for a two-way integration |

`to` holds numbers with `+` and country, in quotes: `"+49 151 1234-5678"`. Each entry is a template, which may give no number,
or several with commas between them.

Each receiver gets an SMS of its own and has a result of its own. As long as one of them may yet be reached, the message is
tried again for those who do not have it; who has it is kept in Siftbell's memory for a week, so that nobody gets it twice. When
only refusals are left, the message goes to the dead letters, which tell who was refused and why.

An SMS holds 160 characters of the GSM alphabet, in which `^ { } [ ] ~ \ | €` count twice, or 70 where any other is among them. A
longer text goes in parts of 153 or 67 that a phone shows as one, and is cut, with dots, after `max_parts`. Typographic quotes,
dashes and spaces are written plainly, as a single one would make the text cost twice as much.

What may pass is tried again: no answer, 429, 5xx, and what a service calls throttled, a full queue, an internal error or a lack
of credit (Twilio 14107, 20429, 21611, 30001, 63017, 63038; Vonage 1, 5, 9, 10; Clickatell 18, 19, 20, 43). All else is a
refusal, such as a number that is none (Twilio 21211, 21614) or has unsubscribed (21610). An SMS that got no answer is sent
again, though it may have gone out: no service tells. The log has a line for each SMS with its id and, where it is told at
once, its price.

That a service has an SMS does not say that a phone gets it. With `callback`, Twilio and Vonage (set to POST-JSON) post what
becomes of it: `callback: "https://twilio:${INTAKE_KEY}@bell.example.com/in/sms-lost/http"` leads Twilio to this pipeline, by
a key of `siftbell keys create`.

```yaml
name: sms-lost
producers:
  - http: {fields: {title: MessageStatus, key: MessageSid}}
filters:
  - match: data.MessageStatus in ["undelivered", "failed"]
  - render: "to {{ data.To }}, error {{ data.ErrorCode | default('unknown') }}"
consumers:
  - log
```

Protocols: https://www.twilio.com/docs/messaging/api/message-resource, https://www.twilio.com/docs/api/errors,
https://developer.vonage.com/en/api/sms, https://developer.vonage.com/en/api-errors/sms,
https://docs.clickatell.com/channels/one-api/one-api-errors-table/; 3GPP TS 23.038 (alphabets) and 23.040 (parts).
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import structlog
from pydantic import BeforeValidator, Field, SecretStr, model_validator

from pipeline import (
    Config,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    SecretUrl,
    Template,
    TemporaryError,
    headline,
    shorten,
)

A = TypeVar("A")

log = structlog.get_logger()

_REMEMBERED: Final = timedelta(days=7)
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_NO_NUMBER: Final = 'a number is written with + and its country, in quotes: "+49 151 12345678"'

_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡"
    "ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE: Final = frozenset("\f^{}\\[~]|€")
_PLAIN: Final = str.maketrans(
    dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"')
    | dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
    | dict.fromkeys("\t\u00a0\u2007\u2009\u200a\u202f", " ")
    | dict.fromkeys(map(chr, [*range(9), 11, *range(14, 32), 127, 0x200B, 0xFEFF]), "")
    | {"\u2026": "...", "\u2022": "*", "\u2028": "\n"}
)


def _known(number: object) -> object:
    """Refuse what is no number before anything starts, where that can be told: a template may give one."""
    text = number.text if isinstance(number, Template) else str(number)
    if not isinstance(number, str | Template) or ("{" not in text and not all(map(_NUMBER.fullmatch, _split(text)))):
        raise ValueError(_NO_NUMBER)
    return number


def _split(text: str) -> list[str]:
    """Give the numbers in a text, without what people write between digits."""
    return [number for part in re.split(r"[,;\n]", text) if (number := re.sub(r"[\s()./-]", "", part))]


class SmsConfig(Config):
    """The options of `sms`."""

    via: Literal["twilio", "vonage", "clickatell"] = Field(description="The service.")
    account: str = Field(default="", description="Twilio's Account SID, or Vonage's API key.")
    token: SecretStr = Field(min_length=1, description="Twilio's Auth Token, Vonage's API secret, or Clickatell's API key.")
    key_sid: str = Field(default="", description="With Twilio: the SID of an API key (`SK…`), whose secret `token` is then.")
    from_: str = Field(
        default="", alias="from", description="The sender: a number, or a name where the receiver's country allows it."
    )
    to: tuple[Annotated[Template, BeforeValidator(_known)], ...] = Field(description="Who gets it.")
    text: Template | None = Field(default=None, description="What is sent; else the message's title and text.")
    max_parts: int = Field(default=3, ge=1, le=10, description="What is longer than so many parts is cut. Each is paid for.")
    callback: SecretUrl | None = Field(
        default=None, description="With Twilio and Vonage: where they post what becomes of an SMS."
    )
    base_url: str | None = Field(
        default=None, pattern="^https?://", description="Another address of the service, such as a region's."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.to:
            raise ValueError("`to` names nobody")
        missing = [name for name, value in (("account", self.account), ("from", self.from_)) if not value]
        if missing and self.via != "clickatell":
            raise ValueError(f"{self.via} needs {' and '.join(missing)}")
        if self.key_sid and self.via != "twilio":
            raise ValueError("key_sid is for twilio")
        if self.callback is not None and self.via == "clickatell":
            raise ValueError("clickatell has its callback in the settings of the integration, not here")
        return self

    def url(self, usual: str, path: str) -> str:
        """Give the address of the service's `path`."""
        return f"{(self.base_url or usual).rstrip('/')}{path}"

    def sender(self, plus: str) -> str:
        """Give the sender: a number begins with `plus`, a name is as it is."""
        number = _split(self.from_)
        return f"{plus}{number[0][1:]}" if number and _NUMBER.fullmatch(number[0]) else self.from_


class _Sent(NamedTuple):
    """What a service answered of an SMS: its id and its price, or the code of an error and its text."""

    id: str = ""
    price: str = ""
    code: str = ""
    text: str = ""


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

    @classmethod
    def sent(cls, body: bytes) -> _Sent | None:
        answer = _read(body, cls.Answer) or cls.Answer()
        code, text = answer.code or answer.error_code, answer.message or answer.error_message or ""
        if code:
            return _Sent(code=str(code), text=text)
        price = f"{answer.price} {answer.price_unit or ''}".strip() if answer.price else ""
        return _Sent(answer.sid, price) if answer.sid else None


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
        form = {"to": number[1:], "from": config.sender(""), "text": text, "type": "text" if _is_gsm(text) else "unicode"}
        if config.callback is not None:
            form |= {"callback": config.callback.get_secret_value(), "status-report-req": "true"}
        return _form(config.url("https://rest.nexmo.com", "/sms/json"), form, config.account, config.token)

    @classmethod
    def sent(cls, body: bytes) -> _Sent | None:
        answer = _read(body, cls.Answer)
        if answer is None or not answer.messages:
            return None
        part = next((part for part in answer.messages if part.status != "0"), answer.messages[0])
        price = ", ".join(f"{part.price} EUR" for part in answer.messages if part.price)
        return _Sent(part.id, price, "" if part.status == "0" else part.status, part.error)


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

    @classmethod
    def sent(cls, body: bytes) -> _Sent | None:
        answer = _read(body, cls.Answer) or cls.Answer()
        sms = answer.messages[0] if answer.messages else None
        if error := answer.error or (sms and sms.error):
            return (
                _Sent(code="unknown", text=error)
                if isinstance(error, str)
                else _Sent(code=str(error.code), text=error.description)
            )
        return _Sent(sms.api_message_id or "") if sms and sms.accepted else None


_Service = type[_Twilio] | type[_Vonage] | type[_Clickatell]
_SERVICES: Final[dict[str, _Service]] = {"twilio": _Twilio, "vonage": _Vonage, "clickatell": _Clickatell}
"""Each makes the `request` that sends a text to a number, and reads out of an answer what was `sent`, None where it does not
say. `temporary` are its codes for what may pass."""


class Sms(HttpConsumer[SmsConfig]):
    """Sends messages as SMS, through Twilio, Vonage or Clickatell."""

    total_timeout: ClassVar[float] = 20.0

    def request(self, message: Message) -> HttpRequest:
        """Give the request to the first receiver: each has one of its own. Raises `PermanentError` where there is none."""
        numbers, wrong = self._numbers(message)
        if not numbers:
            raise next(iter(wrong.values()))
        return self._service.request(self.config, numbers[0], self._text(message))

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge by the status, and by the service's own code in the body."""
        sent = self._service.sent(body)
        may_pass = sent is not None and sent.code in self._service.temporary
        try:
            super().check(status, headers, body)
        except PermanentError as error:
            if may_pass:
                raise TemporaryError(str(error)) from None
            raise
        if sent is None:
            raise TemporaryError(f"answered {status} and says nothing of the SMS")
        if sent.code:
            raise (TemporaryError if may_pass else PermanentError)(f"answered {status} with error {sent.code}: {sent.text}")

    async def consume(self, message: Message) -> None:
        """Send it to all who do not have it yet, at once; raises what became of those who could not be reached."""
        (numbers, wrong), text = self._numbers(message), self._text(message)
        alone = len(numbers) + len(wrong) == 1
        errors = await asyncio.gather(*(self._send_to(number, text, message, alone=alone) for number in numbers))
        failed = {number: error for number, error in zip(numbers, errors, strict=True) if error is not None}
        if failed or wrong:
            raise _together(failed | wrong, len(numbers) + len(wrong))

    def preview(self, message: Message) -> object:
        """Give the receivers, the text and the number of its parts."""
        text = self._text(message)
        numbers, wrong = self._numbers(message)
        return {"to": [*numbers, *wrong], "text": text, "parts": count_parts(text)}

    @property
    def _service(self) -> _Service:
        return _SERVICES[self.config.via]

    def _numbers(self, message: Message) -> tuple[list[str], dict[str, PermanentError]]:
        """Give all numbers, once each, and what is written in place of one with what is wrong with it."""
        numbers: dict[str, None] = {}
        wrong: dict[str, PermanentError] = {}
        for template in self.config.to:
            try:
                found = _split(template.render(message))
            except PermanentError as error:
                wrong[template.text] = error
                continue
            numbers |= dict.fromkeys(filter(_NUMBER.fullmatch, found))
            wrong |= {number: PermanentError(_NO_NUMBER) for number in found if not _NUMBER.fullmatch(number)}
        if not numbers and not wrong:
            raise PermanentError("`to` names nobody for this message")
        return [*numbers], wrong

    def _text(self, message: Message) -> str:
        title = headline(message)
        rest = message.text if message.title.strip() else message.text.strip().partition("\n")[2]
        text = self.config.text.render(message) if self.config.text is not None else f"{title}\n{rest}"
        return fit(_plain(text) or _plain(title), self.config.max_parts)

    async def _send_to(self, number: str, text: str, message: Message, *, alone: bool) -> TemporaryError | PermanentError | None:
        memory, key = None if alone else self.memory, f"{message.id} {number}"
        try:
            if memory is not None and await asyncio.to_thread(memory.recall, key) is not None:
                return None
            sent = self._service.sent(await self.send(self._service.request(self.config, number, text))) or _Sent()
        except (TemporaryError, PermanentError) as error:
            return error
        log.info("an SMS is on its way", to=number, parts=count_parts(text), id=sent.id, price=sent.price)
        if memory is not None:
            try:
                await asyncio.to_thread(memory.remember, key, sent.id or "sent", _REMEMBERED)
            except TemporaryError as away:
                log.warning("who has an SMS could not be remembered, and may get a second one", to=number, error=str(away))
        return None


def _together(failed: Mapping[str, TemporaryError | PermanentError], receivers: int) -> TemporaryError | PermanentError:
    """Make one error of those of several receivers: temporary as long as one of them is."""
    if receivers == 1:
        return next(iter(failed.values()))
    told = "; ".join(f"{number}: {error}" for number, error in failed.items())
    text = shorten(f"{receivers - len(failed)} of {receivers} receivers have it; {told}", 2000)
    temporary = [error for error in failed.values() if isinstance(error, TemporaryError)]
    if not temporary:
        return PermanentError(text)
    return TemporaryError(
        text, retry_after=max((error.retry_after for error in temporary if error.retry_after is not None), default=None)
    )


def _form(url: str, form: Mapping[str, str], user: str, token: SecretStr) -> HttpRequest:
    basic = b64encode(f"{user}:{token.get_secret_value()}".encode()).decode()
    headers = {"content-type": "application/x-www-form-urlencoded", "authorization": f"Basic {basic}"}
    return HttpRequest(url, urlencode(form).encode(), headers=headers)


def _read(body: bytes, kind: type[A]) -> A | None:
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except (msgspec.DecodeError, RecursionError):
        return None


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").translate(_PLAIN).strip()


def _is_gsm(text: str) -> bool:
    return _GSM.union(_GSM_TWICE).issuperset(text)


def count_parts(text: str) -> int:
    """Give how many SMS a text takes: in the GSM alphabet where that does, else in UCS-2. No character stands in two of them."""
    one, each, twice = (160, 153, _GSM_TWICE.__contains__) if _is_gsm(text) else (70, 67, "\uffff".__lt__)
    sizes = [2 if twice(character) else 1 for character in text]
    if sum(sizes) <= one:
        return 1
    parts, room = 1, each
    for size in sizes:
        if size > room:
            parts, room = parts + 1, each
        room -= size
    return parts


def fit(text: str, most: int) -> str:
    """Give the text where it takes at most `most` parts, else as much of its beginning as does with dots of its alphabet."""
    if count_parts(text) <= most:
        return text
    ends = range(min(len(text), most * 160))
    end = bisect_right(ends, most, key=lambda end: count_parts(_dotted(text[:end]))) - 1
    return _dotted(text[:end])


def _dotted(text: str) -> str:
    return text.rstrip() + ("..." if _is_gsm(text) else "…")
