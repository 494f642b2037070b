"""The contracts of consumers: what holds for all, and what for those that take batches."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import BatchConsumer, Consumer
from pipeline.testing.contract import DEAD, PluginContract, sample_messages, unchanged
from pipeline.testing.delivering import deliver as deliver  # noqa: PLC0414 - tests of plugins call these two by this module
from pipeline.testing.delivering import deliver_many, failure, shown_by
from pipeline.testing.delivering import run as run  # noqa: PLC0414 - as above
from pipeline.testing.probing import assert_probe, probed
from pipeline.testing.secrecy import assert_error_tells_no_secret, assert_no_secret


class ConsumerContract(PluginContract):
    """The contract of every consumer.

    `away_options` are options with which the other side is away, such as `{"url": "{url}"}`: nothing answers there.
    """

    away_options: ClassVar[Mapping[str, Any] | None] = None

    def messages(self) -> list[Message]:
        """Give what the consumer is tried with; override it for one that expects more of a message."""
        return sample_messages()

    def test_it_is_a_consumer(self) -> None:
        """The class is a `Consumer` or a `BatchConsumer`."""
        assert issubclass(self.plugin, (Consumer, BatchConsumer))

    def test_a_preview_shows_no_secret(self, config: Any, made: Any) -> None:
        """`siftbell try` can print what would be sent; nothing secret is in it, and no message is changed."""
        for message in unchanged(self.messages()):
            assert_no_secret(config, msgspec.json.encode(shown_by(made, message)).decode())

    def away(self, directory: Path) -> Any:
        """Give validated options with which the other side is away, or None."""
        return None if self.away_options is None else self.config_of(self.away_options, DEAD, directory)

    def test_an_absent_other_side_is_tried_again(self, tmp_path: Path) -> None:
        """Where the other side is away, it is `TemporaryError`, without a secret in it."""
        config = self.away(tmp_path)
        if config is None:
            pytest.skip("`away_options` are not given")
        message = self.messages()[0]
        with self.opened(config) as plugin:
            error = failure(plugin, message)
        assert isinstance(error, TemporaryError), f"TemporaryError is expected, not {error!r}"
        assert_error_tells_no_secret(config, error)

    def test_a_probe_finds_that_it_is_away(self, tmp_path: Path) -> None:
        """Where the other side is away, `probe` raises `TemporaryError`, or has nothing to ask."""
        if (config := self.away(tmp_path)) is None:
            pytest.skip("`away_options` are not given")
        with self.opened(config) as plugin:
            found = probed(plugin)
        assert found is None or isinstance(found, TemporaryError), f"TemporaryError is expected, not {found!r}"
        assert_probe(config, found)


class BatchConsumerContract(ConsumerContract):
    """The contract of a `BatchConsumer`. With `options` it delivers for real: lead it to `{tmp}`, or to a server of your own."""

    def test_it_is_a_batch_consumer(self) -> None:
        """The class is a `BatchConsumer`."""
        assert issubclass(self.plugin, BatchConsumer)

    def test_it_tells_which_messages_failed(self, config: Any, made: Any) -> None:
        """It takes any number of messages, leaves them as they are, and names no failure but of those it was given."""
        for count in (1, len(self.messages())):
            messages = self.messages()[:count]
            before = deepcopy(messages)
            failures = deliver_many(made, messages)
            assert messages == before, "messages were changed in place"
            assert isinstance(failures, Mapping), "failures are given as a mapping of ids to errors"
            assert {*failures} <= {message.id for message in messages}, "a failure's id is none of the messages given"
            for error in failures.values():
                assert isinstance(error, (TemporaryError, PermanentError))
                assert_error_tells_no_secret(config, error)
