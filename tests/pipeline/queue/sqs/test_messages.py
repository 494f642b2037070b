"""Messages on stand-ins of SQS through kombu: sent, claimed, settled, handed back; what SQS refuses; SQS away."""

from __future__ import annotations

import random
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from string import ascii_letters

import pytest
from kombu import Consumer
from trees import until

from pipeline import Message, TemporaryError
from pipeline.engine.batch import Batch, decode
from pipeline.queue.app import make_queue
from pipeline.queue.sqs import LARGEST, sqs_name
from pipeline.queue.sqs.claims import Claims
from pipeline.queue.sqs.service import Service


def batches(name, count, text=""):
    time = datetime(2026, 3, 1, tzinfo=UTC)
    return [
        Batch(job="process", queue=name, pipeline="p", messages=[Message(source="t", time=time, title=f"ä{n}", text=text)])
        for n in range(count)
    ]


def titles(messages):
    return sorted(decode(message.payload[0][0]).messages[0].title for message in messages)


@pytest.fixture
def receive(connect):
    """Consumes a queue until so many messages came, and does with each as told; the connection then ends in an orderly way."""

    def run(queue, name, count, settle=lambda message: message.ack(), prefetch=0, seconds=20):
        got = []

        def take(message):
            got.append(message)
            settle(message)

        with queue._app.connection_for_read() as connection:
            channel = connection.channel()
            consumer = Consumer(channel, [make_queue(name, quorum=False)], on_message=take, prefetch_count=prefetch or None)
            with consumer:
                end = time.monotonic() + seconds
                while len(got) < count and time.monotonic() < end:
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.2)
        return got

    return run


def waiting(client, name, counter="ApproximateNumberOfMessages"):
    url = client.get_queue_url(QueueName=sqs_name("siftbell-", name))["QueueUrl"]
    return int(client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][counter])


def test_what_is_published_is_received_once_and_gone_when_acknowledged(url, connect, receive, amazon, name):
    queue = connect(url)
    queue.check()
    sent = batches(name, 25)
    queue.publish(sent)
    got = receive(queue, name, 25, prefetch=7)
    assert titles(got) == sorted(batch.messages[0].title for batch in sent)
    assert {message.headers["x-delivery-count"] for message in got} == {0}
    assert {message.delivery_info["redelivered"] for message in got} == {False}
    client = amazon(url)
    assert [waiting(client, name), waiting(client, name, "ApproximateNumberOfMessagesNotVisible")] == [0, 0]


def test_a_queue_is_made_to_keep_messages_for_as_long_as_sqs_allows(url, connect, amazon, name):
    queue = connect(url)
    queue.publish(batches(name, 1))
    client = amazon(url)
    found = client.get_queue_attributes(
        QueueUrl=client.get_queue_url(QueueName=f"siftbell-{name}")["QueueUrl"], AttributeNames=["All"]
    )["Attributes"]
    assert found["MessageRetentionPeriod"] == str(14 * 24 * 3600)
    assert (found["VisibilityTimeout"], found["MaximumMessageSize"]) == ("4", str(1024 * 1024))


def test_a_queue_that_is_there_is_taken_as_it_is_and_claims_are_short_all_the_same(url, connect, receive, amazon, name):
    client = amazon(url)
    client.create_queue(QueueName=f"siftbell-{name}", Attributes={"VisibilityTimeout": "900"})
    queue = connect(url)
    queue.publish(batches(name, 1))
    with queue._app.connection_for_read() as connection:
        channel = connection.channel()
        assert channel.basic_get(name) is not None
        channel.qos._held.clear()  # as if the process had died
        until(lambda: waiting(client, name) == 1, "the claim has ended", seconds=30)


def test_large_batches_are_sent_in_several_requests(url, connect, receive, name):
    queue = connect(url)
    text = "".join(random.Random(3).choices(ascii_letters, k=LARGEST // 2))
    queue.publish(batches(name, 12, text))
    assert len(receive(queue, name, 12)) == 12


def test_a_rejected_message_comes_again_and_counts(url, connect, receive, name):
    queue = connect(url)
    queue.publish(batches(name, 1))
    seen = []

    def settle(message):
        seen.append((message.headers["x-delivery-count"], message.delivery_info["redelivered"]))
        message.ack() if len(seen) == 3 else message.reject(requeue=True)

    receive(queue, name, 3, settle)
    assert seen == [(0, False), (1, True), (2, True)]


def test_trap_what_is_handed_back_in_an_orderly_way_is_visible_at_once_and_does_not_count(url, connect, receive, amazon, name):
    """SQS counts deliveries: a rolling restart must not make a batch look like one that kills workers."""
    queue = connect(url.replace("visibility=4", "visibility=300"))
    queue.publish(batches(name, 3))
    for _ in range(3):
        got = receive(queue, name, 3, settle=lambda message: None)
        assert titles(got) == ["ä0", "ä1", "ä2"]
        assert {message.headers["x-delivery-count"] for message in got} == {0}
    assert {message.delivery_info["redelivered"] for message in got} == {True}
    client = amazon(url)
    assert [waiting(client, name), waiting(client, name, "ApproximateNumberOfMessagesNotVisible")] == [3, 0]


def test_trap_what_a_request_under_way_brings_after_the_end_is_handed_back(url, connect, amazon, name, threads):
    """kombu #1819: a long poll that is forgotten at the end takes messages that nobody sees for the whole timeout."""
    queue = connect(url.replace("visibility=4", "visibility=300"))
    queue.publish([])
    client = amazon(url)
    with queue._app.connection_for_read() as connection:
        channel = connection.channel()
        consumer = Consumer(channel, [make_queue(name, quorum=False)], on_message=lambda message: None)
        consumer.consume()
        until(lambda: f"sqs-{name}" in threads(), "the queue is asked")
        consumer.cancel()
        queue.publish(batches(name, 2))
    assert threads() == []
    assert [waiting(client, name), waiting(client, name, "ApproximateNumberOfMessagesNotVisible")] == [2, 0]


def test_trap_claims_live_while_their_process_lives(ministack, connect, receive, name):
    """Without the heartbeat, work that takes longer than the visibility timeout is done twice."""
    queue, other = connect(ministack.broker), connect(ministack.broker)
    queue.publish(batches(name, 12))
    with queue._app.connection_for_read() as connection:
        channel = connection.channel()
        got = []
        with Consumer(channel, [make_queue(name, quorum=False)], on_message=got.append, prefetch_count=12):
            until(lambda: connection.drain_events(timeout=5) or len(got) == 12, "all are claimed")
            assert receive(other, name, 1, seconds=7) == []
            for message in got:
                message.ack()
    assert receive(other, name, 1, seconds=2) == []


def test_what_waits_for_room_is_handed_out_when_there_is_some(url, connect, name):
    queue = connect(url)
    queue.publish(batches(name, 10))
    with queue._app.connection_for_read() as connection:
        channel = connection.channel()
        got = []
        with Consumer(channel, [make_queue(name, quorum=False)], on_message=got.append, prefetch_count=2):
            acknowledged = 0
            while acknowledged < 10:
                if acknowledged == len(got):
                    connection.drain_events(timeout=10)
                assert len(got) - acknowledged <= 2
                got[acknowledged].ack()
                acknowledged += 1
    assert titles(got) == [f"ä{n}" for n in range(10)]


def test_a_queue_that_is_left_amid_a_delivery_and_consumed_again_loses_nothing(ministack, connect, name, threads):
    """A worker does so whenever a queue has enough there, and again when it has room (`turns`)."""
    queue = connect(ministack.broker)
    queue.publish(batches(name, 30))
    with queue._app.connection_for_read() as connection:
        channel = connection.channel()
        got, done = [], set()

        def take(message):
            got.append(message)
            if len(got) % 4 == 0:
                consumer.cancel_by_queue(name)

        consumer = Consumer(channel, [make_queue(name, quorum=False)], on_message=take, prefetch_count=20)
        consumer.consume()

        def all_done():
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)
            for message in got[len(done) :]:
                message.ack()
                done.add(message.delivery_tag)
            if not consumer.consuming_from(name):
                consumer.add_queue(make_queue(name, quorum=False))
                consumer.consume()
            return len(done) >= 30

        until(all_done, "all have come")
        assert titles(got) == sorted(f"ä{n}" for n in range(30)), "none twice, none missing"
        until(lambda: not [one for one in channel._leaving[:-1] if one.runs()], "earlier requests have ended")
        consumer.cancel_by_queue(name)
        assert len(channel._leaving) <= 2, "what left earlier is forgotten"
    until(lambda: not threads(), "no thread stays")


def test_a_message_of_somebody_else_is_reported_and_can_be_removed(url, connect, receive, amazon, name):
    queue = connect(url)
    queue.publish([])
    client = amazon(url)
    client.create_queue(QueueName=f"siftbell-{name}")
    client.send_message(QueueUrl=client.get_queue_url(QueueName=f"siftbell-{name}")["QueueUrl"], MessageBody="hello")
    (got,) = receive(queue, name, 1)
    assert got.payload == "hello"
    assert "task" not in got.headers


def test_an_attribute_of_somebody_else_ends_no_fetching(ministack, connect, receive, amazon, name):
    queue = connect(ministack.broker)
    queue.publish(batches(name, 1))
    client = amazon(ministack.broker)
    url = client.get_queue_url(QueueName=sqs_name("siftbell-", name))["QueueUrl"]
    for odd in ({"DataType": "String", "StringValue": "many"}, {"DataType": "Binary", "BinaryValue": b"x"}):
        client.send_message(QueueUrl=url, MessageBody="what", MessageAttributes={"failures": odd})
    assert len(receive(queue, name, 3)) == 3


def test_a_queue_that_was_deleted_is_made_again(url, connect, receive, amazon, name):
    queue = connect(url)
    queue.publish(batches(name, 1))
    client = amazon(url)
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName=f"siftbell-{name}")["QueueUrl"])
    queue.publish(batches(name, 2))
    assert titles(receive(queue, name, 2)) == ["ä0", "ä1"]


def test_six_queues_are_asked_at_once(ministack, connect, name):
    """One after the other, the last one's message would wait for five long polls."""
    queue = connect(ministack.broker.replace("wait=1", "wait=20"))
    queues = [f"{name}-{n}" for n in range(6)]
    queue.publish([batch.replace(queue=one) for one in queues for batch in batches(one, 1)])
    with queue._app.connection_for_read() as connection:
        got = []
        consumer = Consumer(connection.channel(), [make_queue(one, quorum=False) for one in queues], prefetch_count=20)
        consumer.on_message = lambda message: (got.append(time.monotonic()), message.ack())
        consumer.consume()
        until(lambda: connection.drain_events(timeout=20) or len(got) == 6, "the queues are asked")
        latencies = []
        for one in queues * 3:
            begun = time.monotonic()
            queue.publish(batches(one, 1))
            connection.drain_events(timeout=20)
            latencies.append(got[-1] - begun)
        assert max(latencies) < 5
        connection.transport.service.settings = connection.transport.service.settings.__class__(wait=0)
        consumer.cancel()
        queue.publish([batch.replace(queue=one) for one in queues for batch in batches(one, 1)])  # ends the long polls


# SQS refuses, or is away


def failing(monkeypatch, operation, times, *, sender):
    """Have SQS refuse the last entry of a batch so many times."""
    real = Service._call
    left = [times]

    def call(self, name, queue="", **options):
        if name == operation and left[0]:
            left[0] -= 1
            *entries, last = options["Entries"]
            answer = real(self, name, queue, **options | {"Entries": entries}) if entries else {}
            failure = {"Id": last["Id"], "SenderFault": sender, "Code": "InternalError", "Message": "no"}
            return answer | {"Failed": [*answer.get("Failed", ()), failure]}
        return real(self, name, queue, **options)

    monkeypatch.setattr(Service, "_call", call)


def test_what_sqs_took_in_part_is_sent_again_in_part(ministack, connect, receive, name, monkeypatch):
    queue = connect(ministack.broker)
    failing(monkeypatch, "send_message_batch", 1, sender=False)
    queue.publish(batches(name, 10))
    got = receive(queue, name, 11, seconds=3)
    assert titles(got) == [f"ä{n}" for n in range(10)]


def test_trap_what_sqs_refused_is_not_taken_for_sent(ministack, connect, name, monkeypatch):
    """SendMessageBatch answers 200 where it took nine of ten."""
    queue = connect(ministack.broker)
    failing(monkeypatch, "send_message_batch", 2, sender=False)
    with pytest.raises(TemporaryError, match=r"SQS refused 1 of 10 messages for queue '.*': InternalError: no"):
        queue.publish(batches(name, 10))


def test_an_acknowledgement_that_sqs_refused_is_given_again(ministack, connect, receive, amazon, name, monkeypatch):
    queue = connect(ministack.broker)
    queue.publish(batches(name, 3))
    failing(monkeypatch, "delete_message_batch", 1, sender=False)
    with queue._app.connection_for_read() as connection:
        got = []
        with Consumer(connection.channel(), [make_queue(name, quorum=False)], on_message=got.append, prefetch_count=3):
            until(lambda: connection.drain_events(timeout=5) or len(got) == 3, "all are there")
            for message in got:
                message.ack()
            client = amazon(ministack.broker)
            until(lambda: waiting(client, name, "ApproximateNumberOfMessagesNotVisible") == 0, "SQS knows", seconds=20)
    assert waiting(client, name) == 0


def test_wrong_credentials_are_one_line_without_the_secret(connect, httpserver):
    text = "The security token included in the request is invalid.\nThe canonical string is\nPOST\nhunter2"
    error = {"__type": "com.amazonaws.sqs#InvalidClientTokenId", "message": text}
    httpserver.expect_request("/", method="POST").respond_with_json(error, status=403)
    queue = connect(f"sqs://AKIA:hunter2@127.0.0.1:{httpserver.port}?region=eu-central-1")
    with pytest.raises(TemporaryError) as caught:
        queue.check()
    assert "InvalidClientTokenId: The security token included in the request is invalid." in str(caught.value)
    assert f"http://127.0.0.1:{httpserver.port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_credentials_and_region_are_named(connect, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(TemporaryError, match=r"specify a region\. Set AWS_DEFAULT_REGION"):
        connect("sqs://").check()
    with pytest.raises(TemporaryError, match="Unable to locate credentials"):
        connect("sqs://127.0.0.1:1").check()


def test_the_endpoint_may_come_from_the_environment(ministack, connect, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", ministack.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    connect("sqs://").check()


@pytest.mark.parametrize("kind", ["refuses", "is frozen"])
def test_trap_a_publish_ends_within_a_bounded_time_when_sqs(kind, connect, name):
    """botocore waits for 60 s, five times, where it is not told otherwise."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "is frozen":
            server.listen(16)
        queue = connect(f"sqs://key:secret@127.0.0.1:{server.getsockname()[1]}?region=eu-central-1")
        begun = time.monotonic()
        with pytest.raises(TemporaryError, match="the broker did not take the messages"):
            queue.publish(batches(name, 1))
        assert time.monotonic() - begun < 20


def test_a_claim_that_ended_is_not_handed_out_and_its_acknowledgement_does_no_harm(ministack, connect, name, monkeypatch):
    monkeypatch.setattr(Claims, "_beat", lambda self: None)
    queue = connect(ministack.broker)
    queue.publish(batches(name, 1))
    with queue._app.connection_for_read() as connection:
        channel, other = connection.channel(), connection.channel()
        first = channel.basic_get(name)
        found = []
        until(lambda: found or found.extend(filter(None, [other.basic_get(name)])), "the claim has ended")
        assert found[0].headers["x-delivery-count"] == 1
        first.ack()
        found[0].ack()
        until(lambda: not (channel.qos._owed or other.qos._owed), "SQS was told")
        assert other.basic_get(name) is None
