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

That a service has an SMS does not say that a phone gets it. With `callback`, the service posts what
becomes of it, and `siftbell explain ID` tells it beside id and price, for each receiver; what did not arrive is a warning in
the log, and counted by `siftbell_results_total`. Where this pipeline is reached at `https://bell.example.com`:

- Twilio: `callback: "https://bell.example.com/callback/night/sms"`. It signs what it posts by the Auth Token; where `token` is an
  API key's secret, `auth_token` is that.
- Vonage, set to POST-JSON: `callback: "https://bell.example.com/callback/night/sms?key=${SMS_CALLBACK_KEY}"`, with 16 random
  characters or more: who knows them is believed.
- Clickatell: the same, and the whole URL as the integration's status notification, in its console.

Vonage tells the price then; Twilio and Clickatell tell none.

To get a message of an SMS that did not arrive, lead it to another pipeline:
`callback: "https://twilio:${INTAKE_KEY}@bell.example.com/in/sms-lost/http"`, by a key of `siftbell keys create`.

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
https://www.twilio.com/docs/usage/security (signatures),
https://developer.vonage.com/en/api/sms, https://developer.vonage.com/en/api-errors/sms,
https://docs.clickatell.com/channels/one-api/ (errors, message status, callbacks); 3GPP TS 23.038 (alphabets) and 23.040 (parts).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import ClassVar

import structlog

from consumers.sms.callbacks import told
from consumers.sms.options import SmsConfig, split_numbers
from consumers.sms.services import SERVICES, Sent, Service
from pipeline import (
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    Receivers,
    Request,
    TemporaryError,
    Told,
    fit_sms,
    headline,
    json_object,
    phone_number,
    plain_sms,
    sms_parts,
)

log = structlog.get_logger()


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
        receivers = await Receivers.of(message, numbers, refused=wrong, memory=self.memory)
        await asyncio.gather(*(self._send_to(number, text, receivers) for number in receivers.rest))
        receivers.settle()

    async def probe(self) -> str:
        """Ask for the account's balance; Twilio for the last SMS, as not every key may ask for more."""
        answer = await self.ask(self._service.question(self.config))
        return self._service.told(json_object(answer))

    def preview(self, message: Message) -> object:
        """Give the receivers, the text and the number of its parts."""
        text = self._text(message)
        numbers, wrong = self._numbers(message)
        return {"to": [*numbers, *wrong], "text": text, "parts": sms_parts(text)}

    def called_back(self, request: Request) -> Iterable[Told]:
        """Give what the service says of an SMS, or of several."""
        return told(self.config, request)

    @property
    def _service(self) -> Service:
        return SERVICES[self.config.via]

    def _numbers(self, message: Message) -> tuple[list[str], dict[str, PermanentError]]:
        """Give all numbers, once each, and what is written in place of one with what is wrong with it."""
        numbers: dict[str, None] = {}
        wrong: dict[str, PermanentError] = {}
        for template in self.config.to:
            try:
                found = split_numbers(template.render(message))
            except PermanentError as error:
                wrong[template.text] = error
                continue
            for written in found:
                try:
                    numbers[phone_number(written)] = None
                except ValueError as error:
                    wrong[written] = PermanentError(str(error))
        if not numbers and not wrong:
            raise PermanentError("`to` names nobody for this message")
        return [*numbers], wrong

    def _text(self, message: Message) -> str:
        title = headline(message)
        rest = message.text if message.title.strip() else message.text.strip().partition("\n")[2]
        text = self.config.text.render(message) if self.config.text is not None else f"{title}\n{rest}"
        return fit_sms(plain_sms(text) or plain_sms(title), self.config.max_parts)

    async def _send_to(self, number: str, text: str, receivers: Receivers) -> None:
        try:
            sent = self._service.sent(await self.send(self._service.request(self.config, number, text))) or Sent()
        except (TemporaryError, PermanentError) as error:
            receivers.missed(number, error)
            return
        parts = sms_parts(text)
        log.info("an SMS is on its way", to=number, parts=parts, id=sent.id, price=sent.price)
        await receivers.got(number)
        if self.results is not None:
            note = ", ".join(part for part in (f"to {number}", f"{parts} part{'s' if parts > 1 else ''}", sent.price) if part)
            for reference in sent.ids or (sent.id,):
                await asyncio.to_thread(self.results.note, receivers.message, reference, note)
