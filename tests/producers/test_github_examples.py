"""All example payloads of GitHub's events, from npm: each is a message that a person can read.

What the titles are stands in `github-titles.txt`, which is reviewed by eye: `python tests/producers/test_github_examples.py`
writes it anew.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline import Request
from pipeline.testing.contract import check_messages
from producers.github import Github, GithubConfig
from producers.github.writing import EVENTS

PACKAGE = "@octokit/webhooks-examples@7.6.1"
DIGEST = "De6U3XB6O3DtCa7bKgCMzTHdeopqqZ6SNivMYJnK65ierKL1AnNIA0tkRYCRS7lwGT792d+Ps1WbfHlso6MynQ=="
CACHE = Path(__file__).parents[2] / "build" / "octokit-webhooks-examples-7.6.1.tgz"
GOLDEN = Path(__file__).with_name("github-titles.txt")
SETS = ("api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35")

pytestmark = pytest.mark.against("producer github", "all payloads of npm's @octokit/webhooks-examples 7.6.1")


def fetch() -> bytes:
    """Give the package as npm has it, fetched once; raises OSError where it cannot be had."""
    if not CACHE.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("the program npm is missing: apt-get install npm")
        CACHE.parent.mkdir(exist_ok=True)
        asked = subprocess.run([npm, "pack", PACKAGE], cwd=CACHE.parent, capture_output=True, text=True, timeout=100, check=False)
        if asked.returncode:
            raise OSError(f"npm pack {PACKAGE}: {asked.stderr[-300:]}")
    packed = CACHE.read_bytes()
    if base64.b64encode(hashlib.sha512(packed).digest()).decode() != DIGEST:
        CACHE.unlink()
        raise OSError(f"{PACKAGE} is not what it was")
    return packed


def events(packed: bytes, name: str) -> list[tuple[str, dict]]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = json.load(archive.extractfile(f"package/{name}/index.json"))
    return [(event["name"], payload) for event in found for payload in event["examples"]]


def receive(event, payload):
    headers = {"content-type": "application/json", "x-github-event": event, "x-github-delivery": "1"}
    return list(Github(GithubConfig()).receive(Request(json.dumps(payload).encode(), headers)))


def titles(packed: bytes) -> str:
    """Write a line for each example of github.com."""
    lines = []
    for event, payload in events(packed, SETS[0]):
        (message,) = receive(event, payload)
        lines.append(f"{message.severity} {message.status} {message.key} | {message.title}\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def examples() -> bytes:
    try:
        return fetch()
    except (OSError, subprocess.TimeoutExpired) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize("name", SETS)
def test_every_example_is_a_message_that_can_be_read(examples, name):
    found = events(examples, name)
    for event, payload in found:
        messages = receive(event, payload)
        check_messages(messages)
        (message,) = messages
        assert event in EVENTS, event
        assert message.title.strip(), event
        assert message.text.strip(), event
        assert message.key.strip(), event
        assert message.type == event
    assert len(found) == 329 or name != SETS[0]
    assert found


def test_the_titles_are_those_that_were_reviewed(examples):
    assert titles(examples) == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(titles(fetch()))
