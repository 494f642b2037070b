"""The contracts of producers: what is posted, and what is polled."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import pytest

from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.plugin import PollingProducer, WebhookProducer
from pipeline.request import Request
from pipeline.testing.contract import PluginContract, content

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:  # the suite does with its own rubbish then
    st = None  # type: ignore[assignment]  # asked for by `is None`

RUBBISH = {
    "empty": b"",
    "white space": b" \n",
    "not JSON": b"{'a': 1}",
    "cut off": b'{"title": "disk',
    "bad UTF-8": b'{"title": "\xff\xfe"}',
    "null": b"null",
    "a number": b"5",
    "a text": b'"disk full"',
    "deep nesting": b"[" * 100_000,
    "deep nesting, closed": b'{"a":' * 500 + b"1" + b"}" * 500,
    "NUL": b'{"title": "a\\u0000b"}',
    "NUL in a name": b'{"a\\u0000b": 1}',
    "NaN": b'{"title": NaN}',
    "infinity": b'{"title": 1e999}',
    "a huge number": b'{"title": 123456789012345678901234567890}',
    "an endless number": b'{"title": ' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"title": "\\ud800"}',
    "a list of lists": b"[[], []]",
    "two documents": b'{"title": "a"} {"title": "b"}',
}
CONTENT_TYPES = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "")


class WebhookProducerContract(PluginContract):
    """The contract of a `WebhookProducer`. Give `accepted` some bodies (JSON) that it must take."""

    accepted: ClassVar[Sequence[bytes]] = ()

    def request(self, body: bytes, content_type: str = "application/json") -> Request:
        """Give the request that a body comes in; override it to sign what is sent."""
        return Request(body, {"content-type": content_type})

    def test_it_is_a_webhook_producer(self) -> None:
        """The class is a `WebhookProducer`."""
        assert issubclass(self.plugin, WebhookProducer)

    @pytest.mark.parametrize("body", RUBBISH.values(), ids=RUBBISH.keys())
    def test_rubbish_is_refused(self, made: Any, body: bytes) -> None:
        """What cannot be read is refused with `RequestError` or `PermanentError`: never another error, never accepted."""
        with pytest.raises(PermanentError):
            list(made.receive(self.request(body)))

    def test_an_empty_list_is_refused_or_gives_nothing(self, made: Any) -> None:
        """`[]` makes no message."""
        assert receive(made, self.request(b"[]")) in ([], None)

    def test_whatever_comes_is_a_message_or_refused(self, made: Any) -> None:
        """Bodies made up at random, in every content type, give messages or a `PermanentError`."""
        for body in made_up_bodies():
            for content_type in CONTENT_TYPES:
                check_messages(receive(made, self.request(body, content_type)) or [])

    def test_hypothesis_finds_nothing_else(self, made: Any) -> None:
        """The same with bodies that hypothesis makes up, where it is installed."""
        if st is None:
            pytest.skip("hypothesis is not installed")

        def check(body: bytes, content_type: str) -> None:
            check_messages(receive(made, self.request(body, content_type)) or [])

        _with_hypothesis(check, self.accepted)

    def test_what_it_must_take_gives_messages(self, made: Any) -> None:
        """Each body of `accepted` gives messages that can be stored, the same ones each time."""
        for body in self.accepted:
            messages = list(made.receive(self.request(body)))
            assert messages, "it gave no message"
            check_messages(messages)
            again = list(made.receive(self.request(body)))
            assert [content(message) for message in again] == [content(message) for message in messages]


class PollingProducerContract(PluginContract):
    """The contract of a `PollingProducer`. Let the other side have at least three messages (a fixture of your own)."""

    def test_it_is_a_polling_producer(self) -> None:
        """The class is a `PollingProducer`."""
        assert issubclass(self.plugin, PollingProducer)

    def test_it_goes_on_from_every_cursor(self, config: Any, made: Any) -> None:
        """From each cursor come exactly the messages behind it, also to another instance; from the last one nothing."""
        everything: list[tuple[Message, str]] = list(made.poll(None))
        assert len(everything) >= 3, "the other side must have at least three messages for this test"
        for index, (_, cursor) in enumerate(everything):
            assert isinstance(cursor, str), "a cursor is a text"
            other = self.plugin(config)
            other.open()
            rest = [content(message) for message, _ in other.poll(cursor)]
            other.close()
            assert rest == [content(message) for message, _ in everything[index + 1 :]]
        check_messages([message for message, _ in everything])

    def test_cursors_differ(self, made: Any) -> None:
        """Each message moves the cursor."""
        cursors = [cursor for _, cursor in made.poll(None)]
        assert all(one != two for one, two in pairwise(cursors))


def receive(producer: Any, request: Request) -> list[Message] | None:
    """Give a request's messages, or None where it was refused."""
    try:
        return list(producer.receive(request))
    except PermanentError as error:
        text = str(error)
    assert text, "an error needs a text: the sender is told it"
    return None


def check_messages(messages: Iterable[Message]) -> None:
    """Fail where a message is none, or cannot be stored and read again."""
    for message in messages:
        assert isinstance(message, Message)
        assert message.time.tzinfo is not None
        assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message


def made_up_bodies() -> Iterable[bytes]:
    """Give 200 bodies of JSON and 50 of bytes, the same each time."""
    chance = random.Random(20261121)  # noqa: S311 - the same bodies each time, no secret
    for _ in range(200):
        yield json.dumps(_value(chance, 4)).encode()
    for _ in range(50):
        yield chance.randbytes(chance.randrange(40))


_WORDS = [
    "",
    "title",
    "labels",
    "time",
    "version",
    "4",
    "alerts",
    "status",
    "firing",
    "2026-11-21T08:30:00Z",
    "a\tb",
    "ü🔔",
    "null",
]


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth else 6)
    if kind < 6:
        return chance.choice([None, True, -1, 1.5e300, 2**63, chance.choice(_WORDS)])
    inner = [_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return inner if kind == 6 else {chance.choice(_WORDS): value for value in inner}


def _with_hypothesis(check: Callable[[bytes, str], None], samples: Sequence[bytes]) -> None:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(_WORDS)
    names = st.text() | st.sampled_from(_WORDS)
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)
    bodies = st.binary() | values.map(lambda value: json.dumps(value).encode())
    if samples:
        bodies |= st.sampled_from([*samples]).flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end]))
    quick = settings(max_examples=100, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    quick(given(bodies, st.sampled_from(CONTENT_TYPES))(check))()
