"""The load: senders on HTTP connections that stay open, each posting arrays of messages and noting what was accepted."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import Any, Self

from harness.ledger import Ledger, Sent

THREADS = 6
LARGEST = 20
"""Messages in one request at most."""
KEYS = 3
"""Keys of each sender, so that the messages of a key come one after the other."""
DROPPED_SHARE = 0.05
_PAUSE = 0.1


class Load:
    """Posts until `count` messages are accepted, spread over about `seconds`. Use it as a context manager.

    A request that got no answer is not repeated: whether it was accepted nobody knows, and the ledger does not ask for it.
    """

    def __init__(self, url: str, key: str, ledger: Ledger, *, count: int, seconds: float, seed: str) -> None:
        self.answers: Counter[str] = Counter()
        """How often which status was answered, or which error there was in its place."""
        self.refused: list[str] = []
        """Answers that no fault explains: neither 2xx nor 503."""
        self._host = url.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._ledger = ledger
        self._count = count
        self._pause = seconds * THREADS * (LARGEST + 1) / 2 / count
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def done(self) -> bool:
        """Whether all is accepted."""
        return self._ledger.accepted >= self._count

    def finish(self, within: float) -> None:
        """Wait until all is accepted, or the time is up."""
        end = time.monotonic() + within
        while not self.done and time.monotonic() < end:
            time.sleep(0.05)
        self.__exit__()

    def _send(self, sender: int) -> None:
        chance = random.Random(f"{self._seed}/{sender}")
        numbers: Counter[str] = Counter()
        connection = HTTPConnection(self._host, timeout=20)
        due = time.monotonic() + chance.uniform(0, self._pause)
        while not self._stop.wait(max(0.0, due - time.monotonic())) and not self.done:
            due = max(due + self._pause, time.monotonic() - 5)
            sent = [self._next(chance, numbers, sender) for _ in range(chance.randint(1, LARGEST))]
            if not self._post(connection, sent):
                self._stop.wait(_PAUSE)
        connection.close()

    def _next(self, chance: random.Random, numbers: Counter[str], sender: int) -> Sent:
        key = f"{self._seed}/{sender}/{chance.randrange(KEYS)}"
        numbers[key] += 1
        return Sent(key, numbers[key], wanted=chance.random() >= DROPPED_SHARE)

    def _post(self, connection: HTTPConnection, sent: list[Sent]) -> bool:
        began = time.monotonic()
        try:
            connection.request("POST", "/in/faults/http", json.dumps([_payload(one) for one in sent]), self._headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, HTTPException) as error:
            connection.close()
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(answer.status)] += 1
        if 200 <= answer.status < 300:
            self._ledger.accept(json.loads(text)["ids"], sent, began)
            return True
        if answer.status != 503:
            self.refused.append(f"{answer.status}: {text[:300].decode(errors='replace')}")
        return False


def _payload(sent: Sent) -> dict[str, Any]:
    return {
        "title": f"number {sent.number} of {sent.key}",
        "text": "something is amiss on one of the machines, and here is what is known of it " * 4,
        "severity": "info" if sent.wanted else "debug",
        "labels": {"host": "db-1", "team": "storage"},
        "key": sent.key,
        "number": sent.number,
    }
