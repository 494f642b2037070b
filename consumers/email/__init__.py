r"""Sends messages as mail: through an SMTP server, SendGrid or Amazon SES.

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - email:
      host: smtp.example.com
      user: bell@example.com
      password: "${SMTP_PASSWORD:-unset}"
      from: Siftbell <bell@example.com>
      to: [oncall@example.com, "{{ labels.owner | default('') }}"]
    when: severity in ["critical", "error"]
    ordered: true
```

`security: starttls`, the default, uses port 587 and never goes on without TLS; `tls` begins with it, at port 465; `none` is for
a relay at hand, at port 25. A server whose certificate is of your own authority needs `ca_file`. `via: sendgrid` needs a `token`
with the permission *Mail Send*; `via: ses` takes credentials and region from where all of AWS does, needs
`pip install "siftbell[aws]"`, and gives each mail a Message-ID of its own.

`to`, `cc` and `bcc` hold addresses, with names or without. Each entry is a template, which may give none, or several with
commas between them, though a value amid other text names but one. A mail shows the message's title, text, labels, origin and
link, as text and as HTML; `text` and `html` are templates that write something else. Values in `html` are escaped; scripts,
forms, `<style>` and whatever else has no place in a mail are taken out; then `css` is written into its elements:

```yaml
name: nightly
producers:
  - http
consumers:
  - email:
      via: sendgrid
      token: "${SENDGRID_KEY:-SG.unset}"
      from: reports@example.com
      to: team@example.com
      subject: "Report of {{ time | localtime('Europe/Berlin') }}"
      html: '<h1>{{ title }}</h1><p class="lead">{{ text }}</p>'
      css: ".lead { color: #555 }"
      attachments:
        - {name: rows.csv, content: "{{ data.csv | default('') }}"}
        - {name: chart.png, content: "{{ data.chart | default('') }}", base64: true}
```

Files that a message bears itself go along: those of a `digest`, and what a sender of JSON put into `attachments`, as
`{"name": "rows.csv", "type": "text/csv", "base64": "…"}`. Where they cannot be read, the mail goes without them and says why.
`carried: false` leaves them out.

Later messages with the `key` of an earlier mail answer it, under its subject, so that mail programs show them as one thread;
what was resolved ends it. `threads: false` sends each by itself. A message has the same Message-ID in each attempt. All mails
bear `Auto-Submitted: auto-generated`, so that no holiday notice comes back, and critical ones `Importance: high`.

Each receiver has a result of its own. As long as one of them may yet be reached, the mail is tried again for those who do not
have it; who has it is kept in Siftbell's memory for a week, so that nobody gets it twice. When only refusals are left, the
message goes to the dead letters, which tell who was refused and why. SendGrid takes or refuses a mail for all at once.

Tried again is what a server answers with 4yz or an enhanced status 4.y.z, a 552 for too many receivers, 5.4.5 (a day's limit),
and no answer; other 5yz are refusals. Of SendGrid 429, after its `X-RateLimit-Reset`, 5xx and used up credits; of SES 429, 5xx,
sending that is paused and credentials that have expired. A mail that is too large (`SIZE`, 30 MB for SendGrid, 40 MB for SES)
goes without its attachments and says so; if that does not help, with the beginning of its text alone.

Protocols: RFC 5321 and 5322 (SMTP, mail), 3207 (STARTTLS), 8314 (TLS), 4954 and 4616 (login), 1870 (SIZE), 3463 (enhanced
status), 6531 (SMTPUTF8), 3834 (Auto-Submitted); https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send,
https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.headerregistry import Address
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from consumers.email.addresses import Envelope, Failure, render_entries
from consumers.email.mail import Mail
from consumers.email.options import EmailConfig
from consumers.email.sendgrid import judged, write_question, write_request
from consumers.email.smtp import PATIENCE, Server
from consumers.email.text import line
from consumers.email.writer import Writer
from pipeline import HttpConsumer, HttpRequest, Message, PermanentError, Receivers, TemporaryError, follow, json_object, shorten

if TYPE_CHECKING:
    from consumers.email.ses import Ses


class Email(HttpConsumer[EmailConfig]):
    """Sends messages as mail, through an SMTP server, SendGrid or Amazon SES."""

    total_timeout: ClassVar[float] = 20.0

    _server: Server | None = None
    _ses: Ses | None = None
    _threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Make ready what the service needs; no connection is made yet. Raises `ConfigError`."""
        if self.config.via == "smtp":
            self._server = Server(self.config)
        elif self.config.via == "ses":
            from consumers.email.ses import Ses  # noqa: PLC0415 - an extra of its own

            self._ses = Ses(self.config)
        self._threads = ThreadPoolExecutor(self.config.connections, thread_name_prefix="email")

    async def aclose(self) -> None:
        """Close the connections."""
        await super().aclose()
        if self._server is not None:
            await asyncio.to_thread(self._server.close)

    def close(self) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._server is not None:
            self._server.close()

    def request(self, message: Message) -> HttpRequest:
        """Give SendGrid's request. Raises `PermanentError` where no receiver has an address."""
        envelope = self._envelope(message)
        return write_request(self.config, self._writer.mail(message, ""), envelope, envelope.everybody())

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge SendGrid's answer."""
        try:
            super().check(status, headers, body)
        except (TemporaryError, PermanentError) as error:
            raise judged(error, status, headers, body) from None

    async def consume(self, message: Message) -> None:
        """Send it to all who do not have it yet; raises what became of those who could not be reached."""
        envelope = self._envelope(message)
        receivers = await Receivers.of(message, envelope.everybody(), refused=envelope.wrong, memory=self.memory)

        async def post(message: Message) -> str:
            await self._hand_out(message, envelope, receivers)
            return self._writer.place(message)

        async def answer(message: Message, first: str) -> None:
            receivers.note = first
            await self._hand_out(message, envelope, receivers)

        if receivers.have:
            await self._hand_out(message, envelope, receivers)
        else:
            await follow(message, self.memory if self.config.threads else None, post, answer)
        receivers.settle()

    async def probe(self) -> str:
        """Log in and take leave; ask SendGrid what the token may do, and SES for the account."""
        if self.config.via == "sendgrid":
            scopes = json_object(await self.send(write_question(self.config))).get("scopes")
            if not isinstance(scopes, list) or "mail.send" not in scopes:
                raise PermanentError("SendGrid knows the token, which lacks the permission Mail Send")
            return "SendGrid knows the token, which may send mails"
        assert self._threads is not None, "open() was not called"
        asked = self._ses.probe if self._ses is not None else self._server.probe if self._server is not None else None
        assert asked is not None, "open() was not called"
        return await asyncio.get_running_loop().run_in_executor(self._threads, asked)

    def preview(self, message: Message) -> object:
        """Give the mail, and who would get it."""
        envelope, mail = self._envelope(message), self._writer.mail(message, "")
        people = {name: [str(address) for address in getattr(envelope, name)] for name in ("to", "cc", "bcc")}
        shown = {"from": str(mail.sender), **people, "subject": mail.subject, "text": mail.text, "html": mail.html}
        files = {"attachments": [name for name, _, _ in mail.attachments], "not sent to": [*envelope.wrong]}
        return {name: value for name, value in (shown | files).items() if value}

    async def _hand_out(self, message: Message, envelope: Envelope, receivers: Receivers) -> None:
        """Send it to those who do not have it. Raises where nobody has it then: the next attempt begins anew."""
        mail = await asyncio.to_thread(self._writer.mail, message, receivers.note)
        everybody = envelope.everybody()
        rest = {one: everybody[one] for one in receivers.rest}
        failed = await self._deliver(mail, envelope, rest) if rest else {}
        for one, error in failed.items():
            receivers.missed(one, error)
        got = [one for one in rest if one not in failed]
        if not got and not receivers.have:
            receivers.settle()
        if failed or envelope.wrong:
            await receivers.got(*got)

    async def _deliver(self, mail: Mail, envelope: Envelope, receivers: Mapping[str, Address]) -> dict[str, Failure]:
        if self.config.via == "sendgrid":
            await self.send(write_request(self.config, mail, envelope, receivers))
            return {}
        assert self._threads is not None, "open() was not called"
        loop = asyncio.get_running_loop()
        if self._server is not None:
            until = time.monotonic() + PATIENCE
            return await loop.run_in_executor(self._threads, self._server.send, mail, envelope, receivers, until)
        assert self._ses is not None, "open() was not called"
        written = self._ses.write(mail, envelope)
        sent = (loop.run_in_executor(self._threads, self._ses.send, mail, one, written) for one in receivers)
        errors = zip(receivers, await asyncio.gather(*sent), strict=True)
        return {one: error for one, error in errors if error is not None}

    def _envelope(self, message: Message) -> Envelope:
        """Give who gets it, each once. Raises `PermanentError` where nobody is named."""
        seen: set[str] = set()
        envelope = Envelope([], [], [], {})
        for people, templates in ((envelope.to, self.config.to), (envelope.cc, self.config.cc), (envelope.bcc, self.config.bcc)):
            for template in templates:
                try:
                    entries = render_entries(template, message)
                except PermanentError as error:
                    envelope.wrong[template.text] = error
                    continue
                for entry in entries:
                    try:
                        address = self.config.address(entry)
                    except ValueError as error:
                        envelope.wrong[shorten(line(entry), 100)] = PermanentError(str(error))
                        continue
                    if address.addr_spec.lower() not in seen:
                        seen.add(address.addr_spec.lower())
                        people.append(address)
        if not seen:
            raise next(iter(envelope.wrong.values()), PermanentError("`to` names nobody for this message"))
        return envelope

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self.config)
