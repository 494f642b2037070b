"""Batches that run as one: what becomes of the first becomes of all, and what came to nothing goes back one by one."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Reject

from pipeline.engine.batch import MAX_BYTES, MAX_DELIVER, MAX_PROCESS, Batch, encode
from pipeline.message import Message
from pipeline.queue.app import add_tasks, make_app
from pipeline.queue.brokers import broker
from pipeline.queue.request import BatchRequest


class Runner:
    """Notes over which batches workers died."""

    def __init__(self):
        self.lost_batches = []

    def lost(self, batch):
        self.lost_batches.append(batch)


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def request_of(runner):
    app = make_app(broker("memory://"))
    add_tasks(app, lambda: runner)
    told = {}

    def make(batch, **delivery):
        task = app.tasks["siftbell.process"]
        number = str(len(told))
        headers = {"id": number, "task": task.name, "argsrepr": "", "kwargsrepr": "{}"}
        payload = ([encode(batch)], {}, {})
        message = SimpleNamespace(
            headers=headers,
            body=None,
            content_type="",
            content_encoding="",
            payload=payload,
            delivery_info=delivery,
            properties={},
        )
        kind = type("Request", (BatchRequest,), {"runner": staticmethod(lambda: runner)})
        request = kind(
            message,
            app=app,
            task=task,
            on_ack=lambda *_: told.update({number: "done"}),
            on_reject=lambda _log, _errors, requeue: told.update({number: "back" if requeue else "aside"}),
            decoded=True,
            headers=headers,
            body=payload,
        )
        told[number] = ""
        return request

    make.told = lambda: list(told.values())
    return make


def batch_of(*titles, **fields):
    messages = [Message(source="test", title=title) for title in titles]
    return Batch(**{"job": "process", "queue": "in", "pipeline": "p", "messages": messages} | fields)


@pytest.mark.parametrize(
    "other",
    [
        batch_of("b", pipeline="q"),
        batch_of("b", step="later"),
        batch_of("b", attempt=2),
        batch_of("b", revision="new"),
        batch_of("b", deaths=1),
        batch_of("b", claim="c"),
        batch_of(*["b"] * MAX_PROCESS),
        batch_of("b" * MAX_BYTES),
    ],
    ids=["pipeline", "step", "attempt", "revision", "deaths", "claim", "many", "large"],
)
def test_only_what_is_alike_and_has_room_runs_as_one(request_of, other):
    assert request_of(batch_of("a")).take_along(request_of(batch_of("b")))
    assert not request_of(batch_of("a")).take_along(request_of(other))
    assert not request_of(other).take_along(request_of(batch_of("a")))


def test_several_full_ones_run_as_one_where_that_is_allowed(request_of):
    first, second, third = (request_of(batch_of(*["a"] * MAX_PROCESS)) for _ in range(3))
    assert not first.take_along(second)
    assert first.take_along(second, 2)
    assert not first.take_along(third, 2)


def test_what_is_filtered_where_it_is_delivered_runs_with_no_more_than_one_delivery_has(request_of):
    there = partial(batch_of, queue="out.box")
    assert request_of(there("a")).take_along(request_of(there(*["b"] * (MAX_DELIVER - 1))))
    assert not request_of(there("a")).take_along(request_of(there(*["b"] * MAX_DELIVER)))
    assert not request_of(there("a")).take_along(request_of(batch_of("b", queue="out.box", job="deliver", step="box")))


def test_batches_over_which_workers_may_have_died_run_alone(request_of):
    assert not request_of(batch_of("a"), redelivered=True).take_along(request_of(batch_of("b")))
    assert not request_of(batch_of("a")).take_along(request_of(batch_of("b"), redelivered=True))
    assert not request_of(batch_of("a", deaths=1)).take_along(request_of(batch_of("b", deaths=1)))
    assert not request_of(batch_of("a", claim="c")).take_along(request_of(batch_of("b", claim="c")))


@pytest.fixture
def company(request_of):
    first, *others = [request_of(batch_of(title)) for title in "abc"]
    assert all(first.take_along(other) for other in others)
    return first


def test_what_is_done_is_done_for_all(company, request_of):
    company.on_accepted(1, 0.0)
    assert request_of.told() == ["", "", ""]
    company.acknowledge()
    assert request_of.told() == ["done", "done", "done"]


def test_what_came_to_nothing_goes_back_one_by_one(company, request_of):
    company.on_failure(SimpleNamespace(exception=Reject("the store is away", requeue=True), traceback="", exc_info=()))
    assert request_of.told() == ["back", "back", "back"]


def test_what_a_worker_died_over_is_taken_apart_as_one_batch(company, request_of, runner):
    lost = WorkerLostError("signal 9")
    info = SimpleNamespace(exception=lost, traceback="", exc_info=(type(lost), lost, None))
    company.on_failure(info, send_failed_event=False, return_ok=True)
    assert [[message.title for message in batch.messages] for batch in runner.lost_batches] == [["a", "b", "c"]]
    assert request_of.told() == ["done", "done", "done"]


def test_what_an_operator_revokes_is_that_one_alone(company, request_of):
    company._announce_revoked("revoked", False, None, False)
    assert request_of.told() == ["done", "back", "back"]


def test_what_an_operator_has_revoked_is_not_taken_along(request_of, monkeypatch):
    named = request_of(batch_of("a"))
    monkeypatch.setattr("pipeline.queue.request.revoked", {named.id})
    assert not request_of(batch_of("b")).take_along(named)


def test_what_ran_with_one_that_an_operator_ended_goes_back(company, request_of):
    ended = Terminated(15)
    company.on_failure(SimpleNamespace(exception=ended, traceback="", exc_info=(type(ended), ended, None)))
    assert request_of.told() == ["back", "back", "back"]
