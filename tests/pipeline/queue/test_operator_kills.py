"""Workers and their children that an operator kills: being there when it happens is no crime of a message."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from trees import until

from pipeline.engine.batch import Batch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

THREADS = ["--only", "deliveries"]


def test_ten_kills_by_an_operator_bury_nothing(place, text_messages, ending):
    here = place({"slow": 3})
    here.deliver("slow", text_messages([str(n) for n in range(12)]), in_a_batch=3)
    for _ in range(10):
        begun = len(here.lines("slow.begun"))
        worker = here.worker(*THREADS)
        try:
            until(lambda n=begun: len(here.lines("slow.begun")) > n, "a call begins", seconds=120)
        finally:
            ending(worker, signal.SIGKILL)
    assert here.delivered("slow") < 12, "the kills came amid the work"
    worker = here.worker(*THREADS)
    try:
        until(lambda: here.delivered("slow") == 12 or here.store.dead_letters(), "everything is delivered", seconds=240)
    finally:
        ending(worker)
    assert [letter.error for letter in here.store.dead_letters()] == []


def test_a_worker_s_child_that_is_killed_while_it_has_a_batch_run_apart_buries_nothing(place, text_messages, ending):
    here = place({"slow": 2})
    suspected = Batch(job="deliver", queue="out.slow", pipeline="a", step="slow", messages=text_messages(["x"]), deaths=2)
    here.queue.publish([suspected])
    worker = here.worker("--concurrency", "1")
    try:
        until(lambda: here.lines("slow.begun"), "its trial is under way", seconds=120)
        for child in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        until(lambda: here.delivered("slow") == 1, "it is delivered", seconds=120)
    finally:
        ending(worker)
    assert here.store.dead_letters() == []
