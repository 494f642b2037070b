"""Runs an executable for each message, which it gets as JSON on stdin; or keeps it running and asks it line by line.

It is run without a shell, and only where the settings allow it: `SIFTBELL_SCRIPTS=/opt/siftbell/scripts` names the
directories whose executables may be run, separated by `:`. Whoever may write there may run what they like as Siftbell's
user, so nobody else should. Of the environment it gets PATH, HOME, LANG and the variables that `environment` names.

```yaml
name: to-a-script
producers:
  - http
consumers:
  - script:
      command: [open-ticket, --project, OPS]
      environment: [TICKET_TOKEN]
```

**On stdin** is the message as one JSON object, as `file` writes it: fields without a value are left out. With `format: list` it
is the JSON array `[{"sender": …, "receiver": …, "content": …}]`: the message's source, its label `receiver`, its title and text.

**Its exit code** is the outcome: 0 is done. 75 (EX_TEMPFAIL) is tried again, as is a script that is killed, takes longer
than `timeout` or cannot be started. Any other sends the message to the dead letters, with what it wrote to stderr. What it
prints is not looked at.

**Kept running** (`keep: true`, or the number of them), it reads a message from each line, and answers with a line:
`{"ok": true}`, `{"retry": "the reason", "after": 30}` (again, after so many seconds at the earliest) or `{"refused": "the
reason"}`. One that ends without an answer, or does not give it within `timeout`, is started again, and the message is tried
again.

```yaml
name: to-a-kept-script
producers:
  - http
consumers:
  - script: {command: ticket-writer, keep: 2}
```

**Limits**: `memory` for each of its processes, `line` bytes in a line of an answer. `concurrency:` beside the step is how many
messages, and so how many scripts, are under way at once. With a script ends whatever it started, in the background as well:
SIGTERM, and three seconds later SIGKILL. On Linux that also happens when Siftbell itself is killed.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from pydantic import BeforeValidator, Field, field_validator

from pipeline import Consumer, Executable, ExecutableOptions, Kept, Message, PermanentError, TemporaryError

LONGEST: Final = timedelta(seconds=55)
"""A call of a consumer may take a minute."""


class ScriptConfig(ExecutableOptions):
    """The options of `script`."""

    keep: Annotated[int, BeforeValidator(lambda value: value, json_schema_input_type=bool | int)] = Field(
        default=0, ge=0, le=100, description="How many are kept running, true for one; none: one is run for each message."
    )
    format: Literal["message", "list"] = Field(
        default="message", description="What it is given: the message's fields, or a list of sender, receiver and content."
    )

    @field_validator("timeout")
    @classmethod
    def _in_time(cls, value: timedelta) -> timedelta:
        if value > LONGEST:
            raise ValueError("at most 55s is expected")
        return value


class _Answer(msgspec.Struct):
    ok: bool = False
    retry: str | None = None
    after: float | None = None
    refused: str | None = None


class Script(Consumer[ScriptConfig]):
    """Runs an executable with each message on its stdin, or keeps it running."""

    @property
    def at_once(self) -> int | None:
        """As many as are kept running: what waits for one of them is not to be taken for slow, and told again."""
        return self.config.keep or None

    def open(self) -> None:
        """Make ready; nothing is run before the first message."""
        self._executable = Executable(self.config)
        self._kept = Kept(self._executable, max(1, self.config.keep))

    def close(self) -> None:
        """Let the scripts that are kept running end."""
        self._kept.close()

    def probe(self) -> str:
        """Give the executable's path; it is not run."""
        return Executable(self.config).check()

    def consume(self, message: Message) -> None:
        """Run it, or ask the one that is kept running."""
        text = msgspec.json.encode(self.preview(message))
        if self.config.keep:
            self._ask(text)
            return
        with self._executable.start(heard=False) as run:
            run.write(text + b"\n", last=True)
            for _ in run.lines(self.config.timeout):
                pass

    def preview(self, message: Message) -> object:
        """Give what stands on its stdin."""
        if self.config.format == "message":
            return message.plain()
        content = "\n".join(filter(None, (message.title, message.text)))
        return [{"sender": message.source, "receiver": message.labels.get("receiver", ""), "content": content}]

    def _ask(self, text: bytes) -> None:
        name = self._executable.name
        answer = self._kept.ask(text, self.config.timeout, partial(_read, name))
        if answer.retry is not None:
            raise TemporaryError(answer.retry or f"{name} asks to try again", retry_after=answer.after)
        if not answer.ok:
            raise PermanentError(answer.refused or f"{name} refused the message")


def _read(name: str, line: bytes) -> _Answer:
    try:
        answer = msgspec.json.decode(line, type=_Answer)
    except (msgspec.MsgspecError, ValueError) as error:
        raise TemporaryError(f"{name} gave an answer that cannot be read: {error}") from None
    if not answer.ok and answer.retry is None and answer.refused is None:
        raise TemporaryError(f"{name} gave an answer without ok, retry or refused")
    return answer
