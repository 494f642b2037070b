"""Amazon SES, through botocore, which is an extra of its own."""

from __future__ import annotations

from typing import Final

import structlog

from consumers.email.addresses import Envelope, Failure
from consumers.email.mail import Mail
from consumers.email.options import EmailConfig
from pipeline import Aws, AwsConfig, PermanentError, TemporaryError

log = structlog.get_logger()

_TAKES: Final = 40 * 10**6
"""Bytes of a mail."""


class Ses:
    """The client of SES. Its methods block."""

    def __init__(self, config: EmailConfig) -> None:
        self._aws = Aws("sesv2", AwsConfig(region=config.region, base_url=config.base_url), connections=config.connections)

    def write(self, mail: Mail, envelope: Envelope) -> bytes:
        """Give a mail as SES takes it."""
        return mail.fitting(_TAKES, lambda mail: mail.to_bytes(envelope, utf8=False))

    def probe(self) -> str:
        """Ask for the account's settings."""
        return self._aws.probe("get_account")

    def send(self, mail: Mail, receiver: str, written: bytes) -> Failure | None:
        """Hand over a mail to one receiver: SES refuses a mail for all when it refuses one of them."""
        try:
            answer = self._aws.call(
                "send_email",
                FromEmailAddress=mail.sender.addr_spec,
                Destination={"ToAddresses": [receiver]},
                Content={"Raw": {"Data": written}},
            )
        except (TemporaryError, PermanentError) as error:
            return error
        log.info("a mail is on its way", id=mail.id, receivers=1, answer=answer.get("MessageId", ""))
        return None
