"""The pool of processes: an idle one has its batch before the worker's loop goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kombu.asynchronous import Hub, set_event_loop

from pipeline.queue.pool import ROOM, Processes


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(None)
    hub.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_idle_process_has_a_whole_batch_before_the_loop_goes_on(hub: Hub) -> None:
    reading, writing = os.pipe()
    pool = Processes.Pool(1, threads=False)
    try:
        pool.register_with_event_loop(hub)
        loop = hub.create_loop()
        while not pool._all_inqueues:  # its process has not told yet that it is up
            next(loop)
        pool.apply_async(_tell, (writing, b"x" * (ROOM - 4096)))
        told = os.read(reading, 100)  # the loop stands still meanwhile
    finally:
        pool.terminate()
        pool.join()
        os.close(reading)
        os.close(writing)
    assert int(told) == ROOM - 4096


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_process_was_given_ends_with_its_result_although_the_rest_is_dropped(hub: Hub) -> None:
    begun, begin = os.pipe()
    wait, release = os.pipe()
    ended: list[str] = []
    pool = Processes.Pool(1, threads=False)
    try:
        pool.register_with_event_loop(hub)
        loop = hub.create_loop()
        while not pool._all_inqueues:
            next(loop)
        pool.apply_async(_work, (begin, wait, "given"), callback=ended.append)
        pool.apply_async(_work, (begin, wait, "waits"), callback=ended.append)
        os.read(begun, 1)  # the loop has not read yet that it has begun
        pool.flush()
        pool.close()
        os.write(release, b"..")
        pool.join()
    finally:
        pool.terminate()
        for number in (begun, begin, wait, release):
            os.close(number)
    assert ended == ["given"]


def _work(begin: int, wait: int, name: str) -> str:
    os.write(begin, b".")
    os.read(wait, 1)
    return name


def _tell(writing: int, batch: bytes) -> None:
    os.write(writing, str(len(batch)).encode())
