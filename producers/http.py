"""Makes messages of whatever can post JSON, a form or CloudEvents: one message for an object, one each for an array's.

Post to `/in/PIPELINE/http` with `application/json` (an object, or an array of objects),
`application/x-www-form-urlencoded`, `multipart/form-data`, or CloudEvents 1.0: structured, in batches, or binary
(`ce-` headers). All of a request is accepted or nothing; the answer names every entry that is wrong.

A payload's `title`, `text`, `severity`, `status`, `labels`, `key`, `url`, `time`, `source` and `type` become the
message's. Where a payload has them elsewhere, `fields` says the path: `alert.summary`, `items[0].name`. `data` holds the
payload as it came. `severity` is understood in many words (`WARN`, `crit`, `P1`), `status` as firing or resolved (or
`ok`, `closed`, `recovered`), `time` as RFC 3339 or seconds or milliseconds since 1970, `labels` as an object of texts,
numbers and booleans; form fields called `labels.NAME` become labels. For CloudEvents, `data` is the whole event, so paths
begin with `data.`; without `fields` what stands in the event's `data` counts, then `subject` as the title.

Whoever posts needs an API key of Siftbell, or, where `hmac` is given, a signature of the body in a header.

```yaml
name: from-anywhere
producers:
  - http
  - http:
      fields: {title: check.name, text: check.output, severity: level, labels: tags, key: check.id}
      hmac: {secret: "${HOOK_SECRET}", header: X-Hub-Signature-256}
    as: checks
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, SecretStr

from pipeline import Config, FieldPaths, Message, Request, RequestError, WebhookProducer, read_messages


class HmacConfig(Config):
    """How a request's signature is checked."""

    secret: SecretStr = Field(min_length=1, description="The key that both sides know.")
    header: str = Field(default="X-Signature-256", description="The header with the hex digest, with or without sha256=.")
    algorithm: Literal["sha256", "sha512"] = Field(default="sha256", description="The hash.")


class HttpConfig(Config):
    """The options of `http`."""

    fields: FieldPaths = Field(
        default_factory=dict,
        description="Where in the payload a message's fields stand, as paths; the others by their own names.",
    )
    source: str = Field(default="http", min_length=1, description="The source of messages whose payload names none.")
    limit: int = Field(default=10_000, ge=1, description="How many messages a request may hold.")
    hmac: HmacConfig | None = Field(default=None, description="Ask for a signature of the body in place of an API key.")


class Http(WebhookProducer[HttpConfig]):
    """Makes messages of JSON, forms and CloudEvents that are posted."""

    @property
    def verifies_sender(self) -> bool:
        """True where signatures are checked."""
        return self.config.hmac is not None

    def receive(self, request: Request) -> Iterable[Message]:
        """Give a message for each object; raises `RequestError` that names every one that is wrong."""
        self._check_signature(request)
        return read_messages(request, source=self.config.source, fields=self.config.fields, most=self.config.limit)

    def _check_signature(self, request: Request) -> None:
        if (wanted := self.config.hmac) is None:
            return
        signature = request.headers.get(wanted.header.lower())
        if not signature:
            raise RequestError(f"a signature is expected in the header {wanted.header}", status=401)
        if not request.signed_by(wanted.secret.get_secret_value(), signature, algorithm=wanted.algorithm):
            raise RequestError(f"the signature in the header {wanted.header} does not fit the body", status=403)
