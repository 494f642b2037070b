"""SNS: against moto, whose topics a queue subscribes to, and a stand-in that refuses entries and holds SMS to their rules."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl
from uuid import uuid4

import pytest
from pydantic import ValidationError

from consumers.sns import Sns, SnsConfig
from pipeline import ConfigError, Message, PermanentError, TemporaryError
from pipeline.testing import Answer, BatchConsumerContract, LoopbackServer, sample_messages

TOPIC = "arn:aws:sns:eu-west-1:123456789012:alerts"
ANNA = "+4915112345678"


@pytest.fixture
def topic(client):
    """Makes a topic with a queue that subscribes to it, and gives its ARN and what reads the queue."""
    sns, sqs = client("sns"), client("sqs")

    def make(ending="", *, raw=False, **attributes):
        name = f"t{uuid4().hex[:8]}{ending}"
        arn = sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
        of_queue = {"FifoQueue": "true"} if ending else {}
        url = sqs.create_queue(QueueName=name, Attributes=of_queue)["QueueUrl"]
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"} if raw else {})

        def read():
            found = []
            while some := sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
            ).get("Messages", []):
                found += some
                for one in some:
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            return found if raw else [json.loads(one["Body"]) | {"Attributes": one["Attributes"]} for one in found]

        return arn, read

    return make


@pytest.fixture
def sns(credentials, moto, opened):
    """Makes opened plugins."""
    return lambda **options: opened(Sns, **{"base_url": moto} | options)


def numbered(count, **fields):
    return [Message(source="t", title=f"no {number}", **fields) for number in range(count)]


@pytest.mark.against("consumer sns", "moto server 5")
class TestSns(BatchConsumerContract):
    plugin = Sns
    options = {"topic": "{url}", "access_key_id": "AKIAMADEUP", "secret_access_key": "a-made-up-secret"}
    away_options = {**options, "topic": TOPIC, "base_url": "http://127.0.0.1:9"}

    @pytest.fixture
    def url(self, topic):
        return topic()[0]

    @pytest.fixture
    def config(self, url, moto, tmp_path):
        return self.config_of(self.options | {"base_url": moto}, url, tmp_path)


@pytest.mark.against("consumer sns", "moto server 5")
class TestSmsContract(TestSns):
    options = {
        "phone_number": ANNA,
        "region": "eu-west-1",
        "access_key_id": "AKIAMADEUP",
        "secret_access_key": "a-made-up-secret",
    }
    away_options = {**options, "base_url": "http://127.0.0.1:9"}


@pytest.mark.against("consumer sns", "moto server 5")
class TestTopicsOfMoto:
    def test_messages_arrive_as_json_with_subject_and_attributes(self, topic, sns):
        arn, read = topic()
        messages = sample_messages()
        assert sns(topic=arn).consume_many(messages) == {}
        found = {json.loads(one["Message"])["id"]: one for one in read()}
        assert {*found} == {message.id for message in messages}
        rich = found[messages[0].id]
        assert json.loads(rich["Message"])["data"] == messages[0].data
        attributes = {name: (one["Type"], one["Value"]) for name, one in rich["MessageAttributes"].items()}
        assert attributes == {
            "severity": ("String", "critical"),
            "status": ("String", "firing"),
            "type": ("String", "alert"),
            "source": ("String", "http://prometheus:9090"),
        }
        subjects = [found[message.id]["Subject"] for message in messages]
        assert subjects == [
            "disk full on db-1",
            "Resolved: build 7",
            "event from empty",
            '<b>&"u" ? X: y',
            "t" * 96 + "...",
        ]

    def test_more_than_ten_go_in_batches(self, topic, sns):
        arn, read = topic(raw=True)
        assert sns(topic=arn).consume_many(numbered(23)) == {}
        assert sorted(json.loads(one["Body"])["title"] for one in read()) == sorted(f"no {number}" for number in range(23))

    def test_templates_write_body_subject_and_attributes(self, topic, sns):
        arn, read = topic()
        plugin = sns(
            topic=arn,
            body="{{ title }}\x07",
            subject="Größe: {{ text }}",
            attributes={"team": "{{ labels.team }}"},
            number_attributes={"sum": "{{ data.sum }}"},
        )
        good = Message(source="t", title="a", text="ﬁne\n…", labels={"team": "web"}, data={"sum": 7})
        bad = good.replace(id=str(uuid4()), labels={})
        failures = plugin.consume_many([bad, good])
        assert {*failures} == {bad.id}
        assert str(failures[bad.id]).startswith("attributes.team: ")
        (found,) = read()
        assert (found["Message"], found["Subject"]) == ("a\ufffd", "Gro?e: fine ...")
        assert {name: (one["Type"], one["Value"]) for name, one in found["MessageAttributes"].items()} == {
            "team": ("String", "web"),
            "sum": ("Number", "7"),
        }

    def test_each_protocol_has_a_text_of_its_own(self, topic, sns):
        arn, read = topic(raw=True)
        plugin = sns(topic=arn, body="for all", protocols={"sqs": "a queue's: {{ title }}", "email": "a mail's"})
        assert plugin.consume_many(numbered(1)) == {}
        assert [one["Body"] for one in read()] == ["a queue's: no 0"]

    def test_fifo_keeps_groups_and_drops_what_comes_again(self, topic, sns):
        arn, read = topic(".fifo", raw=True, FifoTopic="true")
        messages = [*numbered(3, key="disk of «db»"), *numbered(1)]
        plugin = sns(topic=arn)
        assert plugin.consume_many(messages) == {}
        assert plugin.consume_many(messages) == {}
        found = read()
        disk = [one for one in found if one["Attributes"]["MessageGroupId"] == "disk%20of%20%C2%ABdb%C2%BB"]
        assert [json.loads(one["Body"])["id"] for one in disk] == [message.id for message in messages[:3]]
        assert len(found) == 4
        assert {one["Attributes"]["MessageDeduplicationId"] for one in found} == {message.id for message in messages}

    def test_a_topic_that_is_not_there(self, sns):
        messages = numbered(12)
        failures = sns(topic=TOPIC).consume_many(messages)
        assert {*failures} == {message.id for message in messages}
        assert all(isinstance(error, PermanentError) for error in failures.values())
        assert "SNS answered 404 NotFound" in str(failures[messages[0].id])

    def test_a_probe_asks_for_the_topic(self, topic, sns):
        arn, read = topic()
        assert sns(topic=arn).probe() == "SNS answers"
        assert sns(phone_number=ANNA, region="eu-west-1").probe() == "SNS answers"
        with pytest.raises(PermanentError, match="SNS answered 404 NotFound"):
            sns(topic=TOPIC).probe()
        assert read() == []

    def test_sms(self, sns):
        from moto.sns.models import sns_backends

        first, second, third = (
            Message(source="t", title="disk full", text="“2 %” left", labels={"phone": "+49 (151) 12345678"}),
            Message(source="t", title="🔔" * 400, labels={"phone": ANNA}),
            Message(source="t", title="x", labels={"phone": "0151 12345678"}),
        )
        plugin = sns(phone_number="{{ labels.phone }}", region="eu-west-1", max_parts=2)
        failures = plugin.consume_many([first, second, third])
        assert {*failures} == {third.id}
        assert str(failures[third.id]) == "phone_number: the template gave no number; one is written with + and its country"
        sent = [text for backends in sns_backends.values() for _, *text in backends["eu-west-1"].sms_messages.values()]
        number = [one[0] for backends in sns_backends.values() for one in backends["eu-west-1"].sms_messages.values()]
        assert {*number} >= {ANNA}
        assert ['disk full\n"2 %" left'] in [one[:1] for one in sent]
        assert ["🔔" * 66 + "…"] in [one[:1] for one in sent]


class Amazon(LoopbackServer):
    """SNS's PublishBatch and Publish, with the rules of their references; `refuse` says what is wrong with an entry."""

    def __init__(self):
        super().__init__()
        self.batches, self.taken, self.sms = [], [], []
        self.refuse = lambda entry: None
        self.refuse_all = lambda entries: None

    def next_answer(self, request):
        answer = super().next_answer(request)
        if answer.status != 200 or answer.fault:
            return answer
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
        return self.publish(form) if form["Action"] == "Publish" else self.publish_batch(form)

    def publish(self, form):
        assert re.fullmatch(r"\+[1-9]\d{1,14}", form["PhoneNumber"])
        assert 0 < len(form["Message"]) <= 1600
        attributes = {
            form[f"MessageAttributes.entry.{number}.Name"]: form[f"MessageAttributes.entry.{number}.Value.StringValue"]
            for number in range(1, 11)
            if f"MessageAttributes.entry.{number}.Name" in form
        }
        self.sms.append((form["PhoneNumber"], form["Message"], attributes))
        return self.told("Publish", "<MessageId>m</MessageId>")

    def publish_batch(self, form):
        count = max(int(found[1]) for name in form if (found := re.match(r"PublishBatchRequestEntries\.member\.(\d+)\.", name)))
        assert count <= 10
        entries = []
        for number in range(1, count + 1):
            prefix = f"PublishBatchRequestEntries.member.{number}."
            entry = {name.removeprefix(prefix): value for name, value in form.items() if name.startswith(prefix)}
            subject = entry["Subject"]
            assert subject.isascii()
            assert subject.isprintable()
            assert re.match(r"[!-~]", subject)
            assert len(subject) < 100
            entries.append(entry)
        size = sum(
            len(value.encode()) for entry in entries for name, value in entry.items() if name not in ("Id", "MessageStructure")
        )
        if size > 2**18:
            return self.refused("BatchRequestTooLong", "The length of all the messages put together is more than the limit.")
        if wrong := self.refuse_all(entries):
            return self.refused(*wrong)
        self.batches.append(count)
        told = {True: "", False: ""}
        for entry in entries:
            wrong = self.refuse(entry)
            if wrong is None:
                self.taken.append(entry["Id"])
                told[True] += f"<member><Id>{entry['Id']}</Id><MessageId>m</MessageId></member>"
            else:
                sender, code = wrong
                flag = str(sender).lower()
                told[False] += (
                    f"<member><Id>{entry['Id']}</Id><Code>{code}</Code><Message>no</Message><SenderFault>{flag}</SenderFault></member>"
                )
        return self.told("PublishBatch", f"<Successful>{told[True]}</Successful><Failed>{told[False]}</Failed>")

    def told(self, action, inner):
        space = "http://sns.amazonaws.com/doc/2010-03-31/"
        body = f'<{action}Response xmlns="{space}"><{action}Result>{inner}</{action}Result></{action}Response>'
        return Answer(200, {"content-type": "text/xml"}, body.encode())

    def refused(self, code, text, status=400):
        body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error></ErrorResponse>"
        return Answer(status, {"content-type": "text/xml"}, body.encode())


@pytest.fixture
def amazon():
    with Amazon() as server:
        yield server


@pytest.mark.against("consumer sns", "a server of our own that refuses entries")
class TestRefusals:
    def test_each_message_has_an_outcome_of_its_own(self, amazon, sns):
        messages = numbered(12)
        wrong = {
            messages[1].id: (False, "InternalError"),
            messages[3].id: (True, "InvalidParameter"),
            messages[4].id: (True, "Throttled"),
        }
        amazon.refuse = lambda entry: wrong.get(entry["Id"])
        failures = sns(topic=TOPIC, base_url=amazon.url).consume_many(messages)
        assert amazon.batches == [10, 2]
        assert {name: isinstance(error, TemporaryError) for name, error in failures.items()} == {
            messages[1].id: True,
            messages[3].id: False,
            messages[4].id: True,
        }
        assert str(failures[messages[3].id]) == "SNS refused it InvalidParameter: no"
        assert amazon.taken == [message.id for message in messages if message.id not in wrong]

    def test_a_batch_that_is_refused_for_one_is_sent_in_halves(self, amazon, sns):
        messages = numbered(10)
        bad = messages[6].id
        amazon.refuse_all = lambda entries: bad in {entry["Id"] for entry in entries} and ("InvalidParameter", "too odd")
        failures = sns(topic=TOPIC, base_url=amazon.url).consume_many(messages)
        assert {*failures} == {bad}
        assert sorted(amazon.taken) == sorted(message.id for message in messages if message.id != bad)

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("Throttling", 400, TemporaryError),
            ("ThrottledException", 429, TemporaryError),
            ("InternalError", 500, TemporaryError),
            ("RequestExpired", 400, TemporaryError),
            ("AuthorizationError", 403, PermanentError),
            ("InvalidClientTokenId", 403, PermanentError),
            ("KMSAccessDenied", 400, PermanentError),
        ],
    )
    def test_a_refusal_of_all(self, amazon, sns, code, status, kind):
        amazon.answer = amazon.refused(code, "no\x1b more".replace("\x1b", ""), status)
        messages = numbered(30)
        failures = sns(topic=TOPIC, base_url=amazon.url).consume_many(messages)
        assert len(failures) == 30
        for error in failures.values():
            assert isinstance(error, kind)
            assert str(error) == f"SNS answered {status} {code}: no more"
        assert len(amazon.received) == (1 if kind is TemporaryError else 3)

    def test_batches_are_cut_by_their_bytes(self, amazon, sns):
        plugin = sns(topic=TOPIC, base_url=amazon.url, body="{{ text }}", subject="s", attributes={})
        messages = [Message(source="t", text="ü" * (size // 2)) for size in (2**17 - 2, 2**17 - 2, 2**18 - 2, 2, 2**18, 200_000)]
        failures = plugin.consume_many(messages)
        assert {*failures} == {messages[4].id}
        assert str(failures[messages[4].id]) == "the message takes 262145 bytes of the 262144 that SNS takes"
        assert amazon.batches == [2, 1, 1, 1]

    def test_how_sms_are_sent(self, amazon, sns):
        options = {"sender_id": "SIFTBELL", "origination_number": "+12065550100", "max_price": 0.25}
        plugin = sns(phone_number="+49 151 12345678", region="eu-west-1", base_url=amazon.url, body="{{ title }}", **options)
        messages = numbered(7)
        assert plugin.consume_many(messages) == {}
        assert sorted(text for _, text, _ in amazon.sms) == [message.title for message in messages]
        assert {number for number, _, _ in amazon.sms} == {ANNA}
        assert amazon.sms[0][2] == {
            "AWS.SNS.SMS.SenderID": "SIFTBELL",
            "AWS.MM.SMS.OriginationNumber": "+12065550100",
            "AWS.SNS.SMS.SMSType": "Transactional",
            "AWS.SNS.SMS.MaxPrice": "0.25000",
        }

    def test_an_sms_is_never_longer_than_sns_takes(self, amazon, sns):
        plugin = sns(phone_number=ANNA, region="eu-west-1", base_url=amazon.url, max_parts=10)
        assert plugin.consume_many([Message(source="t", title="a" * 9000), Message(source="t", title="ü€" * 9000)]) == {}
        assert len(amazon.sms) == 2

    def test_each_sms_has_an_outcome_of_its_own(self, amazon, sns):
        amazon.answers.append(amazon.refused("Throttled", "slow", 400))
        messages = numbered(3)
        failures = sns(phone_number=ANNA, region="eu-west-1", base_url=amazon.url).consume_many(messages)
        assert [str(error) for error in failures.values()] == ["SNS answered 400 Throttled: slow"]
        assert len(amazon.sms) == 2


def test_a_preview_tells_the_parts_of_an_sms(sns):
    shown = sns(phone_number=ANNA, region="eu-west-1").preview(Message(source="t", title="t" * 200))
    assert (shown["PhoneNumber"], shown["parts"]) == (ANNA, 2)


def test_without_a_region(sns, monkeypatch, tmp_path):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    sns(topic="arn:aws-cn:sns:cn-north-1:123456789012:alerts")
    with pytest.raises(ConfigError, match="Give `region`"):
        sns(phone_number=ANNA)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "give either `topic` or `phone_number`"),
        ({"topic": TOPIC, "phone_number": ANNA}, "give either"),
        ({"topic": "alerts"}, "String should match pattern"),
        ({"phone_number": "0151 12345678"}, "a number is written with"),
        ({"phone_number": ANNA, "subject": "x"}, "subject goes with `topic`"),
        ({"phone_number": ANNA, "protocols": {"sms": "x"}}, "protocols goes with `topic`"),
        ({"topic": TOPIC, "max_parts": 2}, "max_parts goes with"),
        ({"topic": TOPIC, "protocols": {"fax": "x"}}, "Input should be 'email'"),
        ({"topic": TOPIC, "sender_id": "12345"}, "String should match pattern"),
        ({"topic": TOPIC, "sender_id": "A", "attributes": {f"a{number}": "1" for number in range(10)}}, "at most 10 attributes"),
    ],
)
def test_options_that_cannot_be(options, text):
    with pytest.raises(ValidationError, match=text):
        SnsConfig.model_validate(options)
