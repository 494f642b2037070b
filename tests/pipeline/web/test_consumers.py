"""The API's part about consumers, over real sockets and on a real store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline import Consumer, NoOptions
from pipeline.keys import create_key
from pipeline.spec.model import ConsumerStep
from pipeline.store.rows import Circuit, CircuitState

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAR = datetime(2126, 3, 1, 12, 10, tzinfo=UTC)


class Mail(Consumer[NoOptions]):
    """Sends nothing."""

    def consume(self, message):
        raise AssertionError


@pytest.fixture
def consumer(web):
    """The label of a consumer whose circuit is open."""
    label, pipeline = "mail", web.services.pipelines["toy"]
    step = ConsumerStep(
        kind="consumer", plugin=label, type=Mail, label=label, config=NoOptions(), position=pipeline.spec.position, queue=label
    )
    pipeline.spec = replace(pipeline.spec, consumers=(step,))
    opened = {"state": CircuitState.OPEN, "failures": 5, "openings": 1, "since": START, "until": FAR, "error": "503"}
    assert web.store.change_circuit(Circuit(pipeline="toy", step=label, version=1, **opened))
    return label


def test_consumers_have_their_circuits(web, consumer):
    (found, *_) = web.get("/api/v1/consumers").json
    assert found == {
        "pipeline": "toy",
        "consumer": consumer,
        "plugin": consumer,
        "when": None,
        "circuit": "open",
        "since": "2026-03-01T12:00:00Z",
        "failures": 5,
        "error": "503",
        "next_try": "2126-03-01T12:10:00Z",
        "held": 0,
        "rate": None,
    }


def test_a_circuit_is_closed_on_demand(web, consumer):
    answer = web.ask("POST", f"/api/v1/consumers/toy/{consumer}/close")
    assert (answer.status, answer.json["circuit"], answer.json["error"]) == (200, "closed", None)
    assert web.store.circuit("toy", consumer).state is CircuitState.CLOSED


def test_what_is_not_there_cannot_be_closed(web, consumer):
    for place in ("toy/nobody", f"nothing/{consumer}"):
        answer = web.ask("POST", f"/api/v1/consumers/{place}/close")
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


def test_closing_needs_a_key_of_the_api(web, consumer):
    key = create_key(web.store, "only-intake", ["intake"])
    answer = web.ask("POST", f"/api/v1/consumers/toy/{consumer}/close", headers={"X-API-Key": key})
    assert answer.status == 403
    assert web.store.circuit("toy", consumer).state is CircuitState.OPEN
