"""What an extra brings may be missing: then one line names the extra, and nothing else fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXTRAS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
WITHOUT = """
import sys
from importlib.machinery import PathFinder

gone = sys.argv.pop(1).split(",")


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else super().find_spec(name, path, target)


sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from pipeline.cli import main

main(sys.argv[1:])
"""
PIPELINE = """name: alerts
producers: [{producer}]
consumers: [{consumer}]
"""
MAIL = "from: a@example.com, to: b@example.com"
STEPS = [
    ("telegram", "telegram", "telegram: {token: x, chat_id: 1}"),
    ("email", "nh3,css_inline", f"email: {{host: localhost, {MAIL}}}"),
    ("aws", "botocore", f"email: {{via: ses, region: eu-west-1, {MAIL}}}"),
    ("aws", "botocore", "sns: 'arn:aws:sns:eu-west-1:123456789012:ops'"),
    ("aws", "botocore", "sqs: 'https://sqs.eu-west-1.amazonaws.com/123456789012/ops'"),
    ("aws", "botocore", "producer queue: {url: 'https://sqs.eu-west-1.amazonaws.com/123456789012/ops'}"),
    ("github", "gidgethub", "producer github: {token: x, repositories: [acme/shop]}"),
    ("apprise", "apprise", "apprise: 'json://example.com'"),
    ("xlsx", "xlsxwriter", "filter digest: {within: 1h, attach: xlsx}"),
    ("redis", "redis", "queue: {url: 'redis://localhost', list: ops}"),
    ("redis", "redis", "logstash: {url: 'redis://localhost'}"),
    ("redis", "redis", "producer queue: {url: 'redis://localhost', list: ops}"),
    ("postgres", "psycopg", "sql: {url: 'postgresql://localhost/ops', table: messages}"),
    ("mysql", "pymysql", "sql: {url: 'mariadb://localhost/ops', table: messages}"),
    ("postgres", "psycopg", "producer sql: {url: 'postgresql://localhost/ops', query: select 1}"),
]
SERVERS = [
    ("sqs", "botocore", "SIFTBELL_BROKER", "sqs://"),
    ("redis", "redis", "SIFTBELL_BROKER", "redis://127.0.0.1:9"),
    ("redis", "redis", "SIFTBELL_MEMORY", "redis://127.0.0.1:9"),
    ("postgres", "psycopg", "SIFTBELL_STORE", "postgresql+psycopg://127.0.0.1:9/ops"),
]


def siftbell(directory: Path, without: str, *arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-c", WITHOUT, without, *arguments]
    done = subprocess.run(
        command, cwd=directory, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_every_extra_is_tried_here() -> None:
    assert {extra for extra, *_ in (*STEPS, *SERVERS)} == {*EXTRAS} - {"all", "fast"}


def test_all_has_every_extra() -> None:
    (all_of_them,) = EXTRAS["all"]
    found = re.fullmatch(r"siftbell\[(.*)\]", all_of_them)
    assert found is not None
    assert {*found[1].split(",")} == {*EXTRAS} - {"all"}


@pytest.mark.parametrize(("extra", "modules", "step"), STEPS)
def test_a_step_names_the_extra_that_it_lacks(tmp_path: Path, extra: str, modules: str, step: str) -> None:
    producer, consumer = "http", f"{{{step}}}"
    if step.startswith("producer "):
        schedule = ", schedule: 5m" if "github" in step or "sql" in step else ""
        producer, consumer = f"{{{step.removeprefix('producer ')}{schedule}}}", "log"
    filters = ""
    if step.startswith("filter "):
        filters, consumer = f"filters: [{{{step.removeprefix('filter ')}}}]\n", "log"
    (tmp_path / "alerts.yaml").write_text(PIPELINE.format(producer=producer, consumer=consumer) + filters)
    code, told = siftbell(tmp_path, modules, "check", "alerts.yaml")
    errors = [line for line in told.splitlines() if ": error: " in line or f"siftbell[{extra}]" in line]
    assert code == 1, told
    assert f'pip install "siftbell[{extra}]"' in "".join(errors), told
    assert told.endswith("1 error in 1 of 1 file\n"), told


@pytest.mark.parametrize(("extra", "modules", "name", "url"), SERVERS)
def test_a_setting_names_the_extra_that_it_lacks(tmp_path: Path, extra: str, modules: str, name: str, url: str) -> None:
    (tmp_path / "alerts.yaml").write_text(PIPELINE.format(producer="http", consumer="log"))
    code, told = siftbell(tmp_path, modules, "doctor", "--config", "alerts.yaml", "-o", "json", **{name: url})
    assert code == 1, told
    what = name.removeprefix("SIFTBELL_").lower()
    (finding,) = re.findall(rf'"what": "{what}",\s+"state": "error",\s+"text": (".*")', told)
    assert f'pip install \\"siftbell[{extra}]\\"' in finding


def test_a_missing_extra_is_a_line_of_the_list(tmp_path: Path) -> None:
    code, told = siftbell(tmp_path, "telegram", "plugins", "list")
    assert code == 0
    (line,) = [line for line in told.splitlines() if " telegram " in line]
    assert re.fullmatch(
        r'consumer +telegram +cannot be used: consumer \'telegram\' needs: pip install "siftbell\[telegram\]"', line.rstrip()
    )
    code, told = siftbell(tmp_path, "telegram", "plugins", "show", "telegram")
    assert code != 0
    assert told.count("\n") == 1
    assert 'pip install "siftbell[telegram]"' in told
