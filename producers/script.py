"""Runs an executable, and makes messages of the JSON that it prints: on a schedule, or kept running.

It is run without a shell, and only where the settings allow it: `SIFTBELL_SCRIPTS=/opt/siftbell/scripts` names the
directories whose executables may be run, separated by `:`. Whoever may write there may run what they like as Siftbell's
user, so nobody else should. Of the environment it gets PATH, HOME, LANG and the variables that `environment` names.

With `schedule:` it is run each time, for `timeout` at most, and told where it came to the last time:

```yaml
name: disks
producers:
  - script:
      command: [check-disks, --below, 10%]
      environment: [INVENTORY_TOKEN]
      timeout: 20s
    schedule: 1m
consumers:
  - log
```

Without one it is kept running, and what it prints is passed on as it comes. When it ends it is started again, after a
second, then two, up to five minutes. One clock of all runs it.

```yaml
name: journal
producers:
  - script: [follow-journal, --unit, backup]
consumers:
  - log
```

**It prints** a JSON object on a line for each message, as `http` takes it: `{"title": "disk full", "severity": "critical"}`;
a line may also be an array of them. `fields` says where other programs have a message's fields. With `format: list` all that
it prints is one JSON array, over as many lines as it likes. `{"sender": …, "receiver": …, "content": …}` is understood as
well: the source, the label `receiver` and the text. A line that is no message goes to the dead letters.

**A cursor** is what the script needs to go on: the line `{"cursor": "17"}` stands for all lines above it. When these are on
the queue it is stored, and is `SIFTBELL_CURSOR` at the next scheduled run (empty at the first). A script that is kept
running reads it, as the same line, on stdin, and may then forget what it stands for: until then Siftbell may be killed.

**How it ends** matters on a schedule: other exit codes than 0, being killed and taking too long are a failed poll, which the
log tells with what it wrote to stderr. What it printed until then is told all the same.

**Limits**: `memory` for each of its processes, `line` bytes in a line, `output` bytes in a scheduled run; beyond, it is ended.
With it ends whatever it started, in the background as well: SIGTERM, and three seconds later SIGKILL. On Linux that also
happens when Siftbell itself is killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any, Final, Literal

import structlog
from pydantic import Field

from pipeline import (
    Executable,
    ExecutableOptions,
    FieldPaths,
    ListeningProducer,
    Message,
    PermanentError,
    PollingProducer,
    Publish,
    Request,
    RequestError,
    Run,
    Size,
    TemporaryError,
    Unreadable,
    read_messages,
)

log = structlog.get_logger()

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
STEADY: Final = 60.0
"""Seconds after which a script that ran counts as having worked: the next pause is the first again."""
LOOK: Final = 0.25
"""Seconds between two looks at whether it is time to stop."""
_OLDER: Final = {"sender", "receiver", "content"}
_Told = Message | Unreadable | None


class ScriptConfig(ExecutableOptions):
    """The options of `script`."""

    format: Literal["lines", "list"] = Field(
        default="lines", description="What it prints: a message on each line, or all of them as one JSON array."
    )
    fields: FieldPaths = Field(
        default_factory=dict, description="Where in an object a message's fields stand, as paths; the others by their own names."
    )
    source: str = Field(default="", description="The source of messages that name none; by default the executable's name.")
    output: Size = Field(default=10 * 2**20, ge=1, description="How many bytes it may print in one run of its schedule.")


class Script(PollingProducer[ScriptConfig], ListeningProducer[ScriptConfig]):
    """Makes messages of what an executable prints, on a schedule or kept running."""

    alone = True

    def open(self) -> None:
        """Make ready; nothing is run yet."""
        self._executable = Executable(self.config)

    def probe(self) -> str:
        """Give the executable's path; it is not run."""
        return Executable(self.config).check()

    def poll(self, cursor: str | None) -> Iterable[tuple[_Told, str]]:
        """Run it, and give what it prints; raises as `Run.judge` does, after all that it printed was given."""
        cursor = cursor or ""
        with self._executable.start({"SIFTBELL_CURSOR": cursor}, output=self.config.output) as run:
            run.write(b"", last=True)
            told = self._of_list(run, cursor) if self.config.format == "list" else self._of_lines(run, cursor)
            yield from told
            if said := run.said():
                log.info("the script says", script=run.name, stderr=said)

    def listen(self, publish: Publish, stopping: Callable[[], bool]) -> None:
        """Keep it running, and publish what it prints; what stands between two reads goes out together."""
        pause = FIRST_PAUSE
        while not stopping():
            began = monotonic()
            error = self._once(publish, stopping)
            if stopping():
                return
            if monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            log.warning("the script is started again", script=self._executable.name, after=f"{pause:g} s", error=error)
            _wait(pause, stopping)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _once(self, publish: Publish, stopping: Callable[[], bool]) -> str:
        """Run it until it ends or is to stop, and give why it ended."""
        try:
            with self._executable.start() as run:
                while not run.ended():
                    if stopping():
                        run.end()  # what it prints then is the last
                    if lines := run.read(LOOK):
                        self._pass_on(run, lines, publish, stopping)
                    elif not run.ended() and (said := run.said()):
                        log.info("the script says", script=run.name, stderr=said)
                run.judge()
        except (TemporaryError, PermanentError) as error:
            return str(error)
        return "it ended with exit code 0"

    def _pass_on(self, run: Run, lines: Sequence[bytes], publish: Publish, stopping: Callable[[], bool]) -> None:
        messages: list[Message] = []
        cursor = None
        for line in lines:
            position, told = self._told(line)
            cursor = cursor if position is None else position
            for one in told:
                if isinstance(one, Unreadable):
                    _surely(partial(publish.bury, one.raw, one.reason), stopping)
                else:
                    messages.append(one)
        if messages:
            try:
                _surely(partial(publish, messages), stopping)
            except PermanentError as error:
                _surely(partial(publish.bury, b"\n".join(lines), str(error)), stopping)
        if cursor is not None and not run.unread:  # a script that does not read cursors is not to be held up by them
            run.write(json.dumps({"cursor": cursor}).encode() + b"\n")

    def _of_lines(self, run: Run, cursor: str) -> Iterator[tuple[_Told, str]]:
        """Give what each line tells; the last one before a cursor moves it."""
        waiting: _Told = None
        try:
            for line in run.lines(self.config.timeout):
                position, told = self._told(line)
                if position is not None:
                    yield waiting, position
                    waiting, cursor = None, position
                for one in told:
                    if waiting is not None:
                        yield waiting, cursor
                    waiting = one
        except (TemporaryError, PermanentError):
            if waiting is not None:
                yield waiting, cursor
            raise
        if waiting is not None:
            yield waiting, cursor

    def _of_list(self, run: Run, cursor: str) -> Iterator[tuple[_Told, str]]:
        printed: list[bytes] = []
        try:
            printed.extend(run.lines(self.config.timeout))
        except (TemporaryError, PermanentError):
            told = self._told(b"\n".join(printed))[1]
            yield from ((one, cursor) for one in told if isinstance(one, Message))  # the rest may be half of a list
            raise
        yield from ((one, cursor) for one in self._told(b"\n".join(printed))[1])

    def _told(self, line: bytes) -> tuple[str | None, list[Message | Unreadable]]:
        """Give the cursor that a line tells of, or else its messages."""
        if not line.strip():
            return None, []
        request = Request(line, {"content-type": "application/json"})
        source = self.config.source or self._executable.name
        try:
            value = request.json()
            if isinstance(value, dict) and value.keys() == {"cursor"} and isinstance(value["cursor"], str | int):
                return str(value["cursor"]), []
            objects = value if isinstance(value, list) else [value]
            if not self.config.fields and any(map(_is_older, objects)):
                request = Request(json.dumps([_by_our_names(one) for one in objects]).encode(), request.headers)
            messages = read_messages(request, source=source, fields=self.config.fields, most=len(objects))
        except RequestError as error:
            return None, [Unreadable(line, str(error))]
        return None, [message.replace(data=one) for message, one in zip(messages, objects, strict=True)]


def _is_older(value: Any) -> bool:
    return isinstance(value, dict) and "content" in value and value.keys() <= _OLDER


def _by_our_names(value: Any) -> Any:
    if not _is_older(value):
        return value
    receiver = value.get("receiver")
    labels = {} if receiver in (None, "") else {"labels": {"receiver": receiver}}
    return {"source": value.get("sender"), "text": value["content"], **labels}


def _surely(publish: Callable[[], None], stopping: Callable[[], bool]) -> None:
    """Publish as soon as that is possible: what a script has printed it does not print again. Gives up when it is to stop."""
    while True:
        try:
            return publish()
        except TemporaryError as away:
            if stopping():
                log.error("what a script printed could not be queued", error=str(away))  # noqa: TRY400 - no bug, so no traceback
                raise
            log.warning("what a script printed waits for the queue", error=str(away))
            _wait(FIRST_PAUSE, stopping)


def _wait(seconds: float, stopping: Callable[[], bool]) -> None:
    end = monotonic() + seconds
    while monotonic() < end and not stopping():
        sleep(min(LOOK, seconds))
