"""`siftbell dead-letters edit`: a person mends a message in an editor, or a script with options."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import DataOption, open_store
from pipeline.cli.output import clean, say
from pipeline.cli.selecting import PipelineOption, StepOption
from pipeline.cli.trying import read_payload
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from pipeline.message import Message
    from pipeline.store import Store
    from pipeline.store.rows import DeadLetter


def edit(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The message's id.")],
    *,
    pipeline: PipelineOption = None,
    step: StepOption = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set title, labels.NAME, data.a.b …; may be repeated."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The whole message as JSON; - reads it from stdin.")] = None,
    data: DataOption = None,
) -> None:
    """Change a message before it is redriven: in $VISUAL or $EDITOR, by --set or from a file. Its id stays."""
    if changes and file:
        raise Failure("a message comes from a file or from --set, not from both", Exit.USAGE)
    with open_store(data) as store:
        letter = _find(store, message_id, pipeline, step)
        message = _by_options(letter.message, changes, file) if changes or file else _by_editor(letter.message)
        if message == letter.message:
            say("nothing was changed")
            return
        if not store.edit_letter(letter, message, datetime.now(UTC)):
            raise Failure(_too_late(message_id) + ("" if changes or file else f"\n{_keep(message)}"))
    where = f"--pipeline {letter.pipeline} --step {letter.step}" if letter.step else f"--pipeline {letter.pipeline}"
    say(f"changed; `siftbell dead-letters redrive {message_id} {where}` has it tried again")


def _find(store: Store, message_id: str, pipeline: str | None, step: str | None) -> DeadLetter:
    every = store.dead_letter(message_id)
    found = [one for one in every if pipeline in (None, one.pipeline) and step in (None, one.step)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"--pipeline {one.pipeline} --step {one.step or repr('')}" for one in found or every)
    if found:
        raise Failure(f"message '{message_id}' was given up by several steps; say which: {there}", Exit.USAGE)
    hint = f": there is {there}" if there else ""
    raise Failure(f"message '{message_id}' is not among the dead letters{' there' if there else ''}{hint}", Exit.NOT_FOUND)


def _by_options(message: Message, changes: list[str] | None, file: Path | None) -> Message:
    from pipeline.engine.editing import read_text, set_fields

    fields = dict(map(_pair, changes or []))
    try:
        return set_fields(message, fields) if fields else read_text(message, read_payload(file))
    except RequestError as error:
        raise Failure(_told(error)) from None


def _by_editor(message: Message) -> Message:
    """Have a person edit the message until it is one, or until the person gives up; then the text is kept in a file."""
    from pipeline.engine.editing import as_text, read_text

    if not sys.stdin.isatty():
        raise Failure("there is no terminal for an editor: use --set FIELD=VALUE, or --file", Exit.USAGE)
    with TemporaryDirectory(prefix="siftbell-") as directory:
        place = Path(directory) / f"{message.id}.json"
        place.write_text(as_text(message), encoding="utf-8")
        while True:
            _call_editor(place)
            text = place.read_bytes()
            try:
                return read_text(message, text)
            except RequestError as error:
                say(_told(error))
                if not typer.confirm("Edit it again?", default=True, err=True):
                    raise Failure("nothing was changed") from None


def _call_editor(place: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    command = [*shlex.split(editor), str(place)]
    try:
        done = subprocess.run(command, check=False)  # noqa: S603 - the editor is what the person's environment names
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}; set EDITOR, or use --set FIELD=VALUE") from error
    if done.returncode:
        raise Failure(f"{command[0]} ended with {done.returncode}: nothing was changed")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Failure("--set: FIELD=VALUE is expected, such as title='disk full' or labels.team=db", Exit.USAGE)
    return name, value


def _told(error: RequestError) -> str:
    return clean("\n".join([f"{error}:", *(f"  {one.where + ': ' if one.where else ''}{one.text}" for one in error.problems)]))


def _too_late(message_id: str) -> str:
    return f"message '{message_id}' was changed, redriven or dropped by somebody else meanwhile: nothing was changed"


def _keep(message: Message) -> str:
    from pipeline.engine.editing import as_text

    return f"your version was:\n{as_text(message)}"
