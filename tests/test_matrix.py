"""The account of what plugins were tried against: what passed is written down, and CI finds a claim that nothing bears out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

pytestmark = pytest.mark.against("consumer queue", "{broker}")

@pytest.mark.parametrize("broker", ["RabbitMQ", "Redis"])
def test_it(broker):
    if broker == "Redis":
        pytest.fail("it is away")

def test_without_a_broker(): pass

@pytest.mark.against("consumer file", "a disk")
@pytest.mark.parametrize("number", [1, 2])
def test_file(number): pass
"""
RABBITMQ, REDIS, DISK = ["consumer queue", "RabbitMQ"], ["consumer queue", "Redis"], ["consumer file", "a disk"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\ntestpaths = tests\nmarkers = against: what it was tried against")
    for folder in ("tests", "docs/plugins"):
        (pytester.path / folder).mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "conftest.py", pytester.path / "tests" / "conftest.py")
    (pytester.path / "tests" / "test_it.py").write_text(TESTS)
    claim(pytester)
    return pytester


def claim(suite: pytest.Pytester, *pairs: list[str]) -> None:
    (suite.path / "docs" / "plugins" / "tested.json").write_text(json.dumps(pairs))


def claimed(suite: pytest.Pytester) -> list[list[str]]:
    found: list[list[str]] = json.loads((suite.path / "docs" / "plugins" / "tested.json").read_text())
    return found


@pytest.mark.parametrize("spread", [(), ("-n", "2")], ids=["one process", "several"])
def test_what_passed_is_written_down(suite: pytest.Pytester, spread: tuple[str, ...]) -> None:
    claim(suite, REDIS)
    suite.runpytest_subprocess("--matrix", *spread)
    assert claimed(suite) == [DISK, RABBITMQ]


@pytest.mark.parametrize("broken_off", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_a_run_that_was_broken_off_takes_nothing_away(suite: pytest.Pytester, broken_off: str) -> None:
    claim(suite, REDIS)
    (suite.path / "tests" / "test_it.py").write_text(
        TESTS.replace("def test_without_a_broker(): pass", f"def test_it_ends(): {broken_off}")
    )
    suite.runpytest_subprocess("--matrix")
    assert claimed(suite) == [RABBITMQ, REDIS]


def test_tests_that_are_only_named_take_nothing_away(suite: pytest.Pytester) -> None:
    claim(suite, REDIS)
    suite.runpytest_subprocess("--matrix", "--collect-only")
    assert claimed(suite) == [REDIS]


def test_a_part_of_the_tests_adds_to_what_is_written(suite: pytest.Pytester) -> None:
    claim(suite, REDIS)
    suite.runpytest_subprocess("--matrix", "-k", "test_file")
    assert claimed(suite) == [DISK, REDIS]


@pytest.mark.parametrize(
    ("ci", "arguments", "claims", "told"),
    [
        (True, (), [REDIS], True),
        (True, (), [["consumer gone", "a server"]], True),
        (True, (), [DISK], False),
        (True, ("tests/test_it.py",), [REDIS], False),
        (False, (), [REDIS], False),
    ],
    ids=["it failed", "no such test", "all is borne out", "a part of the tests", "a laptop"],
)
def test_a_claim_that_nothing_bears_out_is_told(
    suite: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    ci: bool,
    arguments: tuple[str, ...],
    claims: list[list[str]],
    told: bool,
) -> None:
    claim(suite, *claims)
    if ci:
        monkeypatch.setenv("CI", "true")
    (suite.path / "tests" / "test_it.py").write_text(TESTS.replace("pytest.fail", "pytest.skip"))
    run = suite.runpytest_subprocess(*arguments)
    assert run.ret == int(told)
    assert ("no such test passed" in run.stdout.str()) == told
    assert claimed(suite) == claims
