"""The demo: what it sends, its stand-ins, its ledger, and the whole of it as a person runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer

from pipeline.cli import demo as demo_module
from pipeline.cli import payloads as payloads_module
from pipeline.cli.ledger import Facts, balance, seen_in_file, seen_in_log
from pipeline.cli.payloads import fingerprint, payloads
from pipeline.cli.run import shipped
from pipeline.cli.standins import StandIn, Telegram, Webhook
from pipeline.message import Message
from pipeline.spec.loader import load
from pipeline.store import DeadLetter, Outcome, Record, Store

NOW = datetime(2026, 11, 21, 4, 0, 0, tzinfo=UTC)


def test_the_fingerprint_is_alertmanager_s() -> None:
    assert fingerprint({"alertname": "foo", "node": "bar"}) == "980a6a0e0facf311"


def test_payloads_are_written_as_alertmanager_writes_them() -> None:
    sent = [payload for payload in payloads(NOW) if payload.intake == "alerts/prometheus"]
    assert all(payload.headers["User-Agent"].startswith("Alertmanager/") for payload in sent)
    assert all(payload.body.endswith(b"}\n") and b"<" not in payload.body and b"&" not in payload.body for payload in sent)
    bodies = [json.loads(payload.body) for payload in sent]
    assert list(bodies[0]) == [
        "receiver", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "version",
        "groupKey", "truncatedAlerts",
    ]  # fmt: skip
    firing = {alert["fingerprint"]: alert for body in bodies for alert in body["alerts"] if alert["status"] == "firing"}
    resolved = {alert["fingerprint"]: alert for body in bodies for alert in body["alerts"] if alert["status"] == "resolved"}
    assert firing.keys() == resolved.keys()
    for known, alert in firing.items():
        assert known == fingerprint(alert["labels"])
        assert (alert["startsAt"], alert["labels"]) == (resolved[known]["startsAt"], resolved[known]["labels"])
        assert alert["endsAt"] == "0001-01-01T00:00:00Z" < resolved[known]["endsAt"]
        assert re.fullmatch(r"2026-11-21T03:53:00(\.\d*[1-9])?Z", alert["startsAt"])
    assert {len(alert["startsAt"]) > 24 for alert in firing.values()} == {True, False}, "nanoseconds and milliseconds"


def test_there_are_a_thousand_messages_singly_and_in_arrays() -> None:
    sent = list(payloads(NOW))
    assert sum(payload.messages for payload in sent) >= 1000
    for payload in sent:
        body = json.loads(payload.body)
        assert payload.messages == len(body["alerts"] if "alerts" in body else body if isinstance(body, list) else [body])
    assert {payload.messages for payload in sent if payload.intake == "hello/http"} == {1, 10}


@pytest.fixture(params=[Webhook, Telegram])
def other(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with request.param() as running:
        yield running


def posted(connection: HTTPConnection, message: Message) -> tuple[int, dict[str, Any], dict[str, Any]]:
    connection.request("POST", "/bot1:x/sendMessage", f"chat_id=1&text={message.id}")
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), json.loads(answer.read())


def test_a_stand_in_puts_off_refuses_and_takes(other: StandIn) -> None:
    messages = [Message(source="test") for _ in range(50)]
    connection = HTTPConnection(other.url.removeprefix("http://"), timeout=10)
    first = [posted(connection, message) for message in messages]
    second = [posted(connection, message) for message in messages]
    connection.close()
    assert Counter(status for status, *_ in first) == {200: 46, 503: 2, 429: 1, 400: 1}
    assert Counter(status for status, *_ in second) == {200: 49, 400: 1}
    assert [other.taken[message.id] for message in messages].count(2) == 46
    assert (other.put_off, other.refused) == ({messages[7].id, messages[32].id, messages[33].id}, {messages[40].id})
    _, headers, body = first[33]
    if isinstance(other, Telegram):
        assert body == {
            "ok": False,
            "error_code": 429,
            "description": "Too Many Requests: retry after 1",
            "parameters": {"retry_after": 1},
        }
    else:
        assert headers["Retry-After"] == "1"


def test_a_stand_in_refuses_what_bears_no_id(other: StandIn) -> None:
    assert other.answer("/bot1:x/sendMessage", b"nothing")[0] == 400
    assert not other.refused


def test_telegram_s_stand_in_knows_its_name() -> None:
    with Telegram() as other:
        assert other.answer("/bot1:x/getMe", b"")[2]["result"]["is_bot"] is True


@pytest.mark.parametrize(("colour", "lines"), [("1", 0), ("", 1)], ids=["terminal", "file"])
def test_progress_is_live_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], colour: str, lines: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", colour)
    with demo_module._progress() as tell:
        tell("first")
        tell("second")
    assert capsys.readouterr().err.count("first\n") == lines


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/store.db")
    made.migrate()
    yield made
    made.close()


def recorded(message: Message, step: str, outcome: Outcome, attempt: int = 1) -> Record:
    return Record(message_id=message.id, pipeline="hello", step=step, outcome=outcome, at=NOW, attempt=attempt)


def test_the_ledger_finds_every_kind_of_discrepancy(store: Store) -> None:
    spec = load([shipped()], environ={}).pipelines["hello"]
    step = next(step for step in spec.consumers if step.plugin == "file")
    names = ("dropped", "delivered", "held", "twice", "buried", "missing", "both", "buried wrongly", "refused, taken", "put off")
    found = {name: Message(source="test") for name in names}
    letters = [
        DeadLetter(message=found[name], pipeline="hello", step=step.label, error="no", at=NOW)
        for name in ("buried", "buried wrongly", "both")
    ]
    records = [recorded(found["dropped"], spec.filters[0].label, Outcome.DROPPED)]
    records += [recorded(found["held"], step.label, Outcome.DELIVERED, attempt=2)]
    store.settle(records=records, dead=letters)
    seen = {found[name].id: 1 for name in ("delivered", "held", "both", "refused, taken", "put off")} | {found["twice"].id: 3}
    facts = Facts(
        seen,
        refused={found[name].id for name in ("buried", "both", "refused, taken")},
        put_off={found["held"].id, found["put off"].id},
    )
    line = balance(spec, step, [message.id for message in found.values()], facts, store)
    assert (line.came_in, line.dropped, line.held, line.delivered, line.buried) == (10, 1, 1, 6, 3)
    assert (line.missing, line.duplicates) == (1, 2)
    told = {problem.partition(":")[0]: problem.partition(": ")[2] for problem in line.problems}
    place = f"at {step.label} of hello"
    assert told == {
        found["missing"].id: f"missing {place}",
        found["both"].id: f"more than one of dropped, delivered and buried {place}",
        found["buried wrongly"].id: f"buried, but not refused {place}",
        found["refused, taken"].id: f"refused, but not buried {place}",
        found["put off"].id: f"put off, but not held {place}",
    }


def test_what_the_log_and_the_file_show(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('Warm shutdown\n{"logger": "message", "id": "a"}\n{"logger": "message", "id": "a"}\n{"logger": "web"}\n')
    assert seen_in_log(log) == {"a": 2}
    file = tmp_path / "file"
    assert seen_in_file(file) == {}
    file.write_text('{"id": "a"}\n{"id": "b"}\n{"id": "a"}\n')
    assert seen_in_file(file) == {"a": 2, "b": 1}


class Stumbling(Webhook):
    """An intake that is not always there."""

    answers: ClassVar[list[tuple[int, dict[str, str], Any]]] = []

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        return self.answers.pop(0)


def test_a_request_is_sent_again_until_it_is_taken() -> None:
    payload = payloads_module.Payload("hello/http", b"{}", 1)
    sent = demo_module.Sent()
    with Stumbling() as intake:
        intake.answers += [(503, {"Retry-After": "0"}, {}), (202, {}, {"ids": ["a"]})]
        connection = HTTPConnection(intake.url.removeprefix("http://"), timeout=10)
        demo_module._post(connection, "key", payload, sent)
        connection.close()
    assert (sent.accepted, sent.problems) == ({"hello": ["a"]}, [])
    demo_module._post(connection, "key", payload, sent)
    assert sent.problems == ["/in/hello/http answered 0: "], "nobody is there any more"


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the processes: under its tracer, Python 3.11.7 lets CancelledError escape from inside httpx."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("unmeasured")
def test_the_demo_accounts_for_every_message(tmp_path: Path) -> None:
    environment = {**os.environ, "SIFTBELL_PORT": "1", "SIFTBELL_BROKER": "redis://nowhere", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "demo"], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split()[:2]): list(map(int, line.split()[2:])) for line in done.stdout.splitlines()[2:] if line.strip()}
    assert {pipeline for pipeline, _ in rows} == {"alerts", "hello", "team"}
    for came_in, dropped, held, delivered, buried, missing, duplicates in rows.values():
        assert came_in == dropped + delivered + buried
        assert (missing, duplicates) == (0, 0)
        assert held >= 0
    assert rows["alerts", "webhook"][2] > 0, "something was held"
    assert rows["alerts", "oncall"][4] > 0, "something was buried"
    assert "Every accepted message is accounted for at every consumer." in done.stderr
    assert list(tmp_path.iterdir()) == [], "it cleans up"


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("unmeasured")
def test_the_demo_tells_what_is_missing_and_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    few = [payload for payload in payloads(NOW) if payload.intake == "alerts/prometheus"][:4]
    bad = payloads_module.Payload("alerts/prometheus", b"null", 1)
    monkeypatch.setattr(payloads_module, "payloads", lambda: [*few, bad])
    monkeypatch.setattr(Webhook, "say", _forgetful)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(typer.Exit) as ended:
        demo_module.demo()
    assert ended.value.exit_code == 1
    told = capfd.readouterr().err
    assert ": missing at webhook of alerts" in told
    assert "/in/alerts/prometheus answered 400" in told
    (log,) = tmp_path.iterdir()
    assert f"the log is in {log}" in told
    assert '"part": "run"' in log.read_text()


def _forgetful(self: StandIn, mood: str, path: str) -> tuple[int, dict[str, str], Any]:
    """Answer as if all were well, and lose what was sent."""
    self.taken.clear()
    return 200, {}, {}
