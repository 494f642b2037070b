"""Executables that plugins run: without a shell, with an environment of named variables, under limits, and ended as a whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline import guardian
from pipeline.errors import TemporaryError
from pipeline.plugin import Config
from pipeline.running import PATIENCE, Run
from pipeline.secrecy import masker
from pipeline.settings import allowed_scripts
from pipeline.units import Duration, Size

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
