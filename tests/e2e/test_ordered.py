"""`ordered: true` through `siftbell run`: an HTTP sink that fails now and then gets each key's messages in order."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from trees import siftbell_run, until
from werkzeug import Request, Response

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PIPELINE = """
name: hello
producers: [{{http: {{}}}}]
filters: [{{match: severity != "debug"}}]
consumers:
  - webhook: {url}
    ordered: true
    retry: {{first: 100ms, longest: 300ms, for: 1h}}
"""
KEYS, EACH = 4, 20


def test_a_sink_that_fails_now_and_then_gets_every_key_in_order(tmp_path: Path, httpserver: HTTPServer) -> None:
    got: dict[str, list[int]] = {f"k{n}": [] for n in range(KEYS)}
    calls = 0
    lock = threading.Lock()

    def answer(request: Request) -> Response:
        nonlocal calls
        message = request.get_json()
        with lock:
            calls += 1
            if calls % 5 == 0:
                return Response("not now", status=503)
            got[message["key"]].append(int(message["title"]))
        return Response("")

    httpserver.expect_request("/hook").respond_with_handler(answer)
    config, data = tmp_path / "hello.yaml", tmp_path / "data"
    config.write_text(PIPELINE.format(url=httpserver.url_for("/hook")))
    with siftbell_run(config, data) as running:
        for number in range(EACH):
            for key in got:
                running.send("hello", "http", [{"title": str(number), "key": key}])
        until(lambda: all(len(numbers) >= EACH for numbers in got.values()), "they arrive", seconds=200)
        until(lambda: running.stats()["held"] == [], "nothing waits")
    assert got == {key: list(range(EACH)) for key in got}
    httpserver.check()
