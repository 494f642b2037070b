"""`siftbell run`: everything on one machine, as one supervised process tree on one data directory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from pipeline.cli.options import ConfigOption, DataOption, settings_for
from pipeline.cli.output import Output, say

if TYPE_CHECKING:
    from pipeline.cli.directory import DataDirectory
    from pipeline.cli.parts import Launch, Launching, Part
    from pipeline.settings import Settings

PATIENCE: Final = {"web": 15.0, "clock": 15.0, "filters": 30.0, "deliveries": 30.0}
"""Seconds that each part has to finish what is under way before it is killed."""
_SAMPLE: Final = '{"title": "disk full", "severity": "critical", "text": "/var on db-1 has 2 % left"}'
_ANSWERS_WITHIN: Final = 10.0
_SOON: Final = 3.0
"""Seconds after which a tree that still is not ready says what it waits for."""
_ASK_AGAIN: Final = 0.05


def run(
    config: ConfigOption = None,
    data: DataOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Listen on this address. [SIFTBELL_HOST, else 127.0.0.1]")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Listen on this port; 0: a free one. [SIFTBELL_PORT, else 8025]"),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to say that it is ready.")] = Output.TABLE,
) -> None:
    """Run everything: the web server, the workers and the clock, without any other server."""
    from pipeline.cli.directory import DataDirectory

    said = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings_for(config, data).model_copy(update=said)
    settings = settings.model_copy(update={"data": settings.data.absolute(), "config": _configs(settings.config)})
    directory = DataDirectory(settings.data)
    metrics = directory.fresh("metrics")
    launching = _launching(settings, metrics, directory)
    try:
        code = _supervise(settings, directory, metrics, launching.launch, output)
    finally:
        launching.close()
        directory.close()
    raise typer.Exit(code)


def _supervise(settings: Settings, directory: DataDirectory, metrics: Path, launch: Launch, output: Output) -> int:
    """Run the parts until asked to stop; give the exit code."""
    from pipeline.cli.directory import write_private
    from pipeline.cli.reload import LastGood
    from pipeline.cli.supervisor import Supervisor
    from pipeline.telemetry import configure_logging
    from pipeline.web.listening import listen, url_of

    configure_logging(settings.log_level, settings.log_format, part="run")
    with listen(settings.host, settings.port) as listening:
        url = url_of(listening)
        write_private(directory.path / "url", url)
        last_good = LastGood(settings.config, directory.fresh("configuration"))
        last_good.take()
        running = settings.model_copy(update={"config": last_good.paths})
        supervisor = Supervisor(parts(running, metrics, listening.fileno()), launch)

        async def started() -> None:
            await _ask(url, "/livez", lambda status: status > 0)
            supervisor.let_late_parts_start()
            print(_announce(await _facts(url, settings.data), output), flush=True)
            # Who delivers must know a new consumer before anybody sends it messages.
            await last_good.watch(lambda: supervisor.restart("deliveries", "filters", "clock", "web"))

        return asyncio.run(supervisor.run(started, stopping=listening.close))


def _launching(settings: Settings, metrics: Path, directory: DataDirectory) -> Launching:
    """Give what starts the parts: the fork server, where there can be one.

    To be called before this process has threads or sockets, or has logged: the parts come from what it is then.
    """
    from pipeline.cli.forkserver import FORKS, ForkServer
    from pipeline.cli.parts import Commands

    commands = Commands(sys.executable, "-m", "pipeline.cli")
    if not FORKS:
        return commands
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)  # the library looks for it when it is imported
    from pipeline.cli.preloading import preload
    from pipeline.cli.roles import run_role

    preload(settings.broker_url)
    return ForkServer(run_role, close=directory.close, otherwise=commands)


def parts(settings: Settings, metrics: Path, listening: int) -> list[Part]:
    """Give the parts of the tree. The web server starts first, as it makes the store's tables, and stops first."""
    from pipeline.cli.parts import Part
    from pipeline.cli.roles import KEY_FILE, LISTENING, MIGRATED, PART

    # The web server's /metrics shows those of all parts; a port of their own would be the same one for all.
    shared = settings.environment() | {"PROMETHEUS_MULTIPROC_DIR": str(metrics), "SIFTBELL_METRICS_PORT": ""}
    web = {KEY_FILE: str(settings.data / "api-key")}
    roles: list[tuple[str, list[str], int]] = [
        ("web", ["serve"], 0),
        ("clock", ["clock"], 1),
        ("filters", ["worker", "--only", "filters"], 2),
        ("deliveries", ["worker", "--only", "deliveries"], 2),
    ]
    return [
        Part(
            name=name,
            arguments=arguments,
            environment=shared | {PART: name} | (web if name == "web" else {MIGRATED: "true"}),
            inherited={LISTENING: listening} if name == "web" else {},
            stage=stage,
            patience=PATIENCE[name],
            late=name != "web",
        )
        for name, arguments, stage in roles
    ]


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know about a tree that is ready."""

    url: str
    key: str
    data: Path
    pipelines: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """As the API gives them."""

    def intakes(self) -> list[tuple[str, str, str]]:
        """Give pipeline, plugin and URL of everything that takes requests."""
        return [
            (pipeline["name"], step["plugin"], self.url + step["url"])
            for pipeline in self.pipelines
            for step in pipeline["steps"]
            if step["url"]
        ]

    def curl(self) -> str:
        """Give a line to paste that sends a message; empty where no pipeline has the producer `http`."""
        found = [(pipeline != "hello", url) for pipeline, plugin, url in self.intakes() if plugin == "http"]
        if not found:
            return ""
        headers = f"-H 'Authorization: Bearer {self.key}' -H 'Content-Type: application/json'"
        return f"curl -sS {min(found)[1]} {headers} -d '{_SAMPLE}'"


async def _facts(url: str, data: Path) -> Facts:
    """Wait until the tree is ready, and ask it what it runs."""
    from pipeline.cli.directory import read_text

    telling = asyncio.create_task(_tell_what_is_amiss(url))
    try:
        await _ask(url, "/readyz?all", lambda status: status == 200)
    finally:
        telling.cancel()
    key = read_text(data / "api-key")
    body = await _ask(url, "/api/v1/pipelines", lambda status: status == 200, key)
    return Facts(url, key, data, json.loads(body))


async def _tell_what_is_amiss(url: str) -> None:
    """Say what it waits for where it is not ready soon."""
    import structlog

    await asyncio.sleep(_SOON)
    answer = (await _ask(url, "/readyz?all&verbose", lambda status: status in {200, 503})).decode()
    if amiss := [line.removeprefix("[-] ") for line in answer.splitlines() if line.startswith("[-]")]:
        structlog.get_logger("pipeline.cli.run").warning("not ready yet", url=url, waits_for="; ".join(amiss))


async def _ask(url: str, path: str, good: Callable[[int], bool], key: str = "") -> bytes:
    """Ask the web server until its answer has a status that is good. Before it runs, the request waits in the socket's queue."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    request = f"GET {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    while True:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWERS_WITHIN):
                head, _, body = (await _exchange(host.strip("[]"), int(port), request)).partition(b"\r\n\r\n")
            if head and good(int(head.split(maxsplit=2)[1])):
                return body
        await asyncio.sleep(_ASK_AGAIN)


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    reading, writing = await asyncio.open_connection(host, port)
    try:
        writing.write(request)
        return await reading.read()
    finally:
        writing.close()


def _announce(facts: Facts, output: Output) -> str:
    """Say that it is ready: for people, or as one line of JSON (YAML reads that as well)."""
    if output is not Output.TABLE:
        plain = {"url": facts.url, "key": facts.key, "data": str(facts.data), "pipelines": list(facts.pipelines)}
        return json.dumps(plain | {"pid": os.getpid(), "curl": facts.curl()})
    width = max((len(pipeline["name"]) for pipeline in facts.pipelines), default=0)
    shown, before = [], ""
    for name, _, url in facts.intakes():
        shown.append(f"  {'' if name == before else name:{width}}  {url}")
        before = name
    lines = [
        f"Siftbell is ready at {facts.url}",
        f"API key {facts.key} (kept in {facts.data / 'api-key'})",
        "",
        "Pipelines, and where to post to:",
        *(shown or ["  none takes requests"]),
    ]
    if facts.curl():
        lines += ["", "Send a message:", f"  {facts.curl()}"]
    last = "The workers take a few seconds more to start; what is sent before is kept for them. Ctrl-C stops everything."
    return "\n".join([*lines, "", last, ""])


def _configs(said: tuple[Path, ...]) -> tuple[Path, ...]:
    """Give the pipelines' places; the examples where none is said and there is no ./configs."""
    if said != (Path("configs"),) or said[0].exists():
        return tuple(path.absolute() for path in said)
    examples = shipped()
    say(f"there is no directory 'configs' here: running the examples in {examples}")
    return (examples,)


def shipped() -> Path:
    """Give the directory of the pipelines that come with Siftbell: in its wheel, or at the top of a checkout."""
    here = Path(__file__)
    packaged = here.with_name("configs")
    return packaged if packaged.is_dir() else here.parents[2] / "configs"
