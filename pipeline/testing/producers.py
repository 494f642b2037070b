"""The contracts of producers: what is posted, what is polled, and what is listened to."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import ListeningProducer, PollingProducer, WebhookProducer
from pipeline.request import Request
from pipeline.testing.contract import PluginContract, check_messages, content
from pipeline.testing.secrecy import assert_error_tells_no_secret

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
CONTENT_TYPES = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain",
    "image/png",
    "",
)


class WebhookProducerContract(PluginContract):
    """The contract of a `WebhookProducer`. Give `accepted` at least one body (JSON) that it must take."""

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
        """Bodies made up at random, and `accepted` cut off, in every content type give messages or a `PermanentError`."""
        for body in (*made_up_bodies(), *self.accepted, *cut_off(self.accepted)):
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
        """Each body of `accepted` gives messages that can be stored."""
        assert self.accepted, "give `accepted` a body that the producer must take"
        for body in self.accepted:
            messages = list(made.receive(self.request(body)))
            assert messages, "it gave no message"
            check_messages(messages)

    def test_it_forgets_earlier_requests(self, config: Any, made: Any) -> None:
        """What becomes of a body does not depend on those before it, good or bad."""
        for _ in range(2):
            for body in (*self.accepted, *RUBBISH.values()):
                with self.opened(config) as other:
                    assert _contents(made, self.request(body)) == _contents(other, self.request(body))


class PollingProducerContract(PluginContract):
    """The contract of a `PollingProducer`. Let the other side have at least three messages (a fixture of your own).

    `away_options` are options with which the other side is away, such as `{"url": "{url}"}`: nothing answers there.
    """

    away_options: ClassVar[Mapping[str, Any] | None] = None

    def test_it_is_a_polling_producer(self) -> None:
        """The class is a `PollingProducer`."""
        assert issubclass(self.plugin, PollingProducer)

    def test_it_goes_on_from_every_cursor(self, config: Any, made: Any) -> None:
        """From each cursor come exactly the messages behind it, also to another instance; from the last one nothing."""
        everything = told(made, None)
        assert len(everything) >= 3, "the other side must have at least three messages for this test"
        for index, (_, cursor) in enumerate(everything):
            assert isinstance(cursor, str), "a cursor is a text"
            with self.opened(config) as other:
                rest = [content(message) for message, _ in told(other, cursor)]
            assert rest == [content(message) for message, _ in everything[index + 1 :]]
        check_messages([message for message, _ in everything])

    def test_it_keeps_no_cursor(self, made: Any) -> None:
        """Asked for the same again, it gives the same again: where it stands is the engine's to know."""
        first = [content(message) for message, _ in told(made, None)]
        assert [content(message) for message, _ in told(made, None)] == first

    def test_cursors_differ(self, made: Any) -> None:
        """Each message moves the cursor."""
        cursors = [cursor for _, cursor in told(made, None)]
        assert all(one != two for one, two in pairwise(cursors))

    def test_an_absent_source_is_asked_again(self, url: str, tmp_path: Path) -> None:
        """Where the other side is away (`away_options`), it is `TemporaryError`, without a secret in it."""
        if self.away_options is None:
            pytest.skip("`away_options` are not given")
        config = self.config_of(self.away_options, url, tmp_path)
        with self.opened(config) as plugin, pytest.raises(TemporaryError) as caught:
            list(plugin.poll(None))
        assert_error_tells_no_secret(config, caught.value)


class ListeningProducerContract(PluginContract):
    """The contract of a `ListeningProducer`. Let the other side have at least one message at the start of each test.

    `patience` is how many seconds a test waits for messages, and for `listen` to return, before it fails.
    """

    patience: ClassVar[float] = 10.0

    def test_it_is_a_listening_producer(self) -> None:
        """The class is a `ListeningProducer`."""
        assert issubclass(self.plugin, ListeningProducer)

    def test_it_publishes_what_comes_and_stops(self, made: Any) -> None:
        """What the other side has is published, in lists of messages that can be stored; `listen` ends when it is to stop."""
        published = self._listen(made, Publication())
        assert published.messages, f"nothing was published within {self.patience:g} s"
        check_messages(published.messages)

    def test_it_stops_at_once_when_it_is_to(self, made: Any) -> None:
        """`listen` returns where `stopping()` is true from the beginning."""
        self._listen(made, Publication(enough=0))

    def test_what_was_not_published_comes_again(self, config: Any, made: Any) -> None:
        """Where `publish` fails nothing is acknowledged: the next one who listens gets the same messages."""
        refused = self._listen(made, Publication(failing=True))
        assert refused.messages, f"nothing was published within {self.patience:g} s"
        with self.opened(config) as other:
            again = self._listen(other, Publication(enough=len(refused.messages)))
        for message in refused.messages:
            assert content(message) in [content(one) for one in again.messages], "a message was acknowledged unpublished"

    def _listen(self, plugin: Any, publication: Publication) -> Publication:
        end = time.monotonic() + self.patience
        errors: list[BaseException] = []

        def listen() -> None:
            try:
                plugin.listen(publication, lambda: publication.over or time.monotonic() > end)
            except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
                errors.append(error)

        thread = threading.Thread(target=listen, name="listen", daemon=True)
        thread.start()
        thread.join(2 * self.patience)
        assert not thread.is_alive(), "`listen` did not return when it was to stop"
        for error in errors:
            if not isinstance(error, TemporaryError):
                raise error
        return publication


class Publication:
    """What a listening producer is given as `publish`: it keeps the messages, or refuses all, and is over when it has enough."""

    def __init__(self, *, enough: int = 1, failing: bool = False) -> None:
        self.messages: list[Message] = []
        self.buried: list[tuple[bytes, str]] = []
        """What could not be read, and why."""
        self._enough, self._failing = enough, failing

    @property
    def over(self) -> bool:
        """Whether it has as many messages as it wants, and what was buried."""
        return len(self.messages) + len(self.buried) >= self._enough

    def __call__(self, messages: Sequence[Message], /) -> None:
        """Keep the messages; raise `TemporaryError` where it is to fail."""
        self.messages += messages
        self._fail()

    def bury(self, raw: bytes, reason: str, /, *, id: str = "") -> None:  # noqa: A002, ARG002 - as `Publish` says
        """Keep what could not be read; raise `TemporaryError` where it is to fail."""
        self.buried.append((raw, reason))
        self._fail()

    def _fail(self) -> None:
        if self._failing:
            raise TemporaryError("the queue is away, says the test")


def told(producer: Any, cursor: str | None) -> list[tuple[Message, str]]:
    """Poll, and give the messages with their cursors; a cursor alone tells of nothing."""
    return [(message, position) for message, position in producer.poll(cursor) if message is not None]


def receive(producer: Any, request: Request) -> list[Message] | None:
    """Give a request's messages, or None where it was refused."""
    try:
        return list(producer.receive(request))
    except PermanentError as error:
        text = str(error)
    assert text, "an error needs a text: the sender is told it"
    return None


def _contents(producer: Any, request: Request) -> list[Message] | None:
    messages = receive(producer, request)
    return None if messages is None else [content(message) for message in messages]


def cut_off(bodies: Iterable[bytes]) -> Iterable[bytes]:
    """Give the beginnings of bodies: up to 100 of each, spread over its length."""
    for body in bodies:
        for end in range(0, len(body), max(1, len(body) // 100)):
            yield body[:end]


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
