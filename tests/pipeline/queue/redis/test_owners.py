"""Owners of claims: killed, frozen, cut off, beside one another; and the Redis that freezes, fills and forgets."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import kombu
import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from pipeline.queue import redis
from pipeline.queue.redis import scripts
from pipeline.queue.redis.claims import ClaimsLostError
from pipeline.queue.redis.owners import ROUNDS, Watch, beat_of, new_owner

if TYPE_CHECKING:
    from collections.abc import Callable

DIES = """
import os, signal, sys
import kombu
from redis.connection import Connection
from pipeline.queue import redis

redis.register()
connection = kombu.Connection(sys.argv[1])
claims = connection.channel().connection.claims()
send = Connection.send_packed_command

def send_and_die(self, command, *rest, **options):
    text = b"".join(command) if isinstance(command, list) else command
    send(self, command, *rest, **options)
    if b"EVALSHA" in text and b"siftbell:q" in text:
        while connection.transport.opened().llen("siftbell:q"):  # Redis has run it
            pass
        os.kill(os.getpid(), signal.SIGKILL)

claims.claim(["other"], 1)  # which loads the script
Connection.send_packed_command = send_and_die
claims.claim(["q"], 3)
"""


def put(connection: kombu.Connection, *bodies: object) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key="q")


def get(connection: kombu.Connection) -> Any:
    return kombu.Queue("q")(connection.default_channel).get()


def test_trap_killed_between_redis_taking_and_the_worker_reading(
    server: Any, connect: Callable[[str], kombu.Connection], wait: Callable[..., None]
) -> None:
    """What kombu's own transport pops with BRPOP and does not read is gone."""
    connection = connect(server.url())
    put(connection, *range(3))
    done = subprocess.run([sys.executable, "-c", DIES, server.url()], check=False, timeout=60)
    assert done.returncode == -9
    assert (server.ready(), server.claimed()) == (0, 3)
    connection.transport.claims()
    wait(lambda: server.ready() == 3)
    messages = [get(connection) for _ in range(3)]
    assert [message.payload for message in messages] == [0, 1, 2]
    assert {message.headers["x-delivery-count"] for message in messages} == {1}


def test_trap_claims_last_as_long_as_their_owner_lives(
    server: Any, connect: Callable[[str], kombu.Connection], wait: Callable[..., None]
) -> None:
    """With kombu's own transport, one worker with a short visibility timeout gives everyone's messages away."""
    holder, hasty = connect(server.url(beat=0.5)), connect(server.url(beat=0.02))
    put(holder, "held")
    message = get(holder)
    hasty.channel().connection.claims()
    key = "siftbell:queue:owners"
    [owner] = server.client.hkeys(key)
    wait(lambda: int(server.client.hget(key, owner)) >= 3)  # 1.5 s are 75 looks of the hasty one
    assert (server.ready(), server.claimed()) == (0, 1)
    message.ack()
    assert (server.ready(), server.claimed()) == (0, 0)


def test_trap_a_redis_that_stood_still_gives_nobodys_claims_away(
    new_server: Callable[..., Any], connect: Callable[[str], kombu.Connection], wait: Callable[..., None]
) -> None:
    server = new_server()
    holder, other = connect(server.url(beat=0.2, socket_timeout=0.3)), connect(server.url(beat=0.2, socket_timeout=0.3))
    put(holder, "held")
    message = get(holder)
    other.channel().connection.claims()
    key = "siftbell:queue:owners"
    [owner] = server.client.hkeys(key)
    wait(lambda: int(server.client.hget(key, owner)) >= 2)
    server.freeze()
    threading.Event().wait(2.5)  # there is nothing to see: longer than six signs of life
    server.thaw()
    before = int(server.client.hget(key, owner))
    wait(lambda: int(server.client.hget(key, owner)) >= before + 2 * ROUNDS)
    assert (server.ready(), server.claimed()) == (0, 1)
    message.ack()
    assert server.claimed() == 0


def test_nothing_is_concluded_from_a_time_without_a_look() -> None:
    watch, owner = Watch(2.0), new_owner(2.0)
    for look in range(ROUNDS):
        assert watch.look({owner: b"7"}, 2.0 * look + 100) == []
    assert watch.look({owner: b"7"}, 2.0 * ROUNDS + 100) == [owner]
    assert watch.look({owner: b"7"}, 2.0 * ROUNDS + 105) == []  # five seconds later: it begins anew
    assert watch.look({owner: b"8"}, 2.0 * ROUNDS + 107) == []
    assert watch.look({}, 2.0 * ROUNDS + 109) == []


def test_an_owner_has_the_time_that_its_name_says() -> None:
    assert (beat_of(new_owner(0.25)), beat_of("nonsense"), beat_of("a:-5")) == (0.25, 3600, 0)
    watch, slow = Watch(1.0), new_owner(3.0)
    looks = [watch.look({slow: b"0"}, float(number)) for number in range(20)]
    assert looks.index([slow]) == 3 * ROUNDS


def test_trap_who_was_taken_for_gone_acknowledges_nothing_of_others(
    server: Any, connect: Callable[[str], kombu.Connection], caplog: pytest.LogCaptureFixture
) -> None:
    sleeper, other = connect(server.url(beat=60)), connect(server.url(beat=60))
    put(sleeper, "x")
    slept = get(sleeper)
    claims = sleeper.transport.claims()
    server.client.hset("siftbell:queue:owners", claims.owner, 5)
    commands = other.channel().connection.commands()
    keys = ["siftbell:queue:owners", f"siftbell:queue:claims:{claims.owner}"]
    assert commands.script(scripts.BURY, keys, [claims.owner, 4]) == -1  # it gave a sign of life since it was seen
    assert commands.script(scripts.BURY, keys, [claims.owner, 5]) == 1
    taken = get(other)
    slept.ack()
    assert "1 of 1 messages were settled late" in caplog.text
    assert server.claimed() == 1
    with pytest.raises(ClaimsLostError):
        claims.claim(["q"], 1)
    with pytest.raises(ClaimsLostError):
        sleeper.drain_events(timeout=0.1)
    taken.ack()
    assert (server.ready(), server.claimed()) == (0, 0)


def test_trap_publishing_to_a_redis_that_is_unwell_ends_soon(
    new_server: Callable[..., Any], connect: Callable[[str], kombu.Connection]
) -> None:
    """With kombu's defaults, a publish to a frozen Redis hangs for ever."""
    server = new_server()
    opened = connect(server.url(socket_timeout=0.5, socket_connect_timeout=0.5))
    put(opened, "x")
    server.freeze()
    began = time.monotonic()
    for connection in (opened, connect(server.url(socket_timeout=0.5, socket_connect_timeout=0.5))):
        with pytest.raises((RedisError, OperationalError)), connection.Producer() as producer:
            producer.publish("y", routing_key="q", retry=True, retry_policy={"max_retries": 1, "interval_start": 0})
    server.thaw()
    server.kill()
    with pytest.raises((RedisError, OperationalError)):
        opened.Producer().publish("z", routing_key="q")
    assert time.monotonic() - began < 15


def test_trap_a_full_redis_is_emptied_and_its_owners_live(
    server: Any, connect: Callable[[str], kombu.Connection], wait: Callable[..., None]
) -> None:
    """Redis refuses what may need memory: a claim must not fail half-way then, nor a sign of life."""
    connection = connect(server.url(beat=0.05))
    put(connection, *range(4))
    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisError, match="maxmemory"):
            put(connection, "more")
        messages = [get(connection) for _ in range(3)]
        key = "siftbell:queue:owners"
        [owner] = server.client.hkeys(key)
        wait(lambda: int(server.client.hget(key, owner)) >= 3)
        messages[0].ack()
        messages[1].requeue()
        assert (server.ready(), server.claimed()) == (2, 1)
        connection.release()
        assert (server.ready(), server.claimed()) == (3, 0)
    finally:
        server.client.config_set("maxmemory", 0)


def test_trap_an_acknowledgement_that_fails_frees_its_place_and_is_made_up_for(
    new_server: Callable[..., Any], connect: Callable[[str], kombu.Connection]
) -> None:
    """kombu's own transport keeps the place, and a worker whose window is full of such takes no more, for ever."""
    server = new_server()
    connection = connect(server.url(beat=60))
    put(connection, *range(3))
    connection.default_channel.basic_qos(prefetch_count=3)
    messages = [get(connection) for _ in range(3)]
    qos = connection.default_channel.qos
    assert qos.can_consume_max_estimate() == 0
    server.kill()
    messages[0].ack()
    messages[1].ack()
    assert qos.can_consume_max_estimate() == 2
    server.start()
    assert server.claimed() == 3
    connection.transport.claims().pay()
    assert server.claimed() == 1
    messages[2].ack()
    assert (server.ready(), server.claimed()) == (0, 0)


def test_what_is_held_goes_back_when_redis_answers_again_after_the_end(
    new_server: Callable[..., Any], connect: Callable[[str], kombu.Connection], wait: Callable[..., None]
) -> None:
    server = new_server()
    connection = connect(server.url())
    put(connection, "x", "y")
    done, _ = get(connection), get(connection)
    server.kill()
    connection.release()
    done.ack()  # by a task that ends after its connection
    server.start()
    wait(lambda: (server.ready(), server.claimed(), server.owners()) == (1, 0, 0))


def test_a_cluster_is_refused(server: Any, connect: Callable[[str], kombu.Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis.Redis.info", lambda *_: {"cluster_enabled": 1})
    with pytest.raises(OperationalError, match=r"redis://127.0.0.1:\d+/0 is a Redis Cluster: one server is needed"):
        connect(server.url()).connect()


def test_a_redis_that_drops_messages_when_it_is_full_is_named(
    server: Any, connect: Callable[[str], kombu.Connection], caplog: pytest.LogCaptureFixture
) -> None:
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        put(connection := connect(server.url()), "x")
        get(connection).ack()
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
    assert "drops queued messages when it is full (maxmemory-policy allkeys-lru)" in caplog.text


def test_a_user_who_may_not_ask_redis_about_itself_is_served(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    server.client.acl_setuser("plain", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-info"])
    connection = connect(redis.url(f"redis://plain:any@127.0.0.1:{server.port}/0"))
    put(connection, "x")
    assert get(connection).payload == "x"
    connection.release()
    server.client.acl_deluser("plain")


def test_the_url_in_the_log_has_no_secret(server: Any, connect: Callable[[str], kombu.Connection]) -> None:
    url = redis.url(f"redis://:hunter2@127.0.0.1:{server.port}/3?ssl_password=hunter2")
    assert connect(url).as_uri() == f"redis://127.0.0.1:{server.port}/3"


def test_what_is_asked_while_a_connection_ends_is_answered(server: Any) -> None:
    connection = kombu.Connection(server.url())
    commands = connection.channel().connection.commands()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(commands.call, "BLPOP", "list", 0)
        while not server.client.info("clients")["blocked_clients"]:
            pass
        connection.release()
        server.client.lpush("list", "answer")
        assert answer.result() == [b"list", b"answer"]
