r"""Writes a message's title, text and other fields anew, by templates.

Templates are Jinja2 over the message's fields. What is not named here stays as it was; each template sees the message as
it came into this step. A template that fails (a label that is not there and has no `default`) puts the message into the
dead letters with the reason. All but the text are one line: line breaks in them become spaces; `severity` is written in
lower case.

```yaml
name: readable
producers:
  - prometheus
filters:
  - render:
      title: "{{ severity | upper }}: {{ title }}"
      text: "{{ text }}\nsince {{ time | localtime('Europe/Berlin') }} on {{ labels.instance | default('unknown') }}"
consumers:
  - log
```
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pipeline import Config, Filter, Message, PermanentError, Template


class RenderConfig(Config):
    """The options of `render`."""

    shorthand: ClassVar[str | None] = "text"

    title: Template | None = Field(default=None, description="The new title.")
    text: Template | None = Field(default=None, description="The new text.")
    url: Template | None = Field(default=None, description="The new link.")
    key: Template | None = Field(default=None, description="The new key: what the message is about.")
    severity: Template | None = Field(default=None, description="The new severity.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("this names none of title, text, url, key, severity")
        return self


class Render(Filter[RenderConfig]):
    """Writes a message's title, text and other fields anew, by templates."""

    @cached_property
    def _templates(self) -> list[tuple[str, Template]]:
        return [(name, template) for name, template in self.config if template is not None]

    def filter(self, message: Message) -> Iterable[Message]:
        """Give the message with its new fields; raises `PermanentError` that names the field where a template fails."""
        changes: dict[str, str] = {}
        for name, template in self._templates:
            try:
                text = template.render(message)
            except PermanentError as error:
                raise PermanentError(f"{name}: {error}") from None
            changes[name] = text if name == "text" else " ".join(text.split())
        if "severity" in changes:
            changes["severity"] = changes["severity"].lower()
        yield message.replace(**changes)
