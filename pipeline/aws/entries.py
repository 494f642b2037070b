"""Messages as SNS and SQS take them: the body, attributes and groups, with the rules that both have."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import quote

import msgspec
from pydantic import AfterValidator, Field, model_validator

from pipeline.aws.client import AwsConfig
from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.template import Template
from pipeline.text import shorten_key

MOST_ATTRIBUTES: Final = 10
LONGEST_GROUP: Final = 128
_PUNCTUATION: Final = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_UNFIT: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME: Final = re.compile(r"(?!aws\.|amazon\.)[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[+-]?(\d{1,38}(\.\d{0,37})?|\.\d{1,38})([eE][+-]?\d{1,3})?", re.ASCII)
_USUAL: Final = ("severity", "status", "type", "source")


def _name(text: str) -> str:
    if len(text) > 256 or not _NAME.fullmatch(text):
        raise ValueError("an attribute's name has letters, digits, _, - and single dots, and does not begin with AWS. or Amazon.")
    return text


class BodyTemplate(Template):
    """The template of a body, which may be as long as AWS takes it."""

    max_length: ClassVar[int] = 2**20


class AwsEntryConfig(AwsConfig):
    """The options of what sends messages to SNS or SQS."""

    body: BodyTemplate | None = Field(default=None, description="The body; without it the message as JSON.")
    attributes: dict[Annotated[str, AfterValidator(_name)], Template] = Field(
        default_factory=lambda: {name: Template(f"{{{{ {name} }}}}") for name in _USUAL},
        description="Message attributes of the type String; those that come out empty are left out. "
        "Without it severity, status, type and source.",
    )
    number_attributes: dict[Annotated[str, AfterValidator(_name)], Template] = Field(
        default_factory=dict, description="Message attributes of the type Number."
    )
    group: Template | None = Field(
        default=None,
        description="The message group, within which order is kept; with FIFO the message's key where it is not given.",
    )

    @model_validator(mode="after")
    def _attributes_fit(self) -> Self:
        if twice := self.attributes.keys() & self.number_attributes.keys():
            raise ValueError(f"{min(twice)} stands in `attributes` and in `number_attributes`")
        if len(self.attributes) + len(self.number_attributes) > MOST_ATTRIBUTES:
            raise ValueError(f"a message has at most {MOST_ATTRIBUTES} attributes, `attributes` and `number_attributes` together")
        return self

    def message_body(self, message: Message) -> str:
        """Give the body, with nothing in it that AWS refuses; raises `PermanentError` where there is none."""
        body = msgspec.json.encode(message).decode() if self.body is None else self.body.render(message)
        if not body.strip():
            raise PermanentError("body: the template gave nothing, and a message without a body is not taken")
        return self.fitting(body)

    def message_attributes(self, message: Message) -> dict[str, dict[str, str]]:
        """Give the attributes that are not empty; raises `PermanentError` where one cannot be made, or is no number."""
        made: dict[str, dict[str, str]] = {}
        for option, kind in (("attributes", "String"), ("number_attributes", "Number")):
            for name, template in getattr(self, option).items():
                try:
                    value = template.render(message)
                except PermanentError as error:
                    raise PermanentError(f"{option}.{name}: {error}") from None
                value = value.strip() if kind == "Number" else self.fitting(value)
                if kind == "Number" and value and not _NUMBER.fullmatch(value):
                    raise PermanentError(f"{option}.{name}: the template gave no number")
                if value:
                    made[name] = {"DataType": kind, "StringValue": value}
        return made

    def message_group(self, message: Message, *, fifo: bool) -> dict[str, Any]:
        """Give the group, and for FIFO the message's id as what tells duplicates; one without a key is a group of its own."""
        group = self.group.render(message).strip() if self.group is not None else message.key if fifo else ""
        made = {"MessageGroupId": _group(group or message.id)} if group or fifo else {}
        return made | ({"MessageDeduplicationId": message.id} if fifo else {})

    @staticmethod
    def fitting(text: str) -> str:
        """Put a mark in place of the characters that AWS refuses: controls, and halves of characters."""
        return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def _group(text: str) -> str:
    """Write a group as AWS takes it, ASCII without spaces; never two the same."""
    return shorten_key(quote(text, safe=_PUNCTUATION, errors="replace"), LONGEST_GROUP)
