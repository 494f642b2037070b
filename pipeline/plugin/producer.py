"""Where messages come from: what a producer promises, and what the engine promises it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pipeline.message import Message
from pipeline.plugin.plugin import C, Config, Plugin
from pipeline.request import Request


class Producer(Plugin[C]):
    """Where messages come from: subclass one of `WebhookProducer`, `PollingProducer` and `ListeningProducer`."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a webhook producer has to remember of a request; it takes the place of the step's earlier note of that name."""

    name: str
    text: str


class WebhookProducer(Producer[C]):
    """Makes messages of what is posted to `/in/{pipeline}/{producer}`, and to paths below it where it takes such.

    One that is a `PollingProducer` as well may yield a `Note`: it is in the store before the sender is answered, and `poll`
    finds it in `self.notes()`.
    """

    methods: ClassVar[Sequence[str]] = ("POST",)
    """The methods of HTTP that it takes; GET and HEAD for senders that know nothing else."""
    below: ClassVar[str] = ""
    """What the sender has to add to the path, as people are shown it: `/NAME`."""

    @property
    def verifies_sender(self) -> bool:
        """True where `receive` itself proves who sent the request (a signature); else the intake asks for an API key."""
        return False

    @abstractmethod
    def receive(self, request: Request) -> Iterable[Message | Note]:
        """Give the request's messages, all of them or none. Called in the web process; computes only, so it must be quick.

        Raise `RequestError` (or `PermanentError`, answered 422) for what is not acceptable: the sender gets the
        text, and nothing of the request is accepted but what the error hands over. An empty result is answered with no ids.
        """

    def status_for(self, path: str) -> int | None:
        """Give the status that says "accepted", or None for a path at which there is nothing.

        `path` is what follows `/in/{pipeline}/{producer}`: mostly empty, else such as `/api/v2/alerts`. Override it for a
        sender whose paths or statuses are fixed; `request.path` has the whole path.
        """
        return None if path else 202


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What a poll was given and cannot read: it goes to the dead letters as it came, with the reason."""

    raw: bytes
    reason: str


class PollingProducer(Producer[C]):
    """Asks another system, on the step's `schedule:` or on demand."""

    usual_schedule: ClassVar[str | None] = None
    """When it is asked where the step has no `schedule:`, such as `10s`. None: on demand only."""

    notes: Callable[[], Mapping[str, str]] = dict
    """Gives the step's notes by name, as its `receive` yielded them. May raise `TemporaryError`. Outside of an engine: none."""

    drop_notes: Callable[[Mapping[str, str]], object] = dict
    """Drops notes that `notes` gave, but those that were written anew since. Outside of an engine: nothing."""

    asks_for: ClassVar[str | None] = None
    """The option that says what to ask, in a producer that need not be asked, as messages are posted to it as well: a `schedule:`
    without the option is an error, the option without a `schedule:` a warning. None: there is always something to ask."""

    @classmethod
    def asks(cls, config: Config) -> bool:
        """Say whether a producer with these options has something to ask."""
        return cls.asks_for is None or bool(getattr(config, cls.asks_for))

    @abstractmethod
    def poll(self, cursor: str | None) -> Iterable[tuple[Message | Unreadable | None, str]]:
        """Give what is new since `cursor`, each with the cursor that stands just behind it; None means the first poll.

        Called by one clock at a time. A cursor is stored only after the messages up to it are on the queue, so what
        was given may be asked for again. `None, cursor` tells of no message, and moves the cursor; `Unreadable` of what cannot
        be read as one. What was given before it raises is accepted; it is called again later, from the last stored cursor.
        """


class Publish(Protocol):
    """Hands messages to the queue."""

    def __call__(self, messages: Sequence[Message], /) -> None:
        """Return when all are on the queue, durably; raise `TemporaryError` when none may be acknowledged.

        Raise `PermanentError` where one of them is no message that can be kept; then none is accepted.
        """

    def bury(self, raw: bytes, reason: str, /, *, message_id: str = "") -> None:
        """Put what cannot be read as a message into the dead letters, as it came; then it may be acknowledged.

        `message_id` is that of the message it would have been, where a repeat has the same one. Raise `TemporaryError` as above.
        """


class ListeningProducer(Producer[C]):
    """Holds a long-lived connection to another system: a foreign queue, a chat.

    One that is a `PollingProducer` as well is polled where its step has a `schedule:`, and listens where it has none.
    """

    alone: ClassVar[bool] = False
    """True: of all clocks one listens at a time, as the other side gives the same to each."""

    @abstractmethod
    def listen(self, publish: Publish, stopping: Callable[[], bool]) -> None:
        """Take what comes, `publish` it in batches, and acknowledge it to the other side only after `publish` returned.

        Called in a thread of its own; return within a second or so when `stopping()` is true. When it raises or
        returns early it is called again, after a pause.
        """
