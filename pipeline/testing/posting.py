"""The contract of webhook producers: good requests give all their messages, bad ones are refused, and nothing else happens."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from pipeline.errors import PermanentError, RequestError
from pipeline.message import Message
from pipeline.plugin import WebhookProducer
from pipeline.request import Request
from pipeline.testing.contract import PluginContract, check_messages, content
from pipeline.testing.mutations import CONTENT_TYPES, Choose, lists_in, mutated, mutated_value, with_list
from pipeline.testing.secrecy import assert_no_secret

try:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
except ImportError:  # the suite does with what chance makes up then
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
        assert receive(made, self.request(body)) is None, "it was accepted"

    def test_an_empty_list_is_refused_or_gives_nothing(self, made: Any) -> None:
        """`[]` makes no message."""
        assert receive(made, self.request(b"[]")) in ([], None)

    def test_whatever_comes_is_a_message_or_refused(self, made: Any) -> None:
        """Bodies made up at random, and `accepted` cut off, in every content type give messages or a `PermanentError`."""
        for body in (*made_up_bodies(), *self.accepted, *cut_off(self.accepted)):
            for content_type in CONTENT_TYPES:
                check_messages(receive(made, self.request(body, content_type)) or [])

    def test_what_was_spoiled_is_a_message_or_refused(self, made: Any) -> None:
        """Requests of `accepted` with one thing changed, in the body before it is signed or anywhere after: the same."""
        chance = random.Random(20261121)  # noqa: S311 - the same requests each time, no secret
        for body in self.accepted:
            for _ in range(150):
                self._check_spoiled(made, body, chance.choice)

    def test_hypothesis_finds_nothing_else(self, made: Any) -> None:
        """The same with bodies and changes that hypothesis makes up, where it is installed."""
        if st is None:
            pytest.skip("hypothesis is not installed")

        def check(body: bytes, content_type: str) -> None:
            check_messages(receive(made, self.request(body, content_type)) or [])

        _with_hypothesis(check, _bodies(self.accepted), st.sampled_from(CONTENT_TYPES))
        if self.accepted:
            _with_hypothesis(
                lambda data, body: self._check_spoiled(made, body, lambda of: data.draw(st.sampled_from(of))),
                st.data(),
                st.sampled_from([*self.accepted]),
                shrinks=False,  # it is one change to a body that is known
            )

    def test_a_good_message_beside_a_bad_one_is_not_lost(self, made: Any) -> None:
        """Where a body has a list with a message for each element, one bad element has the request refused, or loses none.

        Which lists those are is found out: a list that gives more messages when what it holds stands in it twice.
        """
        chance = random.Random(20261121)  # noqa: S311 - the same requests each time, no secret
        for body in self.accepted:
            for value, path, elements in self._lists_of_messages(made, body):
                good = Counter(map(_told, receive(made, self.request(with_list(value, path, elements))) or []))
                for _ in range(100):
                    bad = mutated_value(json.loads(chance.choice(elements)), chance.choice)
                    spoiled = [*elements]
                    spoiled.insert(chance.randrange(len(elements) + 1), bad)
                    found = receive(made, self.request(with_list(value, path, spoiled)))
                    assert found is None or good <= Counter(map(_told, found)), "a good message was lost, and its sender told 202"

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

    def _check_spoiled(self, made: Any, body: bytes, choose: Choose) -> None:
        request = self.request(body)
        spoiled = mutated(request, choose)
        if choose((True, False)) and spoiled.body != body:  # changed before it was signed, by somebody who knows the secret
            spoiled = self.request(spoiled.body)
        check_messages(receive(made, spoiled) or [])

    def _lists_of_messages(self, made: Any, body: bytes) -> Iterator[tuple[Any, tuple[str | int, ...], list[bytes]]]:
        try:
            value = json.loads(body)
        except ValueError:  # a form, a text: it has no lists
            return
        count = len(receive(made, self.request(body)) or [])
        for path in lists_in(value):
            found = value
            for name in path:
                found = found[name]
            elements = [json.dumps(element).encode() for element in found]
            if len(receive(made, self.request(with_list(value, path, elements * 2))) or []) > count:
                yield value, path, elements


def receive(producer: Any, request: Request) -> list[Message] | None:
    """Give a request's messages, or None where it was refused as a whole: with a text, a status of 4xx, and no secret in it."""
    try:
        return list(producer.receive(request))
    except PermanentError as error:
        refusal = error
    assert str(refusal), "an error needs a text: the sender is told it"
    assert not isinstance(refusal, RequestError) or 400 <= refusal.status < 500, "a refusal is answered 4xx"
    problems = refusal.problems if isinstance(refusal, RequestError) else ()
    assert_no_secret(producer.config, f"{refusal!r} {refusal} {problems}")
    return [*refusal.accepted] or None if isinstance(refusal, RequestError) else None


def _told(message: Message) -> str:
    """Write what a message tells people; its data may tell of the others that came with it."""
    return repr(content(message).replace(data=None))


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


def _bodies(samples: Sequence[bytes]) -> Any:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(_WORDS)
    names = st.text() | st.sampled_from(_WORDS)
    values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)
    bodies = st.binary() | values.map(lambda value: json.dumps(value).encode())
    if samples:
        bodies |= st.sampled_from([*samples]).flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end]))
    return bodies


def _with_hypothesis(check: Callable[..., None], *strategies: Any, shrinks: bool = True) -> None:
    """Try `check` with 60 examples: the same ones each time, so that what passed here passes in CI."""
    quick = settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[*HealthCheck],
        phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
    )
    bound: Any = given(*strategies)  # its overloads know no number of strategies that is not written down
    quick(bound(check))()
