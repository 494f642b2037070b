"""Thin first form: makes a message of a JSON object, or one for each in an array.

```yaml
name: from-anywhere
producers:
  - http
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import Message, NoOptions, Request, RequestError, WebhookProducer


class Http(WebhookProducer[NoOptions]):
    """Makes messages of JSON that is posted."""

    def receive(self, request: Request) -> Iterable[Message]:
        """Give a message for each object."""
        body = request.json()
        for item in body if isinstance(body, list) else [body]:
            if not isinstance(item, dict):
                raise RequestError("an object is expected", status=422)
            labels = {str(name): str(value) for name, value in (item.get("labels") or {}).items()}
            yield Message(
                source="http",
                title=str(item.get("title", "")),
                text=str(item.get("text", "")),
                severity=str(item.get("severity", "")),
                labels=labels,
                key=str(item.get("key", "")),
                data=item,
            )
