"""The contracts of the three kinds of filter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.message import Message
from pipeline.plugin import Buried, Dropped, Filter, Keep, Opened, RememberingFilter, Stay, Window, WindowFilter
from pipeline.testing.contract import PluginContract, check_messages, content, sample_messages, unchanged
from pipeline.testing.secrecy import assert_no_secret

Outcome = list[Any] | str


class _Messages(PluginContract):
    """What the contracts of filters share."""

    def messages(self) -> Sequence[Message]:
        """Give what the filter is tried with; override it for a filter that expects more of a message."""
        return sample_messages()


class FilterContract(_Messages):
    """The contract of a `Filter`."""

    def test_it_is_a_filter(self) -> None:
        """The class is a `Filter`."""
        assert issubclass(self.plugin, Filter)

    def test_it_leaves_the_message_alone(self, made: Any) -> None:
        """No message is changed in place, nor its labels or data."""
        for message in unchanged([*self.messages()]):
            outcome(made.filter, message)

    def test_it_gives_messages_or_says_why_not(self, config: Any, made: Any) -> None:
        """Only messages that can be stored come out, and only Siftbell's errors, without a secret in them."""
        for message in self.messages():
            given = outcome(made.filter, message)
            assert_no_secret(config, given if isinstance(given, str) else "")

    def test_it_forgets_earlier_messages(self, config: Any, made: Any) -> None:
        """What becomes of a message does not depend on those before it: any worker can run any step."""
        for _ in range(2):
            for message in self.messages():
                with self.opened(config) as other:
                    assert outcome(made.filter, message) == outcome(other.filter, message)


class Recollection:
    """A `Memory` in this process, with a clock of its own: `now` moves only where a test moves it.

    Methods whose names are in `away` raise `TemporaryError`, as where the memory cannot be reached.
    """

    def __init__(self, *, away: Collection[str] = ()) -> None:
        self.away = away
        self.now = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
        self._firsts: dict[str, datetime] = {}
        self._counts: dict[str, tuple[datetime, int]] = {}
        self._texts: dict[str, tuple[datetime, str]] = {}
        self._members: dict[str, dict[str, datetime]] = {}

    def first(self, key: str, within: timedelta) -> bool:
        """Say whether this is the first call for `key` in the last `within`."""
        self._reach("first")
        if key in self._firsts and self.now < self._firsts[key]:
            return False
        self._firsts[key] = self.now + within
        return True

    def count(self, key: str, within: timedelta) -> int:
        """Count this call, and give how many there were since the window began."""
        self._reach("count")
        until, number = self._counts.get(key, (self.now, 0))
        until, number = (self.now + within, 0) if self.now >= until else (until, number)
        self._counts[key] = until, number + 1
        return number + 1

    def remember(self, key: str, value: str, within: timedelta) -> None:
        """Keep a text under `key` for `within`."""
        self._reach("remember")
        self._texts[key] = self.now + within, value

    def recall(self, key: str) -> str | None:
        """Give the text that is kept under `key`, or None."""
        self._reach("recall")
        until, value = self._texts.get(key, (self.now, ""))
        return value if self.now < until else None

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep `new` under `key` where `old` is kept there now."""
        self._reach("swap")
        if self.recall(key) != old:
            return False
        self.remember(key, new, within)
        return True

    def forget(self, key: str) -> None:
        """Forget what is known of `key`."""
        self._reach("forget")
        self._firsts.pop(key, None)
        self._counts.pop(key, None)
        self._texts.pop(key, None)
        self._members.pop(key, None)

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:
        """Make a text a member of `key` for `within`, and give all there are now."""
        self._reach("add")
        self._members.setdefault(key, {})[member] = self.now + within
        return self.members(key)

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""
        self._reach("remove")
        self._members.get(key, {}).pop(member, None)

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`."""
        self._reach("members")
        return sorted(member for member, until in self._members.get(key, {}).items() if self.now < until)

    def _reach(self, method: str) -> None:
        if method in self.away:
            raise TemporaryError("the memory is away")


class RememberingFilterContract(_Messages):
    """The contract of a `RememberingFilter`: what it remembers is in the memory it is handed, and nowhere else."""

    def test_it_is_a_remembering_filter(self) -> None:
        """The class is a `RememberingFilter`."""
        assert issubclass(self.plugin, RememberingFilter)

    def test_it_leaves_the_message_alone(self, made: Any) -> None:
        """No message is changed in place, nor its labels or data."""
        memory = Recollection()
        for message in unchanged([*self.messages(), *self.messages()]):
            outcome(made.filter, message, memory)

    def test_two_workers_decide_as_one(self, config: Any) -> None:
        """Two instances that share a memory give what one would: nothing is kept in the instance."""
        messages = [message for message in self.messages() for _ in range(3)]
        alone, shared = Recollection(), Recollection()
        with self.opened(config) as one:
            expected = [outcome(one.filter, message, alone) for message in messages]
        with self.opened(config) as first, self.opened(config) as second:
            pair = (first, second)
            assert [outcome(pair[index % 2].filter, message, shared) for index, message in enumerate(messages)] == expected

    def test_a_lost_memory_does_no_harm(self, made: Any) -> None:
        """With an empty memory the first messages are treated as at the beginning."""
        messages = self.messages()
        first, second = Recollection(), Recollection()
        assert [outcome(made.filter, one, first) for one in messages] == [outcome(made.filter, one, second) for one in messages]


class WindowFilterContract(_Messages):
    """The contract of a `WindowFilter`."""

    now = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)

    def test_it_is_a_window_filter(self) -> None:
        """The class is a `WindowFilter`."""
        assert issubclass(self.plugin, WindowFilter)

    def test_a_window_has_a_key_and_a_due_time(self, config: Any, made: Any) -> None:
        """A window's due time bears a time zone and is not over; the same message gets the same window."""
        for message in unchanged([*self.messages()]):
            window = made.window(message, self.now, Recollection())
            with self.opened(config) as other:
                assert window == other.window(message, self.now, Recollection())
            if window is not None:
                assert isinstance(window, Window | Message | Dropped)
            if isinstance(window, Window):
                assert window.due.tzinfo is not None
                assert window.due >= self.now

    def test_what_leaves_depends_on_the_messages_alone(self, config: Any, made: Any) -> None:
        """Released messages are left as they are, and another instance releases the same."""
        messages = [*self.messages()]
        before = deepcopy(messages)
        for count in range(1, len(messages) + 1):
            with self.opened(config) as other:
                first, second = (self._open(messages[:count]) for _ in range(2))
                assert outcome(made.release, first) == outcome(other.release, second)
        assert messages == before, "messages were changed in place"

    def test_what_is_kept_comes_back(self, config: Any, made: Any) -> None:
        """What a release keeps, JSON can hold, and a later opening by another instance goes on from it."""
        kept = next((one.value for one in made.release(self._open([*self.messages()])) if isinstance(one, Keep)), None)
        if kept is None:
            return
        written = msgspec.json.decode(msgspec.json.encode(kept))
        before = deepcopy(written)
        with self.opened(config) as other:
            later = self.now + timedelta(hours=1)
            outcome(other.release, replace(self._open([]), kept=written, now=later, due=later))
        assert written == before, "what was kept was changed in place"

    def _open(self, messages: Sequence[Message]) -> Opened:
        return Opened(key="key", messages=messages, kept=None, due=self.now, now=self.now, memory=Recollection())


def outcome(function: Callable[..., Iterable[Any]], *arguments: Any) -> Outcome:
    """Give what is yielded, messages without their ids and times, or the error's kind and text."""
    try:
        out = [one.message if isinstance(one, Buried) else one for one in function(*arguments)]
        for message in out:
            if not isinstance(message, Dropped | Stay | Keep):
                check_messages([message])  # one by one: the engine gives the parts of a message ids of their own
        return [content(message) if isinstance(message, Message) else message for message in out]
    except (PermanentError, TemporaryError) as error:
        return f"{type(error).__name__}: {error}"
    except PipelineError as error:
        raise AssertionError(f"a filter raises PermanentError or TemporaryError, not {type(error).__name__}") from error
