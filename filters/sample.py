"""Passes a part of the messages, as a sample of them: a share by chance, or the first and then every so many of a key.

`share: 0.1` passes a tenth. What decides is the message's id, or the fields that `by` names: of those that agree in them all
pass or none, so that `by: key` keeps an alert and its end together. That costs no memory, and two steps with the same `share`
choose the same messages.

`every: 10` passes the first of each key and then each tenth; the key is what `by` names, without it all messages are one. After
`within` without any message of a key its count begins anew, and so it does where what is remembered gets lost.

```yaml
name: a-tenth-of-the-noise
producers:
  - http
filters:
  - sample: 0.1
    when: severity == "debug"
  - sample: {every: 10, by: [source, title], within: 1h}
    when: severity == "info"
consumers:
  - log
```
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import ClassVar, Final, Self

import msgspec
from pydantic import Field, model_validator

from pipeline import By, Config, Dropped, Duration, Memory, Message, RememberingFilter, TemporaryError

TRIES: Final = 1000
"""Each try that fails means that another worker has counted a message."""
MOST_PASSED: Final = 10
"""So many of those that passed last are known when they come again, as their worker died."""


class SampleConfig(Config):
    """The options of `sample`."""

    shorthand: ClassVar[str | None] = "share"

    share: float | None = Field(default=None, gt=0, lt=1, description="The share that passes, such as 0.1 for a tenth.")
    every: int | None = Field(default=None, ge=2, description="Pass the first, and then each message of this number.")
    by: By | None = Field(
        default=None, description="With every: fields whose values have a count of their own. With share: fields that decide."
    )
    within: Duration = Field(
        default=timedelta(days=1), gt=timedelta(), description="With every: how long without a message until it begins anew."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.share is None) == (self.every is None):
            raise ValueError("one of share and every is required")
        if self.share is not None and "within" in self.model_fields_set:
            raise ValueError("within belongs to every")
        return self


class _Count(msgspec.Struct, frozen=True, array_like=True):
    number: int = 0
    passed: list[str] = []
    """Digests of those that passed last."""


class Sample(RememberingFilter[SampleConfig]):
    """Passes a part of the messages, as a sample of them."""

    def filter(self, message: Message, memory: Memory) -> Iterable[Message | Dropped]:
        """Pass or drop the message; with a share always alike, with a count alike for those that passed."""
        config = self.config
        if config.every is not None:
            number = self._number(message, memory, config.every)
            yield message if number == 0 else Dropped(f"number {number + 1} of {config.every}, of which the first passes")
        elif config.share is not None:
            decides = config.by.key(message) if config.by else message.id
            chosen = int.from_bytes(_digest(decides, 8)) < config.share * 2**64
            yield message if chosen else Dropped(f"not in the sample of {config.share:g}")

    def _number(self, message: Message, memory: Memory, every: int) -> int:
        """Count the message; give its number from the last one that passed on, which has 0."""
        key = self.config.by.key(message) if self.config.by else ""
        digest = base64.b64encode(_digest(message.id, 9)).decode()
        for _ in range(TRIES):
            known = memory.recall(key)
            there = _read(known)
            if digest in there.passed:
                return 0
            number = there.number % every
            passed = there.passed if number else [*there.passed[1 - MOST_PASSED :], digest]
            after = _Count(number + 1, passed)
            if memory.swap(key, known, msgspec.json.encode(after).decode(), self.config.within):
                return number
        raise TemporaryError("too many messages at once: none could be counted")


def _read(known: str | None) -> _Count:
    try:
        return _Count() if known is None else msgspec.json.decode(known, type=_Count)
    except msgspec.DecodeError:  # another version wrote it otherwise
        return _Count()


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()
