"""Where messages go: what a consumer promises, and what the engine promises it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import RequestError
from pipeline.message import Message
from pipeline.plugin.memory import Memory
from pipeline.plugin.plugin import C, Plugin
from pipeline.request import Request


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
