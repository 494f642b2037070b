"""`siftbell consumers test` on real process trees: the test goes the way of all messages, disturbs none, and its end is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from trees import siftbell, siftbell_run, until
from werkzeug import Request, Response

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PIPELINE = """
name: hello
producers: [{{http: {{}}}}]
filters:
  - match: severity == "critical"
consumers:
  - webhook: {{url: {url}/good}}
    as: good
    when: severity == "critical"
    ordered: true
    retry: {{first: 1h, longest: 1h}}
  - webhook: {{url: {url}/refusing}}
    as: refusing
  - webhook: {{url: {url}/busy}}
    as: busy
    retry: {{first: 1h, longest: 1h}}
  - file: {{path: {file}}}
    as: kept
"""


def rehearse(environment: dict[str, str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    command = [sys.executable, "-m", "pipeline.cli", "consumers", "test", *arguments, "-o", "json"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_each_consumer_says_what_its_other_side_said(tmp_path: Path, httpserver: HTTPServer) -> None:
    got: list[Any] = []

    def good(request: Request) -> Response:
        body = request.get_json()
        got.append(body)
        return Response("", status=503 if body["title"] == "stuck" else 200)

    httpserver.expect_request("/good").respond_with_handler(good)
    httpserver.expect_request("/refusing").respond_with_data("no such chat", status=404)
    httpserver.expect_request("/busy").respond_with_data("later", status=503)
    config, data, file = tmp_path / "hello.yaml", tmp_path / "data", tmp_path / "kept.jsonl"
    config.write_text(PIPELINE.format(url=httpserver.url_for("").rstrip("/"), file=file))
    environment = {
        "SIFTBELL_CONFIG": str(config),
        "SIFTBELL_DATA": str(data),
        "SIFTBELL_PRIVATE_NETWORKS": "127.0.0.1,::1",
    }
    with siftbell_run(config, data, environment) as running:
        (stuck,) = running.send("hello", "http", [{"title": "stuck", "severity": "critical"}])
        until(lambda: got, "the message that is stuck was tried")
        code, outcomes, words = rehearse(environment, "--all", "--label", "team=db")
        assert (code, words) == (1, "")
        assert [(one["consumer"], one["plugin"], one["outcome"]) for one in outcomes] == [
            ("good", "webhook", "delivered"),
            ("refusing", "webhook", "buried"),
            ("busy", "webhook", "held"),
            ("kept", "file", "delivered"),
        ]
        reasons = [one["reason"] for one in outcomes]
        assert reasons[0] == reasons[3] == ""
        assert "answered 404: no such chat" in reasons[1]
        assert "answered 503: later" in reasons[2]
        assert [one["next_try"] is not None for one in outcomes] == [False, False, True, False]
        assert all(0 < one["milliseconds"] < 60_000 for one in outcomes)

        (letter,) = json.loads(siftbell(["dead-letters", "show", outcomes[1]["id"], "-o", "json"], environment))
        assert letter["message"]["labels"] == {"siftbell_test": "true", "team": "db"}

        message = got[-1]
        assert message["title"] == "Test of Siftbell: consumer good of pipeline hello"
        assert (message["severity"], message["type"], message["source"]) == ("info", "test", "siftbell")
        assert message["key"] == f"siftbell-test-{message['id']}"
        (kept,) = [one for one in map(json.loads, file.read_text().splitlines()) if one.get("type") == "test"]
        assert kept["id"] == outcomes[3]["id"]

        assert rehearse(environment, "hello/kept")[0] == 0
        command = [sys.executable, "-m", "pipeline.cli", "consumers", "test", "refusing"]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        refused = rf"POST {httpserver.url_for('').rstrip('/')}: answered 404: no such chat"
        assert re.search(rf"\nhello/refusing +webhook +buried +tried once *\n +{refused} *\n$", done.stdout)
        gone = r"what was buried lies in the dead letters; to have it gone:\n  siftbell dead-letters drop [0-9a-f-]{36}\n"
        assert re.fullmatch(gone, done.stderr)
        told = json.loads(siftbell(["explain", stuck, "-o", "json"], environment))
        assert {entry["step"]: entry["state"] for entry in told["entries"]}["good"] == "held"
    code, ((unanswered),), _ = rehearse(environment, "kept", "--timeout", "0.5")
    assert (code, unanswered["outcome"], unanswered["milliseconds"]) == (3, "no answer", None)
    with siftbell_run(config, data, environment):
        until(lambda: unanswered["id"] in file.read_text(), "what nobody took is delivered when a worker comes")
