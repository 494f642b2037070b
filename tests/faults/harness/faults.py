"""The faults: what each breaks, for how long, and how it is undone."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from random import Random
from time import sleep
from typing import Final

from harness.bench import PARTS, Bench, Combination
from harness.disk import Disk
from harness.pipelines import BAD, SINKS
from harness.processes import send, until
from harness.proxy import Proxy
from harness.servers import Server
from harness.sink import Mood

FULL_FREEZE: Final = 20.0
"""Seconds for which things are frozen, full or away in the long form."""


class Fault(ABC):
    """One way to break things. `events`: how often it may have interrupted what was under way; `holds`: its length in seconds."""

    name: str
    holds = 0.0
    events = 1
    held_up: tuple[str, ...] = ()
    """Consumers that the fault itself keeps from receiving."""

    def why_not(self, combination: Combination) -> str:
        """Say why it cannot be with a combination; empty where it can."""
        return ""

    @abstractmethod
    def inject(self, bench: Bench, chance: Random) -> None:
        """Break it. Raises `MissingError` where this machine does not allow that."""

    def undo(self, bench: Bench) -> None:  # noqa: B027 - what is killed, the product starts again itself
        """Mend it, as far as it does not mend itself."""


class KillPart(Fault):
    """Kills the process of a part; the supervisor starts another."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.name = f"kill -9: {part}"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Kill it, if it runs just now."""
        if pid := bench.parts().get(self.part):
            send([pid], signal.SIGKILL)


class KillChild(Fault):
    """Kills one of the processes that filter, under the worker's feet."""

    name = "kill -9: a filter process"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Kill any one of them."""
        if pids := bench.children("filters"):
            send([chance.choice(pids)], signal.SIGKILL)


class KillTree(Fault):
    """Kills the supervisor, which takes all of its parts along, or all at once; then it is started again."""

    name = "kill -9: supervisor (everything)"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Kill either the supervisor alone or every process."""
        bench.kill_tree(everything=chance.random() < 0.5)

    def undo(self, bench: Bench) -> None:
        """Start it again."""
        bench.launch_tree()


class ServerFault(Fault):
    """Something about the broker's or the store's server."""

    def __init__(self, which: str) -> None:
        self.which = which

    def why_not(self, combination: Combination) -> str:
        """Embedded queues and stores are files."""
        kind = combination.broker if self.which == "broker" else combination.store
        return "a file, no server" if kind == "sqlite" else ""

    def server(self, bench: Bench) -> Server:
        """Give the server."""
        found = bench.broker if self.which == "broker" else bench.store
        assert found is not None
        return found

    def proxy(self, bench: Bench) -> Proxy:
        """Give the proxy before it."""
        found = bench.broker_proxy if self.which == "broker" else bench.store_proxy
        assert found is not None
        return found


class KillServer(ServerFault):
    """Kills the server; it is started again on what it had written."""

    holds = 3.0

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.name = f"kill -9: {which}"

    def why_not(self, combination: Combination) -> str:
        """The stand-in of SQS keeps its messages in memory."""
        if self.which == "broker" and combination.broker == "sqs":
            return "the stand-in forgets its messages"
        return super().why_not(combination)

    def inject(self, bench: Bench, chance: Random) -> None:
        """Kill it."""
        self.server(bench).kill()

    def undo(self, bench: Bench) -> None:
        """Start it again."""
        self.server(bench).thaw()
        self.server(bench).start()


class Freeze(ServerFault):
    """Stops the server by SIGSTOP: connections stay open, and nothing answers."""

    holds = FULL_FREEZE

    def __init__(self, which: str) -> None:
        super().__init__(which)
        self.name = f"frozen by SIGSTOP: {which}"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Stop it."""
        self.server(bench).freeze()

    def undo(self, bench: Bench) -> None:
        """Let it go on."""
        self.server(bench).thaw()


class Lock(Fault):
    """Somebody else holds the lock of the embedded queue's or store's file: what a frozen server is to the others."""

    holds = FULL_FREEZE

    def __init__(self, which: str) -> None:
        self.which = which
        self.name = f"frozen by a lock: {which}"
        self._connection: sqlite3.Connection | None = None

    def why_not(self, combination: Combination) -> str:
        """Servers are frozen by SIGSTOP."""
        kind = combination.broker if self.which == "broker" else combination.store
        return "" if kind == "sqlite" else "a server, no file"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Begin a transaction and keep it open."""
        file = bench.queue_file if self.which == "broker" else bench.store_file
        self._connection = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("BEGIN IMMEDIATE")

    def undo(self, bench: Bench) -> None:
        """End the transaction."""
        if self._connection is not None:
            self._connection.execute("ROLLBACK")
            self._connection.close()
            self._connection = None


class Connections(ServerFault):
    """Trouble with the connections to a server, by the proxy before it."""

    holds = 10.0

    def __init__(self, which: str, trouble: str) -> None:
        super().__init__(which)
        self.trouble = trouble
        self.name = f"connections {trouble}: {which}"
        self.events = 5 if trouble in {"cut", "half-closed"} else 1

    def inject(self, bench: Bench, chance: Random) -> None:
        """Begin it; cuts and half-closings come several times."""
        proxy = self.proxy(bench)
        match self.trouble:
            case "delayed":
                proxy.become("delays")
            case "refused":
                proxy.become("refuses")
            case "frozen":
                proxy.become("freezes")
            case _:
                for _ in range(self.events):
                    proxy.cut() if self.trouble == "cut" else proxy.half_close()
                    sleep(chance.uniform(0.05, 0.5))

    def undo(self, bench: Bench) -> None:
        """Pass everything on again."""
        self.proxy(bench).become("none")


class ConsumerFault(Fault):
    """A consumer's other side does not do what it should."""

    holds = FULL_FREEZE
    events = 0

    def __init__(self, mood: Mood, words: str) -> None:
        self.mood = mood
        self.name = f"consumer {words}"

    def inject(self, bench: Bench, chance: Random) -> None:
        """Change the mood of either."""
        self.held_up = (chance.choice(SINKS),)
        bench.sinks[self.held_up[0]].become(self.mood)

    def undo(self, bench: Bench) -> None:
        """Have it take messages again."""
        bench.sinks[self.held_up[0]].become("takes")


class DiskFull(Fault):
    """No room is left under the store or the embedded queue."""

    holds = 8.0

    def __init__(self, which: str) -> None:
        self.which = which
        self.name = f"disk full: {which}"

    def why_not(self, combination: Combination) -> str:
        """Servers that queue keep their files elsewhere."""
        return "" if self.which == "store" or combination.broker == "sqlite" else "no embedded queue"

    def disk(self, bench: Bench) -> Disk:
        """Give the disk."""
        return bench.store_disk if self.which == "store" else bench.queue_disk

    def inject(self, bench: Bench, chance: Random) -> None:
        """Fill it to the last byte."""
        self.disk(bench).fill()

    def undo(self, bench: Bench) -> None:
        """Make room; PostgreSQL gives up without a log to write to, and whoever runs it starts it again."""
        self.disk(bench).clear()
        if self.which == "store" and bench.store is not None:
            bench.store.start()


class RollingRestart(Fault):
    """Asks every part to end, one after the other, each when the one before it runs again."""

    name = "SIGTERM: rolling restart of every part"
    events = 0

    def inject(self, bench: Bench, chance: Random) -> None:
        """Go round once, in any order."""
        order = sorted(PARTS)
        chance.shuffle(order)
        for part in order:
            old = bench.parts().get(part)
            if old is None:
                continue
            send([old], signal.SIGTERM)
            until(lambda part=part, old=old: bench.parts().get(part) not in {None, old}, f"{part} is started again", 90)  # type: ignore[misc] # mypy cannot infer a lambda with defaults


class TwoClocks(Fault):
    """A second clock runs beside the tree's; then either is killed."""

    name = "two clocks, one killed"
    holds = 4.0

    def __init__(self) -> None:
        self._second: subprocess.Popen[bytes] | None = None

    def inject(self, bench: Bench, chance: Random) -> None:
        """Start the second, and let messages be held: a consumer answers 500 for as long."""
        with (bench.place / "second-clock.log").open("ab") as log:
            self._second = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "clock"],
                env={**bench.environment(), "SIFTBELL_PART": "second clock"},
                cwd=bench.place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        bench.sinks["alpha"].become("500")
        self._chosen = chance.random() < 0.5

    def undo(self, bench: Bench) -> None:
        """Kill one of them; the second ends with the fault."""
        bench.sinks["alpha"].become("takes")
        first = bench.parts().get("clock")
        if self._second is None:
            return
        if self._chosen and first:
            send([first], signal.SIGKILL)
            self._second.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._second.wait(20)
        self._second.kill()
        self._second.wait()
        self._second = None


class BadConfiguration(Fault):
    """Somebody saves a file that cannot be read, and a part is killed before it is mended."""

    name = "bad configuration, then a part is killed"
    holds = 5.0

    def inject(self, bench: Bench, chance: Random) -> None:
        """Write the bad file, and kill any part."""
        bench.write_config(BAD)
        running = bench.parts()
        if running:
            send([running[chance.choice(sorted(running))]], signal.SIGKILL)

    def undo(self, bench: Bench) -> None:
        """Write the good one."""
        bench.write_config()
        bench.launch_tree()


def all_faults() -> list[Fault]:
    """Give all of them, in the order of the table."""
    both = ("broker", "store")
    return [
        *(KillPart(part) for part in ("web", "filters", "deliveries", "clock")),
        KillChild(),
        KillTree(),
        *(KillServer(which) for which in both),
        *(Freeze(which) for which in both),
        *(Lock(which) for which in both),
        *(Connections(which, trouble) for which in both for trouble in ("cut", "half-closed", "delayed", "refused", "frozen")),
        ConsumerFault("hangs", "hangs"),
        ConsumerFault("500", "answers 500"),
        ConsumerFault("429", "answers 429 with Retry-After"),
        ConsumerFault("cuts", "breaks off its answers"),
        ConsumerFault("refuses", "refuses connections"),
        *(DiskFull(which) for which in ("store", "queue")),
        RollingRestart(),
        TwoClocks(),
        BadConfiguration(),
    ]
