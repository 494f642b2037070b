"""Moves labels and parts of the payload to other labels and fields.

To the left stands where it is, to the right where it goes: `labels.NAME`, `data.PATH` such as `data.alert.name`, or a field. What
was there goes to its new place and is no longer at the old one. All entries see the message as it came into this step, so two
labels can be exchanged.

```yaml
name: one-vocabulary
producers:
  - http
filters:
  - rename:
      labels.instance: labels.host
      data.alert.name: title
      data.alert.level: severity
      existing: keep
consumers:
  - log
```

Where there is nothing to move, the other entries are carried out all the same; with `missing: drop` or `missing: bury` the
message ends there. Where the new place has something already it is replaced; `existing: keep` leaves both as they are, and
`existing: bury` puts the message into the dead letters. Nothing is: no such label, an empty text, `null`.

Fields are read as producers read them: `WARN` is the severity warning, a number in a label is its text. A list or an object
can only go to another place in `data`; elsewhere it puts the message into the dead letters, as does a way into `data` that leads
through something else than objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline import ChangeablePath, Draft, Dropped, EmptiablePath, Filter, Message, MessagePath, PathsConfig, PermanentError


class RenameConfig(PathsConfig):
    """The options of `rename`."""

    fields: dict[EmptiablePath, ChangeablePath] = Field(
        default_factory=dict,
        description="What goes where; its entries may stand among the options: `rename: {labels.instance: labels.host}`.",
    )
    missing: Literal["pass", "drop", "bury"] = Field(default="pass", description="What to do where there is nothing to move.")
    existing: Literal["replace", "keep", "bury"] = Field(
        default="replace", description="What to do where the new place has something already."
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if not self.fields:
            raise ValueError("this names nothing to move, such as labels.instance: labels.host")
        targets = [*self.fields.values()]
        for path, target in self.fields.items():
            if path == target:
                raise ValueError(f"{path}: it is there already")
            if targets.count(target) > 1:
                raise ValueError(f"{target}: only one can go there")
        return self


class Rename(Filter[RenameConfig]):
    """Moves labels and parts of the payload to other labels and fields."""

    @classmethod
    def is_light(cls, config: RenameConfig) -> bool:  # noqa: ARG003 - whatever they are
        """Say that it is, with all options."""
        return True

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Give the message with what was moved; raises `PermanentError` that names the place where that cannot be."""
        config, draft = self.config, Draft(message)
        found = {path: draft.value(path) for path in config.fields}
        moved = {path: value for path, value in found.items() if value not in (None, "")}
        if config.missing != "pass" and len(moved) < len(found):
            reason = f"there is nothing at {next(path for path in found if path not in moved)}"
            if config.missing == "bury":
                raise PermanentError(reason)
            yield Dropped(reason)
            return
        while blocked := [path for path in moved if self._is_taken(config.fields[path], draft, moved)]:
            if config.existing == "bury":
                raise PermanentError(f"there is something at {config.fields[blocked[0]]} already")
            moved = {path: value for path, value in moved.items() if path not in blocked}
        draft.remove(*moved)
        for path, value in moved.items():
            draft.write(config.fields[path], value)
        yield draft.done()

    def _is_taken(self, target: MessagePath, draft: Draft, moved: Collection[MessagePath]) -> bool:
        """Say whether what is at a place stays there, and may not be replaced."""
        return self.config.existing != "replace" and target not in moved and draft.value(target) not in (None, "")
