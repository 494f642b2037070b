"""The filter stage: runs a batch through consecutive filters in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from pipeline.engine.decisions import Decisions
from pipeline.engine.pipeline import Pipeline
from pipeline.errors import PermanentError, TemporaryError
from pipeline.message import Message, derived_id
from pipeline.plugin import AnyFilter, Memory, RememberingFilter, WindowFilter
from pipeline.spec.model import FilterStep, Retry
from pipeline.store.rows import Outcome, Record, Why

Remember = Callable[[FilterStep, Message], Memory]
"""Gives a filter step its memory, as it is asked for a message: one that comes again gets the same answer as before."""
Recall = Callable[[str, Sequence[str]], dict[str, Record]]
"""Gives what the record says of messages (by id) at a step."""


class FilterStage:
    """One pass of a batch through a pipeline's filters, as far as it goes without waiting or changing queues."""

    def __init__(self, pipeline: Pipeline, decisions: Decisions, *, remember: Remember, recall: Recall, attempt: int = 1) -> None:
        self._pipeline = pipeline
        self._decisions = decisions
        self._remember = remember
        self._recall = recall
        self._attempt = attempt

    def run(self, messages: Sequence[Message], after: str) -> tuple[list[Message], FilterStep | None]:
        """Give the messages that are left, and the filter with a queue of its own that they go to next, if there is one.

        Starts behind the filter labelled `after`. Dropped, held and buried messages go to the decisions.
        """
        left = list(messages)
        for index, step in enumerate(self._pipeline.filters_after(after)):
            if not left:
                break
            if index and step.queue:
                return left, step
            left = self._apply(step, left, self._attempt if index == 0 else 1)
        return left, None

    def _apply(self, step: FilterStep, messages: Sequence[Message], attempt: int) -> list[Message]:
        plugin = self._pipeline.filter_plugin(step)
        passed: list[Message] = []
        failed: list[tuple[Message, TemporaryError]] = []
        for message in messages:
            if step.when is not None and not step.when.matches(message):
                passed.append(message)
                continue
            try:
                passed += self._one(step, plugin, message)
            except TemporaryError as error:
                failed.append((message, error))
            except Exception as error:  # noqa: BLE001 - a bug in a plugin buries its message, never the batch
                self._decisions.bury(message, step.label, error, attempt=attempt)
        if failed:
            self._hold(step, failed, attempt)
        return passed

    def _one(self, step: FilterStep, plugin: AnyFilter, message: Message) -> list[Message]:
        if isinstance(plugin, WindowFilter):
            window = plugin.window(message, self._decisions.now)
            if window is None:
                return [message]
            self._decisions.hold(message, step.label, Why.WINDOW, window.due, key=window.key)
            self._decisions.record(message, step.label, Outcome.HELD, reason=f"until {window.due:%Y-%m-%d %H:%M:%S %Z}")
            return []
        if isinstance(plugin, RememberingFilter):
            return self._named(step, message, plugin.filter(message, self._remember(step, message)))
        return self._named(step, message, plugin.filter(message))

    def _named(self, step: FilterStep, parent: Message, out: Iterable[Message]) -> list[Message]:
        """Give what a filter made of a message its ids, and record what does not go on as itself."""
        messages = list(out)
        for message in messages:
            if not isinstance(message, Message):
                raise PermanentError(f"filter '{step.label}' yielded {type(message).__name__}, not a message")
        if not messages:
            self._decisions.record(parent, step.label, Outcome.DROPPED, reason=f"by {step.plugin} at {step.position}")
        elif len(messages) == 1:
            only = messages[0]
            return messages if only.id == parent.id else [only.replace(id=parent.id)]
        else:
            self._decisions.record(parent, step.label, Outcome.REPLACED, reason=f"split into {len(messages)}")
        return [part.replace(id=derived_id(parent.id, step.label, index)) for index, part in enumerate(messages)]

    def _hold(self, step: FilterStep, failed: Sequence[tuple[Message, TemporaryError]], attempt: int) -> None:
        known = self._recall(step.label, [message.id for message, _ in failed])
        for message, error in failed:
            since: datetime | None = known[message.id].since if message.id in known else None
            self._decisions.fail(message, step.label, error, why=Why.FILTER, retry=Retry(), attempt=attempt, since=since)
