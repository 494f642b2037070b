"""What leaves a connection: an answer's head and body together, in order, and whole where it is closed."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.web.protocol import MOST_HELD, Joined


class Way(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.lost = False

    def write(self, data):
        self.told.append(bytes(data))

    def close(self):
        self.told.append("closed")
        self.lost = True

    def is_closing(self):
        return self.lost

    def pause_reading(self):
        self.told.append("pause")

    def resume_reading(self):
        self.told.append("resume")


def run(story):
    """Run a story on an event loop, and give what the transport was told by its end, and by the next turn."""

    async def told():
        way = Way()
        await story(Joined(way), way)
        during = list(way.told)
        await asyncio.sleep(0)
        return during, way.told

    return asyncio.run(told())


def test_what_is_written_in_one_turn_leaves_as_one_piece():
    async def story(joined, _):
        joined.write(b"head ")
        joined.write(bytearray(b"body"))
        await asyncio.sleep(0)
        joined.write(b"the next")

    assert run(story) == ([b"head body"], [b"head body", b"the next"])


def test_much_leaves_at_once_and_nothing_twice():
    async def story(joined, _):
        for _ in range(3):
            joined.write(b"x" * MOST_HELD)

    during, told = run(story)
    assert sum(map(len, during)) == 2 * MOST_HELD
    assert b"".join(told) == b"x" * (3 * MOST_HELD)


def test_what_is_left_goes_out_before_it_is_closed():
    async def story(joined, _):
        joined.write(b"bye")
        joined.close()

    assert run(story) == ([b"bye", "closed"], [b"bye", "closed"])


def test_to_a_connection_that_is_gone_nothing_is_written():
    async def story(joined, way):
        joined.write(b"nobody reads this")
        way.lost = True

    assert run(story) == ([], [])


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_reading_is_the_connection_s(name):
    way = Way()
    getattr(Joined(way), f"{name}_reading")()
    assert way.told == [name]
