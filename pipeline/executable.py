"""Executables that plugins run: without a shell, with an environment of named variables, under limits, and ended as a whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final, TypeVar

import structlog
from pydantic import AfterValidator, BeforeValidator, Field

from pipeline import guardian, present
from pipeline.errors import PermanentError, TemporaryError
from pipeline.plugin import Config
from pipeline.running import PATIENCE, Run
from pipeline.secrecy import masker
from pipeline.settings import allowed_scripts
from pipeline.units import Duration, Size

log = structlog.get_logger()
T = TypeVar("T")

FAREWELL: Final = 2.0
"""Seconds that a kept script has to end by itself when its input does."""
LONGEST_PAUSE: Final = 300.0
"""Seconds between two starts of a script that gives no answer."""
_ALWAYS: Final = ("PATH", "HOME", "LANG")


def _allowed(command: tuple[str, ...]) -> tuple[str, ...]:
    """Give the command with the executable's whole path; raises ValueError where it may not be run."""
    if not (directories := allowed_scripts()):
        raise ValueError("scripts are not allowed here: name the directories that hold them in SIFTBELL_SCRIPTS")
    name, *arguments = command or ("",)
    if not name or any("\0" in word for word in command):
        raise ValueError("an executable and its arguments are expected")
    if "/" not in name:
        path = next((found for directory in directories if (found := directory / name).exists()), directories[0] / name)
        return (str(path), *arguments)
    path = Path(os.path.realpath(Path(name).parent)) / Path(name).name
    if path.name == ".." or not any(path.is_relative_to(os.path.realpath(directory)) for directory in directories):
        raise ValueError("it does not lie in a directory that SIFTBELL_SCRIPTS names")
    return (str(path), *arguments)


Command = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value, json_schema_input_type=str | tuple[str, ...]),
    AfterValidator(_allowed),
]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ExecutableOptions(Config):
    """The options of a plugin that runs an executable; subclass it for the plugin's own."""

    shorthand: ClassVar[str | None] = "command"

    command: Command = Field(
        description="The executable and its arguments, as a list; a bare name is looked for where SIFTBELL_SCRIPTS says.",
    )
    environment: tuple[_Variable, ...] = Field(
        default=(), description="Names of the variables that it gets beside PATH, HOME and LANG; no others are passed."
    )
    directory: Path | None = Field(default=None, description="Where it is started; by default where the executable lies.")
    timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta(), description="How long it may take.")
    memory: Size = Field(default=512 * 2**20, ge=2**20, description="How much memory each of its processes may have.")
    line: Size = Field(default=2**20, ge=1, description="The longest line that it may print.")


class Executable:
    """An executable that a plugin runs, as its options say."""

    def __init__(self, options: ExecutableOptions) -> None:
        self.options = options
        self.name = Path(options.command[0]).name

    def check(self) -> str:
        """Give the path of the executable; raises `TemporaryError` where there is none that can be run now."""
        path = self.options.command[0]
        if not os.path.isfile(path) or not os.access(path, os.X_OK):  # noqa: PTH113 - beside os.access
            raise TemporaryError(f"{path} is not there, or not executable")
        return path

    def start(self, variables: Mapping[str, str] | None = None, *, output: int | None = None, heard: bool = True) -> Run:
        """Start it, with these variables added to its environment; it may print so many bytes. Raises `TemporaryError`.

        What it prints is thrown away where it is not `heard`, and not limited then.
        Use what it gives as a context manager: the script has ended, with all that it started, when the block is left.
        """
        options = self.options
        names = (*_ALWAYS, *options.environment)
        environment = {name: os.environ[name] for name in names if name in os.environ} | dict(variables or {})
        mine, its = socket.socketpair()
        limits = [str(its.fileno()), str(options.memory), str(PATIENCE)]
        try:
            process = subprocess.Popen(  # noqa: S603 - a list of arguments, of an executable that the settings allow
                [sys.executable, "-I", "-S", guardian.__file__, *limits, *options.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if heard else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=options.directory or Path(options.command[0]).parent,
                pass_fds=(its.fileno(),),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            mine.close()
            raise TemporaryError(f"{self.name} cannot be started: {error.strerror or error}") from error
        finally:
            its.close()
        secret = [environment[name] for name in options.environment if name in environment]
        return Run(self.name, process, mine, longest=options.line, most=output, mask=masker(secret))


class Kept:
    """Scripts of an executable that are kept running, so many at most; each is asked by one thread at a time."""

    def __init__(self, executable: Executable, most: int, *, pauses: bool = False) -> None:
        """Start none yet. With `pauses`, one that gave no answer since its start is started again after one, ever longer."""
        self._executable = executable
        self._pauses = pauses
        self._idle: list[Run] = []
        self._places = threading.Semaphore(most)
        self._noting = threading.Lock()
        self._failures = 0
        self._until = present.now()
        self._why = ""

    def ask(self, line: bytes, within: timedelta, read: Callable[[bytes], T]) -> T:
        """Give a script a line and read the line that it answers with. Raises `TemporaryError`.

        One that ends, gives no answer in time, says more than one line, or one that `read` cannot read (it raises then), is ended
        and not asked again. What it writes to stderr is logged.
        """
        with self._places:
            run, proven = self._usable()
            try:
                answer = read(_answer(run, line, within))
            except BaseException as error:
                run.__exit__(None, None, None)
                if not proven:
                    self._failed(error)
                raise
            self._failures = 0
            if said := run.said():
                log.info("the script says", script=run.name, stderr=said)
            self._idle.append(run)
            return answer

    def close(self) -> None:
        """Let those end that are running: by themselves where they do so soon, when their input ends."""
        while self._idle:
            with self._idle.pop() as run:
                run.write(b"", last=True)
                run.read(FAREWELL)

    def _usable(self) -> tuple[Run, bool]:
        """Give a script that runs, and whether it has answered before."""
        while self._idle:
            run = self._idle.pop()
            if not run.read(0) and not run.silent():
                return run, True
            run.__exit__(None, None, None)  # it has ended, or says what nobody asked
        if (left := (self._until - present.now()).total_seconds()) > 0:
            raise TemporaryError(f"{self._why}; it is started again in {left:.0f} s", retry_after=left)
        return self._executable.start(), False

    def _failed(self, error: BaseException) -> None:
        if self._pauses:
            with self._noting:
                pause = min(2.0**self._failures, LONGEST_PAUSE)
                self._failures += 1
                self._why = str(error)
                self._until = present.now() + timedelta(seconds=pause)


def _answer(run: Run, line: bytes, within: timedelta) -> bytes:
    run.write(line + b"\n")
    answers = run.read(within.total_seconds())
    if len(answers) == 1:
        return answers[0]
    if not answers and run.ended():
        try:
            run.judge()
        except PermanentError as error:  # whatever its exit code, it does not say that the message is at fault
            raise TemporaryError(str(error)) from None
        raise TemporaryError(f"{run.name} ended without an answer")
    told = f"printed {len(answers)} lines for an answer" if answers else "did not answer in time"
    raise TemporaryError(f"{run.name} {told}")
