"""Who is there at a moment: the receiver of a message, a deputy, or nobody until some hours begin."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from filters.hours.options import HoursConfig
from pipeline import Memory, Message, OpeningHours, PermanentError

_DEPUTY_KNOWN: Final = timedelta(days=7)


class Staff:
    """Those for whom messages are, and their deputies."""

    def __init__(self, config: HoursConfig) -> None:
        self._config = config
        self._label = config.by.removeprefix("labels.")
        self._all = config.hours_of(None)
        self._own = {name: config.hours_of(name) for name in config.people}
        self._deputies = bool(config.deputy or any(person.deputy for person in config.people.values()))

    def receiver(self, message: Message) -> str:
        """Give for whom a message is, "" where it does not say so."""
        return message.labels.get(self._label, "")

    def hours(self, message: Message) -> OpeningHours:
        """Give the hours of a message's receiver."""
        return self._own.get(self.receiver(message), self._all)

    def find(self, message: Message, now: datetime, memory: Memory) -> Message | datetime:
        """Give the message for who is there now, or when the first of those begins who can get it."""
        if message.status == "resolved" and (told := self._told(message, memory)):
            return self._for(told, message)
        receiver = self.receiver(message)
        openings: list[datetime] = []
        for name in self._line(receiver):
            hours = self._all if name == receiver else None
            hours = self._own.get(name, hours)
            opening = now if hours is None else hours.opening(now)
            if opening is not None and opening <= now:
                self._remember(message, name, memory)
                return self._for(name, message)
            openings += [opening] if opening is not None else []
        if not openings:
            raise PermanentError("no hours begin within a year")
        return min(openings)

    def _line(self, receiver: str) -> Iterator[str]:
        """Give the receiver, that one's deputy, and so on; nobody twice. A deputy who is not among `people` has none."""
        person = self._config.people.get(receiver)
        seen, name = [receiver], (person.deputy if person else None) or self._config.deputy
        yield receiver
        while name is not None and name not in seen:
            yield name
            seen.append(name)
            person = self._config.people.get(name)
            name = (person.deputy or self._config.deputy) if person else None

    def _told(self, message: Message, memory: Memory) -> str | None:
        return memory.recall(self._case(message)) if self._deputies and message.key else None

    def _remember(self, message: Message, name: str, memory: Memory) -> None:
        """Note which deputy is told of a firing, so that the resolve goes there as well."""
        if not self._deputies or not message.key or message.status == "resolved":
            return
        if name != self.receiver(message):
            memory.remember(self._case(message), name, _DEPUTY_KNOWN)
        elif memory.recall(self._case(message)) is not None:
            memory.forget(self._case(message))

    def _case(self, message: Message) -> str:
        """Name what a receiver is told of: others may be told of the same key."""
        return msgspec.json.encode([self.receiver(message), message.key]).decode()

    def _for(self, name: str, message: Message) -> Message:
        receiver = self.receiver(message)
        if name == receiver:
            return message
        whose = {"deputy_for": receiver} if receiver else {}
        return message.replace(labels={**message.labels, self._label: name, **whose})
