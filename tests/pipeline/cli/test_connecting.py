"""`siftbell check --connect`: every target is asked once, nothing is sent, and what each says stands at its step's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.testing import LoopbackServer

CHAT = '''"""Chats."""

import asyncio
import time
from pathlib import Path

from pipeline import Config, ConfigError, Consumer, PermanentError, TemporaryError
from pydantic import Field, SecretStr


class ChatConfig(Config):
    says: str = Field(description="What the other side says.")
    token: SecretStr = Field(default=SecretStr("sesame-open"), description="What lets it in.")


class Chat(Consumer[ChatConfig]):
    """Chats."""

    def open(self):
        note("open")
        if self.config.says == "shut":
            raise ConfigError("it cannot be opened")

    def close(self):
        note("close")

    def consume(self, message):
        raise AssertionError("nothing is sent")

    def probe(self):
        note("probe")
        token = self.config.token.get_secret_value()
        match self.config.says:
            case "away":
                raise TemporaryError(f"nobody at /{token}")
            case "refused":
                raise PermanentError(f"{token} is not known")
            case "bug":
                raise KeyError(token)
            case "exit":
                raise SystemExit(3)
            case "silent":
                raise PermanentError("")
            case "verbose":
                raise TemporaryError("busy\\nuntil " + "noon " * 100)
            case "nothing":
                return None
            case "hang":
                time.sleep(600)
        return f"@bell, by {token}"


def note(what):
    with Path("notes").open("a") as file:
        file.write(what + "\\n")
'''
TALK = '''"""Talks."""

import asyncio
from pathlib import Path

from pipeline import Consumer, NoOptions


class Talk(Consumer[NoOptions]):
    """Talks."""

    async def consume(self, message):
        raise AssertionError("nothing is sent")

    async def probe(self):
        self.loop = asyncio.get_running_loop()
        await asyncio.sleep(600)

    async def aclose(self):
        assert asyncio.get_running_loop() is self.loop
        Path("notes").write_text("closed")
'''
STEPS = """name: {name}
producers:
  - take
consumers:
"""


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIFTBELL_PRIVATE_NETWORKS", "127.0.0.1")


@pytest.fixture
def configs(project: Path) -> Path:
    """A directory of pipelines with the plugins `chat` and `talk`, and no pipeline yet."""
    (project / "configs" / "alerts.yaml").unlink()
    (project / "configs" / "plugins" / "chat.py").write_text(CHAT)
    (project / "configs" / "plugins" / "talk.py").write_text(TALK)
    return project / "configs"


def write(configs: Path, *consumers: str, name: str = "alerts") -> None:
    steps = "".join(f"  - {consumer}\n" for consumer in consumers)
    (configs / f"{name}.yaml").write_text(STEPS.format(name=name) + steps)


def notes(configs: Path) -> list[str]:
    return (configs.parent / "notes").read_text().split()


def test_each_step_is_told_at_its_place(configs: Path, siftbell) -> None:
    write(
        configs,
        "{chat: {says: hello}, as: fine}",
        "{chat: {says: away}, as: away}",
        "{chat: {says: refused}, as: refused}",
        "{chat: {says: bug}, as: bug}",
        "{chat: {says: exit}, as: exit}",
        "{chat: {says: shut}, as: shut}",
        "{chat: {says: nothing}, as: nothing}",
        "tell: {token: x}",
    )
    done = siftbell("check", "--connect")
    assert done.code == 3
    assert done.err == ""
    assert (
        done.out
        == """\
1 file, no problems
configs/alerts.yaml:5:6: fine: consumer fine (chat): @bell, by ***
configs/alerts.yaml:11:6: unasked: consumer nothing (chat): there is nothing to ask
configs/alerts.yaml:6:6: error: consumer away (chat): nobody at /***
    6 |   - {chat: {says: away}, as: away}
      |      ^^^^ its messages would wait and be tried again
configs/alerts.yaml:7:6: error: consumer refused (chat): *** is not known
    7 |   - {chat: {says: refused}, as: refused}
      |      ^^^^ its messages would go to the dead letters
configs/alerts.yaml:8:6: error: consumer bug (chat): its probe failed, which is a bug: KeyError: '***'
    8 |   - {chat: {says: bug}, as: bug}
      |      ^^^^
configs/alerts.yaml:9:6: error: consumer exit (chat): its probe failed, which is a bug: RuntimeError: SystemExit: 3
    9 |   - {chat: {says: exit}, as: exit}
      |      ^^^^
configs/alerts.yaml:10:6: error: consumer shut (chat): it cannot be opened
   10 |   - {chat: {says: shut}, as: shut}
      |      ^^^^
1 of 6 targets answers, 5 do not
"""
    )
    assert sorted(notes(configs)) == ["close"] * 7 + ["open"] * 7 + ["probe"] * 6


def test_a_shared_step_is_asked_once(configs: Path, siftbell) -> None:
    (configs / "siftbell.yaml").write_text("consumers:\n  room: {chat: {says: hello}}\n")
    for name in ("one", "two"):
        write(configs, "use: room", name=name)
    done = siftbell("check", "--connect")
    assert (done.code, done.err) == (0, "")
    told = "configs/one.yaml:5:10: fine: consumer room (chat), used 2 times: @bell, by ***\n1 of 1 target answers\n"
    assert done.out == f"3 files, no problems\n{told}"
    assert notes(configs) == ["open", "probe", "close"]


def test_over_http_a_connection_is_enough(configs: Path, siftbell) -> None:
    with LoopbackServer() as server:
        write(configs, f"webhook: {server.url}/secret/path", "{webhook: 'http://127.0.0.1:9/x', as: dead}")
        done = siftbell("check", "--connect")
        assert done.code == 3
        assert f"configs/alerts.yaml:5:5: fine: consumer webhook: {server.url} answers; it was asked nothing\n" in done.out
        assert "error: consumer dead (webhook): http://127.0.0.1:9: no connection" in done.out
        assert "secret" not in done.out
        assert server.received == []


def test_programs_get_one_list(configs: Path, siftbell) -> None:
    write(configs, "{chat: {says: hello}, as: fine}", "{chat: {says: away}, as: away}", "{chat: {says: nothing}, as: nothing}")
    (configs / "old.yml").write_text("")
    done = siftbell("check", "--connect", "--format", "json")
    assert (done.code, done.err) == (3, "1 of 2 targets answers, 1 does not\n")
    assert [(one["severity"], one["line"], one["column"], one["text"], one["hint"]) for one in done.json] == [
        ("warning", 0, 0, "this file is not read", "call it '.yaml'"),
        ("fine", 5, 6, "consumer fine (chat): @bell, by ***", ""),
        ("error", 6, 6, "consumer away (chat): nobody at /***", "its messages would wait and be tried again"),
        ("unasked", 7, 6, "consumer nothing (chat): there is nothing to ask", ""),
    ]
    github = siftbell("check", "--connect", "--format", "github")
    assert github.code == 3
    hint = "its messages would wait and be tried again"
    assert github.out.splitlines()[1:] == [
        f"::error file=configs/alerts.yaml,line=6,col=6::consumer away (chat): nobody at /*** ({hint})"
    ]


def test_nothing_is_asked_where_the_configuration_is_wrong(configs: Path, siftbell) -> None:
    write(configs, "{chat: {says: hello}, as: fine}", "chta: {says: hello}")
    done = siftbell("check", "--connect")
    assert done.code == 1
    assert "fine" not in done.out
    assert not (configs.parent / "notes").exists()
    (configs / "old.yml").write_text("")
    write(configs, "chat: {says: hello}")
    assert siftbell("check", "--connect", "--strict").code == 1
    assert not (configs.parent / "notes").exists()


def test_what_hangs_is_left_after_its_time(configs: Path, process) -> None:
    write(configs, "{chat: {says: hang}, as: thread}", "{talk: {}, as: loop}", "{chat: {says: hello}, as: fine}")
    done = process("check", "--connect", "--timeout", "0.5")
    assert done.code == 3
    assert "error: consumer thread (chat): no answer within 0.5 s\n" in done.out
    assert "error: consumer loop (talk): no answer within 0.5 s\n" in done.out
    assert done.out.endswith("1 of 3 targets answers, 2 do not\n")
    assert "closed" in (configs.parent / "notes").read_text()


def test_an_error_is_told_on_one_line_whatever_its_text(configs: Path, siftbell) -> None:
    write(configs, "{chat: {says: silent}, as: silent}", "{chat: {says: verbose}, as: verbose}")
    done = siftbell("check", "--connect")
    assert done.code == 3
    assert "5:6: error: consumer silent (chat): PermanentError\n" in done.out
    (line,) = (line for line in done.out.splitlines() if "consumer verbose" in line)
    assert "error: consumer verbose (chat): busy until noon noon" in line
    assert len(line) < 500


def test_a_secret_of_several_words_is_masked(configs: Path, siftbell) -> None:
    write(configs, "{chat: {says: hello, token: 'open  sesame'}, as: fine}", "{chat: {says: refused, token: 'open  sesame'}}")
    out = siftbell("check", "--connect").out
    assert "consumer fine (chat): @bell, by ***\n" in out
    assert "consumer chat: *** is not known\n" in out


def test_where_no_step_has_a_target(configs: Path, siftbell) -> None:
    write(configs, "tell: {token: x}")
    done = siftbell("check", "--connect")
    assert (done.code, done.out) == (0, "1 file, no problems\nno step has a target that can be asked\n")


def test_what_a_target_says_cannot_steer_the_terminal(configs: Path, siftbell) -> None:
    text = (configs / "plugins" / "chat.py").read_text().replace("@bell, by", "\\x1b[31m@bell\\nmore")
    (configs / "plugins" / "chat.py").write_text(text)
    write(configs, "chat: {says: hello}")
    out = siftbell("check", "--connect").out
    assert "\x1b" not in out
    assert "fine: consumer chat: \\x1b[31m@bell more" in out
