"""`siftbell demo`: the real process tree, real payloads, stand-ins at the other end, and an account of every message."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import typer

from pipeline.cli.output import cell, console, say, table

if TYPE_CHECKING:
    from pipeline.cli.ledger import Facts, Line
    from pipeline.cli.payloads import Payload
    from pipeline.cli.tree import Tree
    from pipeline.spec.model import Configuration, ConsumerStep

SENDERS: Final = 8
TRIES: Final = 20
"""How often a request is sent that the intake answers 503: as a real sender would, after the wait it is told."""
PATIENCE: Final = 90.0
"""Seconds without progress after which what has not arrived counts as missing: longer than one call of a consumer may take."""
LOOK: Final = 0.2
PLAIN_EVERY: Final = 3.0
SHOWN: Final = 20


def demo() -> None:
    """Try everything out: send some thousand messages through the example pipelines, and account for each of them."""
    from pipeline.cli.run import shipped
    from pipeline.cli.standins import Telegram, Webhook
    from pipeline.cli.tree import Tree

    began = monotonic()
    with TemporaryDirectory(prefix="siftbell-demo-") as place, Webhook() as webhook, Telegram() as telegram, _progress() as tell:
        tell("starting")
        environment = _environment(Path(place), webhook.url, telegram.url)
        with Tree(Path(place, "log"), environment, directory=Path(place)) as tree:
            configuration = _configuration(environment)
            sent = _send(tree, tell)
            settled = _wait_until_settled(tree, configuration, sent, tell)
        tell("counting")
        code = tree.process.returncode
        others = {"webhook": webhook, "telegram": telegram}
        lines = _lines(tree, configuration, sent, others)
        problems = [problem for line in lines for problem in line.problems] + sent.problems
        if code != 0:
            problems.append(f"the process tree ended with exit code {code}")
        kept = _keep_log(tree) if problems else ""
    _show(lines)
    count, requests = sum(map(len, sent.accepted.values())), sent.requests
    say(
        f"{count} messages in {requests} requests: accepted in {sent.seconds:.1f} s ({count / sent.seconds:.0f}/s), "
        f"all settled {settled:.1f} s after the first was sent.\n"
        f"Ready {tree.seconds:.1f} s after the start; {monotonic() - began:.1f} s in all."
    )
    if problems:
        say("\n".join([f"{len(problems)} problems; the log is in {kept}:", *problems[:SHOWN]]))
        raise typer.Exit(1)
    say("Every accepted message is accounted for at every consumer.")
    say(f"What the pipelines do that let messages wait for hours, this shows in seconds: siftbell test {shipped()}")


@dataclass
class Sent:
    """What was sent: the accepted ids by pipeline."""

    accepted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _environment(place: Path, webhook: str, telegram: str) -> dict[str, str]:
    """Give the environment of the tree: nothing of the person's own Siftbell, and the stand-ins for the examples."""
    from pipeline.cli.run import shipped

    own = {name: value for name, value in os.environ.items() if not name.startswith("SIFTBELL_")}
    return own | {
        "SIFTBELL_CONFIG": str(shipped()),
        "SIFTBELL_DATA": str(place / "data"),
        "SIFTBELL_PORT": "0",
        "SIFTBELL_LOG_FORMAT": "json",
        "SIFTBELL_PRIVATE_NETWORKS": "127.0.0.1",
        "ALERTS_WEBHOOK_ACTIVE": "true",
        "ALERTS_WEBHOOK_URL": f"{webhook}/hook",
        "CHAT_ACTIVE": "true",
        "CHAT_URL": f"{webhook}/chat",
        "TELEGRAM_ACTIVE": "true",
        "TELEGRAM_URL": telegram,
        "TELEGRAM_TOKEN": "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        "TELEGRAM_CHAT": "-100123",
        "NO_PROXY": "127.0.0.1",
    }


def _configuration(environment: Mapping[str, str]) -> Configuration:
    from pipeline.spec.loader import load

    return load([Path(environment["SIFTBELL_CONFIG"])], environ=environment)


def _send(tree: Tree, tell: Any) -> Sent:
    """Send all payloads over a few connections at once."""
    from pipeline.cli.payloads import payloads

    sent = Sent()
    waiting = list(payloads())
    total = sum(payload.messages for payload in waiting)
    here = threading.local()
    connections: list[HTTPConnection] = []
    host = tree.ready["url"].removeprefix("http://")

    def send(payload: Payload) -> None:
        if not hasattr(here, "connection"):
            here.connection = HTTPConnection(host, timeout=30)
            connections.append(here.connection)
        _post(here.connection, tree.ready["key"], payload, sent)
        tell(f"sent {sum(map(len, sent.accepted.values()))} of {total}")

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, waiting))
    sent.seconds = monotonic() - sent.began
    for connection in connections:
        connection.close()
    return sent


def _post(connection: HTTPConnection, key: str, payload: Payload, sent: Sent) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", **payload.headers}
    answer, text = None, b""
    for _ in range(TRIES):
        try:
            connection.request("POST", f"/in/{payload.intake}", payload.body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException):
            connection.close()
            continue
        if answer.status != 503:
            break
        sleep(float(answer.headers.get("Retry-After", 1)))
    _note(sent, payload, answer, text)


def _note(sent: Sent, payload: Payload, answer: HTTPResponse | None, text: bytes) -> None:
    status = answer.status if answer else 0
    ids = json.loads(text)["ids"] if status == 202 else []
    with sent.lock:
        sent.requests += 1
        sent.accepted[payload.intake.partition("/")[0]] += ids
        if len(ids) != payload.messages:
            sent.problems.append(f"/in/{payload.intake} answered {status}: {text[:300].decode(errors='replace')}")


def _wait_until_settled(tree: Tree, configuration: Configuration, sent: Sent, tell: Any) -> float:
    """Wait until each message has been dropped, delivered or buried everywhere, or nothing moves any more."""
    from pipeline.store import Outcome, Store

    specs = [configuration.pipelines[name] for name in sent.accepted]
    total = sum(len(sent.accepted[spec.name]) * len(spec.consumers) for spec in specs)
    filters = {(spec.name, step.label): len(spec.consumers) for spec in specs for step in spec.filters}
    store = Store(f"sqlite:///{tree.ready['data']}/store.db")
    done, moved = -1, monotonic()
    try:
        while done < total and monotonic() - moved < PATIENCE and tree.process.poll() is None:
            counts: Counter[Outcome] = Counter()
            for (pipeline, step, outcome), count in store.counts().items():
                counts[outcome] += count * filters.get((pipeline, step), 1)
            now = counts[Outcome.DELIVERED] + counts[Outcome.DROPPED] + counts[Outcome.BURIED]
            done, moved = (now, monotonic()) if now != done else (done, moved)
            tell(
                f"settled {done} of {total}: "
                + ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
            )
            if done < total:
                sleep(LOOK)
    finally:
        store.close()
    return moved - sent.began


def _lines(tree: Tree, configuration: Configuration, sent: Sent, others: Mapping[str, Any]) -> list[Line]:
    """Balance the books of every pipeline and consumer."""
    from pipeline.cli.ledger import balance
    from pipeline.store import Store

    store = Store(f"sqlite:///{tree.ready['data']}/store.db")
    try:
        return [
            balance(spec, step, sent.accepted[spec.name], _facts(tree, step, others), store)
            for spec in configuration.pipelines.values()
            if spec.name in sent.accepted  # others let messages wait for longer than anybody would look on
            for step in spec.consumers
        ]
    finally:
        store.close()


def _facts(tree: Tree, step: ConsumerStep, others: Mapping[str, Any]) -> Facts:
    """Look at a consumer's other side."""
    from pipeline.cli.ledger import Facts, seen_in_file, seen_in_log

    if step.plugin in others:
        other = others[step.plugin]
        return Facts(other.taken, other.put_off, other.refused)
    if step.plugin == "file":
        return Facts(seen_in_file(Path(step.config.path)))  # type: ignore[attr-defined]  # the shipped plugin's option
    return Facts(seen_in_log(tree.log))


def _keep_log(tree: Tree) -> str:
    """Put the tree's log where it outlives the demo, and give the file's name."""
    with NamedTemporaryFile(prefix="siftbell-demo-", suffix=".log", delete=False) as kept:
        kept.write(tree.log.read_bytes())
    return kept.name


def _show(lines: Sequence[Line]) -> None:
    columns = ("pipeline", "consumer", "came in", "dropped", "held", "delivered", "buried", "missing", "twice")
    shown = table(*columns)
    for column in shown.columns[2:]:
        column.justify = "right"
    for line in lines:
        numbers = [line.came_in, line.dropped, line.held, line.delivered, line.buried, line.missing, line.duplicates]
        shown.add_row(cell(line.pipeline), cell(line.consumer), *(cell(number) for number in numbers))
    console().print(shown)


@contextmanager
def _progress() -> Iterator[Any]:
    """Give a function that says how far it is: one live line on a terminal, now and then a plain one elsewhere."""
    from rich.console import Console

    terminal = Console(stderr=True)
    if terminal.is_terminal:
        with terminal.status("") as status:
            yield status.update
        return
    last = [-PLAIN_EVERY]

    def tell(text: str) -> None:
        if monotonic() - last[0] >= PLAIN_EVERY:
            last[0] = monotonic()
            say(text)

    yield tell
