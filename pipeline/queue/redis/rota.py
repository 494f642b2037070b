"""Which queues a claim asks: those that may have something, and a few of the others in turn.

A command that asks a thousand queues takes milliseconds, whatever it finds, and there are many of them a second.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

AT_ONCE: Final = 64
"""Queues asked by one claim. Up to so many are asked every time."""
OTHERS: Final = 16
"""How many of those are asked without a reason, at least: something may have come that rang no bell."""


class Rota:
    """Takes down which queues may have something, and says which ones are asked next. `bell` is what all bells begin with."""

    def __init__(self, bell: str) -> None:
        self._bell = bell
        self._likely: dict[str, None] = {}
        self._turn = 0

    @property
    def waiting(self) -> bool:
        """Whether there are queues that may have something and were not asked."""
        return bool(self._likely)

    def heard(self, channel: str) -> None:
        """Note that a queue may have something, as its bell rang or is listened to from now on; other channels are no bells."""
        if channel.startswith(self._bell):
            self._likely.setdefault(channel.removeprefix(self._bell))

    def choose(self, queues: Collection[str]) -> list[str]:
        """Give the queues to ask of those that are consumed, in the order in which they are to be served."""
        names = list(queues)
        if len(names) <= AT_ONCE:
            self._likely.clear()
            self._turn = (self._turn + 1) % len(names)
            return names[self._turn :] + names[: self._turn]
        for name in [name for name in islice(self._likely, AT_ONCE) if name not in queues]:
            del self._likely[name]  # its bell is heard when it is consumed again
        chosen = list(islice(self._likely, AT_ONCE - OTHERS))
        others = islice(cycle(names), self._turn, self._turn + AT_ONCE - len(chosen))
        self._turn = (self._turn + AT_ONCE - len(chosen)) % len(names)
        return list(dict.fromkeys([*chosen, *others]))

    def asked(self, queues: Sequence[str], found: Collection[str], *, all_of_it: bool) -> None:
        """Note what asking these queues gave: messages of those in `found`, and whether that was all they had.

        Where there was more, those behind the last that had something were not reached; those before it had nothing.
        """
        reached = queues if all_of_it else queues[: max((queues.index(name) + 1 for name in found), default=0)]
        for name in reached:
            self._likely.pop(name, None)
        if not all_of_it:
            self._likely.update(dict.fromkeys(found))
