"""File: whole lines only, by many writers, through crashes and full disks."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from consumers.file import File, FileConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import BatchConsumerContract, sample_messages

pytestmark = pytest.mark.against("consumer file", "the file system, a full disk, many processes")


class TestFile(BatchConsumerContract):
    plugin = File
    options = {"path": "{tmp}/messages.jsonl"}
    away_options = {"path": "/dev/null/messages.jsonl"}


def lines(path):
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return text.split(b"\n")[:-1]


def titled(*titles):
    return [Message(source="t", title=title) for title in titles]


def write(path, messages):
    return File(FileConfig(path=path)).consume_many(messages)


def test_what_is_written_can_be_read(tmp_path):
    path = tmp_path / "a" / "b" / "messages.jsonl"
    messages = sample_messages()
    assert write(path, messages[:2]) == {}
    assert write(path, messages[2:]) == {}
    assert [msgspec.json.decode(line, type=Message) for line in lines(path)] == messages


def test_only_the_owner_may_read(tmp_path):
    path = tmp_path / "new" / "deep" / "messages.jsonl"
    write(path, titled("a"))
    modes = [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_torn_line_stays_alone(tmp_path):
    path = tmp_path / "messages.jsonl"
    write(path, titled("a"))
    with path.open("ab") as file:
        file.write(b'{"title": "to')
    write(path, titled("b"))
    first, torn, last = lines(path)
    assert (json.loads(first)["title"], torn, json.loads(last)["title"]) == ("a", b'{"title": "to', "b")


WRITER = """
import sys
from consumers.file import File, FileConfig
from pipeline import Message
file = File(FileConfig(path=sys.argv[1]))
for number in range(20):
    file.consume_many([Message(source=sys.argv[2], title=f"{number}-{part}", text="x" * 9000) for part in range(5)])
"""


def test_many_processes_write_whole_lines(tmp_path):
    path = tmp_path / "messages.jsonl"
    root = str(Path(__file__).parents[2])
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, f"w{number}"], env={**os.environ, "PYTHONPATH": root})
        for number in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    read = [json.loads(line) for line in lines(path)]
    assert len({(message["source"], message["title"]) for message in read}) == len(read) == 300
    for number in range(3):
        mine = [message["title"] for message in read if message["source"] == f"w{number}"]
        assert mine == [f"{batch}-{part}" for batch in range(20) for part in range(5)]


def test_a_full_disk_leaves_no_half_line(tmp_path):
    path = tmp_path / "messages.jsonl"
    write(path, titled("a"))
    before = path.read_bytes()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 300, limits[1]))
        with pytest.raises(TemporaryError, match="File too large"):
            write(path, [*titled("b"), Message(source="t", text="x" * 2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    write(path, titled("c"))
    assert len(lines(path)) == 2


def test_a_device_that_is_full_is_tried_again():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(TemporaryError, match=os.strerror(errno.ENOSPC)):
        write(Path("/dev/full"), titled("a"))


def test_a_path_that_is_a_directory_is_tried_again(tmp_path):
    with pytest.raises(TemporaryError, match="Is a directory"):
        write(tmp_path, titled("a"))


def test_a_parent_that_is_a_file_is_tried_again(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TemporaryError, match="Not a directory"):
        write(tmp_path / "file" / "messages.jsonl", titled("a"))


def test_one_message_that_is_not_json_does_not_hold_up_the_others(tmp_path):
    path = tmp_path / "messages.jsonl"
    good, bad = titled("good", "\ud800")
    failures = write(path, [bad, good])
    assert [*failures] == [bad.id]
    assert isinstance(failures[bad.id], PermanentError)
    assert [json.loads(line)["title"] for line in lines(path)] == ["good"]


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path):
    path = tmp_path / "messages.jsonl"
    plugin = File(FileConfig(path=path))
    plugin.consume_many(titled("a"))
    path.rename(tmp_path / "old.jsonl")
    plugin.consume_many(titled("b"))
    assert [json.loads(line)["title"] for line in lines(path)] == ["b"]
