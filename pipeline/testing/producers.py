"""The contracts of producers that fetch: what is polled, and what is listened to."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pipeline.errors import TemporaryError
from pipeline.message import Message
from pipeline.plugin import ListeningProducer, PollingProducer
from pipeline.testing.contract import PluginContract, check_messages, content
from pipeline.testing.secrecy import assert_error_tells_no_secret


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

    def bury(self, raw: bytes, reason: str, /, *, message_id: str = "") -> None:  # noqa: ARG002 - as `Publish` says
        """Keep what could not be read; raise `TemporaryError` where it is to fail."""
        self.buried.append((raw, reason))
        self._fail()

    def _fail(self) -> None:
        if self._failing:
            raise TemporaryError("the queue is away, says the test")


def told(producer: Any, cursor: str | None) -> list[tuple[Message, str]]:
    """Poll, and give the messages with their cursors; a cursor alone tells of nothing."""
    return [(message, position) for message, position in producer.poll(cursor) if message is not None]
