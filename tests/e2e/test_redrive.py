"""A consumer's other side refuses, is mended, and a redrive from the command line brings it what it missed, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from trees import siftbell, siftbell_run, until
from werkzeug import Request, Response

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PIPELINE = """
name: hello
producers: [{{http: {{}}}}]
consumers:
  - webhook: {{url: {url}}}
  - file: {{path: {one}}}
    as: one
  - file: {{path: {two}}}
    as: two
"""


def ids(file: Path) -> list[str]:
    return [json.loads(line)["id"] for line in file.read_text().splitlines()] if file.exists() else []


def test_what_was_refused_arrives_once_after_a_redrive_and_nobody_else_gets_it_again(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    mended = False
    got: list[str] = []

    def answer(request: Request) -> Response:
        if not mended:
            return Response("no such chat", status=400)
        got.append(request.get_json()["id"])
        return Response("")

    httpserver.expect_request("/hook").respond_with_handler(answer)
    config, data, one, two = tmp_path / "hello.yaml", tmp_path / "data", tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    config.write_text(PIPELINE.format(url=httpserver.url_for("/hook"), one=one, two=two))
    environment = {"SIFTBELL_CONFIG": str(config), "SIFTBELL_DATA": str(data)}
    with siftbell_run(config, data) as running:
        sent = sorted(running.send("hello", "http", [{"title": f"number {number}"} for number in range(20)]))
        until(lambda: running.stats()["dead"], "they are given up")
        until(lambda: sorted(ids(one)) == sorted(ids(two)) == sent, "the others have them")
        until(lambda: running.stats()["dead"] == [{"pipeline": "hello", "step": "webhook", "count": 20}], "all are given up")
        (group,) = json.loads(siftbell(["dead-letters", "list", "-g", "-o", "json"], environment))
        assert (group["count"], group["step"]) == (20, "webhook")
        assert "answered 400" in group["error"]
        mended = True
        redrive = [sys.executable, "-m", "pipeline.cli", "dead-letters", "redrive", "--group-id", group["group"], "--yes"]
        done = subprocess.run(redrive, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=60)
        assert "20 messages redriven" in done.stderr
        until(lambda: len(got) >= 20, "they arrive")
        until(lambda: running.stats()["held"] == [], "nothing waits")
        assert running.stats()["dead"] == []
    assert sorted(got) == sent
    assert sorted(ids(one)) == sorted(ids(two)) == sent
    httpserver.check()
