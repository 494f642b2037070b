"""Has an executable decide about messages and change them: it is kept running, reads a line for each, and answers with one.

It is run without a shell, and only where the settings allow it: `SIFTBELL_SCRIPTS=/opt/siftbell/scripts` names the
directories whose executables may be run, separated by `:`. Whoever may write there may run what they like as Siftbell's
user, so nobody else should. Of the environment it gets PATH, HOME, LANG and the variables that `environment` names.

```yaml
name: with-owners
producers:
  - prometheus
filters:
  - script:
      command: [find-owner, --inventory, https://inventory.example.com]
      environment: [INVENTORY_TOKEN]
      timeout: 5s
consumers:
  - log
```

**It reads** each message as one JSON object on a line, as `file` writes it: fields without a value are left out.

**It answers** with one line for each line, in their order, and writes it out at once (`flush`):

| answer | means |
|---|---|
| `{}` | the message passes as it is |
| `{"title": "…", "labels": {…}}` | it passes with these fields; the others stay, `labels` are all of them, null empties a field |
| the message itself, changed | the same: what is not changed stays |
| `null`, `[]` or `{"drop": "the reason"}` | it is dropped |
| `[{…}, {…}]` | it is split: each part is the message with these fields |
| `{"retry": "the reason", "after": 30}` | again, after so many seconds at the earliest |
| `{"refused": "the reason"}` | to the dead letters |

Words for severity and status, times and numbers are understood as `http` understands them. An answer that names something else
than a message's fields sends the message to the dead letters. An answer with the `id` of another message, one that is no
JSON, and two lines are signs that line and answer do not belong together: the script is ended, and the message tried again.

**When it ends**, or does not answer within `timeout`, it is ended with all that it started, and started again for the next
message; the one it had is tried again, for six hours, and then goes to the dead letters: a message that kills it is not tried
for ever. One that does not answer at all is started again after a second, then two, up to five minutes; until then messages
wait.

Messages of a batch go through it one after another. `keep: 4` keeps four of them running in each worker process, for its
threads; `queue:` beside the step keeps a slow script from holding up the rest.

**Limits**: `memory` for each of its processes, `line` bytes in an answer, a thousand parts. What it writes to stderr is in the
log, with the values of its variables masked. On Linux it is killed when Siftbell itself is killed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec
from pydantic import Field

from pipeline import (
    FIELDS,
    Draft,
    Dropped,
    Duration,
    Executable,
    ExecutableOptions,
    Filter,
    Kept,
    Message,
    MessagePath,
    PermanentError,
    TemporaryError,
)

MOST: Final = 1000
"""Parts that a message may be split into."""
_PLACES: Final = {name: MessagePath(name) for name in FIELDS}
_EMPTY: Final = frozenset({"title", "text", "severity", "key", "url"})


class _Verdict(msgspec.Struct, forbid_unknown_fields=True):
    drop: str | None = None
    retry: str | None = None
    after: float | None = None
    refused: str | None = None


_VERDICTS: Final = frozenset(_Verdict.__struct_fields__)


class ScriptConfig(ExecutableOptions):
    """The options of `script`."""

    timeout: Duration = Field(
        default=timedelta(seconds=10), gt=timedelta(), le=timedelta(minutes=1), description="How long an answer may take."
    )
    keep: int = Field(default=1, ge=1, le=100, description="How many are kept running in each worker process.")


class Script(Filter[ScriptConfig]):
    """Has an executable decide about messages and change them."""

    def open(self) -> None:
        """Make ready; nothing is run before the first message."""
        self._kept = Kept(Executable(self.config), self.config.keep, pauses=True)

    def close(self) -> None:
        """Let the scripts end that are kept running."""
        self._kept.close()

    def probe(self) -> str:
        """Give the executable's path; it is not run."""
        return Executable(self.config).check()

    def filter(self, message: Message) -> Iterable[Message | Dropped]:
        """Ask a script about the message, and give what it answers."""
        line = msgspec.json.encode(message.plain())
        answer = self._kept.ask(line, self.config.timeout, partial(_read, message.id))
        parts = answer if isinstance(answer, list) else [] if answer is None else [answer]
        if len(parts) > MOST:
            raise PermanentError(f"its answer has more than {MOST} parts")
        if not parts:
            return [Dropped("its answer is null" if answer is None else "its answer is []")]
        return [_part(message, part) for part in parts]


def _read(message_id: str, line: bytes) -> Any:
    """Read an answer; raises `TemporaryError` for one that cannot be that to this message's line."""
    try:
        answer = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TemporaryError(f"its answer cannot be read: {error}") from None
    for part in answer if isinstance(answer, list) else [answer]:
        if isinstance(part, dict) and part.get("id", message_id) != message_id:
            raise TemporaryError("its answer has the id of another message")
    return answer


def _part(message: Message, part: Any) -> Message | Dropped:
    if not isinstance(part, dict):
        raise PermanentError("its answer is no object, and no list of them")
    if part.keys() & _VERDICTS:
        return _decided(part)
    if unknown := part.keys() - _PLACES.keys():
        raise PermanentError(f"its answer names '{min(unknown)[:50]}', which is no field of a message")
    draft = Draft(message)
    for name in sorted(part.keys() - {"id", "labels", "data"}):
        if part[name] is not None:
            draft.write(_PLACES[name], part[name])
        elif name in _EMPTY:
            draft.remove(_PLACES[name])
        else:
            raise PermanentError(f"{name}: a message always has one")
    changed = draft.done()
    if "labels" in part:
        changed = changed.replace(labels=_labels(part["labels"]))
    return changed.replace(data=part["data"]) if "data" in part else changed


def _decided(part: dict[str, Any]) -> Dropped:
    """Give that the message is dropped; raises what else is said of it."""
    try:
        verdict = msgspec.convert(part, _Verdict)
    except msgspec.ValidationError as error:
        raise PermanentError(f"its answer cannot be understood: {error}") from None
    if verdict.retry is not None:
        raise TemporaryError(verdict.retry or "it asks to try again", retry_after=verdict.after)
    if verdict.drop is None:
        raise PermanentError(verdict.refused or "it refused the message")
    return Dropped(verdict.drop)


def _labels(value: Any) -> dict[str, str]:
    """Give labels as an answer has them; raises `PermanentError` where one of them is no text or number."""
    labels = {} if value is None else value
    if not isinstance(labels, dict) or any(isinstance(text, dict | list) for text in labels.values()):
        raise PermanentError("labels: an object of texts is expected")
    known = ((name, text) for name, text in labels.items() if text is not None)
    return {name: text if isinstance(text, str) else msgspec.json.encode(text).decode() for name, text in known}
