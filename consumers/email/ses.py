"""Amazon SES, through botocore, which is an extra of its own."""

from __future__ import annotations

from typing import Any, Final

import structlog
from botocore.config import Config as Settings
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from consumers.email.addresses import Envelope, Failure
from consumers.email.mail import Mail
from consumers.email.options import EmailConfig
from consumers.email.text import told
from pipeline import ConfigError, PermanentError, TemporaryError

log = structlog.get_logger()

_TAKES: Final = 40 * 10**6
"""Bytes of a mail."""
_MAY_PASS: Final = frozenset(
    (
        *("TooManyRequestsException", "Throttling", "ThrottlingException", "LimitExceededException", "SendingPausedException"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeout"),
    )
)


class Ses:
    """The client of SES. Its methods block."""

    def __init__(self, config: EmailConfig) -> None:
        settings = Settings(
            connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}, max_pool_connections=config.connections
        )
        try:
            self._client: Any = get_session().create_client(
                "sesv2", region_name=config.region, endpoint_url=config.base_url, config=settings
            )
        except BotoCoreError as error:
            raise ConfigError(f"SES: {error} Give `region`, or what else AWS's settings lack.") from None

    def write(self, mail: Mail, envelope: Envelope) -> bytes:
        """Give a mail as SES takes it."""
        return mail.fitting(_TAKES, lambda mail: mail.to_bytes(envelope, utf8=False))

    def send(self, mail: Mail, receiver: str, written: bytes) -> Failure | None:
        """Hand over a mail to one receiver: SES refuses a mail for all when it refuses one of them."""
        try:
            answer = self._client.send_email(
                FromEmailAddress=mail.sender.addr_spec,
                Destination={"ToAddresses": [receiver]},
                Content={"Raw": {"Data": written}},
            )
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code, text = (str(error.response.get("Error", {}).get(name, "")) for name in ("Code", "Message"))
            may_pass = code in _MAY_PASS or status == 429 or status >= 500
            return (TemporaryError if may_pass else PermanentError)(f"SES answered {status} {code}: {told(text)}")
        except BotoCoreError as error:
            return TemporaryError(f"SES: {told(str(error))}")
        log.info("a mail is on its way", id=mail.id, receivers=1, answer=answer.get("MessageId", ""))
        return None
