"""The fork server in a process of its own: what its parts are, and what becomes of them when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.forkserver import FORKS

pytestmark = pytest.mark.skipif(not FORKS, reason="needs Linux")

DRIVER = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from pipeline.cli.forkserver import ForkServer
from pipeline.cli.parts import Commands, Part

lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)

def part(arguments):
    exec(arguments[0], {})
    sys.exit(0)

server = ForkServer(part, close=lambda: os.close(lock), otherwise=Commands(sys.executable, "-c"))
reading, writing = os.pipe()

def tell(code, **more):
    return Part(name="told", arguments=[
        "import json, os, sys\\ndef tell(**what):\\n    os.write(int(os.environ['OUT']), json.dumps(what).encode())\\n" + code
    ], inherited={"OUT": writing}, **more)

def said():
    return json.loads(os.read(reading, 65536))

async def main():
    %s

asyncio.run(main())
server.close()
"""


def driven(tmp_path: Path, code: str) -> Any:
    """Give what the code prints as JSON."""
    lines = "\n    ".join(code.strip().splitlines())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER % lines, str(tmp_path / "lock")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FROM": "above"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"log": done.stdout.splitlines()[:-1]}


def test_a_part_is_a_child_in_a_session_of_its_own_that_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    found = driven(
        tmp_path,
        """
code = "tell(parent=os.getppid(), pid=os.getpid(), session=os.getsid(0),"
code += "environ=[os.environ.get('FROM'), os.environ.get('MORE')],"
code += "stdin=os.readlink('/proc/self/fd/0'), out=os.stat(1).st_ino == os.stat(2).st_ino,"
code += "open=[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')])"
process = await server.launch(tell(code, environment={"MORE": "given"}))
code = await process.wait()
print(json.dumps(said() | {"own": os.getpid(), "code": code, "returncode": process.returncode, "forked": process.pid}))
""",
    )
    assert found["parent"] == found["own"]
    assert found["pid"] == found["session"] == found["forked"]
    assert found["environ"] == ["above", "given"]
    assert (found["stdin"], found["out"]) == ("/dev/null", True)
    assert (found["code"], found["returncode"]) == (0, 0)
    assert not [name for name in found["open"] if name.startswith("socket:") or name.endswith("/lock")]


@pytest.mark.parametrize(("code", "ended"), [("raise SystemExit(78)", 78), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1)])
def test_how_a_part_ends_is_told(tmp_path: Path, code: str, ended: int) -> None:
    found = driven(tmp_path, f"process = await server.launch(tell({code!r}))\nprint(json.dumps(dict(code=await process.wait())))")
    assert found["code"] == ended


def test_without_the_server_parts_go_on_and_others_are_started_as_commands(tmp_path: Path) -> None:
    found = driven(
        tmp_path,
        """
first = await server.launch(tell("import time; time.sleep(600)"))
os.kill(server.pid, signal.SIGKILL)
second = await server.launch(tell("tell(command=open('/proc/self/cmdline').read())"))
code = await second.wait()
running = first.returncode is None
first.send_signal(signal.SIGTERM)
print(json.dumps(said() | {"code": code, "running": running, "first": await first.wait()}))
""",
    )
    assert (found["code"], found["running"], found["first"]) == (0, True, -signal.SIGTERM)
    assert found["command"].split("\0")[1] == "-c"
    assert "the fork server is gone; parts are started as commands" in found["log"][0]


def test_what_a_part_leaves_behind_is_buried(tmp_path: Path) -> None:
    found = driven(
        tmp_path,
        """
process = await server.launch(tell("import subprocess; tell(pid=subprocess.Popen(['sleep', '600']).pid)"))
await process.wait()
orphan = said()["pid"]
before = Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1]
os.killpg(process.pid, signal.SIGKILL)
for _ in range(3000):
    if not Path(f"/proc/{orphan}").exists():
        break
    await asyncio.sleep(0.01)
print(json.dumps({"adopted": int(before) == os.getpid(), "buried": not Path(f"/proc/{orphan}").exists()}))
""",
    )
    assert (found["adopted"], found["buried"]) == (True, True)


def test_a_signal_to_a_part_that_has_ended_reaches_nobody(tmp_path: Path) -> None:
    found = driven(
        tmp_path,
        """
process = await server.launch(tell("raise SystemExit(3)"))
await process.wait()
try:
    process.send_signal(signal.SIGTERM)
except ProcessLookupError:
    print(json.dumps({"raised": True}))
""",
    )
    assert found["raised"]


def test_what_is_imported_beforehand_starts_no_thread_and_opens_no_socket() -> None:
    code = """if True:
        import json, os
        from pipeline.cli.preloading import preload
        preload("siftbell-sqlite:////nowhere/queue.db")
        numbers = [number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")]
        names = [os.readlink(f"/proc/self/fd/{number}") for number in numbers]
        found = [name for name in names if name.startswith("socket:") or name.endswith(".db")]
        print(json.dumps([len(os.listdir("/proc/self/task")), found]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [1, []]
