"""The command line in this process and in real ones, and a configuration to use it on."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from pipeline.cli import main

TAKE = '''"""Takes what is posted."""

from collections.abc import Iterable

from pipeline import Config, Message, Problem, Request, RequestError, WebhookProducer
from pydantic import Field, SecretStr


class TakeConfig(Config):
    key: SecretStr = Field(default=SecretStr("default-secret"), description="What the sender signs with.")


class Take(WebhookProducer[TakeConfig]):
    """Makes a message of each object of a JSON list. The list may be left out."""

    def receive(self, request: Request) -> Iterable[Message]:
        entries = request.json()
        for index, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            if "title" not in entry:
                problems = [Problem(f"[{index}].title", "required")]
                raise RequestError("not all entries have a title", status=422, problems=problems)
            by = request.headers.get("x-by", request.content_type)
            yield Message(source="take", title=entry["title"], severity=entry.get("severity", ""), labels={"by": by})
'''
ASK = '''"""Asks."""

from collections.abc import Iterable

from pipeline import Message, NoOptions, PollingProducer


class Ask(PollingProducer[NoOptions]):
    """Has three messages once."""

    def poll(self, cursor: str | None) -> Iterable[tuple[Message, str]]:
        for number in range(int(cursor or 0), 3):
            yield Message(source="ask", title=f"number {number}"), str(number + 1)
'''
CHANGE = '''"""Changes."""

from collections.abc import Iterable

from pipeline import Config, Filter, Message
from pydantic import Field


class ChangeConfig(Config):
    shorthand = "what"

    what: str = Field(description="What it does.")


class Change(Filter[ChangeConfig]):
    """Does what it is told."""

    def filter(self, message: Message) -> Iterable[Message]:
        if self.config.what == "drop" and message.severity == "debug":
            return
        if self.config.what == "break" and message.severity == "error":
            raise ValueError("broken")
        if self.config.what == "split" and message.severity == "warning":
            yield message.replace(title="one")
            yield message.replace(title="two")
            return
        yield message.replace(title=message.title.upper()) if self.config.what == "upper" else message
'''
TELL = '''"""Tells."""

from pipeline import Config, Consumer, Message
from pydantic import Field, SecretStr


class TellConfig(Config):
    token: SecretStr = Field(description="What lets it in.")


class Tell(Consumer[TellConfig]):
    """Tells nobody."""

    def consume(self, message: Message) -> None:
        raise AssertionError("not in these tests")

    def preview(self, message: Message) -> object:
        return {"token": self.config.token.get_secret_value(), "text": f"two\\nlines of {message.title}"}
'''
PIPELINE = """name: alerts
producers:
  - take: {}
  - ask: {}
filters:
  - change: upper
  - change: drop
    as: quiet
  - change: split
    as: cut
  - change: break
    as: fragile
consumers:
  - tell: {token: "${TOKEN}"}
    as: oncall
  - tell: {token: hunter2hunter2}
    when: severity == "critical"
"""
SECRET = "from-the-environment"


@dataclass(frozen=True)
class Result:
    """How a run of the command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Siftbell = Callable[..., Result]


@pytest.fixture
def siftbell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Siftbell:
    """Runs the command in this process."""

    def run(*arguments: str | Path, stdin: bytes | TextIO = b"") -> Result:
        given = io.TextIOWrapper(io.BytesIO(stdin)) if isinstance(stdin, bytes) else stdin
        monkeypatch.setattr("sys.stdin", given)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Siftbell:
    """Runs the command as a process of its own."""

    def run(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> Result:
        command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=os.environ | environment, cwd=tmp_path, timeout=60, check=False
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(autouse=True)
def _logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has a run in this process leave the tests' own logging as it was; the stand-in servers' stays out of stderr."""
    root = logging.getLogger()
    monkeypatch.setattr(logging.getLogger("werkzeug"), "disabled", True)
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SIFTBELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TOKEN", SECRET)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `configs/` and its plugins, in which the command is run."""
    plugins = tmp_path / "configs" / "plugins"
    plugins.mkdir(parents=True)
    for name, text in {"take": TAKE, "ask": ASK, "change": CHANGE, "tell": TELL}.items():
        (plugins / f"{name}.py").write_text(text)
    (tmp_path / "configs" / "alerts.yaml").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path
