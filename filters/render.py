r"""Writes a message's title, text and other fields anew, by templates.

Templates are Jinja2 over the message's fields. What is not named here stays as it was; each template sees the message as
it came into this step. A template that fails (a label that is not there and has no `default`) puts the message into the
dead letters with the reason. All but the text are one line: line breaks in them become spaces; `severity` is written in
lower case. `timezone` is that in which the templates see the message's `time`.

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

A text that is nothing but one of these names is a template that is shipped, and it writes the title as well, where none is
given: `CRITICAL: disk full`, or `Resolved: disk full`.

| name | writes |
|---|---|
| `brief` | the first line of the text, and the link: for SMS and push |
| `full` | the text, the labels, since when it is so and who tells it, and the links: for chats and mails |
| `markdown` | the same as Markdown, the labels as a table |
| `html` | the same as HTML, the labels as a table; values are escaped |

Of a group or a digest `markdown` and `html` show a table of the first hundred, and how many more there are; a text is cut after
100,000 characters. The links are the message's `url`, and of an alert's annotations `runbook_url` and `dashboard_url`.

A consumer may have its own messages written so, beside its name, and all other consumers get them as they are:

```yaml
name: for-each-its-own
producers:
  - prometheus
consumers:
  - log:
    render: brief
  - file: {path: alerts.jsonl}
    render: {text: full, title: "{{ labels.alertname }}", timezone: Europe/Berlin}
```
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import Filter, Message, Rendering


class RenderConfig(Rendering):
    """The options of `render`."""


class Render(Filter[RenderConfig]):
    """Writes a message's title, text and other fields anew, by templates."""

    @classmethod
    def is_light(cls, config: RenderConfig) -> bool:  # noqa: ARG003 - whatever they are
        """Say that it is, with all options."""
        return True

    def filter(self, message: Message) -> Iterable[Message]:
        """Give the message with its new fields; raises `PermanentError` that names the field where a template fails."""
        yield self.config.render(message)
