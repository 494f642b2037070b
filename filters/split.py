"""Makes a message of each element of a list in the payload.

`list` says where the list is: `data.alerts`, or `data` where the payload is one. A bare value is `list`. Each part is the
message as it came, with the element as its `data`. What differs stands among the options as it does in `set`: places in the
message, and templates or constants. These templates see the element as `item`, its number from 0 as `index`, and the fields
of the whole message.

```yaml
name: one-by-one
producers:
  - http
filters:
  - split:
      list: data.alerts
      fields: {severity: level, labels: tags, time: at}
      title: "{{ item.name }} on {{ item.host | default('an unknown host') }}"
      labels.batch: "{{ data.batch }}"
      key: "{{ item.name }}/{{ item.host }}"
consumers:
  - log
```

`fields` says where in an element the fields of its message stand, as paths, as the producer `http` has them: `severity:
level` reads the member `level`, in any of many words; labels of an element are added to those of the message. Where a path
leads nowhere, the field stays that of the message.

Each part has a key of its own: what `key` gives, here or among `fields`, else the message's key (or its id) and the number.
Where the order of the list changes from time to time, the number says nothing: give a `key`. Ids of parts are always the same
for the same message, so that a repeat is no second message; a part that is alone keeps the message's id.

An empty list leaves nothing to tell: the message is dropped, or what `empty` says. Where there is no list, something is
wrong: the message is buried, or what `missing` says. More than `most` elements, a template that fails, an element that
cannot be read, and parts that are too much together (64 MiB, or ten seconds of work) put the whole message into the dead
letters, and no part goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from time import thread_time
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from pydantic import AfterValidator, Field

from pipeline import (
    ChangeablePath,
    Draft,
    Dropped,
    FieldPaths,
    Filter,
    Fitting,
    ItemTemplate,
    ItemValue,
    Message,
    MessagePath,
    PathsConfig,
    PermanentError,
    read_fields,
    rendered,
)

MOST_BYTES: Final = 64 * 2**20
"""What all parts of a message may take together: each has the whole text of the message, if it says nothing else."""
MOST_SECONDS: Final = 10.0
"""Of a thread's CPU time, for all parts: a template that looks at the whole list for each element is one of them times itself."""


def _in_data(path: MessagePath) -> MessagePath:
    if path.field != "data":
        raise ValueError("a place in the payload is expected, such as data.alerts")
    return path


Otherwise = Literal["pass", "drop", "bury"]


class SplitConfig(PathsConfig):
    """The options of `split`."""

    shorthand: ClassVar[str | None] = "list"
    rest: ClassVar[str] = "set"

    list: Annotated[MessagePath, AfterValidator(_in_data)] = Field(description="Where the list is, such as `data.alerts`.")
    fields: FieldPaths = Field(
        default_factory=dict, description="Where in an element a message's fields stand, as paths: `{severity: level}`."
    )
    set: Annotated[dict[ChangeablePath, ItemValue], Fitting] = Field(
        default_factory=dict, description="What to set in each part; may stand among the options: `title: '{{ item.name }}'`."
    )
    empty: Otherwise = Field(default="drop", description="What to do where the list is empty.")
    missing: Otherwise = Field(default="bury", description="What to do where there is no list.")
    most: int = Field(default=1000, ge=1, le=10_000, description="How many elements a list may have.")


class Split(Filter[SplitConfig]):
    """Makes a message of each element of a list in the payload."""

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Give the parts; raises `PermanentError` where there is no list, it is too long, or a part cannot be made."""
        config = self.config
        whole = message.replace(data=message.data)  # so that it is read once, however many templates look at it
        items = config.list.value(whole)
        if not isinstance(items, list):
            yield _otherwise(config.missing, message, f"{config.list} is {'not there' if items is None else 'no list'}")
        elif not items:
            yield _otherwise(config.empty, message, f"{config.list} is an empty list")
        elif len(items) > config.most:
            raise PermanentError(f"{config.list} has {len(items)} elements, more than {config.most} (most)")
        else:
            yield from [*self._parts(whole, items)]  # all of them, or none

    def _parts(self, whole: Message, items: Iterable[Any]) -> Iterator[Message]:
        keyed = "key" in self.config.fields or any(path.text == "key" for path in self.config.set)
        left, ends = MOST_BYTES, thread_time() + MOST_SECONDS
        for index, item in enumerate(items):
            try:
                part = self._part(whole, item, index)
            except PermanentError as error:
                raise PermanentError(f"{self.config.list}[{index}]: {error}") from None
            left -= len(msgspec.json.encode(part))
            if left < 0 or thread_time() > ends:
                much = f"{MOST_BYTES // 2**20} MiB together" if left < 0 else f"{MOST_SECONDS:.0f} seconds of work"
                raise PermanentError(f"{self.config.list}: its first {index + 1} parts are more than {much}")
            yield part if keyed and part.key else part.replace(key=f"{whole.key or whole.id}/{index}")

    def _part(self, whole: Message, item: Any, index: int) -> Message:
        config = self.config
        try:
            fields = read_fields(item, config.fields) if config.fields else {}
        except ValueError as error:
            raise PermanentError(str(error)) from None
        if "labels" in fields:
            fields["labels"] = whole.labels | fields["labels"]
        draft = Draft(whole.replace(**fields, data=item))
        for path, value in config.set.items():
            render = partial(value.render_item, whole, item, index) if isinstance(value, ItemTemplate) else None
            draft.write(path, rendered(path, render) if render else value)
        return draft.done()


def _otherwise(what: Otherwise, message: Message, reason: str) -> Message | Dropped:
    if what == "bury":
        raise PermanentError(reason)
    return message if what == "pass" else Dropped(reason)
