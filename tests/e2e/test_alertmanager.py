"""A real Alertmanager posts to `siftbell run`, and the shipped pipelines tell a stand-in of Telegram's Bot API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pytest_httpserver import HTTPServer
from trees import Running, alertmanager_run, ask, siftbell_run, until
from werkzeug import Request, Response

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.against("producer prometheus", "Alertmanager of Debian 12"),
]

CONFIGS = Path(__file__).parents[2] / "configs"
TOKEN = "123456:a-token-of-the-stand-in"
CHAT = "-100123"


@pytest.fixture
def alertmanager(require_binary: Callable[[str, str], str]) -> str:
    return require_binary("prometheus-alertmanager", "prometheus-alertmanager")


@pytest.fixture
def telegram(httpserver: HTTPServer) -> Iterator[list[dict[str, Any]]]:
    """Give what was sent to the stand-in of the Bot API, as it comes."""
    sent: list[dict[str, Any]] = []

    def answer(request: Request) -> Response:
        sent.append({name: values[0] for name, values in parse_qs(request.get_data(as_text=True)).items()})
        chat = {"id": int(CHAT), "type": "supergroup", "title": "on call"}
        message = {"message_id": len(sent), "date": 1_700_000_000, "chat": chat, "text": sent[-1]["text"]}
        return Response(f'{{"ok": true, "result": {json.dumps(message)}}}', content_type="application/json")

    httpserver.expect_request(f"/bot{TOKEN}/sendMessage", method="POST").respond_with_handler(answer)
    yield sent
    httpserver.check()


def config_for(siftbell: Running, key: Path) -> str:
    """Give the config of an Alertmanager that posts to the pipeline `alerts`, with the key from a file that is written here."""
    key.write_text(siftbell.key)
    return f"""
route: {{receiver: siftbell, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: siftbell
    webhook_configs:
      - url: {siftbell.url}/in/alerts/prometheus
        send_resolved: true
        http_config: {{authorization: {{credentials_file: {key}}}}}
"""


def post_alert(url: str, *, start: datetime, end: datetime) -> None:
    alert = {
        "labels": {"alertname": "DiskFull", "instance": "db-1:9100", "severity": "critical"},
        "annotations": {"summary": "/var is < 2 % free", "description": "Used by <postgres> & others"},
        "startsAt": start.isoformat(),
        "endsAt": end.isoformat(),
        "generatorURL": "http://prometheus.example.com/graph?g0.expr=up",
    }
    status, answer = ask(f"{url}/api/v2/alerts", body=[alert])
    assert status == 200, (status, answer)


def test_an_alert_and_its_resolution_reach_the_chat(
    alertmanager: str, telegram: list[dict[str, Any]], httpserver: HTTPServer, tmp_path: Path
) -> None:
    environment = {
        "TELEGRAM_ACTIVE": "true",
        "TELEGRAM_TOKEN": TOKEN,
        "TELEGRAM_CHAT": CHAT,
        "TELEGRAM_URL": httpserver.url_for("").rstrip("/"),
    }
    start = datetime.now(UTC) - timedelta(minutes=1)
    with (
        siftbell_run(CONFIGS, tmp_path / "data", environment) as running,
        alertmanager_run(alertmanager, config_for(running, tmp_path / "key"), tmp_path / "alertmanager") as url,
    ):
        post_alert(url, start=start, end=datetime.now(UTC) + timedelta(minutes=5))
        until(lambda: len(telegram) >= 1, "the chat knows that it fires")
        post_alert(url, start=start, end=datetime.now(UTC))
        until(lambda: len(telegram) >= 2, "the chat knows that it is over")
        assert running.stats()["dead"] == []
    firing, resolved = telegram
    assert {(one["chat_id"], one["parse_mode"]) for one in telegram} == {(CHAT, "HTML")}
    told = "CRITICAL: /var is &lt; 2 % free</b>\nUsed by &lt;postgres&gt; &amp; others\nhttp://prometheus.example.com/graph?g0.expr=up"
    assert without_id(firing["text"]) == f"<b>✗ {told}"
    assert without_id(resolved["text"]) == f"<b>✓ {told}"


def without_id(text: str) -> str:
    """Take off the message's id, which stands in the last line."""
    shown, last = text.rsplit("\n", 1)
    assert re.fullmatch(r"<code>[0-9a-f-]{36}</code>", last)
    return shown
