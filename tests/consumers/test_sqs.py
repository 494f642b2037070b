"""SQS: against moto, and against a stand-in that refuses entries and whole batches, which moto does not."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from pydantic import ValidationError

from consumers.sqs import Sqs, SqsConfig
from pipeline import ConfigError, Message, PermanentError, TemporaryError
from pipeline.testing import Answer, BatchConsumerContract, LoopbackServer, sample_messages

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/alerts"


@pytest.fixture
def queue(client):
    """Makes a queue in moto, and gives its URL and what reads it."""
    sqs = client("sqs")

    def make(name="", **attributes):
        url = sqs.create_queue(QueueName=f"q{uuid4().hex[:8]}{name}", Attributes=attributes)["QueueUrl"]

        def read():
            found = []
            while True:
                some = sqs.receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
                ).get("Messages", [])
                if not some:
                    return found
                found += some
                for one in some:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])

        return url, read

    return make


@pytest.fixture
def sqs(credentials, opened):
    """Makes opened plugins."""
    return lambda queue, **options: opened(Sqs, **{"queue": queue, "region": "eu-west-1"} | options)


def numbered(count, **fields):
    return [Message(source="t", title=f"no {number}", **fields) for number in range(count)]


@pytest.mark.against("consumer sqs", "moto server 5")
class TestSqs(BatchConsumerContract):
    plugin = Sqs
    options = {"queue": "{url}", "region": "eu-west-1", "access_key_id": "AKIAMADEUP", "secret_access_key": "a-made-up-secret"}
    away_options = {**options, "queue": "http://127.0.0.1:9/123456789012/alerts"}

    @pytest.fixture
    def url(self, queue):
        return queue()[0]


@pytest.mark.against("consumer sqs", "moto server 5")
class TestAgainstMoto:
    def test_messages_arrive_as_json_with_their_attributes(self, queue, sqs):
        url, read = queue()
        messages = sample_messages()
        assert sqs(url).consume_many(messages) == {}
        found = {json.loads(one["Body"])["id"]: one for one in read()}
        assert {*found} == {message.id for message in messages}
        rich = found[messages[0].id]
        assert json.loads(rich["Body"])["data"] == messages[0].data
        attributes = {name: (one["DataType"], one["StringValue"]) for name, one in rich["MessageAttributes"].items()}
        assert attributes == {
            "severity": ("String", "critical"),
            "status": ("String", "firing"),
            "type": ("String", "alert"),
            "source": ("String", "http://prometheus:9090"),
        }
        assert "severity" not in found[messages[2].id]["MessageAttributes"]

    def test_more_than_ten_go_in_batches(self, queue, sqs):
        url, read = queue()
        assert sqs(url).consume_many(numbered(23)) == {}
        assert sorted(json.loads(one["Body"])["title"] for one in read()) == sorted(f"no {number}" for number in range(23))

    def test_templates_write_body_and_attributes(self, queue, sqs):
        url, read = queue()
        plugin = sqs(
            url,
            body="{{ title }}: {{ data.sum }}",
            attributes={"team": "{{ labels.team | default('') }}", "odd": "{{ text }}"},
            number_attributes={"sum": " {{ data.sum }} "},
        )
        good = Message(source="t", title="a\x00b", text="\x1b[1m", data={"sum": -1.5e3})
        bad = Message(source="t", title="x", data={"sum": "much"})
        missing = Message(source="t", title="x", data={})
        failures = plugin.consume_many([bad, good, missing])
        assert {*failures} == {bad.id, missing.id}
        assert str(failures[bad.id]) == "number_attributes.sum: the template gave no number"
        assert str(failures[missing.id]).startswith("body: ") or "sum" in str(failures[missing.id])
        assert all(type(error) is PermanentError for error in failures.values())
        (found,) = read()
        assert found["Body"] == "a\ufffdb: -1500.0"
        attributes = {name: (one["DataType"], one["StringValue"]) for name, one in found["MessageAttributes"].items()}
        assert attributes == {"odd": ("String", "\ufffd[1m"), "sum": ("Number", "-1500.0")}

    def test_fifo_keeps_groups_and_drops_what_comes_again(self, queue, sqs):
        url, read = queue(".fifo", FifoQueue="true")
        messages = [*numbered(3, key="disk of «db»"), *numbered(2, key="k" * 300), *numbered(1)]
        plugin = sqs(url)
        assert plugin.consume_many(messages) == {}
        assert plugin.consume_many(messages) == {}
        found = read()
        assert [json.loads(one["Body"])["id"] for one in found if one["Attributes"]["MessageGroupId"].startswith("disk")] == [
            message.id for message in messages[:3]
        ]
        groups = {json.loads(one["Body"])["id"]: one["Attributes"]["MessageGroupId"] for one in found}
        assert groups[messages[0].id] == "disk%20of%20%C2%ABdb%C2%BB"
        assert len(groups[messages[3].id]) == 128
        assert groups[messages[5].id] == messages[5].id
        assert len(found) == len(messages)
        assert {one["Attributes"]["MessageDeduplicationId"] for one in found} == {message.id for message in messages}

    def test_a_group_of_ones_own(self, queue, sqs):
        url, read = queue(".fifo", FifoQueue="true")
        assert sqs(url, group="{{ labels.team | default('none') }}").consume_many(numbered(2, labels={"team": "web"})) == {}
        assert {one["Attributes"]["MessageGroupId"] for one in read()} == {"web"}

    def test_a_queue_that_is_not_there(self, queue, sqs):
        url, _ = queue()
        messages = numbered(12)
        failures = sqs(f"{url}-gone").consume_many(messages)
        assert {*failures} == {message.id for message in messages}
        assert all(isinstance(error, PermanentError) for error in failures.values())
        assert "NonExistentQueue" in str(failures[messages[0].id]) or "QueueDoesNotExist" in str(failures[messages[0].id])

    def test_a_probe_asks_for_the_queue(self, queue, sqs):
        url, read = queue()
        assert sqs(url).probe() == "SQS answers"
        with pytest.raises(PermanentError, match="SQS answered 400"):
            sqs(f"{url}-gone").probe()
        assert read() == []


class Amazon(LoopbackServer):
    """SQS's batches, with the rules of its reference; `refuse` gives what is wrong with an entry, `refusal` with a request."""

    def __init__(self):
        super().__init__()
        self.batches, self.taken = [], []
        self.refuse = lambda entry: None
        self.refusal = None

    def next_answer(self, request):
        answer = super().next_answer(request)
        if answer.status != 200 or answer.fault:
            return answer
        entries = json.loads(request.body)["Entries"]
        assert request.headers["x-amz-target"] == "AmazonSQS.SendMessageBatch"
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        sizes = [len(entry["MessageBody"].encode()) for entry in entries]
        sizes += [
            len((name + one["DataType"] + one["StringValue"]).encode())
            for entry in entries
            for name, one in entry.get("MessageAttributes", {}).items()
        ]
        if sum(sizes) > 2**20:
            return self.refused(
                "AWS.SimpleQueueService.BatchRequestTooLong", "Batch requests cannot be longer than 1048576 bytes"
            )
        if self.refusal and (wrong := self.refusal(entries)):
            return self.refused(*wrong)
        self.batches.append(len(entries))
        failed = [(entry, wrong) for entry in entries if (wrong := self.refuse(entry))]
        good = [entry for entry in entries if not self.refuse(entry)]
        self.taken += [entry["Id"] for entry in good]
        told = {
            "Successful": [{"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x"} for entry in good],
            "Failed": [
                {"Id": entry["Id"], "SenderFault": sender, "Code": code, "Message": "no"} for entry, (sender, code) in failed
            ],
        }
        return Answer(200, {"content-type": "application/x-amz-json-1.0"}, json.dumps(told).encode())

    def refused(self, code, text, status=400):
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": text}).encode()
        return Answer(status, {"content-type": "application/x-amz-json-1.0"}, body)

    @property
    def queue(self):
        return f"{self.url}/123456789012/alerts"


@pytest.fixture
def amazon():
    with Amazon() as server:
        yield server


@pytest.mark.against("consumer sqs", "a server of our own that refuses entries")
class TestRefusals:
    def test_each_message_has_an_outcome_of_its_own(self, amazon, sqs):
        messages = numbered(12)
        wrong = {
            messages[1].id: (False, "InternalError"),
            messages[3].id: (True, "InvalidMessageContents"),
            messages[4].id: (True, "RequestThrottled"),
            messages[11].id: (True, "AccessDenied"),
        }
        amazon.refuse = lambda entry: wrong.get(entry["Id"])
        failures = sqs(amazon.queue).consume_many(messages)
        assert amazon.batches == [10, 2]
        assert {name: isinstance(error, TemporaryError) for name, error in failures.items()} == {
            messages[1].id: True,
            messages[3].id: False,
            messages[4].id: True,
            messages[11].id: False,
        }
        assert str(failures[messages[3].id]) == "SQS refused it InvalidMessageContents: no"
        assert amazon.taken == [message.id for message in messages if message.id not in wrong]

    def test_a_batch_that_is_refused_for_one_is_sent_in_halves(self, amazon, sqs):
        messages = numbered(10)
        bad = messages[6].id
        amazon.refusal = lambda entries: bad in {entry["Id"] for entry in entries} and ("InvalidParameterValue", "too odd")
        failures = sqs(amazon.queue).consume_many(messages)
        assert {*failures} == {bad}
        assert str(failures[bad]) == "SQS answered 400 InvalidParameterValue: too odd"
        assert sorted(amazon.taken) == sorted(message.id for message in messages if message.id != bad)

    def test_what_a_half_had_taken_is_not_sent_again_where_the_other_half_was_not_answered(self, amazon, sqs):
        messages = numbered(10)
        good, late = messages[:5], messages[5:]
        plugin = sqs(amazon.queue)
        amazon.refusal = lambda entries: len(entries) == 10 and ("InvalidParameterValue", "too odd")
        amazon.answers += [Answer(), Answer(), Answer(503, body=b"busy")]
        failures = plugin.consume_many(messages)
        assert amazon.taken == [message.id for message in good]
        assert {*failures} == {message.id for message in late}
        assert all(isinstance(error, TemporaryError) for error in failures.values())

    def test_a_refusal_of_all_is_told_once_for_each_batch(self, amazon, sqs):
        amazon.refusal = lambda entries: ("AccessDenied", "not authorized")
        messages = numbered(25)
        failures = sqs(amazon.queue).consume_many(messages)
        assert {str(error) for error in failures.values()} == {"SQS answered 400 AccessDenied: not authorized"}
        assert len(failures) == 25
        assert len(amazon.received) == 3

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (Answer(503, body=b"busy"), "SQS answered 503"),
            (
                Answer(400, body=b'{"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow"}'),
                "400 RequestThrottled: slow",
            ),
            (Answer(403, body=b'{"__type": "ExpiredToken", "message": "old"}'), "403 ExpiredToken: old"),
            (Answer(fault="close"), "SQS: Connection was closed before we received a valid response"),
        ],
    )
    def test_what_may_pass_is_tried_again_and_no_more_is_sent(self, amazon, sqs, answer, text):
        amazon.answers.append(Answer())
        messages = numbered(35)
        plugin = sqs(amazon.queue)
        amazon.answers.append(answer)
        failures = plugin.consume_many(messages)
        assert {*failures} == {message.id for message in messages[10:]}
        for error in failures.values():
            assert isinstance(error, TemporaryError)
            assert text in str(error)
        assert len(amazon.received) == 2

    @pytest.mark.parametrize(
        "body", [b"{}", b"[]", b"null", b"<html>", b'{"Successful": null}', b'{"Successful": [{}]}', b"\xff"]
    )
    def test_who_is_not_told_of_is_tried_again(self, amazon, sqs, body):
        amazon.answer = Answer(201, {"content-type": "application/x-amz-json-1.0"}, body)
        (message,) = numbered(1)
        failures = sqs(amazon.queue).consume_many([message])
        assert isinstance(failures[message.id], TemporaryError)

    def test_batches_are_cut_by_their_bytes(self, amazon, sqs):
        plugin = sqs(amazon.queue, body="{{ text }}", attributes={})
        messages = [Message(source="t", text="ü" * (size // 2)) for size in (2**19, 2**19, 2**20, 2, 2**20 + 2, 600_000, 600_000)]
        failures = plugin.consume_many(messages)
        assert {*failures} == {messages[4].id}
        assert str(failures[messages[4].id]) == "the message takes 1048578 bytes of the 1048576 that SQS takes"
        assert amazon.batches == [2, 1, 1, 1, 1]

    def test_a_probe_that_may_not_ask_knows_that_the_credential_is_good(self, amazon, sqs):
        amazon.answer = amazon.refused("AccessDenied", "not authorized to perform: sqs:GetQueueAttributes", 403)
        assert sqs(amazon.queue).probe() == "SQS knows the credential, which may not get_queue_attributes"
        amazon.answer = amazon.refused("InvalidClientTokenId", "The security token is invalid", 403)
        with pytest.raises(PermanentError, match="SQS answered 403 InvalidClientTokenId"):
            sqs(amazon.queue).probe()


def test_the_region_is_read_from_the_queue(sqs, monkeypatch, tmp_path):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for queue in (
        QUEUE,
        "https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/alerts",
        "https://vpce-0a1b-2c3d.sqs.eu-central-1.vpce.amazonaws.com/123456789012/a.fifo",
    ):
        sqs(queue, region=None)
    with pytest.raises(ConfigError, match="Give `region`"):
        sqs("http://localhost:4566/000000000000/alerts", region=None)
    with pytest.raises(ConfigError, match="no such `profile`"):
        sqs(QUEUE, profile="oncall")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"queue": "alerts"}, "the URL of a queue is expected"),
        ({"queue": "https://sqs.eu-west-1.amazonaws.com/"}, "the URL of a queue is expected"),
        ({"queue": QUEUE, "access_key_id": "AKIA"}, "go together"),
        ({"queue": QUEUE, "access_key_id": "AKIA", "secret_access_key": "s", "profile": "x"}, "give either"),
        ({"queue": QUEUE, "attributes": {"AWS.x": "1"}}, "does not begin with AWS"),
        ({"queue": QUEUE, "attributes": {"a b": "1"}}, "letters, digits"),
        ({"queue": QUEUE, "attributes": {"a..b": "1"}}, "single dots"),
        ({"queue": QUEUE, "attributes": {f"a{number}": "1" for number in range(11)}}, "at most 10 attributes"),
        ({"queue": QUEUE, "attributes": {"a": "1"}, "number_attributes": {"a": "1"}}, "a stands in `attributes` and in"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValidationError, match=text):
        SqsConfig.model_validate(options)
