"""A mail before it is written down for one of the services, and as RFC 5322 has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.headerregistry import Address, Group
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import Final

from consumers.email.addresses import Envelope
from pipeline import now, shorten

_SHORT: Final = 5_000
"""Characters of the text where a server takes no more."""
END: Final = "\n</body></html>\n"
"""How the HTML of each mail ends."""


File = tuple[str, str, bytes]
"""A name, a media type, and what is in the file."""


@dataclass(frozen=True)
class Mail:
    """A mail, before it is written down for one of the services. `references` are ids of Message-ID's kind, oldest first."""

    id: str
    sender: Address
    reply_to: Address | None
    subject: str
    text: str
    html: str | None
    attachments: tuple[File, ...]
    headers: Mapping[str, str]
    references: tuple[str, ...] = ()
    answers: str = ""

    def threading(self) -> dict[str, str]:
        """Give the headers that hold ids. The `email` package would fold and encode long ones, which nobody reads."""
        ids = {"Message-ID": self.id, "In-Reply-To": self.answers, "References": " ".join(self.references)}
        return {name: value for name, value in ids.items() if value}

    def noting(self, line: str) -> Mail:
        """Give it with a line more at its end."""
        html = self.html and self.html.replace(END, f"\n<p>{escape(line)}</p>{END}")
        return replace(self, text=f"{self.text}\n\n{line}", html=html)

    def fitting(self, most: int, write: Callable[[Mail], bytes]) -> bytes:
        """Write it down; without attachments, and then with little text, where it would have more than `most` bytes."""
        left_out = f"{len(self.attachments)} attached file(s) left out: the mail would be larger than the server takes."
        bare = replace(self, attachments=()).noting(left_out) if self.attachments else self
        short = replace(bare, text=shorten(self.text, _SHORT, mark="…\n\nThe rest was cut: the server takes no more."), html=None)
        written = b""
        for mail in (self, bare, short):
            written = write(mail)
            if not most or len(written) <= most:
                break
        return written

    def to_bytes(self, envelope: Envelope, *, utf8: bool) -> bytes:
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
        mail["Date"] = format_datetime(now())
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
