r"""Removes labels, fields and parts of the payload, and replaces what nobody should read.

`fields` names what goes: `labels.NAME`, with `*` for any characters and `?` for one (`labels.tmp_*`), `data.PATH` such as
`data.request.headers`, the fields `title`, `text`, `severity`, `key` and `url`, and all `labels` or all `data`. What is not there
anyway is no mistake. A bare value or list is `fields`.

```yaml
name: what-may-leave-the-house
producers:
  - http
filters:
  - remove: [labels.pod_template_hash, labels.tmp_*, data.request.headers]
  - remove:
      redact: [email, ipv4, card, bearer, password-in-url, 'ticket-\d+', 'api_key=(?P<secret>\S+)']
consumers:
  - log
```

`members` are names of members that go wherever they stand in the payload, with `*` and `?` as in labels:
`members: [password, "*_token"]`.

`redact` replaces by `***` what its patterns match in title, text and url, in the values of labels, and in every text of the
payload; not in names of labels and members, in `key`, `source` and numbers. A word of small letters is the name of a pattern:

| name | replaces |
|---|---|
| `email` | addresses such as `ada@example.com` |
| `ipv4` | addresses such as `192.0.2.7` |
| `card` | numbers of payment cards: 13 to 19 digits, with spaces or dashes or without, whose check digit is right |
| `bearer` | what follows `Bearer` in a header |
| `password-in-url` | the password in `postgresql://user:password@host` |

Anything else is a regular expression (RE2); `(?i)` at its beginning takes capital and small letters as the same. Where it has a
group called `secret`, that alone is replaced. Matching takes time linear in the text, whatever the pattern. Of numbers that stand
beside a card's, rather too much is replaced than too little.

**Where it lives on.** What is removed is gone for the steps after this one and for the consumers, and nowhere else. Messages that
wait or were buried before this step have it still, and so have those that `keep:` keeps, which stay as they were accepted. A
reason that a step before it gave (`label customer is "…"`) stands in the records, and may quote it. What later steps put together
(a template that writes two halves of a number beside each other) is looked at by none: put it first, and once more behind
such a step. `type` and `severity`, the sender's own words, are not looked at either; `set` gives them others. In a text that is
JSON itself or is encoded (Base64, `%40`) patterns find what stands there as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import re2
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from filters.remove.redaction import Pattern, redacted
from pipeline import Config, Draft, Filter, Message, MessagePath, RemovablePath


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _named(path: MessagePath) -> MessagePath:
    """Refuse what looks like a form of many names and would be the name of one."""
    for step in path.steps:
        if isinstance(step, str) and not {"*", "?"}.isdisjoint(step):
            raise ValueError(f"`*` and `?` are for labels here; members: ['{step}'] goes wherever it stands in the payload")
    return path


class RemoveConfig(Config):
    """The options of `remove`."""

    shorthand: ClassVar[str | None] = "fields"

    fields: Annotated[
        tuple[Annotated[RemovablePath, AfterValidator(_named)], ...],
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    ] = Field(default=(), description="What goes: `labels.NAME` (with `*` and `?`), `data.PATH`, or a field that may be empty.")
    members: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])
    ] = Field(default=(), description="Members that go wherever they stand in the payload: their names, with `*` and `?`.")
    redact: Annotated[tuple[Pattern, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])] = Field(
        default=(), description="What is replaced by `***` in all texts: names of patterns, and regular expressions (RE2)."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.fields and not self.members and not self.redact:
            raise ValueError("fields, members or redact is required")
        return self


class Remove(Filter[RemoveConfig]):
    """Removes labels, fields and parts of the payload, and replaces what nobody should read."""

    @classmethod
    def is_light(cls, config: RemoveConfig) -> bool:
        """Say whether it looks for nothing in texts: what is redacted takes a second for a hundred kilobytes."""
        return not config.redact

    def __init__(self, config: RemoveConfig) -> None:
        super().__init__(config)
        self._paths = tuple(path for path in config.fields if not _is_glob(path))
        self._members = tuple(_glob(name) for name in config.members)
        self._globs = tuple(_glob(path.label or "") for path in config.fields if _is_glob(path))
        self._in_data = bool(config.redact or config.members or any(path.steps for path in config.fields))

    def filter(self, message: Message) -> Iterable[Message]:
        """Give the message without what is named, and with what is redacted."""
        if self._in_data and (data := message.data) is not message.data:
            message = message.replace(data=data)  # JSON as it came may name a member twice, of which only the last one is seen
        draft = Draft(message)
        draft.remove(*self._paths)
        if self._globs:
            named = (name for name in message.labels if any(glob(name) for glob in self._globs))
            draft.remove(*(MessagePath(f"labels.{name}") for name in named))
        left = draft.done()
        if self._members and (kept := _without(self._members, data := left.data)) is not data:
            left = left.replace(data=kept)
        yield left if not self.config.redact else _redacted(left, partial(redacted, self.config.redact))


def _redacted(message: Message, replaced: Callable[[Any], Any]) -> Message:
    fields: Mapping[str, Any] = {name: getattr(message, name) for name in ("title", "text", "url", "labels", "data")}
    changes = {name: new for name, value in fields.items() if (new := replaced(value)) is not value}
    return message.replace(**changes) if changes else message


def _without(members: Sequence[Callable[[str], bool]], value: Any) -> Any:
    """Give a value of JSON without these members, at any depth: the value itself where there are none."""
    if isinstance(value, list):
        items = [_without(members, inner) for inner in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if not isinstance(value, dict):
        return value
    kept = {name: _without(members, inner) for name, inner in value.items() if not any(member(name) for member in members)}
    return value if len(kept) == len(value) and all(kept[name] is inner for name, inner in value.items()) else kept


def _is_glob(path: MessagePath) -> bool:
    return path.label is not None and not {"*", "?"}.isdisjoint(path.label)


def _glob(text: str) -> Callable[[str], bool]:
    """Give what says whether a name is of this form."""
    parts = (".*" if one == "*" else "." if one == "?" else re2.escape(one) for one in text)
    pattern = re2.compile(f"(?s){''.join(parts)}")
    return lambda name: pattern.fullmatch(name) is not None
