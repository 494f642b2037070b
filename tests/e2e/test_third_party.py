"""A package of somebody else's: installed beside the product, typed, tested by the contract suite, and used from YAML."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from trees import siftbell, siftbell_run, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "third-party"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, so that building it leaves nothing behind."""
    copy = tmp_path_factory.mktemp("third-party") / "siftbell-ntfy"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return copy


@pytest.fixture(scope="module")
def environment(package: Path) -> dict[str, str]:
    """An environment in which the package is installed beside the product."""
    target = package.parent / "site"
    installer = ["uv", "pip"] if find_spec("uv") else ["pip"]
    call(["-m", *installer, "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(package)])
    return {"PYTHONPATH": str(target), "NTFY_URL": "http://127.0.0.1:9", "NTFY_TOKEN": "a-secret"}


def call(arguments: list[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_as_short_as_we_say() -> None:
    assert len((EXAMPLE / "siftbell_ntfy" / "__init__.py").read_text().splitlines()) <= 24
    assert len((EXAMPLE / "tests" / "test_ntfy.py").read_text().splitlines()) <= 10


def test_its_types_are_right(package: Path) -> None:
    assert "Success" in call(["-m", "mypy", "--cache-dir", str(package.parent / "mypy")], cwd=package)


def test_it_keeps_the_contract(package: Path, environment: dict[str, str]) -> None:
    printed = call(["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"], environment, package)
    assert " passed" in printed
    assert "failed" not in printed


def test_the_linter_knows_it(package: Path, environment: dict[str, str]) -> None:
    siftbell(["check", "--strict", str(package / "configs")], environment)
    schema = package.parent / "schema.json"
    siftbell(["schema", "--output", str(schema)], environment)
    call(["-m", "check_jsonschema", "--schemafile", str(schema), str(package / "configs" / "deploys.yaml")])
    wrong = package.parent / "wrong.yaml"
    wrong.write_text("producers:\n  - http\nconsumers:\n  - ntfi: {topic: t}\n")
    found = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "check", str(wrong)],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert "did you mean 'ntfy'?" in found.stdout + found.stderr


def test_it_delivers(package: Path, environment: dict[str, str], httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/").respond_with_json({"id": "1"})
    environment = environment | {"NTFY_URL": httpserver.url_for("/")}
    with siftbell_run(package / "configs", tmp_path / "data", environment) as running:
        running.send("deploys", "http", {"type": "deploy", "title": "shop 1.2 is not healthy", "severity": "critical"})
        until(lambda: httpserver.log, "the push has arrived")
    (request, _), *more = httpserver.log
    assert more == []
    assert request.headers["authorization"] == "Bearer a-secret"
    push = request.get_json()
    assert (push["topic"], push["title"], push["priority"]) == ("deploys", "shop 1.2 is not healthy", 5)
