"""Following up: which message of a key is posted, and which belongs to an earlier one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pipeline import GoneError, Message, TemporaryError, follow
from pipeline.testing import Recollection


class Chat:
    """Where messages are posted and followed up; what it calls them is their number."""

    def __init__(self):
        self.posted, self.followed, self.gone = [], [], set()

    async def post(self, message):
        self.posted.append(message.title)
        return str(len(self.posted))

    async def follow_up(self, message, place):
        if place in self.gone:
            raise GoneError("no such message")
        self.followed.append((message.title, place))

    def tell(self, memory, title, **fields):
        message = Message(source="t", title=title, **{"key": "k"} | fields)
        asyncio.run(follow(message, memory, self.post, self.follow_up))


@pytest.fixture
def chat():
    return Chat()


def test_the_first_is_posted_and_the_others_follow_until_it_is_resolved(chat):
    memory = Recollection()
    chat.tell(memory, "a")
    chat.tell(memory, "b")
    chat.tell(memory, "other", key="o")
    chat.tell(memory, "c", status="resolved")
    chat.tell(memory, "d")
    chat.tell(memory, "e")
    assert chat.posted == ["a", "other", "d"]
    assert chat.followed == [("b", "1"), ("c", "1"), ("e", "3")]


def test_what_is_gone_is_posted_anew_and_followed_from_there(chat):
    memory = Recollection()
    chat.tell(memory, "a")
    chat.gone.add("1")
    chat.tell(memory, "b")
    chat.tell(memory, "c")
    assert (chat.posted, chat.followed) == (["a", "b"], [("c", "2")])


def test_a_resolved_one_that_nothing_came_before_is_posted_and_not_remembered(chat):
    memory = Recollection()
    chat.tell(memory, "a", status="resolved")
    chat.tell(memory, "b", status="resolved")
    assert chat.posted == ["a", "b"]


@pytest.mark.parametrize(("memory", "key"), [(None, "k"), (Recollection(), "")])
def test_without_a_memory_or_a_key_each_is_posted(chat, memory, key):
    for title in "ab":
        chat.tell(memory, title, key=key)
    assert chat.posted == ["a", "b"]


def test_it_is_remembered_for_a_month_after_the_last_one(chat):
    memory = Recollection()
    for title in "abcd":
        chat.tell(memory, title)
        memory.now += timedelta(days=29)
    memory.now += timedelta(days=2)
    chat.tell(memory, "e")
    assert chat.posted == ["a", "e"]


def test_a_memory_that_is_away_costs_no_message_and_doubles_none(chat):
    memory = Recollection(away=["recall"])
    with pytest.raises(TemporaryError):
        chat.tell(memory, "a")
    assert chat.posted == []
    memory.away = ["remember", "forget"]
    chat.tell(memory, "a")
    chat.tell(memory, "b", status="resolved")
    assert chat.posted == ["a", "b"]
