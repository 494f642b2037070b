"""A client of one of AWS's services, through botocore, which is an extra of its own (`aws`)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Self

from botocore.config import Config as Settings
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError, ProfileNotFound
from pydantic import Field, SecretStr, model_validator

from pipeline.aws.session import new_session
from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import Config
from pipeline.secrecy import masker, secrets_in
from pipeline.text import shorten

AT_ONCE: Final = 10
"""Entries of a batch: the most that SNS and SQS take."""
PATIENCE: Final = 90.0
"""Seconds after which no further batch is begun: the engine waits 120 for a call of a plugin."""
_NAMES: Final = {"sesv2": "SES", "sns": "SNS", "sqs": "SQS", "sts": "STS"}
_REGION: Final = re.compile(r"(?<![a-z0-9-])[a-z]{2}(?:-[a-z]+)+-\d(?![a-z0-9-])")
_MAY_PASS: Final = frozenset(
    (
        *("LimitExceededException", "SendingPausedException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeout", "RequestTimeTooSkewed"),
        *("OverLimit", "ServiceUnavailable", "InternalError", "InternalFailure"),
    )
)
"""What may be otherwise later, besides all codes of throttling, 429 and 5xx."""
_OF_ONE: Final = re.compile("Invalid(Parameter|Attribute|Message)|ParameterValueInvalid|ParamValidation|TooLong")
"""Codes with which a whole batch is refused for the sake of one entry."""

_NOT_ALLOWED: Final = frozenset(("AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"))
_COUNTED: Final = ("MessageBody", "Message", "Subject")

Failure = TemporaryError | PermanentError
Entry = dict[str, Any]


class AwsConfig(Config):
    """How a plugin finds AWS: what is not given is found as by any client of AWS, in the environment, in files or by roles."""

    region: str | None = Field(
        default=None, pattern="^[a-z0-9-]+$", description="The region, where neither an address nor AWS's settings tell it."
    )
    profile: str | None = Field(default=None, min_length=1, description="A profile of AWS's files, which may assume a role.")
    access_key_id: str | None = Field(default=None, min_length=1, description="The access key's id, where it is given here.")
    secret_access_key: SecretStr | None = Field(default=None, min_length=1, description="The access key's secret.")
    base_url: str | None = Field(
        default=None, pattern="^https?://", description="Another address of the service, such as a VPC endpoint's."
    )

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("`access_key_id` and `secret_access_key` go together")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("give either `profile` or an access key")
        return self


class AwsRefusedError(PermanentError):
    """AWS refused a call for good; `code` is its word for why."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class Aws:
    """A client of one service. Its methods block; several threads may call them at once.

    `near` is an address or an ARN that tells the region where the options do not. `patience` is how many seconds an answer is
    waited for. No call is repeated here, as the engine has messages tried again.
    """

    def __init__(
        self,
        service: str,
        config: AwsConfig,
        *,
        near: str = "",
        base_url: str | None = None,
        connections: int = 10,
        patience: float = 20,
    ) -> None:
        self._name = _NAMES.get(service, service)
        self._mask = masker(secrets_in(config))
        settings = Settings(
            connect_timeout=5, read_timeout=patience, retries={"total_max_attempts": 1}, max_pool_connections=connections
        )
        region = _REGION.search(near)
        secret = config.secret_access_key
        try:
            self._client: Any = new_session(config.profile).create_client(
                service,
                region_name=config.region or (region[0] if region else None),
                endpoint_url=config.base_url or base_url,
                aws_access_key_id=config.access_key_id,
                aws_secret_access_key=None if secret is None else secret.get_secret_value(),
                config=settings,
            )
        except ProfileNotFound:
            raise ConfigError(f"{self._name}: AWS's files have no such `profile`") from None
        except (BotoCoreError, ValueError) as error:
            hint = "Give `region`, or what else AWS's settings lack."
            raise ConfigError(f"{self._name}: {self._told(str(error))} {hint}") from None

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call an operation (`send_message`) and give the answer. Raises `TemporaryError`, or `AwsRefusedError` with a `code`."""
        asked = getattr(self._client, operation)
        try:
            answer: dict[str, Any] = asked(**arguments)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            told = error.response.get("Error", {})
            may_pass = status == 429 or status >= 500
            raise self._failure(f"answered {status}", told.get("Code"), told.get("Message"), may_pass=may_pass) from None
        except ParamValidationError as error:
            raise AwsRefusedError(f"{self._name}: {self._told(str(error))}", "ParamValidation") from None
        except Exception as error:  # noqa: BLE001 - besides its own, botocore raises those of its parsers of an odd answer
            raise TemporaryError(f"{self._name}: {self._told(str(error) or type(error).__name__)}") from None
        return answer

    def probe(self, operation: str, **arguments: Any) -> str:
        """Ask what changes nothing, and give the line for `probe`. To be told that one may not ask is an answer too."""
        try:
            self.call(operation, **arguments)
        except AwsRefusedError as error:
            if error.code.rpartition(".")[2] not in _NOT_ALLOWED:
                raise
            return f"{self._name} knows the credential, which may not {operation}"
        return f"{self._name} answers"

    def send_messages(
        self, operation: str, field: str, messages: Sequence[Message], write: Callable[[Message], Entry], most: int, **target: Any
    ) -> dict[str, Exception]:
        """Send messages by a batch operation, and give the error of each that was not taken, by its id.

        `field` is what the operation calls its entries, `write` makes one of a message or raises `PermanentError`; `most` is how
        many bytes a batch may have, and so an entry. Where a whole batch is refused as one of its entries will not do, it is sent
        in halves. Where AWS is away, what is left is not tried.
        """
        failures: dict[str, Exception] = {}
        entries: list[Entry] = []
        for message in messages:
            try:
                entries.append({"Id": message.id} | write(message))
            except Exception as error:  # noqa: BLE001 - whatever one message is bad for costs no other
                failures[message.id] = error
        until = monotonic() + PATIENCE
        away: TemporaryError | None = None
        batches = deque(_batches(entries, most))
        while batches:
            batch = batches.popleft()
            ids, size = [entry["Id"] for entry in batch], _size(batch[0])
            if size > most:
                failures[ids[0]] = PermanentError(f"the message takes {size} bytes of the {most} that {self._name} takes")
                continue
            if monotonic() > until:
                away = TemporaryError(f"{self._name} takes too long")
            if away is not None:
                failures |= dict.fromkeys(ids, away)
                continue
            try:
                failures |= self._send_batch(operation, field, batch, target)
            except TemporaryError as error:
                away = error
                failures |= dict.fromkeys(ids, away)
            except AwsRefusedError as error:
                if len(batch) > 1 and _OF_ONE.search(error.code):
                    middle = len(batch) // 2
                    batches.extendleft((batch[middle:], batch[:middle]))
                else:
                    failures |= dict.fromkeys(ids, error)
        return failures

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send_batch(self, operation: str, field: str, batch: Sequence[Entry], target: Mapping[str, Any]) -> dict[str, Failure]:
        answer = self.call(operation, **{**target, field: batch})
        taken = {one.get("Id") for one in answer.get("Successful", ())}
        silent = TemporaryError(f"{self._name} answered, and said nothing of this message")
        failures: dict[str, Failure] = {entry["Id"]: silent for entry in batch if entry["Id"] not in taken}
        for one in answer.get("Failed", ()):
            if one.get("Id") in failures:
                may_pass = not one.get("SenderFault", False)
                failures[one["Id"]] = self._failure("refused it", one.get("Code"), one.get("Message"), may_pass=may_pass)
        return failures

    def _failure(self, what: str, code: object, words: object, *, may_pass: bool) -> Failure:
        code = str(code or "")
        told = f"{self._name} {what}{f' {code}' if code else ''}: {self._told(str(words or 'it does not say why'))}"
        name = code.rpartition(".")[2]
        if may_pass or name in _MAY_PASS or "throttl" in name.lower():
            return TemporaryError(told)
        return AwsRefusedError(told, code)

    def _told(self, words: str) -> str:
        """Give AWS's words on one line, without what a terminal would obey and without secrets."""
        return shorten(self._mask(" ".join("".join(one if one.isprintable() else " " for one in words).split())), 300)


def _batches(entries: Sequence[Entry], most: int) -> Iterator[list[Entry]]:
    """Give the entries in batches that AWS takes; one that is too large alone stands alone."""
    batch: list[Entry] = []
    room = most
    for entry in entries:
        size = _size(entry)
        if batch and (len(batch) == AT_ONCE or size > room):
            yield batch
            batch, room = [], most
        batch.append(entry)
        room -= size
    if batch:
        yield batch


def _size(entry: Entry) -> int:
    """Give the bytes that AWS counts: the body, and the name, type and value of each attribute."""
    attributes = entry.get("MessageAttributes", {})
    counted = [text for name, one in attributes.items() for text in (name, *one.values())]
    return sum(len(text.encode()) for text in (*counted, *(entry.get(name, "") for name in _COUNTED)))
