"""The supervisor with small real processes as its parts, in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import orphan
from pipeline.cli.forkserver import FORKS

DRIVER = """
import asyncio, json, os, sys
import structlog
from pipeline.cli.forkserver import ForkServer
from pipeline.cli.parts import Commands, Part
from pipeline.cli.supervisor import Supervisor

launching = Commands(sys.executable, "-c")
if sys.argv[3] == "forked":
    launching = ForkServer(lambda arguments: exec(arguments[0], {}), close=lambda: None, otherwise=launching)
structlog.configure(
    processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
    logger_factory=structlog.WriteLoggerFactory(file=os.fdopen(os.dup(1), "w", 1)),
)
parts = [Part(arguments=[one.pop("command")], **one) for one in json.loads(sys.argv[1])]
supervisor = Supervisor(parts, launching.launch, first_pause=0.01, longest_pause=0.05)

async def started():
    if sys.argv[2] == "never":
        await asyncio.Event().wait()
    structlog.get_logger().info("supervising")
    supervisor.let_late_parts_start()
    if sys.argv[2].startswith("restart "):
        await asyncio.to_thread(sys.stdin.readline)
        await supervisor.restart(*sys.argv[2].split()[1:])
        structlog.get_logger().info("restarted")
    if sys.argv[2] == "start":
        raise RuntimeError("no key could be made")

def stopping():
    structlog.get_logger().info("asked the parts")
    if sys.argv[2] == "stop":
        raise RuntimeError("the socket could not be closed")

sys.exit(asyncio.run(supervisor.run(started, stopping=stopping)))
"""
SAY = """
import json, os, signal, sys, threading
def say(event, **more):
    os.write(1, (json.dumps({"event": event, "pid": os.getpid(), **more}) + chr(10)).encode())
"""
STAYS = (
    SAY + "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); say('up'); signal.sigwait([signal.SIGTERM]); say('asked')"
)
STUBBORN = SAY + "signal.signal(signal.SIGTERM, lambda *_: say('no')); say('up')\nwhile True: signal.pause()"
TIED = SAY + "from pipeline.cli.orphan import end_with_supervisor; end_with_supervisor(); say('up'); threading.Event().wait()"
BY_PIPE = "import pipeline.cli.orphan as o; o.die_with_parent = lambda: None\n" + TIED
PARENT = SAY + (
    "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "say('up', child=child.pid); signal.pause()"
)


class Driver:
    """A process that supervises; what it and its parts write to stdout are JSON lines."""

    def __init__(self, *parts: dict[str, Any], raising: str = "", how: str = "commands") -> None:
        arguments = [json.dumps(parts), raising, how]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._rest = b""

    def _said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"].startswith(event)]

    def until(self, event: str, times: int = 1, within: float = 30) -> list[dict[str, Any]]:
        """Read until so many lines have that beginning; a part that is up is also known to its supervisor by then."""
        end = time.monotonic() + within
        while len(found := self._said(event)) < times or (event == "up" and len(self._said("started")) < times):
            left = end - time.monotonic()
            assert self.process.stdout is not None
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise AssertionError(f"not seen: {event}; seen: {self.lines}")
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"ended before {event}: {self.lines}")
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._add(lines)
        return found

    def end(self, *, within: float = 30) -> int:
        out, _ = self.process.communicate(timeout=within)
        self._add((self._rest + out).splitlines())
        self._rest = b""
        return self.process.returncode

    def _add(self, lines: list[bytes]) -> None:
        self.lines += [json.loads(line) if line.startswith(b"{") else {"event": line.decode()} for line in lines]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@pytest.fixture(params=["commands", pytest.param("forked", marks=pytest.mark.skipif(not FORKS, reason="needs Linux"))])
def drive(request: pytest.FixtureRequest) -> Iterator[Any]:
    drivers: list[Driver] = []

    def start(*parts: dict[str, Any], raising: str = "") -> Driver:
        drivers.append(Driver(*parts, raising=raising, how=request.param))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
        driver.process.wait()
        assert driver.process.stdout is not None
        assert driver.process.stdin is not None
        driver.process.stdout.close()
        driver.process.stdin.close()
        for pid in {line["pid"] for line in driver.lines if "pid" in line}:
            end_part(pid)


def end_part(pid: int) -> None:
    """Kill a part that outlived a supervisor that a test had killed; not another process that has its number now."""
    with suppress(OSError):
        if b"def say(event" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def gone(pid: int, within: float = 10) -> bool:
    """Say whether a process ends in time; a zombie counts as ended."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        select.select([], [], [], 0.02)
    return False


def test_a_part_that_dies_is_started_again_with_a_line_that_says_so(drive: Any) -> None:
    driver = drive({"name": "web", "command": STAYS})
    (first,) = driver.until("up")
    os.kill(first["pid"], signal.SIGKILL)
    second = driver.until("up", 2)[1]
    assert second["pid"] != first["pid"]
    (line,) = driver.until("a part was ended by SIGKILL; it is started again")
    assert (line["which"], line["after"], line["level"]) == ("web", "0.01 s", "warning")
    driver.process.terminate()
    assert driver.end() == 0


def test_late_parts_wait_for_the_start(drive: Any) -> None:
    driver = drive({"name": "web", "command": STAYS}, {"name": "clock", "command": STAYS, "late": True})
    driver.until("up", 2)
    order = [line for line in driver.lines if line["event"] in {"supervising", "started"}]
    assert [line.get("which") for line in order if line["event"] == "started"] == ["web", "clock"]
    assert order.index({"event": "supervising", "level": "info"}) < len(order) - 1
    driver.process.terminate()
    assert driver.end() == 0


def test_late_parts_are_not_started_when_it_is_over_before(drive: Any) -> None:
    driver = drive(
        {"name": "web", "command": "raise SystemExit(78)"}, {"name": "clock", "command": STAYS, "late": True}, raising="never"
    )
    assert driver.end() == 78
    assert "up" not in driver.events()


def test_from_the_fifth_death_in_a_row_each_is_an_error_and_it_goes_on(drive: Any) -> None:
    driver = drive({"name": "clock", "command": "raise SystemExit(3)"})
    lines = driver.until("a part ended with exit code 3", 7)
    assert [line["level"] for line in lines[:7]] == ["warning"] * 4 + ["error"] * 3
    assert [line["after"] for line in lines[:5]] == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]
    driver.process.terminate()
    assert driver.end() == 0


def test_a_part_without_configuration_ends_everything_with_78(drive: Any) -> None:
    driver = drive({"name": "web", "command": STAYS}, {"name": "clock", "command": "raise SystemExit(78)"})
    assert driver.end() == 78


def test_a_part_that_ran_before_is_started_again_even_then(drive: Any, tmp_path: Path) -> None:
    file = tmp_path / "ran"
    once = f"import pathlib as p; f = p.Path({str(file)!r}); ran = f.exists(); f.touch(); raise SystemExit(78 if ran else 3)"
    driver = drive({"name": "web", "command": STAYS}, {"name": "clock", "command": once})
    driver.until("a part ended with exit code 78", times=2)
    driver.process.terminate()
    assert driver.end() == 0


def test_parts_are_started_anew_one_after_the_other_in_the_order_that_was_asked_for(drive: Any) -> None:
    driver = drive(
        {"name": "web", "command": STAYS},
        {"name": "clock", "command": STAYS},
        {"name": "worker", "command": STUBBORN, "patience": 0.1, "stage": 1},
        raising="restart worker clock",
    )
    first = {line["pid"] for line in driver.until("up", times=3)}
    driver.process.stdin.write(b"\n")
    driver.process.stdin.flush()
    driver.until("restarted")
    ups = driver.until("up", times=5)
    events = [event for event in driver.events() if event in {"no", "killed", "asked"}]
    assert events == ["no", "killed", "asked"]
    assert len({line["pid"] for line in ups} - first) == 2
    assert not [event for event in driver.events() if event.startswith("a part")]
    driver.process.terminate()
    assert driver.end() == 1  # the stubborn one is killed once more


def test_parts_are_asked_to_stop_stage_by_stage(drive: Any) -> None:
    driver = drive({"name": "clock", "command": STAYS, "stage": 1}, {"name": "web", "command": STAYS, "stage": 0})
    driver.until("up", 2)
    driver.until("supervising")
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 0
    order = [(line["event"], line.get("parts")) for line in driver.lines if line["event"] not in {"up", "started", "supervising"}]
    asked = ("asked", None)
    assert order == [
        ("stopping", None),
        ("asked the parts", None),
        ("waiting for parts to finish", "web"),
        asked,
        ("waiting for parts to finish", "clock"),
        asked,
        ("stopped", None),
    ]


def test_a_part_that_does_not_stop_is_killed_and_the_exit_code_says_so(drive: Any) -> None:
    driver = drive({"name": "web", "command": STUBBORN, "patience": 0.2})
    driver.until("up")
    driver.process.terminate()
    assert driver.end() == 1
    assert "no" in driver.events()
    assert [line["event"] for line in driver.lines[-2:]] == ["killed", "stopped"]


def test_a_second_signal_ends_at_once(drive: Any) -> None:
    driver = drive(
        {"name": "web", "command": STUBBORN, "patience": 600}, {"name": "clock", "command": STUBBORN, "stage": 1, "patience": 600}
    )
    driver.until("up", 2)
    driver.process.send_signal(signal.SIGINT)
    driver.until("no")
    driver.process.send_signal(signal.SIGINT)
    assert driver.end() == 1
    assert "ending at once; what was under way is done again at the next start" in driver.events()


def test_what_a_dead_part_had_started_is_ended_too(drive: Any) -> None:
    driver = drive({"name": "worker", "command": PARENT})
    (first,) = driver.until("up")
    os.kill(first["pid"], signal.SIGKILL)
    assert gone(first["child"])
    driver.until("up", 2)


@pytest.mark.parametrize("command", [TIED, BY_PIPE], ids=["kernel", "pipe"])
def test_parts_end_when_the_supervisor_is_killed(drive: Any, command: str) -> None:
    driver = drive({"name": "web", "command": command}, {"name": "clock", "command": command})
    pids = [line["pid"] for line in driver.until("up", 2)]
    driver.process.kill()
    assert all(gone(pid) for pid in pids)


def test_the_end_of_the_pipe_kills_the_part_s_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: queue.Queue[tuple[int, int]] = queue.Queue()
    monkeypatch.setattr(orphan, "die_with_parent", lambda: None)
    monkeypatch.setattr(os, "killpg", lambda *call: killed.put(call))  # the group would be pytest's
    reading, writing = os.pipe()
    monkeypatch.setenv("SIFTBELL_PARENT_PIPE", str(reading))
    orphan.end_with_supervisor()
    assert "SIFTBELL_PARENT_PIPE" not in os.environ
    assert killed.empty()
    os.close(writing)
    assert killed.get(timeout=10) == (0, signal.SIGKILL)
    os.close(reading)


def test_without_a_supervisor_nothing_is_tied() -> None:
    done = subprocess.run([sys.executable, "-c", TIED.replace("threading.Event().wait()", "say(threading.active_count())")],
                          env={key: value for key, value in os.environ.items() if key != "SIFTBELL_PARENT_PIPE"},
                          capture_output=True, check=True, text=True)  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1])["event"] == 1


def test_a_terminal_s_ctrl_c_does_not_reach_the_parts(drive: Any) -> None:
    driver = drive({"name": "web", "command": STAYS})
    (line,) = driver.until("up")
    assert os.getsid(line["pid"]) == line["pid"]


def test_what_the_start_raises_ends_the_parts_and_is_raised(drive: Any) -> None:
    driver = drive({"name": "web", "command": STAYS}, raising="start")
    errors, _ = driver.process.communicate(timeout=30)
    assert driver.process.returncode == 1
    assert b"no key could be made" in errors


def test_what_the_stop_raises_ends_the_parts_and_is_raised(drive: Any) -> None:
    driver = drive({"name": "web", "command": STUBBORN}, raising="stop")
    (line,) = driver.until("up")
    driver.process.terminate()
    errors, _ = driver.process.communicate(timeout=30)
    assert (driver.process.returncode, gone(line["pid"])) == (1, True)
    assert b"the socket could not be closed" in errors


def test_a_command_that_cannot_be_run_is_no_loop(drive: Any, tmp_path: Path) -> None:
    driver = drive({"name": "web", "command": "", "inherited": {"NUMBER": 999}})
    assert driver.end() == 1
