"""`siftbell consumers test`: which consumer is meant, and what is said where nobody takes the test; the rest is in tests/e2e."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SHARED = """consumers:
  archive: {tell: {token: shared}}
"""
OTHER = """name: other
producers:
  - take
consumers:
  - tell: {token: x}
    as: oncall
  - use: archive
"""


@pytest.fixture(autouse=True)
def _store(project: Path, siftbell) -> None:
    """Two pipelines with a shared consumer, and no worker."""
    (project / "configs" / "siftbell.yaml").write_text(SHARED)
    (project / "configs" / "other.yaml").write_text(OTHER)
    alerts = project / "configs" / "alerts.yaml"
    alerts.write_text(alerts.read_text() + "  - use: archive\n    as: kept\n")
    assert siftbell("db", "upgrade").code == 0


def rehearsed(siftbell, *arguments: str) -> list[str]:
    done = siftbell("consumers", "test", *arguments, "--timeout", "0.1", "-o", "json")
    assert done.code == 3, done.err
    assert {one["outcome"] for one in done.json} == {"no answer"}
    return [f"{one['pipeline']}/{one['consumer']}" for one in done.json]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["alerts/tell"], ["alerts/tell"]),
        (["tell"], ["alerts/tell"]),
        (["archive"], ["alerts/kept"]),
        (["archive", "--pipeline", "other"], ["other/archive"]),
        (["oncall", "-p", "other"], ["other/oncall"]),
        (["other/archive"], ["other/archive"]),
        (["--all"], ["alerts/oncall", "alerts/tell", "alerts/kept", "other/oncall"]),
        (["--all", "-p", "other"], ["other/oncall", "other/archive"]),
    ],
)
def test_which_consumers_are_meant(siftbell, arguments: list[str], parts: list[str]) -> None:
    assert rehearsed(siftbell, *arguments) == parts


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "say which consumer to test: PIPELINE/LABEL, a shared consumer's name, or --all"),
        (["tell", "--all"], 2, "say which consumer to test: PIPELINE/LABEL, a shared consumer's name, or --all"),
        (["oncall"], 2, "several consumers are called 'oncall': say alerts/oncall or other/oncall"),
        (["alerts/oncal"], 4, "no consumer is called 'alerts/oncal': did you mean 'alerts/oncall'?"),
        (["archvie"], 4, "no consumer is called 'archvie': did you mean 'archive'?"),
        (["tell", "-p", "other"], 4, "no consumer is called 'tell': there are other/oncall, other/archive, archive"),
        (["tell", "-p", "allerts"], 4, "no pipeline is called 'allerts': did you mean 'alerts'?"),
        (["tell", "-l", "team"], 2, "--label: NAME=VALUE is expected, such as team=db"),
    ],
)
def test_what_is_not_clear_is_not_sent(project: Path, siftbell, arguments: list[str], code: int, text: str) -> None:
    done = siftbell("consumers", "test", *arguments)
    assert (done.code, done.out, done.err) == (code, "", f"siftbell: {text}\n")
    assert not (project / ".siftbell" / "queue.db").exists()


def test_without_a_worker_it_says_so(siftbell) -> None:
    done = siftbell("consumers", "test", "tell", "--timeout", "0.2")
    assert done.code == 3
    row = done.out.splitlines()[-1]
    told = "nobody took it from the queue out.tell within 0.2 s: is a worker running?"
    assert re.fullmatch(rf"alerts/tell +tell +no answer +{re.escape(told)}", row.rstrip())
    left = "what is not delivered stays where it is, and is delivered later, as any message; how it goes on, tells"
    assert re.fullmatch(
        rf"the condition \(`when:`\) of alerts/tell was not asked: a test goes past it\n{left}\n  siftbell explain \S+\n",
        done.err,
    )


def test_without_a_store_nothing_is_sent(project: Path, siftbell) -> None:
    (project / ".siftbell" / "store.db").unlink()
    done = siftbell("consumers", "test", "tell", "--timeout", "0.2")
    assert done.code == 3
    assert re.fullmatch(r"siftbell: the store \(.*\) is away: no such file; `siftbell run` makes it\n", done.err)


def test_a_shell_completes_names(project: Path, process) -> None:
    def completed(words: str, **environment: str) -> list[str]:
        count = len(words.split(" ")) - 1
        return process(_SIFTBELL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count), **environment).out.split()

    assert completed("siftbell consumers test a") == ["alerts/oncall", "alerts/tell", "alerts/kept", "archive"]
    assert completed("siftbell consumers test other/o") == ["other/oncall"]
    assert completed("siftbell consumers test --config configs/alerts.yaml o") == []
    for verb in ("try", "replay", "send", "run-now"):
        assert completed(f"siftbell {verb} al") == ["alerts"]
    assert completed("siftbell plugins show digest") == ["digest"]
    (project / "configs" / "alerts.yaml").write_text("producers: [")
    assert completed("siftbell consumers test a") == []
    assert completed("siftbell try a") == []
