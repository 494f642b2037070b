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

from pipeline import Filter, Message, Rendering


class RenderConfig(Rendering):
    """The options of `render`."""


class Render(Filter[RenderConfig]):
    """Writes a message's title, text and other fields anew, by templates."""

    def filter(self, message: Message) -> Iterable[Message]:
        """Give the message with its new fields; raises `PermanentError` that names the field where a template fails."""
        yield self.config.render(message)
