"""Messages that take the whole worker along are buried alone, and the others of their batch are delivered."""

from __future__ import annotations

import pytest
from trees import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

THREADS = ["--only", "deliveries"]
PROCESSES = ["--concurrency", "2"]


@pytest.mark.parametrize(
    ("arguments", "poison"),
    [(THREADS, "poison"), (PROCESSES, "poison"), (PROCESSES, "parent")],
    ids=["threads", "processes", "processes-parent"],
)
def test_a_message_that_kills_the_whole_worker_is_buried_alone(place, text_messages, restarted, arguments, poison):
    here = place({"deadly": 0, "healthy": 0})
    titles = [str(n) for n in range(4 if poison == "parent" else 12)]
    here.deliver("deadly", text_messages([*titles[:3], poison, *titles[3:]]), in_a_batch=41)
    here.deliver("healthy", text_messages(titles))
    with restarted(lambda: here.worker(*arguments)) as loop:
        until(
            lambda: here.store.dead_letters() and here.delivered("deadly") == len(titles),
            "one buried, the others delivered",
            seconds=120,
        )
        until(lambda: here.delivered("healthy") == len(titles), "the other consumer has everything")
    assert [letter.message.title for letter in here.store.dead_letters()] == [poison]
    assert here.store.dead_letters()[0].error.startswith("its worker died 3 times")
    assert loop.starts <= 12
