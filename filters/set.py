r"""Sets fields, labels and parts of the payload: to constants, or to what templates make of the message.

What stands to the left of a colon is a place in the message: a field (`title`, `text`, `severity`, `status`, `key`, `url`,
`type`, `source`, `time`), `labels.NAME`, or `data.PATH` such as `data.order.id` or `data.items[0].name`. To the right stands a
template (Jinja2 over the message's fields) or a constant. All templates see the message as it came into this step.

```yaml
name: enriched
producers:
  - prometheus
filters:
  - set:
      severity: critical
      labels.team: db
      labels.runbook: "https://wiki.example.com/{{ labels.alertname | default('unknown') }}"
      data.seen_by: {system: siftbell, version: 2}
      if_empty:
        url: "https://grafana.example.com/d/{{ labels.instance | default('') | urlencode }}"
        labels.environment: production
consumers:
  - log
```

Under `if_empty` stands what is set only where there is nothing yet: no such label, an empty text, and in the payload also
`null`, `[]` and `{}`.

Fields are read as producers read them: `WARN` is the severity warning, a time is RFC 3339 or seconds since 1970. All but `text`
and `data` is one line: line breaks become spaces. A number in a label is its text; in `data` constants stay what they are, lists
and objects too, and templates give texts. Objects on the way into the payload are made where there are none. A template that
fails (a label that is not there and has no `default`), and a value that its place cannot have, put the message into the dead
letters with the place and the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pipeline import (
    ChangeablePath,
    Draft,
    EmptiablePath,
    Filter,
    Fitting,
    Message,
    MessagePath,
    PathsConfig,
    Template,
    Value,
    rendered,
)


class SetConfig(PathsConfig):
    """The options of `set`."""

    fields: Annotated[dict[ChangeablePath, Value], Fitting] = Field(
        default_factory=dict, description="What to set; its entries may stand among the options: `set: {severity: critical}`."
    )
    if_empty: Annotated[dict[EmptiablePath, Value], Fitting] = Field(
        default_factory=dict, description="What to set where there is nothing yet: `if_empty: {labels.team: unknown}`."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.fields and not self.if_empty:
            raise ValueError("this names nothing to set, such as severity, labels.team or data.note")
        if twice := [path for path in self.if_empty if path in self.fields]:
            raise ValueError(f"{twice[0]}: it is set, so it is not empty")
        return self


class Set(Filter[SetConfig]):
    """Sets fields, labels and parts of the payload, to constants and by templates."""

    @classmethod
    def is_light(cls, config: SetConfig) -> bool:  # noqa: ARG003 - whatever they are
        """Say that it is, with all options."""
        return True

    def filter(self, message: Message) -> Iterable[Message]:
        """Give the message with what was set; raises `PermanentError` that names the place where that cannot be."""
        draft = Draft(message)
        empty = {path: value for path, value in self.config.if_empty.items() if draft.value(path) in (None, "", [], {})}
        values: Mapping[MessagePath, Any] = {**self.config.fields, **empty}
        for path, value in values.items():
            draft.write(path, rendered(path, partial(value.render, message)) if isinstance(value, Template) else value)
        yield draft.done()
