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
import binascii
import mimetypes
import re
import smtplib
import ssl
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cached_property
from hashlib import blake2b
from html import escape
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self

import css_inline
import idna
import msgspec
import nh3
import structlog
from pydantic import BeforeValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from pipeline import (
    Config,
    ConfigError,
    HtmlTemplate,
    HttpConsumer,
    HttpRequest,
    Message,
    PermanentError,
    Template,
    TemporaryError,
    colour,
    follow,
    headline,
    shorten,
    shown_labels,
)

Failure = TemporaryError | PermanentError

log = structlog.get_logger()

_REMEMBERED: Final = timedelta(days=7)
_TEXT: Final = 50_000
_SHORT: Final = 5_000
_SENDGRID_TAKES: Final = 30 * 10**6
_SES_TAKES: Final = 40 * 10**6
_SES_MAY_PASS: Final = frozenset(
    (
        *("TooManyRequestsException", "Throttling", "ThrottlingException", "LimitExceededException", "SendingPausedException"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeout"),
    )
)
_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_PATIENCE: Final = 50.0
"""Seconds for a whole delivery: the engine gives up after 60, and a mail that was given up may yet have arrived."""
_IDLE: Final = 60.0
"""Seconds that a connection is kept for the next mail."""
_MAILS: Final = 100
"""How many mails a connection carries: servers end it at some number."""
_LONGEST: Final = 1_000
"""Characters of an address with its name; 320 is the most that the address itself may have."""
_VIA: Final = {
    **dict.fromkeys(("host", "port", "security", "user", "password", "ca_file", "helo"), ("smtp",)),
    "connections": ("smtp", "ses"),
    "token": ("sendgrid",),
    "region": ("ses",),
    "base_url": ("sendgrid", "ses"),
}
_OURS: Final = frozenset(
    (
        *("auto-submitted", "bcc", "cc", "content-transfer-encoding", "content-type", "date", "from", "in-reply-to"),
        *("message-id", "mime-version", "received", "references", "reply-to", "return-path", "sender", "subject", "to"),
    )
)
_CONTROLS: Final = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)])
_ENTRY: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",;])+')
_PERSON: Final = re.compile(
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<name>[^"@:<>()\[\]\\]*?))\s*<(?P<boxed>[^<>]*)>|(?P<bare>\S+)', re.DOTALL
)
_VALUE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_LOCAL: Final = re.compile(r"(?!\.)(?!.*\.\.)[^\x00-\x20\x7f-\x9f\s@<>()\[\],;:\\\"]{1,64}(?<!\.)")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_NO_ADDRESS: Final = "an address is written as anna@example.com or Anna <anna@example.com>"

_CSS: Final = """
.card { border-left: 4px solid #5b6b7f; padding: 4px 16px; font: 14px/1.5 -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font-size: 18px; margin: 0 0 8px; }
.labels { border-collapse: collapse; margin: 8px 0; }
.labels th { color: #5b6b7f; font-weight: normal; padding: 1px 12px 1px 0; text-align: left; vertical-align: top; }
.labels td { padding: 1px 0; }
.origin { color: #5b6b7f; font-size: 12px; margin: 8px 0 0; }
"""
_STYLES: Final = {
    *("background-color", "border", "border-bottom", "border-collapse", "border-color", "border-left", "border-left-color"),
    *("border-radius", "border-right", "border-spacing", "border-style", "border-top", "border-width", "color", "display"),
    *("font", "font-family", "font-size", "font-style", "font-variant", "font-weight", "height", "letter-spacing"),
    *("line-height", "list-style", "list-style-type", "margin", "margin-bottom", "margin-left", "margin-right", "margin-top"),
    *("max-height", "max-width", "min-height", "min-width", "padding", "padding-bottom", "padding-left", "padding-right"),
    *("padding-top", "table-layout", "text-align", "text-decoration", "text-indent", "text-transform", "vertical-align"),
    *("white-space", "width", "word-break", "word-spacing", "word-wrap", "overflow-wrap"),
}
_ATTRIBUTES: Final = {tag: {*names} for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
for _tag in ("table", "tr", "td", "th"):
    _ATTRIBUTES[_tag] |= {"bgcolor", "border", "cellpadding", "cellspacing", "height", "valign", "width"}
_ATTRIBUTES["*"] = {"class", "dir", "lang", "style", "title"}
_END: Final = "\n</body></html>\n"
_SCHEMES: Final = {"http", "https", "mailto", "tel"}
_TAG: Final = re.compile(r"<(/?)(?!(?:area|br|col|hr|img|wbr)\b)[a-z]")
_DEEPEST: Final = 200
"""Elements within one another: `css_inline` ends the process where there are thousands."""


def _known(text: object) -> object:
    """Refuse what is no address before anything starts, where that can be told: a template may give one."""
    written = text.text if isinstance(text, Template) else text
    if not isinstance(written, str) or ("{" not in written and not _entries(written)):
        raise ValueError(_NO_ADDRESS)
    for entry in _entries(written) if "{" not in written else ():
        _address(entry)
    return text


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in _ENTRY.findall(text) if entry.strip()]


def _rendered_entries(template: Template, message: Message) -> list[str]:
    """Give what a template names. A value amid other text, such as a name, may not add an address to those that stand there."""
    entries, written = _entries(template.render(message)), _VALUE.sub("x", template.text).strip()
    if written != "x" and "{%" not in written and len(entries) > len(_entries(written)):
        raise PermanentError("a value in it would add an address; give values that name several an entry of their own")
    return entries


def _address(text: str) -> Address:
    """Read an address, with its name where it has one; the domain is given in ASCII. Raises ValueError for what is none."""
    person = _PERSON.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    local, at, domain = ((person["boxed"] or person["bare"] or "") if person else "").strip().rpartition("@")
    with suppress(UnicodeError):  # idna's errors are of this class
        domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    if not person or not at or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        raise ValueError(_NO_ADDRESS)
    name = person["name"] or re.sub(r"\\(.)", r"\1", person["quoted"] or "")
    return Address(_line(name), local, domain)


def _several(entries: object) -> object:
    return [entries] if isinstance(entries, str) else entries


Receivers = Annotated[
    tuple[Annotated[Template, BeforeValidator(_known)], ...],
    BeforeValidator(_several, json_schema_input_type=Template | tuple[Template, ...]),
]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")]


class ContentTemplate(Template):
    """The template of an attachment, which may be longer than a text."""

    max_length: ClassVar[int] = 2**20


class AttachmentConfig(Config):
    """A file that goes along."""

    name: Template = Field(description="The file's name, whose ending says its type.")
    content: ContentTemplate = Field(description="What is in it; where that is nothing, there is no file.")
    base64: bool = Field(default=False, description="The content is base64 of a file's bytes.")
    type: str | None = Field(default=None, pattern=r"^[\w.+-]+/[\w.+-]+$", description="Its type, where its name does not say.")


class EmailConfig(Config):
    """The options of `email`."""

    via: Literal["smtp", "sendgrid", "ses"] = Field(default="smtp", description="What takes the mail.")
    host: str = Field(default="", pattern=r"^[\w.:-]*$", description="The SMTP server.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Its port, where it is not the usual one.")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection is encrypted: after STARTTLS, from its beginning, or not at all."
    )
    user: str = Field(default="", description="Who logs in.")
    password: SecretStr | None = Field(default=None, min_length=1, description="The password of `user`.")
    ca_file: Path | None = Field(default=None, description="Certificates of authorities that are trusted as well, as PEM.")
    helo: str | None = Field(default=None, pattern=r"^[\w.:\[\]-]+$", description="The name this machine gives itself.")
    connections: int = Field(default=5, ge=1, le=50, description="How many connections there are at once at most.")
    token: SecretStr | None = Field(default=None, min_length=1, description="SendGrid's API key.")
    region: str | None = Field(
        default=None, pattern="^[a-z0-9-]+$", description="The region of SES, where AWS's settings do not."
    )
    base_url: str | None = Field(default=None, pattern="^https?://", description="Another address of SendGrid or SES.")
    from_: Annotated[str, BeforeValidator(_known)] = Field(
        alias="from", description="The sender: an address, with a name or not."
    )
    to: Receivers = Field(description="Who gets it.")
    cc: Receivers = Field(default=(), description="Who gets it as well, for all to see.")
    bcc: Receivers = Field(default=(), description="Who gets it as well, unseen.")
    reply_to: Annotated[str, BeforeValidator(_known)] | None = Field(default=None, description="Where answers go.")
    subject: Template | None = Field(default=None, description="The subject; else the message's title, marked where resolved.")
    text: Template | None = Field(default=None, description="The mail as text; else title, text, labels, origin and link.")
    html: HtmlTemplate | None = Field(default=None, description="The mail as HTML, values are escaped; else the same.")
    css: str = Field(default="", description="CSS that is written into the elements of the HTML.")
    attachments: tuple[AttachmentConfig, ...] = Field(default=(), description="Files that go along.")
    attach_message: bool = Field(default=False, description="Attach the whole message, as message.json.")
    headers: dict[HeaderName, Template] = Field(default_factory=dict, description="More headers, such as List-Id.")
    threads: bool = Field(default=True, description="Later messages of a key answer the first one's mail.")

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, Template]) -> dict[str, Template]:
        if taken := [name for name in headers if name.lower() in _OURS]:
            raise ValueError(f"{', '.join(taken)} cannot be set here")
        return headers

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in self.model_fields_set & _VIA.keys():
            if self.via not in _VIA[name]:
                raise ValueError(f"{name} is for via: {' and '.join(_VIA[name])}")
        if self.via == "smtp" and not self.host:
            raise ValueError("give the SMTP server's name as `host`, or another `via`")
        if bool(self.user) != (self.password is not None):
            raise ValueError("`user` and `password` go together")
        if self.via == "sendgrid" and self.token is None:
            raise ValueError("sendgrid needs `token`, an API key")
        if self.via == "ses" and find_spec("botocore") is None:
            raise ValueError('via: ses needs: pip install "siftbell[aws]"')
        if not self.to:
            raise ValueError("`to` names nobody")
        if len(_entries(self.from_)) != 1 or "{" in self.from_:
            raise ValueError(f"`from`: {_NO_ADDRESS}")
        self.address(self.from_)
        return self

    def address(self, text: str) -> Address:
        """Read an address that the service takes: what is not ASCII is for SMTP servers. Raises ValueError for any other."""
        address = _address(text)
        if self.via != "smtp" and not address.addr_spec.isascii():
            raise ValueError(f"{self.via} takes no addresses but in ASCII")
        return address


class _Envelope(NamedTuple):
    """Who gets a mail, and what is written in place of an address with what is wrong with it."""

    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    wrong: dict[str, Failure]

    def everybody(self) -> dict[str, Address]:
        return {address.addr_spec: address for address in (*self.to, *self.cc, *self.bcc)}


@dataclass(frozen=True)
class _Mail:
    """A mail, before it is written down for one of the services. `references` are ids of Message-ID's kind, oldest first."""

    id: str
    sender: Address
    reply_to: Address | None
    subject: str
    text: str
    html: str | None
    attachments: tuple[tuple[str, str, bytes], ...]
    headers: Mapping[str, str]
    references: tuple[str, ...] = ()
    answers: str = ""

    def threading(self) -> dict[str, str]:
        """Give the headers that hold ids. The `email` package would fold and encode long ones, which nobody reads."""
        ids = {"Message-ID": self.id, "In-Reply-To": self.answers, "References": " ".join(self.references)}
        return {name: value for name, value in ids.items() if value}

    def fitting(self, most: int, write: Callable[[_Mail], bytes]) -> bytes:
        """Write it down; without attachments, and then with little text, where it would have more than `most` bytes."""
        left_out = f"{len(self.attachments)} attached file(s) left out: the mail would be larger than the server takes."
        bare = self
        if self.attachments:
            html = self.html and self.html.replace(_END, f"\n<p>{left_out}</p>{_END}")
            bare = replace(self, attachments=(), text=f"{self.text}\n\n{left_out}", html=html)
        short = replace(bare, text=shorten(self.text, _SHORT, mark="…\n\nThe rest was cut: the server takes no more."), html=None)
        written = b""
        for mail in (self, bare, short):
            written = write(mail)
            if not most or len(written) <= most:
                break
        return written

    def to_bytes(self, envelope: _Envelope, *, utf8: bool) -> bytes:
        """Write it down as RFC 5322 has it. Without `utf8` (SMTPUTF8) it names only those who have an address in ASCII."""
        mail = EmailMessage(policy=SMTP.clone(cte_type="7bit", utf8=utf8))
        mail["From"] = self.sender
        for name, addresses in (("To", envelope.to), ("Cc", envelope.cc)):
            if shown := [address for address in addresses if utf8 or address.addr_spec.isascii()]:
                mail[name] = shown
        if "To" not in mail and "Cc" not in mail:
            mail["To"] = Group("undisclosed-recipients")
        if self.reply_to is not None:
            mail["Reply-To"] = self.reply_to
        mail["Subject"] = self.subject
        mail["Date"] = format_datetime(datetime.now(UTC))
        for name, value in self.headers.items():
            mail[name] = value
        mail.set_content(self.text)
        if self.html is not None:
            mail.add_alternative(self.html, subtype="html")
        for file, kind, content in self.attachments:
            main, _, sub = kind.partition("/")
            mail.add_attachment(content, main, sub, filename=file, params={"charset": "utf-8"} if main == "text" else None)
        ids = "".join(f"{name}: {value}\r\n" for name, value in self.threading().items())
        return ids.encode() + mail.as_bytes()

    def to_json(self, to: Iterable[Address], cc: Iterable[Address], bcc: Iterable[Address]) -> bytes:
        """Write it down as SendGrid has it, whose mails go to somebody: who is not shown gets one of their own."""
        named = {"to": [*map(_named, to)], "cc": [*map(_named, cc)], "bcc": [*map(_named, bcc)]}
        alone = [{"to": [one]} for one in (*named["cc"], *named["bcc"])]
        body: dict[str, Any] = {
            "personalizations": [{name: people for name, people in named.items() if people}] if named["to"] else alone,
            "from": _named(self.sender),
            "subject": self.subject,
            "content": [{"type": "text/plain", "value": self.text}],
            "headers": {**self.threading(), **self.headers},
            "tracking_settings": {"click_tracking": {"enable": False}, "open_tracking": {"enable": False}},
        }
        if self.html is not None:
            body["content"].append({"type": "text/html", "value": self.html})
        if self.reply_to is not None:
            body["reply_to"] = _named(self.reply_to)
        if self.attachments:
            body["attachments"] = [
                {"content": b64encode(content).decode(), "filename": name, "type": kind, "disposition": "attachment"}
                for name, kind, content in self.attachments
            ]
        return msgspec.json.encode(body)


class _Server:
    """An SMTP server, and the connections to it that wait for the next mail. Its methods block."""

    def __init__(self, config: EmailConfig) -> None:
        self._config = config
        self._idle: list[tuple[smtplib.SMTP, float, int]] = []
        self._context = ssl.create_default_context()
        if config.ca_file is not None:
            try:
                self._context.load_verify_locations(config.ca_file)
            except OSError as error:  # ssl's errors are of this class
                raise ConfigError(f"ca_file holds no certificates that can be read ({type(error).__name__})") from None

    def send(self, mail: _Mail, envelope: _Envelope, receivers: Mapping[str, Address], until: float) -> dict[str, Failure]:
        """Hand over a mail; gives an error for each who does not get it, and raises one that holds for all."""
        try:
            with self._connection(until) as smtp:
                return self._hand_over(smtp, mail, envelope, receivers, until)
        except smtplib.SMTPResponseException as error:
            raise self._judged(error.smtp_code, error.smtp_error) from None
        except ssl.SSLCertVerificationError as error:
            raise TemporaryError(f"{self._place}: the certificate does not hold: {error.verify_message}") from None
        except TimeoutError:
            raise TemporaryError(f"{self._place}: no answer in time") from None
        except smtplib.SMTPServerDisconnected as error:
            text = "no answer in time" if "timed out" in str(error) else "the connection broke off"
            raise TemporaryError(f"{self._place}: {text}") from None
        except OSError as error:
            raise TemporaryError(f"{self._place}: no connection: {error.strerror or error}") from None

    def close(self) -> None:
        """Take leave on all connections that nobody uses."""
        while self._idle:
            _leave(self._idle.pop()[0])

    def _hand_over(
        self, smtp: smtplib.SMTP, mail: _Mail, envelope: _Envelope, receivers: Mapping[str, Address], until: float
    ) -> dict[str, Failure]:
        utf8, sender = smtp.has_extn("smtputf8"), mail.sender.addr_spec
        failed: dict[str, Failure] = {}
        if not utf8:
            text = f"{self._place}: takes no addresses but in ASCII (no SMTPUTF8)"
            failed = {one: PermanentError(text) for one in receivers if not (one + sender).isascii()}
        answers = mail.reply_to.addr_spec if mail.reply_to else ""
        named = any(not address.isascii() for address in (sender, answers, *envelope.everybody()))
        size = smtp.esmtp_features.get("size", "")
        written = mail.fitting(int(size) if size.isdigit() else 0, lambda mail: mail.to_bytes(envelope, utf8=utf8 and named))
        options = [f"SIZE={len(written)}"] if smtp.has_extn("size") else []
        options += ["SMTPUTF8", *(["BODY=8BITMIME"] if smtp.has_extn("8bitmime") else [])] if utf8 and named else []
        if len(failed) == len(receivers):
            return failed
        _wait_until(smtp, until)
        _expect(smtp.mail(sender, options))
        accepted = []
        for one in (one for one in receivers if one not in failed):
            _wait_until(smtp, until)
            code, answer = smtp.rcpt(one)
            if code == 421:
                raise smtplib.SMTPResponseException(code, answer)
            if 200 <= code < 300:
                accepted.append(one)
            else:
                failed[one] = self._judged(code, answer, of_receiver=True)
        if not accepted:
            smtp.rset()
            return failed
        _wait_until(smtp, until)
        try:
            code, answer = smtp.data(written)
        except smtplib.SMTPDataError as refused:
            return failed | dict.fromkeys(accepted, self._judged(refused.smtp_code, refused.smtp_error))
        if code != 250:
            return failed | dict.fromkeys(accepted, self._judged(code, answer))
        log.info("a mail is on its way", id=mail.id, receivers=len(accepted), answer=_told(_as_text(answer)))
        return failed

    @contextmanager
    def _connection(self, until: float) -> Iterator[smtplib.SMTP]:
        smtp, mails = self._waiting() or (self._connect(until), 0)
        try:
            yield smtp
        except BaseException:
            smtp.close()
            raise
        if mails + 1 < _MAILS:
            self._idle.append((smtp, time.monotonic(), mails + 1))
        else:
            _leave(smtp)

    def _waiting(self) -> tuple[smtplib.SMTP, int] | None:
        """Give a connection that was used before and still answers."""
        while self._idle:
            smtp, since, mails = self._idle.pop()
            with suppress(OSError):  # smtplib's errors are of this class
                _wait_until(smtp, time.monotonic() + 5)
                if time.monotonic() - since < _IDLE and smtp.rset()[0] == 250:
                    return smtp, mails
            _leave(smtp)
        return None

    def _connect(self, until: float) -> smtplib.SMTP:
        config, timeout = self._config, max(1.0, min(10.0, until - time.monotonic()))
        port = config.port or _PORTS[config.security]
        if config.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                config.host, port, local_hostname=config.helo, timeout=timeout, context=self._context
            )
        else:
            smtp = smtplib.SMTP(config.host, port, local_hostname=config.helo, timeout=timeout)
        try:
            smtp.ehlo_or_helo_if_needed()
            if config.security == "starttls":
                self._encrypt(smtp)
            if config.password is not None:
                self._log_in(smtp, config.password.get_secret_value())
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _encrypt(self, smtp: smtplib.SMTP) -> None:
        if not smtp.has_extn("starttls"):
            raise TemporaryError(f"{self._place}: offers no STARTTLS; write `security: tls`, or `none` where it is at hand")
        _expect(smtp.starttls(context=self._context))
        smtp.ehlo_or_helo_if_needed()

    def _log_in(self, smtp: smtplib.SMTP, password: str) -> None:
        """Log in by PLAIN or LOGIN, in UTF-8: `smtplib` knows no password but in ASCII."""
        user, ways = self._config.user, smtp.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in ways:
            code, answer = smtp.docmd("AUTH", f"PLAIN {_plain(user, password)}")
        elif "LOGIN" in ways:
            code, answer = smtp.docmd("AUTH", f"LOGIN {_base64(user)}")
            code, answer = smtp.docmd(_base64(password)) if code == 334 else (code, answer)
        else:
            raise PermanentError(f"{self._place}: offers no login by PLAIN or LOGIN; see `security`, or leave `user` out")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, _as_text(answer))

    def _judged(self, code: int, answer: bytes | str, *, of_receiver: bool = False) -> Failure:
        """Say by the code and the enhanced status whether it may pass."""
        text = _told(self._hidden(_as_text(answer)))
        found = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", text)
        status = found[0] if found else ""
        too_many = of_receiver and code == 552 and (not status or status.endswith(".5.3"))
        may_pass = not 500 <= code < 600 or status.startswith("4.") or status == "5.4.5" or too_many
        advice = "; see `user` and `password`" if code in (530, 534, 535) else ""
        return (TemporaryError if may_pass else PermanentError)(f"{self._place}: answered {code} {text}{advice}".strip())

    def _hidden(self, text: str) -> str:
        if self._config.password is not None:
            password, user = self._config.password.get_secret_value(), self._config.user
            for secret in (_plain(user, password), _base64(password), password):
                text = text.replace(secret, "***")
        return text

    @property
    def _place(self) -> str:
        return f"SMTP {self._config.host}:{self._config.port or _PORTS[self._config.security]}"


class Email(HttpConsumer[EmailConfig]):
    """Sends messages as mail, through an SMTP server, SendGrid or Amazon SES."""

    total_timeout: ClassVar[float] = 20.0

    _server: _Server | None = None
    _ses: Any = None
    _threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Make ready what the service needs; no connection is made yet. Raises `ConfigError`."""
        if self.config.via == "smtp":
            self._server = _Server(self.config)
        elif self.config.via == "ses":
            self._ses = _ses_client(self.config)
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
        return self._sendgrid(self._mail(message, ""), envelope, envelope.everybody())

    def check(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Judge SendGrid's answer: it says when its limit ends, and answers 401 when credits are used up."""
        try:
            super().check(status, headers, body)
        except TemporaryError as error:
            reset = headers.get("x-ratelimit-reset", "")
            if status == 429 and error.retry_after is None and re.fullmatch(r"\d{1,12}", reset):
                error.retry_after = min(max(float(reset) - time.time(), 0.0), 3600.0)
            raise
        except PermanentError as error:
            if status == 401 and b"credits exceeded" in body:
                raise TemporaryError(str(error)) from None
            raise

    async def consume(self, message: Message) -> None:
        """Send it to all who do not have it yet; raises what became of those who could not be reached."""
        envelope = self._envelope(message)
        several = len(envelope.everybody()) + len(envelope.wrong) > 1
        memory = self.memory if several else None
        before = await asyncio.to_thread(memory.recall, f"sent {message.id}") if memory is not None else None
        if before is not None:
            first, *have = before.split("\n")
            _tell(await self._hand_out(message, envelope, first, {*have}), envelope)
            return
        failed: dict[str, Failure] = {}

        async def post(message: Message) -> str:
            failed.update(await self._hand_out(message, envelope, "", set()))
            return self._place_of(message)

        async def answer(message: Message, first: str) -> None:
            failed.update(await self._hand_out(message, envelope, first, set()))

        await follow(message, self.memory if self.config.threads else None, post, answer)
        _tell(failed, envelope)

    def preview(self, message: Message) -> object:
        """Give the mail, and who would get it."""
        envelope, mail = self._envelope(message), self._mail(message, "")
        people = {name: [str(address) for address in getattr(envelope, name)] for name in ("to", "cc", "bcc")}
        shown = {"from": str(mail.sender), **people, "subject": mail.subject, "text": mail.text, "html": mail.html}
        files = {"attachments": [name for name, _, _ in mail.attachments], "not sent to": [*envelope.wrong]}
        return {name: value for name, value in (shown | files).items() if value}

    async def _hand_out(self, message: Message, envelope: _Envelope, first: str, have: set[str]) -> dict[str, Failure]:
        """Send it to those who do not have it; gives the errors where somebody has it now, and remembers who, else raises."""
        mail = await asyncio.to_thread(self._mail, message, first)
        receivers = {one: address for one, address in envelope.everybody().items() if one not in have}
        failed = {**envelope.wrong, **(await self._deliver(mail, envelope, receivers) if receivers else {})}
        have = have | {*receivers} - {*failed}
        if not failed:
            return failed
        if not have:
            _tell(failed, envelope)
        if self.memory is not None:
            kept = "\n".join((first, *sorted(have)))
            try:
                await asyncio.to_thread(self.memory.remember, f"sent {message.id}", kept, _REMEMBERED)
            except TemporaryError as away:
                log.warning("who has a mail could not be remembered, and may get a second one", id=mail.id, error=str(away))
        return failed

    async def _deliver(self, mail: _Mail, envelope: _Envelope, receivers: Mapping[str, Address]) -> dict[str, Failure]:
        if self.config.via == "sendgrid":
            await self.send(self._sendgrid(mail, envelope, receivers))
            return {}
        assert self._threads is not None, "open() was not called"
        loop = asyncio.get_running_loop()
        if self._server is not None:
            until = time.monotonic() + _PATIENCE
            return await loop.run_in_executor(self._threads, self._server.send, mail, envelope, receivers, until)
        written = mail.fitting(_SES_TAKES, lambda mail: mail.to_bytes(envelope, utf8=False))
        sent = (loop.run_in_executor(self._threads, _send_by_ses, self._ses, mail, one, written) for one in receivers)
        errors = zip(receivers, await asyncio.gather(*sent), strict=True)
        return {one: error for one, error in errors if error is not None}

    def _sendgrid(self, mail: _Mail, envelope: _Envelope, receivers: Mapping[str, Address]) -> HttpRequest:
        assert self.config.token is not None, "this is for via: sendgrid"
        left = ([one for one in people if one.addr_spec in receivers] for people in (envelope.to, envelope.cc, envelope.bcc))
        people = [*left]
        body = mail.fitting(_SENDGRID_TAKES, lambda mail: mail.to_json(*people))
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.config.token.get_secret_value()}"}
        return HttpRequest(
            f"{(self.config.base_url or 'https://api.sendgrid.com').rstrip('/')}/v3/mail/send", body, headers=headers
        )

    def _envelope(self, message: Message) -> _Envelope:
        """Give who gets it, each once. Raises `PermanentError` where nobody is named."""
        seen: set[str] = set()
        envelope = _Envelope([], [], [], {})
        for people, templates in ((envelope.to, self.config.to), (envelope.cc, self.config.cc), (envelope.bcc, self.config.bcc)):
            for template in templates:
                try:
                    entries = _rendered_entries(template, message)
                except PermanentError as error:
                    envelope.wrong[template.text] = error
                    continue
                for entry in entries:
                    try:
                        address = self.config.address(entry)
                    except ValueError as error:
                        envelope.wrong[shorten(_line(entry), 100)] = PermanentError(str(error))
                        continue
                    if address.addr_spec.lower() not in seen:
                        seen.add(address.addr_spec.lower())
                        people.append(address)
        if not seen:
            raise next(iter(envelope.wrong.values()), PermanentError("`to` names nobody for this message"))
        return envelope

    def _mail(self, message: Message, first: str) -> _Mail:
        """Write the mail: `first` is the place of the first mail of its thread, empty where this is it."""
        config, mail_id = self.config, self._id(message)
        first_id, _, first_subject = first.partition(" ")
        thread = f"<thread.{(first_id or mail_id)[1:]}" if message.key and config.threads else ""
        headers = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
        if message.severity == "critical" and message.status == "firing":
            headers |= {"Importance": "high", "X-Priority": "1"}
        written = {name: _line(template.render(message)) for name, template in config.headers.items()}
        names = {name.lower() for name in written}
        headers = {name: value for name, value in headers.items() if name.lower() not in names} | written
        return _Mail(
            id=mail_id,
            sender=_address(config.from_),
            reply_to=_address(config.reply_to) if config.reply_to else None,
            subject=f"Re: {first_subject}" if first else self._subject(message),
            text=self._text(message) or _as_plain_text(message),
            html=self._html(message),
            attachments=tuple(self._attachments(message)),
            headers={name: value for name, value in headers.items() if value},
            references=tuple(filter(None, (thread, first_id))),
            answers=first_id,
        )

    def _place_of(self, message: Message) -> str:
        return f"{self._id(message)} {self._subject(message)}"

    def _id(self, message: Message) -> str:
        """Give the Message-ID: of the message, and of this step, as others may tell the same people of it in other words."""
        return f"<{message.id}.{self._step}@{_address(self.config.from_).domain}>"

    @cached_property
    def _step(self) -> str:
        return blake2b(self.config.model_dump_json().encode(), digest_size=4).hexdigest()

    def _subject(self, message: Message) -> str:
        written = _line(self.config.subject.render(message)) if self.config.subject else ""
        return shorten(written or _line(headline(message)), 200)

    def _text(self, message: Message) -> str:
        return _clean(self.config.text.render(message)).strip() if self.config.text else ""

    def _html(self, message: Message) -> str | None:
        """Give the HTML, cleaned before CSS is written into it; None where it is nested so deeply that nobody could show it."""
        written = _clean(self.config.html.render(message)) if self.config.html else _as_html(message)
        cleaned = nh3.clean(written, attributes=_ATTRIBUTES, filter_style_properties=_STYLES, url_schemes=_SCHEMES)
        if _depth(cleaned) > _DEEPEST:
            log.warning("html is nested too deeply: a mail goes out as text alone", id=self._id(message))
            return None
        body = self._inliner.inline_fragment(cleaned, css=_CSS + self.config.css)
        return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{body}{_END}'

    @cached_property
    def _inliner(self) -> css_inline.CSSInliner:
        return css_inline.CSSInliner(load_remote_stylesheets=False)

    def _attachments(self, message: Message) -> Iterator[tuple[str, str, bytes]]:
        if self.config.attach_message:
            yield "message.json", "application/json", msgspec.json.format(msgspec.json.encode(message))
        for attachment in self.config.attachments:
            text = attachment.content.render(message)
            if not text.strip():
                continue
            name = shorten(re.sub(r"[/\\]", "_", _line(attachment.name.render(message))), 100) or "file"
            try:
                content = b64decode(re.sub(r"\s", "", text), validate=True) if attachment.base64 else text.encode()
            except (binascii.Error, ValueError):
                raise PermanentError(f"attachments: {name} is not base64") from None
            yield name, attachment.type or mimetypes.guess_type(name)[0] or "application/octet-stream", content


def _tell(failed: Mapping[str, Failure], envelope: _Envelope) -> None:
    """Raise one error of those of several receivers, if there are any: temporary as long as one of them is."""
    receivers = len(envelope.everybody()) + len(envelope.wrong)
    if not failed:
        return
    if receivers == 1:
        raise next(iter(failed.values()))
    told = "; ".join(f"{one}: {error}" for one, error in failed.items())
    text = shorten(f"{receivers - len(failed)} of {receivers} receivers have it; {told}", 2000)
    may_pass = any(isinstance(error, TemporaryError) for error in failed.values())
    raise (TemporaryError if may_pass else PermanentError)(text)


def _ses_client(config: EmailConfig) -> Any:
    from botocore.config import Config as Settings  # noqa: PLC0415 - an extra of its own
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - an extra of its own
    from botocore.session import get_session  # noqa: PLC0415 - an extra of its own

    settings = Settings(
        connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}, max_pool_connections=config.connections
    )
    try:
        return get_session().create_client("sesv2", region_name=config.region, endpoint_url=config.base_url, config=settings)
    except BotoCoreError as error:
        raise ConfigError(f"SES: {error} Give `region`, or what else AWS's settings lack.") from None


def _send_by_ses(client: Any, mail: _Mail, receiver: str, written: bytes) -> Failure | None:
    """Hand over a mail to one receiver: SES refuses a mail for all when it refuses one of them."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra of its own

    try:
        answer = client.send_email(
            FromEmailAddress=mail.sender.addr_spec,
            Destination={"ToAddresses": [receiver]},
            Content={"Raw": {"Data": written}},
        )
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code, text = (str(error.response.get("Error", {}).get(name, "")) for name in ("Code", "Message"))
        may_pass = code in _SES_MAY_PASS or status == 429 or status >= 500
        return (TemporaryError if may_pass else PermanentError)(f"SES answered {status} {code}: {_told(text)}")
    except BotoCoreError as error:
        return TemporaryError(f"SES: {_told(str(error))}")
    log.info("a mail is on its way", id=mail.id, receivers=1, answer=answer.get("MessageId", ""))
    return None


def _as_plain_text(message: Message) -> str:
    lines = [headline(message), _clean(shorten(message.text, _TEXT))]
    lines += ["\n".join(f"{name}: {value}" for name, value in shown_labels(message).items())]
    lines += [_origin(message), message.url]
    return "\n\n".join(_clean(line).strip() for line in lines if line.strip())


def _as_html(message: Message) -> str:
    title = escape(_line(headline(message)))
    title = f'<a href="{escape(_line(message.url))}">{title}</a>' if message.url else title
    text = escape(_clean(shorten(message.text, _TEXT)).strip()).replace("\n", "<br>\n")
    labels = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(shorten(value, 1000))}</td></tr>"
        for name, value in shown_labels(message).items()
    )
    parts = [f"<h1>{title}</h1>", text and f"<p>{text}</p>", labels and f'<table class="labels">{labels}</table>']
    parts += [f'<p class="origin">{escape(_origin(message))}</p>']
    body = "\n".join(filter(None, parts))
    return f'<table><tr><td class="card" style="border-left-color: {colour(message)}">{_clean(body)}</td></tr></table>'


def _depth(html: str) -> int:
    """Give how deeply elements are nested, in HTML of which each is closed."""
    return max(accumulate(-1 if found[1] else 1 for found in _TAG.finditer(html)), default=0)


def _origin(message: Message) -> str:
    parts = (message.severity, message.source, f"{message.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return " · ".join(_line(part) for part in parts if part)


def _line(text: str) -> str:
    """Make one line of a text: whatever a line may end with becomes a space, so that no header has a second one."""
    return " ".join(_clean(text).split())


def _clean(text: str) -> str:
    """Take out what no mail may hold: controls, and halves of characters."""
    return text.replace("\r\n", "\n").translate(_CONTROLS).encode(errors="replace").decode()


def _named(address: Address) -> dict[str, str]:
    named = {"email": address.addr_spec, "name": address.display_name}
    return {name: value for name, value in named.items() if value}


def _expect(answer: tuple[int, bytes]) -> None:
    if not 200 <= answer[0] < 300:
        raise smtplib.SMTPResponseException(*answer)


def _wait_until(smtp: smtplib.SMTP, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if smtp.sock is not None:
        smtp.sock.settimeout(left)


def _leave(smtp: smtplib.SMTP) -> None:
    with suppress(OSError):  # smtplib's errors are of this class
        if smtp.sock is not None:
            smtp.sock.settimeout(2.0)
        smtp.quit()
    smtp.close()


def _told(answer: str) -> str:
    """Give a server's words on one line, without what a terminal would obey."""
    return shorten(" ".join("".join(one if one.isprintable() else " " for one in answer).split()), 300)


def _as_text(answer: bytes | str) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _plain(user: str, password: str) -> str:
    return _base64(f"\0{user}\0{password}")


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
