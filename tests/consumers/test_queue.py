"""Queue: confirmed on RabbitMQ, appended on Redis; what goes nowhere is told; a connection that is cut is made anew."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from harness.background import Background
from harness.proxy import Proxy
from pydantic import SecretStr, ValidationError

from consumers.queue import Queue, QueueConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.foreign import AmqpServer
from pipeline.testing import BatchConsumerContract, sample_messages
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig as ReadingConfig
from producers.queue.reading import read

RABBITMQ = pytest.mark.against("consumer queue", "RabbitMQ 3.10")
REDIS = pytest.mark.against("consumer queue", "Redis 7.0")


@pytest.fixture
def queue() -> Iterator[Callable[..., Queue]]:
    """Makes the consumer."""
    made = []

    def make(**options: Any) -> Queue:
        made.append(Queue(QueueConfig.model_validate(options)))
        made[-1].open()
        return made[-1]

    yield make
    for plugin in made:
        plugin.close()


class Rabbit:
    """An exchange of somebody else's, with a queue that takes what is about databases."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url, f"siftbell-test-{uuid4().hex[:12]}"
        self.connection = AmqpServer(SecretStr(url)).connect(heartbeat=0)
        self.channel = self.connection.channel()
        self.channel.exchange_declare(self.name, "topic", durable=True, auto_delete=False)
        self.channel.queue_declare(self.name, durable=True, auto_delete=False)
        self.channel.queue_bind(self.name, self.name, "*.db")

    def got(self) -> list[Any]:
        found = []
        while (raw := self.channel.basic_get(self.name, no_ack=True)) is not None:
            found.append(raw)
        return found

    def close(self) -> None:
        self.channel.queue_delete(self.name)
        self.channel.exchange_delete(self.name)
        self.connection.close()


@pytest.fixture
def rabbit(require_rabbitmq) -> Iterator[Rabbit]:
    rabbit = Rabbit(require_rabbitmq)
    yield rabbit
    rabbit.close()


@pytest.fixture
def server(require_redis) -> Iterator[Any]:
    client = redis.Redis.from_url(require_redis, decode_responses=True)
    yield client
    for key in client.keys("siftbell-test-out*"):
        client.delete(key)
    client.close()


@pytest.fixture
def key(server) -> str:
    return f"siftbell-test-out-{uuid4().hex[:12]}"


def numbered(count: int, **fields: Any) -> list[Message]:
    return [Message(source="t", title=f"no {number}", **fields) for number in range(count)]


@RABBITMQ
class TestContractWithAmqp(BatchConsumerContract):
    plugin = Queue
    options = {"url": "{url}", "exchange": "amq.fanout"}
    away_options = {"url": "amqp://siftbell:a-secret-password@127.0.0.1:9", "exchange": "alerts"}

    @pytest.fixture
    def url(self, rabbit) -> str:
        rabbit.channel.queue_bind(rabbit.name, "amq.fanout")
        return rabbit.url


@REDIS
class TestContractWithList(BatchConsumerContract):
    plugin = Queue
    options = {"url": "{url}", "list": "siftbell-test-out"}
    away_options = {"url": "redis://:a-secret-password@127.0.0.1:9", "list": "alerts"}

    @pytest.fixture
    def url(self, require_redis, server) -> str:
        return require_redis


@REDIS
class TestContractWithStream(TestContractWithList):
    options = {"url": "{url}", "stream": "siftbell-test-out-stream", "maxlen": 1000}


@RABBITMQ
class TestAmqp:
    def test_messages_arrive_persistent_with_their_properties(self, rabbit, queue):
        messages = sample_messages()
        headers = {"status": "{{ status }}"}
        plugin = queue(url=rabbit.url, exchange=rabbit.name, routing_key="{{ severity or 'none' }}.db", headers=headers)
        assert plugin.consume_many(messages) == {}
        found = {raw.properties["message_id"]: raw for raw in rabbit.got()}
        assert {*found} == {message.id for message in messages}
        rich = found[messages[0].id]
        assert json.loads(rich.body)["data"] == messages[0].data
        assert rich.delivery_info["routing_key"] == "critical.db"
        assert rich.properties == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "message_id": messages[0].id,
            "timestamp": int(messages[0].time.timestamp()),
            "type": "alert",
            "app_id": "siftbell",
            "application_headers": {"status": "firing"},
        }

    def test_what_arrives_is_read_by_the_producer_as_it_was(self, rabbit, queue):
        message = sample_messages()[0]
        queue(url=rabbit.url, routing_key=rabbit.name).consume_many([message])
        (raw,) = rabbit.got()
        config = ReadingConfig.model_validate({"url": rabbit.url, "queue": rabbit.name})
        (again,) = read(Delivery(raw.body.encode()), config)
        assert again.replace(id=message.id, data=message.data) == message

    def test_what_nothing_takes_is_told_and_the_others_are_sent(self, rabbit, queue):
        plugin = queue(url=rabbit.url, exchange=rabbit.name, routing_key="x.{{ labels.team }}")
        messages = [*numbered(3, labels={"team": "db"}), *numbered(2, labels={"team": "web"})]
        failures = plugin.consume_many(messages)
        place = urlsplit(rabbit.url).netloc.rpartition("@")[2]
        text = f"AMQP at {place}: exchange '{rabbit.name}' has nothing bound that takes 'x.web'"
        assert {name: (type(error), str(error)) for name, error in failures.items()} == {
            message.id: (PermanentError, text) for message in messages[3:]
        }
        assert len(rabbit.got()) == 3
        missing = queue(url=rabbit.url, routing_key="siftbell-test-missing").consume_many(messages[:1])
        assert str(missing[messages[0].id]).endswith("there is no queue 'siftbell-test-missing'")

    def test_an_exchange_that_is_not_there_is_told_for_all(self, rabbit, queue):
        plugin = queue(url=rabbit.url, exchange="siftbell-test-missing")
        messages = numbered(5)
        for _ in range(2):
            failures = plugin.consume_many(messages)
            assert {*failures} == {message.id for message in messages}
            assert all(isinstance(error, PermanentError) and "no exchange" in str(error) for error in failures.values())

    def test_a_message_that_ends_the_channel_does_not_take_the_others_with_it(self, new_vhost, require_binary, queue):
        control = require_binary("rabbitmqctl", "rabbitmq-server")
        parts = urlsplit(new_vhost)
        allowed = [control, "set_topic_permissions", "-p", parts.path[1:], parts.username, "amq.topic", "^db", ".*"]
        subprocess.run(allowed, check=True, capture_output=True, timeout=60)
        with AmqpServer(SecretStr(new_vhost)).connect() as connection:
            connection.channel().queue_declare("all", durable=True, auto_delete=False)
            connection.channel().queue_bind("all", "amq.topic", "#")
        plugin = queue(url=new_vhost, exchange="amq.topic", routing_key="{{ labels.team }}.x")
        messages = [
            message.replace(labels={"team": team}) for message, team in zip(numbered(4), ["db", "net", "db", "net"], strict=True)
        ]
        failures = plugin.consume_many(messages)
        assert {*failures} == {messages[1].id, messages[3].id}
        assert all(isinstance(error, PermanentError) and "ACCESS_REFUSED" in str(error) for error in failures.values())
        with AmqpServer(SecretStr(new_vhost)).connect() as connection:
            channel, taken = connection.channel(), set()
            while (raw := channel.basic_get("all", no_ack=True)) is not None:
                taken.add(raw.properties["message_id"])
        assert taken == {messages[0].id, messages[2].id}

    def test_a_queue_that_is_full_is_tried_again(self, rabbit, queue):
        full = f"{rabbit.name}-full"
        rabbit.channel.queue_declare(
            full, durable=True, auto_delete=False, arguments={"x-max-length": 2, "x-overflow": "reject-publish"}
        )
        messages = numbered(4)
        try:
            failures = queue(url=rabbit.url, routing_key=full).consume_many(messages)
        finally:
            rabbit.channel.queue_delete(full)
        assert {*failures} == {message.id for message in messages[2:]}
        assert all(isinstance(error, TemporaryError) for error in failures.values())

    def test_a_wrong_password_is_refused_and_not_told(self, rabbit, queue):
        url = rabbit.url.replace("guest:guest@", "guest:a-wrong-password@")
        messages = numbered(3)
        failures = queue(url=url, exchange=rabbit.name).consume_many(messages)
        assert all(isinstance(error, PermanentError) and "ACCESS_REFUSED" in str(error) for error in failures.values())
        assert "wrong" not in str(failures)
        assert len(failures) == 3

    def test_each_message_fails_for_itself_where_it_cannot_be_written(self, rabbit, queue):
        plugin = queue(url=rabbit.url, exchange=rabbit.name, routing_key="{{ title }}.db", body="{{ text }}")
        good = Message(source="t", title="a", text='{"x": 1}')
        bad = [Message(source="t", title="a", text="x"), Message(source="t", title="a" * 300, text="1")]
        failures = plugin.consume_many([bad[0], good, bad[1]])
        assert str(failures[bad[0].id]).startswith("body: the template did not give JSON")
        assert str(failures[bad[1].id]).startswith("routing_key: it is longer")
        assert [raw.body for raw in rabbit.got()] == ['{"x": 1}']
        assert {*failures} == {message.id for message in bad}

    def test_500_are_confirmed_together_on_one_connection(self, rabbit, queue, proxied):
        proxy, url = proxied(rabbit.url)
        plugin = queue(url=url, exchange=rabbit.name, routing_key="a.db")
        for _ in range(2):
            assert plugin.consume_many(numbered(500)) == {}
        assert len(rabbit.got()) == 1000
        assert proxy.connections == 1

    def test_a_connection_that_was_cut_meanwhile_costs_nothing(self, rabbit, queue, proxied):
        proxy, url = proxied(rabbit.url)
        plugin = queue(url=url, exchange=rabbit.name, routing_key="a.db")
        assert plugin.consume_many(numbered(1)) == {}
        proxy.cut()
        assert plugin.consume_many(numbered(2)) == {}
        assert len(rabbit.got()) == 3

    def test_without_an_answer_it_is_tried_again(self, rabbit, queue, proxied, monkeypatch):
        monkeypatch.setattr("consumers.queue.amqp._CONFIRMS_WITHIN", 0.5)
        proxy, url = proxied(rabbit.url)
        plugin = queue(url=url, exchange=rabbit.name, routing_key="a.db")
        assert plugin.consume_many(numbered(1)) == {}
        proxy.become("freezes")
        (message,) = numbered(1)
        failures = plugin.consume_many([message])
        assert isinstance(failures[message.id], TemporaryError)
        assert "it did not confirm within 0.5 s" in str(failures[message.id])
        proxy.become("none")
        assert plugin.consume_many([message]) == {}
        assert message.id in {raw.properties["message_id"] for raw in rabbit.got()}

    def test_a_probe_says_who_answers_and_sends_nothing(self, rabbit, queue):
        assert queue(url=rabbit.url, exchange=rabbit.name).probe().startswith("RabbitMQ 3.")
        with pytest.raises(PermanentError, match="no exchange"):
            queue(url=rabbit.url, exchange="siftbell-test-missing").probe()
        assert rabbit.got() == []

    def test_a_preview_shows_what_is_sent(self, queue):
        plugin = queue(url="amqp://h", exchange="e", routing_key="{{ title }}", headers={"a": "{{ text }}"}, body='"x"')
        shown = plugin.preview(Message(source="t", title="k", text="v"))
        assert shown == {"exchange": "e", "routing_key": "k", "body": '"x"', "headers": {"a": "v"}}


@pytest.fixture
def proxied() -> Iterator[Callable[[str], tuple[Proxy, str]]]:
    """Gives a proxy before a server, and the URL that leads through it."""
    background, made = Background(), []

    def make(url: str) -> tuple[Proxy, str]:
        parts = urlsplit(url)
        made.append(Proxy(background, parts.port or 0))
        user = f"{parts.netloc.rpartition('@')[0]}@".lstrip("@")
        return made[-1], parts._replace(netloc=f"{user}127.0.0.1:{made[-1].port}").geturl()

    yield make
    for proxy in made:
        proxy.close()
    background.close()


@REDIS
class TestRedis:
    @pytest.mark.parametrize(("end", "order"), [("right", [0, 1, 2]), ("left", [2, 1, 0])])
    def test_a_list_gets_the_messages_in_order(self, server, key, queue, require_redis, end, order):
        plugin = queue(url=require_redis, list=key, push_to=end)
        assert plugin.consume_many(numbered(3)) == {}
        assert [json.loads(body)["title"] for body in server.lrange(key, 0, -1)] == [f"no {number}" for number in order]

    @pytest.mark.parametrize("end", ["right", "left"])
    def test_a_list_drops_the_oldest(self, server, key, queue, require_redis, end):
        plugin = queue(url=require_redis, list=key, push_to=end, maxlen=2, body="{{ title | tojson }}")
        plugin.consume_many(numbered(3))
        assert sorted(server.lrange(key, 0, -1)) == ['"no 1"', '"no 2"']

    def test_a_stream_gets_an_entry_for_each(self, server, key, queue, require_redis):
        plugin = queue(
            url=require_redis, stream=key, headers={"team": "{{ labels.team }}"}, content_type="text/plain", body="{{ title }}"
        )
        assert plugin.consume_many(numbered(2, labels={"team": "db"})) == {}
        assert [fields for _, fields in server.xrange(key)] == [
            {"body": "no 0", "team": "db"},
            {"body": "no 1", "team": "db"},
        ]

    def test_a_stream_is_trimmed_about(self, server, key, queue, require_redis):
        plugin = queue(url=require_redis, stream=key, maxlen=10)
        for _ in range(3):
            assert plugin.consume_many(numbered(200)) == {}
        assert server.xlen(key) < 300

    @pytest.mark.parametrize("kind", ["list", "stream"])
    def test_a_key_of_another_type_is_told(self, server, key, queue, require_redis, kind):
        server.set(key, "a text")
        messages = numbered(2)
        plugin = queue(url=require_redis, **{kind: key})
        try:
            failures = plugin.consume_many(messages)
        except PermanentError as error:
            failures = dict.fromkeys((message.id for message in messages), error)
        assert {*failures} == {message.id for message in messages}
        assert all(isinstance(error, PermanentError) and "WRONGTYPE" in str(error) for error in failures.values())

    def test_a_connection_that_is_cut_is_made_anew(self, server, key, queue, require_redis, proxied):
        proxy, url = proxied(require_redis)
        plugin = queue(url=url, list=key)
        assert plugin.consume_many(numbered(1)) == {}
        proxy.become("refuses")
        with pytest.raises(TemporaryError):
            plugin.consume_many(numbered(1))
        proxy.become("none")
        assert plugin.consume_many(numbered(1)) == {}
        assert server.llen(key) == 2

    def test_what_redis_refuses_for_now_is_tried_again(self, server, key, queue, require_redis):
        plugin = queue(url=require_redis, list=key)
        for text in ("MISCONF Redis is configured to save RDB snapshots", "NOREPLICAS Not enough good replicas to write."):
            assert isinstance(plugin._way._server.failure(redis.ResponseError(text)), TemporaryError)
        assert isinstance(plugin._way._server.failure(redis.ReadOnlyError("READONLY")), TemporaryError)
        assert isinstance(plugin._way._server.failure(redis.AuthenticationError("WRONGPASS")), PermanentError)

    def test_a_probe_says_who_answers(self, server, key, queue, require_redis):
        assert queue(url=require_redis, list=key).probe() == f"Redis {server.info()['redis_version']}"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "sqs://h/q"}, "for SQS there is the consumer `sqs`"),
        ({"url": "amqp://h"}, "give an `exchange`, or a queue's name as `routing_key`"),
        ({"url": "amqp://h", "exchange": "e", "maxlen": 3}, "maxlen: it does not go with amqp://"),
        ({"url": "redis://h"}, "give either `list` or `stream`"),
        ({"url": "redis://h", "list": "l", "headers": {"a": "b"}}, "`headers` and `body_field` do not go with `list`"),
        ({"url": "redis://h", "stream": "s", "push_to": "left"}, "`push_to` does not go with `stream`"),
        ({"url": "redis://h", "stream": "s", "headers": {"body": "x"}}, "headers: `body` is the field of the body"),
    ],
)
def test_options_that_do_not_go_together(options, text):
    with pytest.raises(ValidationError) as caught:
        QueueConfig.model_validate(options)
    assert text in str(caught.value)
