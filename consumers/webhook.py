r"""Posts each message to a URL: as Siftbell's own JSON, or as a body of your making.

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
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, ClassVar, Literal

import msgspec
from pydantic import Field, SecretStr, StringConstraints

from pipeline import Config, HttpConsumer, HttpRequest, Message, PermanentError, SecretUrl, Template

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class HmacConfig(Config):
    """How the body is signed."""

    secret: SecretStr = Field(description="The key that both sides know.")
    header: HeaderName = Field(default="X-Signature-256", description="The header that holds the signature.")
    algorithm: Literal["sha256", "sha512"] = Field(default="sha256", description="The hash.")


class WebhookConfig(Config):
    """The options of `webhook`."""

    shorthand: ClassVar[str | None] = "url"

    url: SecretUrl = Field(description="Where to: http:// or https://. Kept secret, as such URLs often hold a token.")
    method: Literal["POST", "PUT", "PATCH"] = Field(default="POST", description="The HTTP method.")
    headers: dict[HeaderName, SecretStr] = Field(default_factory=dict, description="Headers to send along, kept secret.")
    content_type: str = Field(default="application/json", description="The content type of the body.")
    body: Template | None = Field(default=None, description="The body; without it the message as JSON.")
    hmac: HmacConfig | None = Field(default=None, description="Sign the body.")


class Webhook(HttpConsumer[WebhookConfig]):
    """Posts each message to a URL."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request: body, headers, signature. Raises `PermanentError` for a body that cannot be made."""
        config = self.config
        body = self._body(message)
        headers = {"content-type": config.content_type, "idempotency-key": message.id}
        headers |= {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
        if config.hmac is not None:
            secret = config.hmac.secret.get_secret_value().encode()
            digest = hmac.new(secret, body, getattr(hashlib, config.hmac.algorithm)).hexdigest()
            headers[config.hmac.header.lower()] = f"{config.hmac.algorithm}={digest}"
        return HttpRequest(url=config.url.get_secret_value(), body=body, method=config.method, headers=headers)

    def _body(self, message: Message) -> bytes:
        if self.config.body is None:
            return msgspec.json.encode(message)
        body = self.config.body.render(message).encode()
        if self.config.content_type.partition(";")[0].strip().lower() == "application/json":
            try:
                msgspec.json.decode(body)
            except (msgspec.DecodeError, RecursionError) as error:
                raise PermanentError(f"body: the template did not give JSON ({error}); write values by | tojson") from None
        return body
