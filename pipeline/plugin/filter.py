"""What becomes of messages between producers and consumers: what a filter promises, and what the engine promises it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.message import Message
from pipeline.plugin.memory import Memory
from pipeline.plugin.plugin import C, Plugin


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a filter yields in place of a message: it ends here, and why, in a few words that `siftbell explain` tells.

    The engine adds which filter it was. Where a window is opened, `message` says which of its messages is meant; else all
    that do not leave.
    """

    reason: str
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class Buried:
    """What a filter yields beside messages that go on: this part of the message goes to the dead letters, with the reason.

    Taken out of them it comes to the same filter again. `PermanentError` buries the message as a whole.
    """

    message: Message
    reason: str


class Filter(Plugin[C]):
    """Decides about a message, or changes it, by looking at nothing but the message."""

    @classmethod
    def is_light(cls, config: C) -> bool:  # noqa: ARG003 - the options decide in subclasses
        """Say whether it takes no more than some time in proportion to the message, waits for nothing, and ends no process.

        What comes singly is then filtered where it is delivered, in threads; all else in processes of their own.
        """
        return False

    @abstractmethod
    def filter(self, message: Message) -> Iterable[Message | Dropped | Buried]:
        """Yield nothing, or `Dropped`, to drop the message, one to pass or change it, several to split it, `Buried` ones too.

        Never change `message` in place. One message out keeps its parent's id; several get ids derived from it, so
        that a repeat gives the same ids. Raise `PermanentError` to bury the message, `TemporaryError` to have it
        filtered again later; any other exception buries it with its traceback.
        """


class RememberingFilter(Plugin[C]):
    """Decides about a message by what came before it."""

    lost: Callable[[str], bool] = staticmethod(lambda _message_id: False)
    """Says of a message that this step let pass, by its id, whether it has ended without reaching any consumer: it was dropped
    further on, or buried. False while it is on its way. May raise `TemporaryError`. Outside of an engine: always False."""

    @abstractmethod
    def filter(self, message: Message, memory: Memory) -> Iterable[Message | Dropped | Buried]:
        """As `Filter.filter`, and may ask and tell `memory`, which is this step's own."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where a waiting message is put: with the others of its `key`. The earliest `due` opens the window, for all of them."""

    key: str
    due: datetime
    message: Message | None = None
    """What waits in place of the message, with an id of its own, which a repeat has too. What has left a window is not put there
    again: this is for what is sent again under one id, and has something new to tell."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A window that is due: what waited in it."""

    key: str
    messages: Sequence[Message]
    """In the order of their ids, which is about that in which they were made. Empty where only what was kept is due."""
    kept: Any
    """What the last release kept for the key, as JSON has it; None where it kept nothing."""
    due: datetime
    now: datetime
    memory: Memory


@dataclass(frozen=True, slots=True)
class Keep:
    """Yielded by `release`, once at most: a value that JSON can hold, which the key's next opening has as `Opened.kept`.

    That is at `due`, or with the next message that is due earlier. What was kept before is gone.
    """

    value: Any
    due: datetime


@dataclass(frozen=True, slots=True)
class Stay:
    """Yielded by `release`: this one of the window's messages waits on in it, until `due` or until it opens for another."""

    message: Message
    due: datetime


Released = Message | Dropped | Stay | Keep
"""What an opened window may yield."""


class WindowFilter(Plugin[C]):
    """Lets messages wait: they are held in the store by key until they are due; then one clock opens the key's window."""

    @abstractmethod
    def window(self, message: Message, now: datetime, memory: Memory) -> Window | Message | Dropped | None:
        """Say where the message waits and until when.

        None lets it pass at once, a message is what passes in its place, `Dropped` ends it. `memory` is the step's own. Errors
        are as in `Filter.filter`.
        """

    @abstractmethod
    def release(self, opened: Opened) -> Iterable[Released]:
        """Give what leaves an opened window, what stays in it, and what is kept for its key. Called by one clock at a time.

        What leaves gets new ids that are derived from those of the messages and from `due`, unless it is one of them, unchanged:
        an opening that is repeated, as its clock died, gives the same ids. A message that neither leaves nor stays ends here.
        Raise `TemporaryError` to have the messages filtered again later; any other exception buries them. What was kept stays.
        """


AnyFilter = Filter[Any] | RememberingFilter[Any] | WindowFilter[Any]
