r"""Posts each message to a URL, or several at once: as Siftbell's own JSON, or as a body of your making.

Without `body` the message is sent as JSON, all its fields. With `body`, a template is rendered; write values into JSON
by `tojson`, which quotes them: `{"text": {{ title | tojson }}}`. What is not JSON then, while `content_type` says it is,
goes to the dead letters instead of out. The header `Idempotency-Key` holds the message's id, the same for each attempt.
With `hmac` the body is signed, as GitHub does it: the header holds `sha256=` and the hex digest; the producer `http`
checks such signatures. 2xx is success; 408, 425, 429, 5xx and no answer are tried again; redirects and other 4xx are not.

```yaml
name: to-a-chat
producers:
  - prometheus
consumers:
  - webhook:
      url: "${CHAT_URL:-https://chat.example.com/hooks/oncall}"
      headers: {authorization: "Bearer ${CHAT_TOKEN:-unset}"}
      body: '{"text": {{ (title ~ "\n" ~ text) | tojson }}}'
      hmac: {secret: "${CHAT_SECRET:-unset}"}
```

With `batch`, what waits at the same time goes out in one request: a JSON array of what each message would be alone, or what the
template `batch.body` makes of `messages`. A message that comes alone waits for no other, and goes as an array of one.

```yaml
name: to-an-archive
producers:
  - http
consumers:
  - webhook:
      url: "${ARCHIVE_URL:-https://archive.example.com/api/bulk}"
      batch: {size: 50}
  - webhook:
      url: "${LINES_URL:-https://logs.example.com/lines}"
      content_type: application/x-ndjson
      batch:
        body: |
          {% for message in messages %}{{ {"time": message.time, "text": message.title} | tojson }}
          {% endfor %}
    as: lines
```

A request has at most `batch.size` messages and `batch.bytes` bytes. One that is refused with 400, 413 or 422 is sent in
halves, until the message that is not taken stands alone and goes to the dead letters; the others arrive. Any other answer
holds for all of its messages. `Idempotency-Key` is made of the ids of the messages, so a request that is sent again with
others has another one: go by the ids, where each message has to count once.

URLs that lead into a private network are refused unless `SIFTBELL_PRIVATE_NETWORKS` allows it: see docs/operations.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from pydantic import Field, SecretStr, StringConstraints

from pipeline import (
    BatchTemplate,
    Config,
    HttpBatchConsumer,
    HttpRequest,
    Message,
    PermanentError,
    SecretUrl,
    Size,
    Template,
    batch_key,
)

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class HmacConfig(Config):
    """How the body is signed."""

    secret: SecretStr = Field(description="The key that both sides know.")
    header: HeaderName = Field(default="X-Signature-256", description="The header that holds the signature.")
    algorithm: Literal["sha256", "sha512"] = Field(default="sha256", description="The hash.")


class BatchConfig(Config):
    """How several messages go into one request."""

    size: int = Field(default=100, ge=1, le=500, description="How many messages a request has at most.")
    bytes: Size = Field(default=1024 * 1024, description="How large the body of several messages may be.")
    body: BatchTemplate | None = Field(
        default=None, description="The body, of `messages`; without it a JSON array of what each message would be alone."
    )


class WebhookConfig(Config):
    """The options of `webhook`."""

    shorthand: ClassVar[str | None] = "url"

    url: SecretUrl = Field(description="Where to: http:// or https://. Kept secret, as such URLs often hold a token.")
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", description="The HTTP method.")
    headers: dict[HeaderName, SecretStr] = Field(default_factory=dict, description="Headers to send along, kept secret.")
    content_type: str = Field(default="application/json", description="The content type of the body.")
    body: Template | None = Field(default=None, description="The body; without it the message as JSON.")
    hmac: HmacConfig | None = Field(default=None, description="Sign the body.")
    batch: BatchConfig | None = Field(default=None, description="Send several messages in one request.")


class Webhook(HttpBatchConsumer[WebhookConfig]):
    """Posts each message to a URL, or several at once."""

    @classmethod
    def takes_batches(cls, config: WebhookConfig) -> bool:
        """Say whether several messages go into one request: where `batch` says so."""
        return config.batch is not None

    def limits(self) -> tuple[int, int]:
        """Give the messages and the bytes of a request."""
        batch = self.config.batch or BatchConfig(size=1)
        return batch.size, batch.bytes

    def request_for(self, messages: Sequence[Message]) -> HttpRequest:
        """Give the request: body, headers, signature. Raises `PermanentError` for a body that cannot be made."""
        config = self.config
        body = self._body(messages)
        headers = {"content-type": config.content_type, "idempotency-key": batch_key(messages)}
        headers |= {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
        if config.hmac is not None:
            secret = config.hmac.secret.get_secret_value().encode()
            digest = hmac.new(secret, body, getattr(hashlib, config.hmac.algorithm)).hexdigest()
            headers[config.hmac.header.lower()] = f"{config.hmac.algorithm}={digest}"
        return HttpRequest(url=config.url.get_secret_value(), body=body, method=config.method, headers=headers)

    def _body(self, messages: Sequence[Message]) -> bytes:
        batch = self.config.batch
        if batch is None:
            return self._alone(messages[0])
        if batch.body is not None:
            return self._checked(batch.body.render_all(messages).encode(), "batch.body")
        return b"[" + b",".join(map(self._alone, messages)) + b"]"

    def _alone(self, message: Message) -> bytes:
        if self.config.body is None:
            return msgspec.json.encode(message)
        return self._checked(self.config.body.render(message).encode(), "body")

    def _checked(self, body: bytes, option: str) -> bytes:
        """Give the body where it is what `content_type` says; raises `PermanentError` else."""
        if self.config.content_type.partition(";")[0].strip().lower() == "application/json":
            try:
                msgspec.json.decode(body)
            except (msgspec.DecodeError, RecursionError) as error:
                text = f"{option}: the template did not give JSON ({error}); write values by | tojson"
                raise PermanentError(text) from None
        return body
