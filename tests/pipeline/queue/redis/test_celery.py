"""Celery workers on our Redis transport: each pool, killed, frozen out, stopped."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PREFORK = ("-P", "prefork", "-c", "2")
THREADS = ("-P", "threads", "-c", "4")


@pytest.mark.parametrize("pool", [PREFORK, THREADS, ("-P", "solo")], ids=["prefork", "threads", "solo"])
def test_every_pool_runs_each_task_once_and_answers(
    server: Any, place: Callable[[str], Any], wait: Callable[..., None], pool: tuple[str, ...]
) -> None:
    here = place(server.url())
    here.send(range(200))
    with here.worker(*pool) as process:
        here.send(range(200, 300))
        wait(lambda: len(here.noted()) == 300)
        assert here.app.control.inspect(timeout=30, limit=1).ping() == {"celery@one": {"ok": "pong"}}
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert set(here.noted().values()) == {1}
    assert (server.ready("celery"), server.claimed(), server.owners()) == (0, 0, 0)


def test_killed_at_random_moments_nothing_is_lost(server: Any, place: Callable[[str], Any], wait: Callable[..., None]) -> None:
    here, moments, count = place(server.url(beat=0.1)), random.Random(3), 2000
    here.send(range(count))
    pool = ("-P", "threads", "-c", "2", "--prefetch-multiplier", "4")
    process = here.start(*pool, name="w0")
    for number in range(1, 11):
        following = here.start(*pool, name=f"w{number}")  # comes up meanwhile
        enough = min(len(here.noted()) + moments.randrange(1, 120), count)
        wait(lambda enough=enough: len(here.noted()) >= enough)
        here.kill(process)
        process = following
    wait(lambda: len(here.noted()) == count and server.ready("celery") + server.claimed() == 0)
    here.kill(process)
    again = sum(here.noted().values()) - count
    assert again <= 10 * 8, f"{again} twice: more than what ten workers held when they were killed"


def test_what_a_killed_worker_held_is_done_in_seconds(
    server: Any, place: Callable[[str], Any], wait: Callable[..., None]
) -> None:
    here = place(server.url())
    here.send(range(4), pause=60)
    with here.worker(*PREFORK, name="one") as one, here.worker(*PREFORK, name="two") as two:
        wait(lambda: server.claimed() == 4 and here.noted("begin"))
        here.kill(one)
        here.kill(two)
    here.notes.unlink()
    with here.worker(*PREFORK, name="three"):
        wait(lambda: len(here.noted("begin")) == 2, seconds=30)


def test_stopped_worker_hands_back_what_it_had_fetched(
    server: Any, place: Callable[[str], Any], wait: Callable[..., None]
) -> None:
    here = place(server.url())
    here.send(range(20), pause=0.5)
    with here.worker(*PREFORK) as process:
        wait(lambda: len(here.noted()) >= 1)
        assert server.claimed() > 2
        process.terminate()
        assert process.wait(timeout=60) == 0
    begun = here.noted("begin")
    assert begun == here.noted()
    assert (server.claimed(), server.owners()) == (0, 0)
    # Celery itself drops a late acknowledgement now and then at a warm shutdown.
    assert 20 - len(begun) <= server.ready("celery") <= 20 - len(begun) + 2
    first = min(set(range(20)) - set(begun))
    with here.worker("-P", "solo"):
        wait(lambda: len(here.noted("begin")) > len(begun))
        assert first in here.noted("begin")


@pytest.mark.parametrize(
    ("pool", "fault"),
    [(PREFORK, "killed"), (PREFORK, "frozen"), (THREADS, "killed")],
    ids=["prefork-killed", "prefork-frozen", "threads-killed"],
)
def test_a_worker_goes_on_after_an_outage_with_its_window_full(
    new_server: Callable[..., Any], place: Callable[[str], Any], wait: Callable[..., None], pool: tuple[str, ...], fault: str
) -> None:
    """The next poll reconnects; that a failed acknowledgement frees its place has a test of its own, and would suffice."""
    server = new_server()
    here = place(server.url(socket_timeout=1))
    here.send(range(40), pause=0.3)
    with here.worker(*pool) as process:
        wait(lambda: len(here.noted()) >= 4)
        server.kill() if fault == "killed" else server.freeze()
        wait(lambda: "rror" in here.log())  # what it was at work on is done, and it cannot say so
        server.start() if fault == "killed" else server.thaw()
        wait(lambda: len(here.noted()) == 40 and server.ready("celery") + server.claimed() == 0, seconds=120)
        assert process.poll() is None
    assert sum(here.noted().values()) <= 40 + 2 * 16


def test_a_worker_goes_on_after_redis_has_lost_its_data(
    new_server: Callable[..., Any], place: Callable[[str], Any], wait: Callable[..., None]
) -> None:
    server = new_server(durable=False)
    here = place(server.url())
    here.send(range(20), pause=0.2)
    with here.worker(*PREFORK):
        wait(lambda: len(here.noted()) >= 2)
        server.kill()
        server.start()
        here.send(range(100, 110))
        wait(lambda: set(range(100, 110)) <= set(here.noted()))
        wait(lambda: server.ready("celery") + server.claimed() == 0)


def test_a_worker_that_stood_still_does_not_acknowledge_what_others_have(
    server: Any, place: Callable[[str], Any], wait: Callable[..., None]
) -> None:
    here = place(server.url())
    here.send(range(4), pause=2)
    with here.worker("-P", "threads", "-c", "1", name="one") as one:
        wait(lambda: server.claimed() == 4)
        one.send_signal(signal.SIGSTOP)
        with here.worker("-P", "threads", "-c", "4", name="two"):
            wait(lambda: "is gone: 4 messages" in here.log("two"))
            wait(lambda: len(here.noted("begin")) == 4)
            one.send_signal(signal.SIGCONT)
            wait(lambda: "delivered again" in here.log("one") or "did not answer" in here.log("one"))
            wait(lambda: len(here.noted()) == 4 and server.claimed() == 0)
        wait(lambda: "did not answer for a while" in here.log("one"))
        here.send(range(10, 12))
        wait(lambda: {10, 11} <= set(here.noted()))
