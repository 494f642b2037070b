"""The filter stage: runs a batch through consecutive filters in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from pipeline.engine.batch import refuse_unreadable
from pipeline.engine.decisions import Decisions
from pipeline.engine.parts import apart
from pipeline.engine.pipeline import Pipeline
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message, derived_id
from pipeline.plugin import Buried, Dropped, Memory, RememberingFilter, WindowFilter
from pipeline.spec.model import FilterStep, Retry
from pipeline.store.rows import Outcome, Record, Why
from pipeline.text import shorten

MOST_OF_REASON: Final = 500
"""Characters of what a filter says when it drops a message."""
Remember = Callable[[FilterStep, Message], Memory]
"""Gives a filter step its memory, as it is asked for a message: one that comes again gets the same answer as before."""
Recall = Callable[[str, Sequence[str]], dict[str, Record]]
"""Gives what the record says of messages (by id) at a step."""
Lost = Callable[[str], bool]
"""Says of a message of the pipeline, by its id, whether it has ended without reaching any consumer."""


class FilterStage:
    """One pass of a batch through a pipeline's filters, as far as it goes without waiting or changing queues.

    `attempt` is that of the first filter, or with `whole` of all of them: where one fails, the pass is made again from its start.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        decisions: Decisions,
        *,
        remember: Remember,
        recall: Recall,
        lost: Lost,
        attempt: int = 1,
        whole: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._decisions = decisions
        self._remember = remember
        self._recall = recall
        self._lost = lost
        self._attempt = attempt
        self._whole = whole
        self._last = pipeline.spec.filters[-1] if pipeline.spec.filters else None
        self._unproven: dict[str, tuple[FilterStep, int, Message]] = {}
        """By id of what the last filter changed: that filter, the attempt, and the message as it was."""

    def run(self, messages: Sequence[Message], after: str) -> tuple[list[Message], FilterStep | None]:
        """Give the messages that are left, and the filter with a queue of its own that they go to next, if there is one.

        Starts behind the filter labelled `after`. Dropped, held and buried messages go to the decisions. What the last filter
        changed may be such as nobody can read again: `proven` tells, or whoever writes all of them (`engine.written`).
        """
        left = list(messages)
        for index, step in enumerate(self._pipeline.filters_after(after)):
            if not left:
                break
            if index and step.queue:
                return left, step
            left = self._apply(step, left, self._attempt if index == 0 or self._whole else 1)
        return left, None

    def proven(self, messages: Sequence[Message]) -> list[Message]:
        """Give those that can be read again behind the queue; the others are buried as they were before the last filter."""
        readable = []
        for message in messages:
            if message.id not in self._unproven:
                readable.append(message)
                continue
            step, attempt, before = self._unproven[message.id]
            try:
                readable += checked(step.label, [message], known=[before])
            except Exception as error:  # noqa: BLE001 - a bug in a plugin buries its message, never the batch
                self._decisions.bury(before, step.label, error, attempt=attempt)
        return readable

    def _apply(self, step: FilterStep, messages: Sequence[Message], attempt: int) -> list[Message]:
        passed: list[Message] = []
        failed: list[tuple[Message, TemporaryError]] = []
        work = self._work(step, attempt)
        for message in messages:
            if step.when is not None and not step.when.matches(message):
                passed.append(message)
                continue
            try:
                passed += work(message)
            except TemporaryError as error:
                failed.append((message, error))
            except Exception as error:  # noqa: BLE001 - a bug in a plugin buries its message, never the batch
                self._decisions.bury(message, step.label, error, attempt=attempt)
        if failed:
            self._hold(step, failed, attempt)
        return passed

    def _work(self, step: FilterStep, attempt: int) -> Callable[[Message], list[Message]]:
        """Give what a step does with each message: it gives those that go on, or raises. The plugin is made ready here, once."""
        try:
            plugin = self._pipeline.filter_plugin(step)
        except Exception as error:  # noqa: BLE001 - what hinders a filter from opening may pass, and its messages wait for that
            return partial(_raise, TemporaryError(f"the filter could not be opened: {type(error).__name__}: {error}"))
        if isinstance(plugin, WindowFilter):
            return partial(self._held_back, step, plugin, attempt)
        if isinstance(plugin, RememberingFilter):
            plugin.lost = self._lost
            return lambda message: self._named(step, attempt, message, plugin.filter(message, self._remember(step, message)))
        return lambda message: self._named(step, attempt, message, plugin.filter(message))

    def _held_back(self, step: FilterStep, plugin: WindowFilter[Any], attempt: int, message: Message) -> list[Message]:
        window = plugin.window(message, self._decisions.now, self._remember(step, message))
        if window is None:
            return [message]
        if isinstance(window, Message | Dropped):
            return self._named(step, attempt, message, [window])
        _refuse_unusable(step, window)
        reason = until(window.due)
        if window.message is not None:
            (waits,) = checked(step.label, [window.message], known=[message])
            if waits.id != message.id:
                self._decisions.record(message, step.label, Outcome.REPLACED, reason=f"waits {reason}", became=[waits])
            message = waits
        self._decisions.hold(message, step.label, Why.WINDOW, window.due, key=window.key, attempt=attempt)
        since = self._failing_since(step, [message])[message.id] if attempt > 1 else None
        self._decisions.record(message, step.label, Outcome.HELD, reason=reason, attempt=attempt, since=since)
        return []

    def _named(self, step: FilterStep, attempt: int, parent: Message, out: Iterable[Message | Dropped | Buried]) -> list[Message]:
        """Give what a filter made of a message its ids, and record what does not go on as itself."""
        given = list(out)
        if len(given) == 1:
            only = given[0]
            if only is parent:
                return [parent]
            if step is self._last and type(only) is Message and only.id == parent.id:
                self._unproven[parent.id] = (step, attempt, parent)
                return [only]
        messages, reasons = apart(given)
        messages = checked(step.label, messages, known=[parent])
        if not messages:
            why = next((one.reason for one in given if isinstance(one, Dropped)), "")
            reason = self._decisions.mask(dropped_by(step, why))
            self._decisions.record(parent, step.label, Outcome.DROPPED, reason=reason)
        elif len(messages) == 1:
            only = messages[0]
            return messages if only.id == parent.id else [only.replace(id=parent.id)]
        parts = [part.replace(id=derived_id(parent.id, step.label, index)) for index, part in enumerate(messages)]
        if parts:
            reason = f"split into {len(parts)} by {step.plugin} at {step.position}"
            self._decisions.record(parent, step.label, Outcome.REPLACED, reason=reason, became=parts)
        for index, why in reasons.items():
            self._decisions.bury(parts[index], step.label, why)
        return [part for index, part in enumerate(parts) if index not in reasons]

    def _hold(self, step: FilterStep, failed: Sequence[tuple[Message, TemporaryError]], attempt: int) -> None:
        known = self._failing_since(step, [message for message, _ in failed])
        for message, error in failed:
            since = known[message.id]
            self._decisions.fail(message, step.label, error, why=Why.FILTER, retry=Retry(), attempt=attempt, since=since)

    def _failing_since(self, step: FilterStep, messages: Sequence[Message]) -> dict[str, datetime | None]:
        """Give by message id since when the step has been failing for it; waiting in a window again does not end that."""
        known = self._recall(step.label, [message.id for message in messages])
        return {message.id: known[message.id].since if message.id in known else None for message in messages}


def until(due: datetime) -> str:
    """Say until when a message is held."""
    return f"until {due:%Y-%m-%d %H:%M:%S %Z}"


def dropped_by(step: FilterStep, why: str) -> str:
    """Say which filter dropped a message, and why where it told."""
    return f"by {step.plugin}{': ' if why else ''}{shorten(' '.join(why.split()), MOST_OF_REASON)} at {step.position}"


def checked(label: str, out: Iterable[Message], *, known: Sequence[Message]) -> list[Message]:
    """Give what a filter let out; raises `PermanentError` where that has something else than messages that can be kept."""
    messages = list(out)
    for message in messages:
        if any(message is one for one in known):
            continue
        try:
            refuse_unreadable(message)
        except PermanentError as error:
            raise PermanentError(f"filter '{label}' yielded {error}") from error
    return messages


def _raise(error: TemporaryError, _message: Message) -> list[Message]:
    raise error


def _refuse_unusable(step: FilterStep, window: object) -> None:
    """Raise `PermanentError` for what a window filter gave as a window, and the store could not keep."""
    key, due = getattr(window, "key", None), getattr(window, "due", None)
    if not isinstance(key, str) or not isinstance(due, datetime):
        raise PermanentError(f"filter '{step.label}' gave something else than a window")
    if due.tzinfo is None:
        raise PermanentError(f"filter '{step.label}' gave a window whose due time has no zone")
