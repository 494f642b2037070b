"""The same journey on each broker: 500 messages in, 500 in the file, on real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from trees import Running, ask, free_port, process, siftbell, siftbell_run, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MESSAGES = 500
IN_A_REQUEST = 50


@pytest.fixture
def redis(require_redis: str) -> Iterator[Callable[[int], str]]:
    """Give the URL of a Redis database that is empty before and after."""
    from redis import Redis

    used: list[Redis] = []

    def empty(database: int) -> str:
        url = urlsplit(require_redis)._replace(path=f"/{database}").geturl()
        client = Redis.from_url(url)
        client.flushdb()
        used.append(client)
        return url

    yield empty
    for client in used:
        client.flushdb()
        client.close()


@pytest.fixture
def rabbitmq(require_rabbitmq: str, require_binary: Callable[[str, str], str]) -> Iterator[str]:
    """Give the URL of a virtual host of our own on RabbitMQ."""
    control = require_binary("rabbitmqctl", "rabbitmq-server")
    host = f"siftbell-{uuid4().hex[:8]}"
    user = urlsplit(require_rabbitmq).username or "guest"
    for arguments in (["add_vhost", host], ["set_permissions", "-p", host, user, ".*", ".*", ".*"]):
        subprocess.run([control, *arguments], check=True, capture_output=True, timeout=60)
    yield urlsplit(require_rabbitmq)._replace(path=f"/{host}").geturl()
    subprocess.run([control, "delete_vhost", host], check=True, capture_output=True, timeout=60)


@pytest.fixture
def sqs() -> Iterator[str]:
    """Give the URL of a stand-in of SQS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"sqs://key:secret@{host}:{port}"
    server.stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "configs" / "journey.yaml"
    path.parent.mkdir()
    path.write_text(
        "name: journey\n"
        "producers:\n  - http: {}\n"
        "filters:\n  - match: severity != 'debug'\n"
        f"consumers:\n  - file: {{path: '{tmp_path / 'out.jsonl'}'}}\n"
    )
    return path.parent


def delivered(config: Path) -> list[str]:
    out = config.parent / "out.jsonl"
    return [json.loads(line)["id"] for line in out.read_text().splitlines()] if out.exists() else []


def journey(running: Running, config: Path) -> None:
    """Send the messages, with as many that are to be dropped between them, and see that the right ones arrive."""
    accepted: list[str] = []
    for start in range(0, MESSAGES, IN_A_REQUEST):
        wanted = [{"title": f"message {number}", "severity": "error"} for number in range(start, start + IN_A_REQUEST)]
        accepted += running.send("journey", "http", wanted)
        running.send("journey", "http", [{"title": "noise", "severity": "debug"}])
    assert len(set(accepted)) == MESSAGES
    until(lambda: set(delivered(config)) >= set(accepted), "all messages are in the file", seconds=120)

    def all_decided() -> bool:
        counts = {(one["step"], one["outcome"]): one["count"] for one in running.stats()["decided"]}
        return counts == {("file", "delivered"): MESSAGES, ("match", "dropped"): MESSAGES // IN_A_REQUEST}

    until(all_decided, "the store has a record of each message")
    assert sorted(delivered(config)) == sorted(accepted), "a message is in the file twice, though nothing was killed"
    assert running.stats()["dead"] == []


def run(config: Path, environment: Mapping[str, str]) -> None:
    with siftbell_run(config, config.parent / "data", environment) as running:
        journey(running, config)


def test_on_the_embedded_default(config: Path) -> None:
    run(config, {})


def test_on_redis(config: Path, redis: Callable[[int], str]) -> None:
    run(config, {"SIFTBELL_BROKER": redis(14), "SIFTBELL_MEMORY": redis(15)})


def test_on_rabbitmq(config: Path, rabbitmq: str) -> None:
    run(config, {"SIFTBELL_BROKER": rabbitmq})


def test_on_sqs(config: Path, sqs: str) -> None:
    run(config, {"SIFTBELL_BROKER": sqs, "AWS_DEFAULT_REGION": "eu-central-1"})


def test_in_roles_on_rabbitmq_with_postgres_and_redis(
    config: Path, rabbitmq: str, new_postgres: Callable[[], str], redis: Callable[[int], str]
) -> None:
    port, tmp_path = free_port(), config.parent
    environment = {
        "SIFTBELL_BROKER": rabbitmq,
        "SIFTBELL_STORE": new_postgres(),
        "SIFTBELL_MEMORY": redis(15),
        "SIFTBELL_CONFIG": str(config),
        "SIFTBELL_DATA": str(tmp_path / "data"),
        "SIFTBELL_PORT": str(port),
    }
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as running:
        running.enter_context(process(["serve"], environment, tmp_path / "serve.log"))
        until(lambda: answers(f"{url}/readyz"), "the web server is ready")
        for role in (["worker", "--only", "filters"], ["worker", "--only", "deliveries"], ["clock"]):
            running.enter_context(process(role, environment, tmp_path / f"{role[-1]}.log"))
        key = siftbell(["keys", "create", "journey", "--scope", "intake", "--scope", "api"], environment).strip()
        journey(Running(url, key, tmp_path / "data", tmp_path / "serve.log"), config)


def answers(url: str) -> bool:
    try:
        return ask(url)[0] == 200
    except OSError:
        return False
