"""The consumers' other side: what it notes in each mood, by what a client sees of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException

import pytest
from harness.background import Background
from harness.ledger import Ledger, Sent
from harness.sink import RETRY_AFTER, Sink


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    running = Background()
    yield running
    running.close()


@pytest.fixture
def sink(background: Background) -> Iterator[Sink]:
    made = Sink("alpha", background, seed=1)
    made.ledger = Ledger(("alpha",))
    yield made
    made.close()


def post(sink: Sink, message: str, timeout: float = 5) -> tuple[int, str | None]:
    connection = HTTPConnection("127.0.0.1", sink.port, timeout=timeout)
    try:
        connection.request("POST", "/", json.dumps({"id": message, "key": "k", "data": {"number": 3}}))
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]
    finally:
        connection.close()


def accepted(sink: Sink, message: str) -> Ledger:
    assert sink.ledger is not None
    sink.ledger.accept([message], [Sent("k", 3)])
    return sink.ledger


def test_what_it_takes_is_noted(sink: Sink) -> None:
    ledger = accepted(sink, "a")
    assert post(sink, "a")[0] == 200
    assert (ledger.outstanding, ledger.verdict().delivered) == (0, 1)


@pytest.mark.parametrize(("mood", "answer"), [("500", (500, None)), ("429", (429, str(RETRY_AFTER)))])
def test_what_it_refuses_has_not_arrived(sink: Sink, mood: str, answer: tuple[int, str | None]) -> None:
    ledger = accepted(sink, "a")
    sink.become(mood)  # type: ignore[arg-type]  # pytest's parameters are plain texts
    assert post(sink, "a") == answer
    assert ledger.outstanding == 1


def test_what_hangs_is_cut_off_when_the_mood_changes(sink: Sink) -> None:
    ledger = accepted(sink, "a")
    sink.become("hangs")
    with pytest.raises(TimeoutError):
        post(sink, "a", timeout=0.3)
    sink.become("takes")
    assert post(sink, "a")[0] == 200
    assert ledger.outstanding == 0


def test_it_refuses_connections_and_listens_on_the_same_port_again(sink: Sink) -> None:
    port = sink.port
    sink.become("refuses")
    with pytest.raises(ConnectionRefusedError):
        post(sink, "a")
    sink.become("takes")
    assert (sink.port, post(sink, "a")[0]) == (port, 200)


def test_answers_that_break_off_after_their_head_count_as_unsure(sink: Sink) -> None:
    ledger = accepted(sink, "a")
    sink.become("cuts")
    seen: set[int | str] = set()
    for _ in range(40):
        try:
            seen.add(post(sink, "a")[0])
        except (HTTPException, OSError) as error:
            seen.add(type(error).__name__)
    assert 200 in seen
    assert len(seen) > 2, "it breaks off in several ways"
    assert ledger.outstanding == 0
