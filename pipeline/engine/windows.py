"""How a window that is due is opened: its filter says what leaves it, what stays in it, and what is kept for its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import structlog

from pipeline.by import KEY_OF_ALL
from pipeline.engine.batch import refuse_unreadable
from pipeline.engine.decisions import MOST_NAMED, Decisions
from pipeline.engine.filtering import checked, dropped_by, until
from pipeline.engine.pipeline import Pipeline, UnknownStepError
from pipeline.errors import PermanentError, TemporaryError
from pipeline.memory import MemoryBackend
from pipeline.message import Message, derived_id
from pipeline.plugin import Dropped, Keep, Opened, Stay, WindowFilter
from pipeline.spec.model import FilterStep, Retry
from pipeline.store import Claim, Held, Outcome, Store, Why

log = structlog.get_logger()

KEPT: Final = "kept"
"""The type of the message that bears, as its data, what a filter keeps for a key. It never leaves the window."""
_PLUGIN: Final = "plugin"
"""The label of such a message that says whose value it is."""
AFTER_FAILURE: Final = timedelta(seconds=30)
"""When a key is opened again whose filter has failed: what it keeps waits on."""


@dataclass(slots=True)
class Opening:
    """What came of opening a window."""

    revision: str
    """The configuration's under which the last of its messages was accepted."""
    left: list[Message] = field(default_factory=list)
    """What goes on behind the filter, with its ids."""
    again: list[Held] = field(default_factory=list)
    """What is held in place of the claims, as soon as what left is on the queue."""


@dataclass(slots=True)
class _Said:
    """What the filter yielded."""

    left: list[Message] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    """Why, by message id; with an empty id for all that do not leave."""
    stays: dict[str, datetime] = field(default_factory=dict)
    kept: Keep | None = None


def open_windows(
    pipeline: Pipeline, windows: Sequence[Sequence[Claim]], store: Store, memory: MemoryBackend, now: datetime
) -> list[Opening]:
    """Open windows of one filter, each given as its claims; its error buries their messages, or has them filtered again.

    Decisions are in the store when it returns, in one transaction, which takes longer than all else about a small window. Raises
    `UnknownStepError` where the pipeline has no such filter any more.
    """
    held = windows[0][0].held
    step = next((step for step in pipeline.spec.filters if step.label == held.step), None)
    if step is None or not issubclass(step.type, WindowFilter):
        raise UnknownStepError(f"pipeline '{held.pipeline}' has no filter '{held.step}' that waits any more")
    openings, together = [], Decisions(held.pipeline, held.revision, now, pipeline.mask)
    for claims in windows:
        decisions = Decisions(held.pipeline, claims[-1].held.revision, now, pipeline.mask)
        openings.append(_Window(pipeline, step, claims, decisions).open(store, memory))
        together.add(decisions)
    together.settle(store)
    return openings


class _Window:
    """A window under its clock."""

    def __init__(self, pipeline: Pipeline, step: FilterStep, claims: Sequence[Claim], decisions: Decisions) -> None:
        self._pipeline, self._step, self._decisions = pipeline, step, decisions
        self._key = claims[0].held.key
        self._due = min(claim.held.due for claim in claims)
        self._waiting = {claim.held.message.id: claim.held for claim in claims if claim.held.why is not Why.KEPT}
        self._messages = [held.message for held in self._waiting.values()]
        self._kept = next((claim.held.message for claim in claims if claim.held.why is Why.KEPT), None)
        first, *others = [*self._waiting, *([self._kept.id] if self._kept else [])]
        self._anchor = (first, step.label, *others, f"{self._due:%Y-%m-%dT%H:%M:%S.%f}")

    def open(self, store: Store, memory: MemoryBackend) -> Opening:
        """Ask the filter, and record what it said of each message."""
        self._bury_what_another_kept()
        if not self._waiting and self._kept is None:
            return Opening(self._decisions.revision)
        asker = blake2b("/".join(self._anchor).encode(), digest_size=16).hexdigest()
        scoped = memory.scoped(self._pipeline.spec.name, self._step.label, asker)
        opened = Opened(
            key=self._key,
            messages=tuple(self._messages),
            kept=self._kept.data if self._kept else None,
            due=self._due,
            now=self._decisions.now,
            memory=scoped,
        )
        try:
            said = self._read(opened)
        except Exception as error:  # noqa: BLE001 - what a plugin raises is its messages' fate, never the clock's
            return self._failed(error, store)
        opening = Opening(self._decisions.revision, left=said.left)
        if said.kept is not None:
            opening.again.append(self._hold(self._state(said.kept), Why.KEPT, said.kept.due))
        opening.again += [self._hold(self._waiting[stays].message, Why.WINDOW, due) for stays, due in said.stays.items()]
        self._record(said)
        return opening

    def _bury_what_another_kept(self) -> None:
        """Give up what another plugin kept under the label that this one has now: this one could not read it, at no opening."""
        owner = self._kept.labels.get(_PLUGIN) if self._kept else None
        if self._kept is not None and owner not in (None, self._step.plugin):
            why = f"'{owner}' kept it, and filter '{self._step.label}' is '{self._step.plugin}' now"
            self._decisions.bury(self._kept, self._step.label, why)
            self._kept = None

    def _read(self, opened: Opened) -> _Said:
        """Sort what the filter yields; raises `PermanentError` for what cannot be."""
        try:
            plugin = self._pipeline.filter_plugin(self._step)
        except Exception as error:
            raise TemporaryError(f"the filter could not be opened: {type(error).__name__}: {error}") from error
        assert isinstance(plugin, WindowFilter)
        said, label = _Said(), self._step.label
        try:
            yielded: list[Any] = list(plugin.release(opened))
        except (SystemExit, KeyboardInterrupt) as error:  # from a plugin it would end the clock, and the next one as well
            raise PermanentError(f"the filter raised {type(error).__name__}: {error}") from error
        for one in yielded:
            if isinstance(one, Dropped):
                said.dropped[one.message.id if one.message else ""] = one.reason
            elif isinstance(one, Stay):
                if one.message.id not in self._waiting or one.due.tzinfo is None:
                    raise PermanentError(
                        f"filter '{label}' lets a message stay that did not wait, or until a time without a zone"
                    )
                said.stays[one.message.id] = one.due
            elif isinstance(one, Keep):
                if said.kept is not None or one.due.tzinfo is None:
                    raise PermanentError(f"filter '{label}' keeps more than one value, or until a time without a zone")
                refuse_unreadable(self._state(one))
                said.kept = one
            else:
                said.left.append(one)
        said.left = self._named(checked(label, said.left, known=self._messages))
        return said

    def _named(self, left: Sequence[Message]) -> list[Message]:
        """Give what leaves its ids.

        The id of what was made of several messages comes from all of them. When the same messages come back with a
        newcomer, as their clock died, what is made of them then is another message, or the newcomer would pass for delivered.
        """
        return [
            message
            if (held := self._waiting.get(message.id)) is not None and held.message == message
            else message.replace(id=derived_id(*self._anchor, index))
            for index, message in enumerate(left)
        ]

    def _state(self, kept: Keep) -> Message:
        first, label, *_ = self._anchor
        kept_id = self._kept.id if self._kept else derived_id(first, label, KEPT)
        return Message(
            id=kept_id,
            source=self._step.label,
            type=KEPT,
            time=self._decisions.now,
            labels={_PLUGIN: self._step.plugin},
            data=kept.value,
        )

    def _hold(self, message: Message, why: Why, due: datetime) -> Held:
        decisions = self._decisions
        return Held(
            message=message,
            pipeline=decisions.pipeline,
            step=self._step.label,
            why=why,
            due=due,
            key=self._key,
            attempt=self._waiting[message.id].attempt if message.id in self._waiting else 1,
            revision=decisions.revision,
        )

    def _record(self, said: _Said) -> None:
        """Record of each message whether it stays, has left, and as what; what has left is not held there again."""
        left = said.left
        itself = {message.id for message in left}
        made = [message for message in left if message.id not in self._waiting]
        count = len(self._waiting) - len(said.stays) - (len(left) - len(made) if made else 0)
        made = made or left
        named = made[
            : max(1, MOST_NAMED * MOST_NAMED // max(1, count))
        ]  # or many that leave as many would fill the store with ids
        for held in self._waiting.values():
            message, record, label = held.message, self._decisions.record, self._step.label
            why = said.dropped.get(message.id)
            if message.id in itself:
                record(message, label, Outcome.PASSED, reason="left the window as itself", attempt=held.attempt)
            elif message.id in said.stays:
                record(message, label, Outcome.HELD, reason=until(said.stays[message.id]), attempt=held.attempt)
                self._decisions.is_patient(message, label)
            elif why is None and left:
                among = f"with {count - 1} more " if count > 1 else ""
                reason = f"left the window {among}as {len(made)} message{'' if len(made) == 1 else 's'}"
                record(message, label, Outcome.REPLACED, reason=reason, attempt=held.attempt, became=named)
            elif why is None and said.kept is not None and "" not in said.dropped:
                state = self._state(said.kept)
                key = "" if self._key in ("", KEY_OF_ALL) else f" for '{self._key}'"
                reason = f"kept{key}, {until(said.kept.due)}"
                record(message, label, Outcome.REPLACED, reason=reason, attempt=held.attempt, became=[state])
            else:
                why = why or said.dropped.get("") or "nothing left the window"
                reason = self._decisions.mask(dropped_by(self._step, why))
                record(message, label, Outcome.DROPPED, reason=reason, attempt=held.attempt)
        self._record_kept(said)

    def _record_kept(self, said: _Said) -> None:
        label, left = self._step.label, said.left
        if said.kept is not None:
            state = self._state(said.kept)
            self._decisions.record(state, label, Outcome.HELD, reason=until(said.kept.due), became=left)
            self._decisions.is_patient(state, label)
        elif self._kept is not None:
            outcome = Outcome.REPLACED if left else Outcome.DROPPED
            self._decisions.record(self._kept, label, outcome, reason=f"by {self._step.plugin}: nothing is kept", became=left)

    def _failed(self, error: Exception, store: Store) -> Opening:
        """Bury the messages, or hold them to be filtered again; what was kept for the key stays, and is due a little later."""
        known = store.records(self._decisions.pipeline, self._step.label, [*self._waiting])
        for held in self._waiting.values():
            since = known[held.message.id].since if held.message.id in known else None
            self._decisions.fail(held.message, held.step, error, why=Why.FILTER, retry=Retry(), attempt=held.attempt, since=since)
        if self._kept is None:
            return Opening(self._decisions.revision)
        words = {"pipeline": self._decisions.pipeline, "step": self._step.label}
        log.error("a window could not be opened", **words, error=self._decisions.mask(str(error)))
        return Opening(self._decisions.revision, again=[self._hold(self._kept, Why.KEPT, self._decisions.now + AFTER_FAILURE)])
