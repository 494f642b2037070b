"""The walk in docs/write-a-plugin.md, as a new user goes it: its files are written, its commands run, and the message arrives."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from trees import first_line, free_port, process, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PAGE = Path(__file__).parents[2] / "docs" / "write-a-plugin.md"
BLOCK = re.compile(r"^(`{3,})\w+ (walk|terminal|title=\S+)\n(.*?)^\1\n", re.MULTILINE | re.DOTALL)


def test_from_nothing_to_a_delivered_message(tmp_path: Path) -> None:
    text = PAGE.read_text().partition("## From nothing to a delivered message")[2].partition("\n## ")[0]
    port = str(free_port())
    steps = [(info, body.replace("8025", port)) for _, info, body in BLOCK.findall(text)]
    assert [info for info, _ in steps].count("walk") == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "COLUMNS": "120", "SIFTBELL_PORT": port}
    (at,) = [index for index, (info, _) in enumerate(steps) if info == "terminal"]
    words = shlex.split(steps[at][1])
    settings = dict(word.split("=", 1) for word in words[: words.index("siftbell")])
    for info, body in steps[:at]:
        if info.startswith("title="):
            (tmp_path / info.removeprefix("title=")).write_text(body)
        else:
            call(body, tmp_path, environment)
    arguments = words[words.index("siftbell") + 1 :]
    with process(arguments, environment | settings, tmp_path / "run.log", cwd=tmp_path) as started:
        until(lambda: first_line(started, tmp_path / "run.log").startswith("Siftbell is ready"), "it is ready")
        ((_, body),) = steps[at + 1 :]
        printed = call(body, tmp_path, environment)
        heard = until(
            lambda: (tmp_path / "heard.jsonl").exists() and (tmp_path / "heard.jsonl").read_text(), "the gong was heard"
        )
    assert json.loads(heard)["title"] == "dong " * 10 + "disk full"
    assert "dong dong" in printed
    assert "How loud it is struck" in printed


def call(commands: str, directory: Path, environment: dict[str, str]) -> str:
    """Run the commands of one block, in one shell; none may fail."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands],
        cwd=directory,
        env={**os.environ, **environment},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout
