"""Writes the mail of a message: its ids, subject, text, HTML, attachments and headers."""

from __future__ import annotations

import binascii
import mimetypes
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import blake2b

import msgspec
import structlog

from consumers.email.addresses import read_address
from consumers.email.html import as_html, finished
from consumers.email.mail import File, Mail
from consumers.email.options import EmailConfig
from consumers.email.text import as_text, clean, line
from pipeline import Message, PermanentError, attachments_of, headline, shorten

log = structlog.get_logger()


class Writer:
    """Writes mails as the options say."""

    def __init__(self, config: EmailConfig) -> None:
        self._config = config

    def mail(self, message: Message, first: str) -> Mail:
        """Write the mail: `first` is the place of the first mail of its thread, empty where this is it."""
        config, mail_id = self._config, self._id(message)
        first_id, _, first_subject = first.partition(" ")
        thread = f"<thread.{(first_id or mail_id)[1:]}" if message.key and config.threads else ""
        headers = {"Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All"}
        if message.severity == "critical" and message.status == "firing":
            headers |= {"Importance": "high", "X-Priority": "1"}
        written = {name: line(template.render(message)) for name, template in config.headers.items()}
        names = {name.lower() for name in written}
        headers = {name: value for name, value in headers.items() if name.lower() not in names} | written
        carried, left_out = self._carried(message)
        mail = Mail(
            id=mail_id,
            sender=read_address(config.from_),
            reply_to=read_address(config.reply_to) if config.reply_to else None,
            subject=f"Re: {first_subject}" if first else self._subject(message),
            text=self._text(message) or as_text(message),
            html=self._html(message),
            attachments=tuple(self._attachments(message, carried)),
            headers={name: value for name, value in headers.items() if value},
            references=tuple(filter(None, (thread, first_id))),
            answers=first_id,
        )
        return mail.noting(left_out) if left_out else mail

    def place(self, message: Message) -> str:
        """Give what later mails of the thread need to know of this one: its id and its subject."""
        return f"{self._id(message)} {self._subject(message)}"

    def _id(self, message: Message) -> str:
        """Give the Message-ID: of the message, and of this step, as others may tell the same people of it in other words."""
        return f"<{message.id}.{self._step}@{read_address(self._config.from_).domain}>"

    @cached_property
    def _step(self) -> str:
        return blake2b(self._config.model_dump_json().encode(), digest_size=4).hexdigest()

    def _subject(self, message: Message) -> str:
        written = line(self._config.subject.render(message)) if self._config.subject else ""
        return shorten(written or line(headline(message)), 200)

    def _text(self, message: Message) -> str:
        return clean(self._config.text.render(message)).strip() if self._config.text else ""

    def _html(self, message: Message) -> str | None:
        written = clean(self._config.html.render(message)) if self._config.html else as_html(message)
        html = finished(written, self._config.css)
        if html is None:
            log.warning("html is nested too deeply: a mail goes out as text alone", id=self._id(message))
        return html

    def _carried(self, message: Message) -> tuple[list[File], str]:
        """Give the files that the message bears; none, and why, where they cannot be read: people are told all the same."""
        try:
            files = attachments_of(message) if self._config.carried else ()
        except PermanentError as error:
            return [], f"The files that came with it were left out: {error}."
        return [(file.name, file.type, file.content) for file in files], ""

    def _attachments(self, message: Message, carried: Iterable[File]) -> Iterator[File]:
        if self._config.attach_message:
            yield "message.json", "application/json", msgspec.json.format(msgspec.json.encode(message))
        yield from carried
        for attachment in self._config.attachments:
            text = attachment.content.render(message)
            if not text.strip():
                continue
            name = shorten(re.sub(r"[/\\]", "_", line(attachment.name.render(message))), 100) or "file"
            try:
                content = b64decode(re.sub(r"\s", "", text), validate=True) if attachment.base64 else text.encode()
            except (binascii.Error, ValueError):
                raise PermanentError(f"attachments: {name} is not base64") from None
            yield name, attachment.type or mimetypes.guess_type(name)[0] or "application/octet-stream", content
