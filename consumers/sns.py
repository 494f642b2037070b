r"""Publishes messages to a topic of Amazon SNS, in batches of ten, or as SMS to a telephone. Needs `pip install "siftbell[aws]"`.

```yaml
name: to-a-topic
producers:
  - prometheus
consumers:
  - sns:
      topic: "${ALERTS_TOPIC:-arn:aws:sns:eu-west-1:123456789012:alerts}"
      protocols:
        email: "{{ title }}\n\n{{ text }}\n\n{{ url }}"
        sms: "{{ title }}"
```

The region is read from the topic's ARN. Credentials are found as by any client of AWS: in the environment, in its files, by the
role of the machine; or give `profile`, or `access_key_id` and `secret_access_key`. They need the permission `sns:Publish`.

Without `body` a message is published as JSON, all its fields; `protocols` says what subscribers of a protocol get instead. Its
severity, status, type and source are attributes too, by which subscriptions can filter; `attributes` and `number_attributes`
say others, ten at most, of the types String and Number. The subject, of mails, is the message's title or what `subject` says: a
line of ASCII with less than 100 characters, in which other letters lose their accents or become a question mark.

A topic whose name ends in .fifo keeps the order within a message group: that is `group`, or else the message's key; a message
without one is a group of its own. `ordered: true` keeps Siftbell from sending a message before the one that is ahead of it. The
message's id is the deduplication id, so that one that comes again within five minutes is not doubled.

With `phone_number` each message is an SMS to one number, written with + and its country; it may be a template. The SMS is
`body`, or else the message's title and text, and is cut after `max_parts`. SNS has a limit on what SMS may cost in a month, and
sends to verified numbers only as long as the account is in its sandbox.

```yaml
name: on-call-phone
producers:
  - http
consumers:
  - sns:
      phone_number: "{{ labels.phone | default('+49 151 12345678') }}"
      region: eu-west-1
      sender_id: SIFTBELL
    when: severity == "critical"
```

Each message has a result of its own. Throttling, 5xx, no answer and credentials that have expired are tried again; what SNS
refuses goes to the dead letters with its reason. So does a message of more than 256 KiB with its attributes and subject.
Characters that SNS does not take (controls) are replaced by U+FFFD.

Protocol: https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html, https://docs.aws.amazon.com/sns/latest/api/API_Publish.html,
and for SMS https://docs.aws.amazon.com/sns/latest/dg/sms_sending-overview.html.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from pipeline import (
    Aws,
    AwsEntryConfig,
    BatchConsumer,
    Message,
    PermanentError,
    Template,
    TemporaryError,
    fit_sms,
    headline,
    phone_number,
    plain_sms,
    shorten,
    sms_parts,
)

_MOST: Final = 2**18
_LONGEST_SUBJECT: Final = 99
_AT_ONCE: Final = 5
"""SMS under way at once: SNS takes 20 a second where no more was asked for."""
_PATIENCE: Final = 90.0
_UNSEEN: Final = ("Mn", "Cf")
"""Categories of Unicode: accents that stand apart from their letter, and marks of the direction of writing."""

Protocol = Literal["email", "email-json", "http", "https", "lambda", "sqs", "sms", "firehose"]


def _known(number: object) -> object:
    """Refuse what is no number before anything starts, where that can be told: a template may give one."""
    text = number.text if isinstance(number, Template) else str(number)
    if "{" not in text:
        phone_number(text)
    return number


class SnsConfig(AwsEntryConfig):
    """The options of `sns`."""

    shorthand: ClassVar[str | None] = "topic"

    topic: str | None = Field(
        default=None,
        pattern=r"^arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\.fifo)?$",
        description="The topic's ARN; that of a FIFO topic ends in .fifo.",
    )
    phone_number: Annotated[Template, BeforeValidator(_known)] | None = Field(
        default=None, description="In place of `topic`: a number that each message is sent to as SMS."
    )
    subject: Template | None = Field(default=None, description="The subject; else the message's title, marked where resolved.")
    protocols: dict[Protocol, Template] = Field(
        default_factory=dict, description="What subscribers of a protocol get in place of the body."
    )
    sender_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*$",
        max_length=11,
        description="Who an SMS is from, where the receiver's country shows it: up to 11 letters and digits.",
    )
    origination_number: str | None = Field(
        default=None, pattern=r"^\+?[0-9]{5,15}$", description="The number of yours that an SMS is from."
    )
    sms_type: Literal["Transactional", "Promotional"] | None = Field(
        default=None, description="How SMS are sent: surely, or cheaply; with `phone_number` Transactional where it is not given."
    )
    max_price: float | None = Field(default=None, gt=0, description="What an SMS may cost at most, in US dollars.")
    max_parts: int = Field(
        default=3, ge=1, le=10, description="With `phone_number`: what is longer is cut. Each part is paid for."
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.topic is None) == (self.phone_number is None):
            raise ValueError("give either `topic` or `phone_number`")
        for name in ("subject", "protocols", "attributes", "number_attributes", "group"):
            if self.phone_number is not None and name in self.model_fields_set:
                raise ValueError(f"{name} goes with `topic`")
        if "max_parts" in self.model_fields_set and self.topic is not None:
            raise ValueError("max_parts goes with `phone_number`")
        if len(self.attributes) + len(self.number_attributes) + len(self.sms_attributes()) > 10:
            raise ValueError("a message has at most 10 attributes, those of SMS among them")
        return self

    def sms_attributes(self) -> dict[str, dict[str, str]]:
        """Give the attributes that say how SNS sends SMS."""
        kind = self.sms_type or ("Transactional" if self.phone_number is not None else None)
        given = {
            "AWS.SNS.SMS.SenderID": ("String", self.sender_id),
            "AWS.MM.SMS.OriginationNumber": ("String", self.origination_number),
            "AWS.SNS.SMS.SMSType": ("String", kind),
            "AWS.SNS.SMS.MaxPrice": ("Number", None if self.max_price is None else f"{self.max_price:.5f}"),
        }
        return {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in given.items() if value is not None}


class Sns(BatchConsumer[SnsConfig]):
    """Publishes messages to a topic of Amazon SNS, or sends them as SMS."""

    def open(self) -> None:
        """Make the client; it connects with the first message. Raises `ConfigError` where no region is known."""
        self._aws = Aws("sns", self.config, near=self.config.topic or "")

    def close(self) -> None:
        """Close the connections."""
        self._aws.close()

    def probe(self) -> str:
        """Ask for the topic's attributes, or for the settings of SMS."""
        if self.config.topic is None:
            return self._aws.probe("get_sms_attributes", attributes=["DefaultSMSType"])
        return self._aws.probe("get_topic_attributes", TopicArn=self.config.topic)

    def consume_many(self, messages: Sequence[Message]) -> Mapping[str, Exception]:
        """Publish the messages in batches, or send each as SMS; give the error of each that SNS did not take."""
        if self.config.topic is None:
            return self._send_sms(messages)
        return self._aws.send_messages(
            "publish_batch", "PublishBatchRequestEntries", messages, self._entry, _MOST, TopicArn=self.config.topic
        )

    def preview(self, message: Message) -> object:
        """Give what is published, or the SMS and how many parts it takes."""
        if self.config.topic is not None:
            return self._entry(message)
        sms = self._sms(message)
        return sms | {"parts": sms_parts(sms["Message"])}

    def _entry(self, message: Message) -> dict[str, Any]:
        config, body = self.config, self.config.message_body(message)
        entry: dict[str, Any] = {"Message": body, "Subject": self._subject(message)}
        if config.protocols:
            texts = {
                name: config.fitting(_rendered(f"protocols.{name}", template, message))
                for name, template in config.protocols.items()
            }
            entry |= {"Message": msgspec.json.encode({"default": body} | texts).decode(), "MessageStructure": "json"}
        entry["MessageAttributes"] = config.message_attributes(message) | config.sms_attributes()
        fifo = config.topic is not None and config.topic.endswith(".fifo")
        return entry | config.message_group(message, fifo=fifo)

    def _subject(self, message: Message) -> str:
        """Give the subject in ASCII, with a letter, a digit or punctuation at its beginning."""
        text = _rendered("subject", self.config.subject, message) if self.config.subject is not None else ""
        parted = unicodedata.normalize("NFKD", plain_sms(text) or plain_sms(headline(message)))
        letters = "".join(one for one in parted if unicodedata.category(one) not in _UNSEEN).encode("ascii", "replace").decode()
        line = " ".join("".join(one if one.isprintable() else " " for one in letters).split())
        return shorten(line, _LONGEST_SUBJECT, mark="...") or "?"

    def _sms(self, message: Message) -> dict[str, Any]:
        assert self.config.phone_number is not None
        try:
            number = phone_number(_rendered("phone_number", self.config.phone_number, message))
        except ValueError:
            raise PermanentError("phone_number: the template gave no number; one is written with + and its country") from None
        title = headline(message)
        rest = message.text if message.title.strip() else message.text.strip().partition("\n")[2]
        text = self.config.body.render(message) if self.config.body is not None else f"{title}\n{rest}"
        text = fit_sms(plain_sms(text) or plain_sms(title), self.config.max_parts)
        return {"PhoneNumber": number, "Message": self.config.fitting(text), "MessageAttributes": self.config.sms_attributes()}

    def _send_sms(self, messages: Sequence[Message]) -> dict[str, Exception]:
        """Send one after the other, a few at once; those that time does not suffice for are tried again."""
        until = monotonic() + _PATIENCE

        def send(message: Message) -> Exception | None:
            if monotonic() > until:
                return TemporaryError("SNS takes too long")
            try:
                self._aws.call("publish", **self._sms(message))
            except Exception as error:  # noqa: BLE001 - of a message alone: SMS that were sent are not to be sent again
                return error
            return None

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sns") as threads:
            errors = zip(messages, threads.map(send, messages), strict=True)
            return {message.id: error for message, error in errors if error is not None}


def _rendered(option: str, template: Template, message: Message) -> str:
    try:
        return template.render(message)
    except PermanentError as error:
        raise PermanentError(f"{option}: {error}") from None
