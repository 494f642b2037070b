"""Speaking to Redis: what it refuses, connections that were cut, and a server that has forgotten a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis import ConnectionPool
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as LateError

from pipeline.queue.redis.bell import Bell
from pipeline.queue.redis.commands import Commands, Script

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def commands(server: Any) -> Iterator[Commands]:
    made = Commands(ConnectionPool(port=server.port, protocol=2))
    yield made
    made.close()


def cut(server: Any) -> None:
    """End all connections but that of the test itself."""
    server.client.client_kill_filter(_type="normal", skipme=True)


def connections(server: Any) -> int:
    return len(server.client.client_list(_type="normal")) - 1


def test_a_connection_that_was_cut_at_rest_is_made_anew(commands: Commands, server: Any) -> None:
    assert commands.call("PING") == b"PONG"
    cut(server)
    assert commands.call("PING") == b"PONG"
    assert connections(server) == 1


def test_what_redis_refuses_leaves_the_connection_in_step(commands: Commands, server: Any) -> None:
    server.client.set("text", "")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        commands.together([("LPUSH", "list", "one"), ("LPUSH", "text", "two")], then=[("SET", "text", "")])
    with pytest.raises(ResponseError, match="unknown command"):
        commands.together([("LPUSH", "other", "one"), ("NONSENSE",)], then=[])
    assert commands.call("LLEN", "other") == 0
    assert connections(server) == 1


@pytest.mark.parametrize("queued", [[("LPUSH", "list", "one")], [("LPUSH", "list", "one"), ("LPUSH", "other", "two")]])
def test_a_bell_that_may_not_ring_is_no_reason_to_queue_again(commands: Commands, server: Any, queued: Any) -> None:
    server.client.set("text", "")
    commands.together(queued, then=[("LPUSH", "text", "refused")])
    assert commands.call("LLEN", "list") == 1
    assert connections(server) == 1


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_commands(server: Any) -> None:
    slow = Commands(ConnectionPool(port=server.port, protocol=2, socket_timeout=0.2))
    try:
        with pytest.raises(LateError):
            slow.call("BLPOP", "nothing", 1)
        assert slow.call("PING") == b"PONG"
    finally:
        slow.close()


def test_a_script_is_sent_again_where_redis_has_lost_it(commands: Commands, server: Any) -> None:
    assert commands.script("return ARGV[1]", [], ["one"]) == b"one"
    server.client.script_flush()
    assert commands.script("return ARGV[1]", [], ["two"]) == b"two"


def test_one_of_two_scripts_may_be_new_or_wrong(commands: Commands, server: Any) -> None:
    known = Script("return redis.call('INCR', KEYS[1])", ["known"], [])
    assert commands.scripts([known]) == [1]
    assert commands.scripts([known, Script("return 'new'", [], [])]) == [2, b"new"]
    with pytest.raises(ResponseError, match="wrong"):
        commands.scripts([Script("return redis.error_reply('wrong')", [], []), known])
    assert commands.scripts([known]) == [4]


def test_what_is_closed_while_it_is_used_leaves_no_connection(commands: Commands, server: Any) -> None:
    commands.close()
    assert commands.call("PING") == b"PONG"
    assert connections(server) == 0


def test_a_user_who_may_hear_nothing_is_told(server: Any) -> None:
    server.client.acl_setuser("deaf", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"], reset_channels=True)
    bell = Bell(ConnectionPool(port=server.port, username="deaf", password="secret", protocol=2))
    bell.listen("rings")
    with pytest.raises(NoPermissionError):
        bell.hear(5)
    bell.close()
    server.client.acl_deluser("deaf")
