"""What the documentation says is so: its pipelines pass the check, its links lead somewhere, its commands and settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from pipeline.cli.verdicts import as_text
from pipeline.engine.simulation.playing import play
from pipeline.registry import Registry
from pipeline.settings import Settings
from pipeline.spec.caseload import load_cases, stand_in
from pipeline.spec.loader import check
from pipeline.spec.problems import render_text

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
SECRETS = ("TELEGRAM_TOKEN", "TELEGRAM_CHAT", "NTFY_URL", "NTFY_TOKEN", "WEBHOOK_SECRET", "HOOK_SECRET", "GITHUB_SECRET")
ENVIRONMENT = dict.fromkeys(SECRETS, "https://1:x")
# The fences that hold YAML which is no pipeline say what it is: ```yaml title=NAME.
FENCE = re.compile(r"^( *)(`{3,})(\w+)(?: ([^\n`]*))?\n(.*?)^\1\2$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            indent, _, language, info, body = match.groups()
            inner = "\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n"
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, info or "", inner))
    return found


PIPELINES = [block for block in blocks() if block.language == "yaml" and not block.info]
SHARED = [block for block in blocks() if block.info == "title=siftbell.yaml"]
TESTED = [block for block in blocks() if block.info.startswith("title=") and block.info.endswith(".test.yaml")]


@pytest.fixture(autouse=True)
def scripts_are_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIFTBELL_SCRIPTS", f"/opt/siftbell/scripts:{tmp_path}")


def test_there_is_something_to_look_at() -> None:
    assert len(PAGES) >= 8
    assert len(PIPELINES) >= 3


@pytest.mark.parametrize("block", PIPELINES, ids=str)
def test_every_pipeline_passes_the_check(block: Block, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(block.text)
    beside = [shared for shared in SHARED if shared.page == block.page and "use:" in block.text]
    for shared in beside[:1]:
        (tmp_path / "siftbell.yaml").write_text(shared.text)
    report = check([tmp_path], registry=Registry(), environ=ENVIRONMENT)
    assert not report.problems, render_text(report)


@pytest.mark.parametrize("block", TESTED, ids=str)
def test_every_test_of_a_pipeline_passes(block: Block, tmp_path: Path) -> None:
    """With what stands above it on its page: the pipeline of its name, and the files that both read."""
    for other in blocks():
        if other.page == block.page and other.line <= block.line and other.info.startswith("title="):
            file = tmp_path / other.info.removeprefix("title=")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(other.text)
            file.chmod(0o755 if other.text.startswith("#!") else 0o644)
    report = check([tmp_path / block.info.removeprefix("title=").replace(".test.", ".")], environ={}, stand_in=stand_in)
    assert not report.problems, render_text(report)
    loaded = load_cases([tmp_path / block.info.removeprefix("title=")])
    assert not loaded.problems, render_text(loaded.report)
    for ready in loaded.ready:
        verdict = play(ready.case, ready.spec)
        assert verdict.passed, f"{block}: {ready.case.name}\n{as_text(verdict)}"


@pytest.mark.parametrize("page", sorted({block.page for block in TESTED}), ids=lambda page: page.stem)
def test_every_pipeline_with_a_name_has_a_test(page: Path) -> None:
    names = {block.info for block in blocks() if block.page == page and re.fullmatch(r"title=[\w-]+\.yaml", block.info)}
    assert {name.replace(".yaml", ".test.yaml") for name in names - {"title=siftbell.yaml"}} <= {block.info for block in TESTED}


@pytest.mark.parametrize("block", SHARED, ids=str)
def test_every_shared_file_passes_the_check(block: Block, tmp_path: Path) -> None:
    (tmp_path / "siftbell.yaml").write_text(block.text)
    shared = yaml.safe_load(block.text)
    lists = {kind: [{"use": name} for name in shared.get(kind, ())] for kind in ("producers", "filters", "consumers")}
    page = {kind: uses or usual for (kind, uses), usual in zip(lists.items(), (["http"], [], ["log"]), strict=True)}
    (tmp_path / "page.yaml").write_text(yaml.safe_dump(page))
    report = check([tmp_path], registry=Registry(), environ=ENVIRONMENT)
    assert not report.problems, render_text(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{page.relative_to(ROOT)} links to {target}: there is no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_setting_that_is_named_exists() -> None:
    known = {f"SIFTBELL_{name.upper()}" for name in Settings.model_fields}
    known |= {"SIFTBELL_API_KEY", "SIFTBELL_URL"}  # read by `siftbell send`
    known |= {"SIFTBELL_CURSOR"}  # set for scripts
    files = [*PAGES, ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    named = {(path.name, name) for path in files for name in re.findall(r"SIFTBELL_[A-Z_]*[A-Z]", path.read_text())}
    assert {(path, name) for path, name in named if name not in known} == set()


def test_every_verb_that_is_named_exists() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "--help"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    known = set(re.findall(r"^\W*([a-z][a-z-]+)\s{2,}", help_text, re.MULTILINE))
    assert "check" in known
    for page in PAGES:
        if page.name == "CHANGELOG.md" or "decisions" in page.parts:
            continue
        text = re.sub(r"^Not there yet.*?\n\n", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"^## Not there yet.*", "", text, flags=re.DOTALL | re.MULTILINE)
        for verb in re.findall(r"[`/]siftbell ([a-z][a-z-]+)", text):
            assert verb in known, f"{page.relative_to(ROOT)} names `siftbell {verb}`, which is not there"


def test_what_is_made_from_the_code_is_fresh() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stdout + made.stderr
