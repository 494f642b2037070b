"""Process trees of the real command, as the tests of this directory start them."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def until(holds: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Wait until something holds, and give it."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
        time.sleep(0.05)


def ask(url: str, *, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """GET, or POST where there is a body; gives status and JSON (or text)."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json", **(headers or {})})
    try:
        with urlopen(request, timeout=30) as answer:
            status, text = answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


@dataclass
class Running:
    """A `siftbell run` that is ready."""

    url: str
    key: str
    data: Path
    log: Path

    def send(self, pipeline: str, producer: str, body: Any) -> list[str]:
        status, answer = ask(f"{self.url}/in/{pipeline}/{producer}", body=body, headers={"authorization": f"Bearer {self.key}"})
        assert status == 202, (status, answer)
        ids: list[str] = answer["ids"]
        return ids

    def stats(self) -> Any:
        status, answer = ask(f"{self.url}/api/v1/stats", headers={"authorization": f"Bearer {self.key}"})
        assert status == 200, (status, answer)
        return answer


def siftbell(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Call one of the short verbs, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        env={**os.environ, **environment},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def process(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start `siftbell`; afterwards ask it to stop, and see that it does so in an orderly way."""
    with log.open("a") as errors:
        started = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            **options,
        )
    assert started.stdout is not None
    try:
        yield started
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0, log.read_text()[-4000:]
    finally:
        if started.poll() is None:
            started.kill()
            started.wait(30)
        started.stdout.close()


def first_line(started: subprocess.Popen[str], log: Path, seconds: float = 60) -> str:
    assert started.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(started.stdout, selectors.EVENT_READ)
        assert waiting.select(seconds), f"nothing was printed within {seconds:g} s\n{log.read_text()[-4000:]}"
    line = started.stdout.readline()
    assert line, f"it ended with exit code {started.wait(30)}\n{log.read_text()[-4000:]}"
    return line


@contextmanager
def siftbell_run(config: Path, data: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run everything on a free port until the block ends."""
    log = data.with_suffix(".log")
    arguments = ["run", "--config", str(config), "--data", str(data), "--port", "0", "--output", "json"]
    with process(arguments, environment or {}, log) as started:
        facts = json.loads(first_line(started, log))
        yield Running(facts["url"], facts["key"], data, log)


@contextmanager
def alertmanager_run(binary: str, config: str, directory: Path, *, ending: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """Run an Alertmanager until the block ends, and give its URL; its config, its data and its `log` are in the directory."""
    directory.mkdir(exist_ok=True)
    (directory / "alertmanager.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    arguments = [f"--config.file={directory / 'alertmanager.yml'}", f"--storage.path={directory / 'data'}"]
    arguments += [f"--web.listen-address={address}", "--cluster.listen-address="]
    with (directory / "log").open("w") as log:
        started = subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: started.poll() is not None or ready(f"http://{address}"), "Alertmanager is ready")
        assert started.poll() is None, (directory / "log").read_text()
        yield f"http://{address}"
    finally:
        started.send_signal(ending)
        started.wait(30)


def ready(url: str) -> bool:
    try:
        return ask(f"{url}/-/ready")[0] == 200
    except OSError:
        return False
