"""The options of `email`."""

from __future__ import annotations

from email.headerregistry import Address
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from consumers.email.addresses import NO_ADDRESS, read_address, split_entries
from pipeline import Config, HtmlTemplate, Template

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


def _known(text: object) -> object:
    """Refuse what is no address before anything starts, where that can be told: a template may give one."""
    written = text.text if isinstance(text, Template) else text
    if not isinstance(written, str) or ("{" not in written and not split_entries(written)):
        raise ValueError(NO_ADDRESS)
    for entry in split_entries(written) if "{" not in written else ():
        read_address(entry)
    return text


def _several(entries: object) -> object:
    return [entries] if isinstance(entries, str) else entries


Addresses = Annotated[
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
    to: Addresses = Field(description="Who gets it.")
    cc: Addresses = Field(default=(), description="Who gets it as well, for all to see.")
    bcc: Addresses = Field(default=(), description="Who gets it as well, unseen.")
    reply_to: Annotated[str, BeforeValidator(_known)] | None = Field(default=None, description="Where answers go.")
    subject: Template | None = Field(default=None, description="The subject; else the message's title, marked where resolved.")
    text: Template | None = Field(default=None, description="The mail as text; else title, text, labels, origin and link.")
    html: HtmlTemplate | None = Field(default=None, description="The mail as HTML, values are escaped; else the same.")
    css: str = Field(default="", description="CSS that is written into the elements of the HTML.")
    attachments: tuple[AttachmentConfig, ...] = Field(default=(), description="Files that go along.")
    carried: bool = Field(default=True, description="Attach the files that the message bears, such as those of a digest.")
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
        if len(split_entries(self.from_)) != 1 or "{" in self.from_:
            raise ValueError(f"`from`: {NO_ADDRESS}")
        self.address(self.from_)
        return self

    def address(self, text: str) -> Address:
        """Read an address that the service takes: what is not ASCII is for SMTP servers. Raises ValueError for any other."""
        address = read_address(text)
        if self.via != "smtp" and not address.addr_spec.isascii():
            raise ValueError(f"{self.via} takes no addresses but in ASCII")
        return address
