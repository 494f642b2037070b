"""The kinds of plugin: what a producer, a filter and a consumer promise, and what the engine promises them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from pipeline.errors import RequestError
from pipeline.message import Message
from pipeline.networks import ANYWHERE, Networks
from pipeline.request import Request


class Config(BaseModel):
    """A plugin's options. Subclass it; give every field a type and a `Field(description=…)`; secrets are `SecretStr`.

    `shorthand` names the field that a bare value stands for: `match: severity == "critical"` is
    `match: {condition: severity == "critical"}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    shorthand: ClassVar[str | None] = None


class NoOptions(Config):
    """The options of a plugin that has none."""


C = TypeVar("C", bound=Config)


class Plugin(ABC, Generic[C]):
    """What all kinds share: validated options in `self.config`, and a life from `open` to `close`.

    An instance is made once per process and pipeline step and may be used by several threads at once. It keeps
    nothing between messages that may not be lost: any worker can run any step. A plugin without options says
    `Consumer[NoOptions]`.
    """

    config_type: ClassVar[type[Config]] = NoOptions

    networks: Networks = ANYWHERE
    """Where the plugin may connect to, as the process's settings say. `HttpConsumer` keeps to it; a consumer that posts by
    another library does that inside of `with self.networks.guard():`. Outside of an engine nothing is refused."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the options' class from `Consumer[ThisConfig]`, so that it is named in one place."""
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if isinstance(origin := get_origin(base), type) and issubclass(origin, Plugin):
                (config_type,) = get_args(base)
                if isinstance(config_type, type):
                    cls.config_type = config_type

    def __init__(self, config: C) -> None:
        self.config = config

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def open(self) -> None:
        """Called once before the first message, in the process that will use the plugin: open what is kept open."""

    def close(self) -> None:
        """Called once after the last message."""

    def probe(self) -> Awaitable[str | None] | str | None:
        """Ask the other side whether it is there and takes the credential, and send it nothing: `siftbell check --connect`.

        Called once, after `open`; as `def` in a thread, as `async def` on an event loop on which a consumer's `aclose` is awaited
        afterwards. Give a short line about who answered (`@oncall_bot`, `PostgreSQL 15.19`); None where there is nothing to ask.
        Raise `TemporaryError` where it does not answer now, `PermanentError` where it refuses. No text holds a secret.
        """
        return None


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


class Memory(Protocol):
    """What a step may remember, and what may be forgotten: losing it costs a duplicate at worst, never a message.

    Each step sees its own keys only. Shared by all workers. Methods may raise `TemporaryError`.
    """

    def first(self, key: str, within: timedelta) -> bool:
        """Say whether this is the first call for `key` in the last `within`; such a call starts a new window."""

    def count(self, key: str, within: timedelta) -> int:
        """Count this call, and give how many there were for `key` since its window began; a window lasts `within`."""

    def remember(self, key: str, value: str, within: timedelta) -> None:
        """Keep a short text under `key` for `within`, in place of what was there."""

    def recall(self, key: str) -> str | None:
        """Give the text that is kept under `key`, or None."""

    def swap(self, key: str, old: str | None, new: str, within: timedelta) -> bool:
        """Keep `new` under `key` for `within` where `old` is kept there now, None: nothing; else change nothing. Say which.

        Nobody comes between the look and the change. Where it says no, `recall` gives what somebody else kept meanwhile.
        """

    def forget(self, key: str) -> None:
        """Forget what is known of `key`: the next `first` is true, the next `count` is 1, no text is kept, no member left."""

    def add(self, key: str, member: str, within: timedelta) -> Sequence[str]:
        """Make a short text a member of `key` for `within`, from now on anew, and give all there are now, in order of text.

        A key has a thousand members at most: then the one that would expire first goes.
        """

    def remove(self, key: str, member: str) -> None:
        """Let a text be no member of `key` any more."""

    def members(self, key: str) -> Sequence[str]:
        """Give the members of `key`, in order of text."""


class Results(Protocol):
    """What becomes of a consumer's deliveries, as `siftbell explain` shows it. Each step knows its own only."""

    def note(self, message: Message, reference: str, text: str) -> None:
        """Note what the other side calls this delivery, and a few words about it; it may say more later.

        A store that is away is told in the log: nobody gets a second message for it.
        """


@dataclass(frozen=True, slots=True)
class Told:
    """What another system says of a delivery, by the reference that it gave: `arrived` is None where that is still open."""

    reference: str
    text: str
    arrived: bool | None = None


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


class Consumer(Plugin[C]):
    """Tells another system of a message."""

    memory: Memory | None = None
    """The step's memory: what the other side called a message, to change it later. None outside of an engine: then nothing is
    remembered. Its methods block; call them through `asyncio.to_thread` in an `async def`."""

    results: Results | None = None
    """Where it notes what the other side calls a delivery. None outside of an engine. Its method blocks, as the memory's do."""

    @property
    def at_once(self) -> int | None:
        """How many calls it can have under way, where its options say so; a step's `concurrency:` may only say fewer.

        A call that waits in the plugin for its turn is one that takes long; what the engine holds back until then is not.
        """
        return None

    def called_back(self, request: Request) -> Iterable[Told]:  # noqa: ARG002 - for those who read it
        """Read what the other side posts to `/callback/{pipeline}/{consumer}` of deliveries. Called in the web process.

        Prove first who sent it: nothing else asks. Raise `RequestError` for what is not acceptable, which is answered so.
        """
        raise RequestError("this consumer expects no calls", status=404)

    @abstractmethod
    def consume(self, message: Message) -> Awaitable[None] | None:
        """Return when the other side has the message.

        Write it as `def` (called in a thread pool) or `async def` (called on the worker's one event loop); several
        calls are under way at once, as many as the step's `concurrency:`. Raise `TemporaryError` to have the message
        held and tried again (`retry:`), `PermanentError` to bury it; any other exception buries it with its traceback.
        """

    async def aclose(self) -> None:
        """Called on the event loop that `consume` ran on, before `close`: close what belongs to the loop."""

    def preview(self, message: Message) -> object:
        """Give what would be sent, for `siftbell try`: without secrets, without sending."""
        return {"title": message.title, "text": message.text}


Failures = Mapping[str, Exception]
"""By message id: why the other side does not have it; what is neither `TemporaryError` nor `PermanentError` is a bug."""


class BatchConsumer(Plugin[C]):
    """Tells another system of several messages at once, where the other side takes batches."""

    @classmethod
    def takes_batches(cls, config: C) -> bool:  # noqa: ARG003 - the options decide in subclasses
        """Say whether it is given several messages at once; False where the class is a `Consumer` too, and the options say so."""
        return True

    @abstractmethod
    def consume_many(self, messages: Sequence[Message]) -> Failures | Awaitable[Failures]:
        """Return when the other side has the messages, with an error for the id of each that it does not have.

        Called with up to 500 messages: as `def` in a thread pool, as `async def` on the worker's one event loop. An
        exception holds for all of them, as in `Consumer.consume`.
        """

    def preview(self, message: Message) -> object:
        """Give what would be sent, for `siftbell try`: without secrets, without sending."""
        return {"title": message.title, "text": message.text}


AnyConsumer = Consumer[Any] | BatchConsumer[Any]
