"""`siftbell plugins`: what there is, how it is used, and the beginning of a new one."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from pipeline import By, Condition, Config, Duration, Filter, NoOptions, Size, Template
from pipeline.cli.manual import example, manual, options, plain, summary, type_words

ROOT = Path(__file__).parents[3]


# list and show


def test_all_plugins_are_listed_with_what_they_do(project: Path, process) -> None:
    done = process("plugins", "list")
    assert done.code == 0
    rows = {tuple(line.split()[:2]): " ".join(line.split()[2:]) for line in done.out.splitlines()[2:]}
    assert rows["filter", "change"] == "Does what it is told."
    assert rows["producer", "take"] == "Makes a message of each object of a JSON list."
    assert ("consumer", "log") in rows


def test_one_kind_for_programs(project: Path, siftbell) -> None:
    rows = siftbell("plugins", "list", "--kind", "filter", "-o", "json").json
    assert {row["kind"] for row in rows} == {"filter"}
    assert {"kind": "filter", "name": "change", "usable": True, "what it does": "Does what it is told."} in rows


def test_a_plugin_that_cannot_be_used_says_why(project: Path, siftbell) -> None:
    plugins = project / "configs" / "plugins"
    (plugins / "broken.py").write_text("import nothing_of_that_name\n")
    (plugins / "unfinished.py").write_text(
        '"""Unfinished."""\nfrom pipeline import Filter, NoOptions\n\n\nclass Unfinished(Filter[NoOptions]):\n    """No."""\n'
    )
    (plugins / "log.py").write_text((plugins / "tell.py").read_text().replace("Tell", "Log"))
    done = siftbell("plugins", "list")
    assert done.code == 0
    assert "nothing_of_that_name" in done.err
    assert "cannot be used: consumer 'log' is offered twice" in done.out


def test_a_manual_has_the_options_and_a_line_that_works(project: Path, siftbell) -> None:
    done = siftbell("plugins", "show", "tell")
    assert (done.code, done.err) == (0, "")
    assert [line.rstrip() for line in done.out.splitlines() if line.strip("─ ")] == [
        "consumer tell",
        "Tells nobody.",
        "Tells.",
        "OPTION  TAKES   DEFAULT   DESCRIPTION",
        "token   secret  required  What lets it in.",
        "In a pipeline:",
        "consumers:",
        "  - tell: {token: TOKEN}",
    ]


def test_a_default_of_several_lines_stands_below_the_options(siftbell) -> None:
    out = siftbell("plugins", "show", "group").out
    assert [line.split()[2] for line in out.splitlines() if line.startswith(("title ", "text "))] == ["below", "below"]
    assert "`title` by default:\n\n    {% set name = " in out


def test_an_example_keeps_its_lines_on_a_narrow_terminal(siftbell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.plugins.WIDEST", 60)
    out = siftbell("plugins", "show", "deduplicate", "--kind", "filter").out
    assert "within: 10m, label: repeats}\n" in out
    assert any(line.strip().startswith("- render: ") and line.rstrip().endswith('{% endif %}"') for line in out.splitlines())


def test_a_shorthand_is_told(project: Path, siftbell) -> None:
    done = siftbell("plugins", "show", "change")
    assert "`change: VALUE` is short for `change: {what: VALUE}`." in done.out
    assert done.out.endswith("filters:\n  - change: WHAT\n")


def test_a_plugin_without_options_says_so_and_defaults_are_masked_where_they_are_secret(project: Path, siftbell) -> None:
    assert "It has no options." in siftbell("plugins", "show", "ask").out
    done = siftbell("plugins", "show", "take", "-o", "yaml")
    assert "default-secret" not in done.out
    assert "default: '**********'" in done.out


def test_two_plugins_of_one_name_are_both_shown(project: Path, siftbell) -> None:
    plugins = project / "configs" / "plugins"
    both = (plugins / "tell.py").read_text() + (plugins / "change.py").read_text().split("\n\n\n", 1)[1].replace(
        "from pydantic import Field", ""
    )
    head = "from collections.abc import Iterable\nfrom pipeline import Filter\n"
    (plugins / "both.py").write_text(both.replace('"""Tells."""\n', '"""Tells."""\n' + head, 1))
    shown = siftbell("plugins", "show", "both", "-o", "json").json
    assert [page["kind"] for page in shown] == ["filter", "consumer"]
    assert siftbell("plugins", "show", "both", "--kind", "filter", "-o", "json").json["kind"] == "filter"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("chnge",), 4, "no plugin is called 'chnge': did you mean 'change'?"),
        (("zzzzzz",), 4, "no plugin is called 'zzzzzz': `siftbell plugins list` names all"),
        (("change", "--kind", "consumer"), 4, "'change' is a filter, not a consumer"),
    ],
)
def test_what_there_is_not_is_4(project: Path, siftbell, arguments, code, text) -> None:
    done = siftbell("plugins", "show", *arguments)
    assert (done.code, done.out, done.err) == (code, "", f"siftbell: {text}\n")


@pytest.mark.parametrize("kind", ["producer", "filter", "consumer"])
def test_every_built_in_plugin_has_a_manual(siftbell, kind) -> None:
    for row in siftbell("plugins", "list", "--kind", kind, "-o", "json").json:
        page = siftbell("plugins", "show", row["name"], "--kind", kind, "-o", "json").json
        assert page["summary"].endswith(".")
        assert all(option["description"] for option in page["options"])


# manuals


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Deep(BaseModel):
    depth: int = Field(default=3, description="How deep.")


class Many(Config):
    size: Size = Field(default=2**20, description="Size.")
    every: Duration = Field(default="5m", validate_default=True, description="Duration.")
    url: str = Field(alias="URL", description="Url.")
    when: Condition | None = None
    text: Template | str = Template("{{ title }}")
    colour: Colour = Colour.RED
    names: list[str] = Field(default_factory=lambda: ["a"])
    people: Annotated[tuple[str, ...], BeforeValidator(tuple, json_schema_input_type=str | tuple[str, ...])] = ()
    headers: dict[str, SecretStr] = Field(default_factory=lambda: {"x": SecretStr("hidden")})
    deep: Deep = Deep()
    mode: Literal["fast", "safe"] = "fast"
    on: bool = True
    any_at_all: Any = None
    path: Path = Path("/tmp/x")


class Plain(Filter[Many]):
    """Filters nothing. And more
    of it.

    A second paragraph.
    """

    def filter(self, message):
        yield message


class Silent(Filter[NoOptions]):
    def filter(self, message):
        yield message


MANUAL = """Plain words about it,
on two lines.

- a list
- of two

```yaml
filters:
  - plain: {}
```

And more.
"""


def test_the_manual_of_a_module_is_shown_with_its_example(project: Path, siftbell) -> None:
    plugins = project / "configs" / "plugins"
    text = (plugins / "change.py").read_text().replace('"""Changes."""', f'"""{MANUAL}"""')
    (plugins / "change.py").write_text(text)
    shown = siftbell("plugins", "show", "change").out
    words = "Plain words about it, on two lines.\n\n- a list\n- of two\n\n    filters:\n      - plain: {}\n\nAnd more.\n"
    assert shown.startswith(f"filter change\n\n{words}")
    assert "In a pipeline" not in shown
    assert siftbell("plugins", "show", "change", "-o", "json").json["example"] == "filters:\n  - plain: {}"


def test_options_are_told_in_plain_words() -> None:
    told = {option["name"]: (option["type"], option["default"], option["required"]) for option in options(Many)}
    assert told == {
        "size": ("size", 2**20, False),
        "every": ("duration", "5m", False),
        "URL": ("text", None, True),
        "when": ("condition", None, False),
        "text": ("template or text", "{{ title }}", False),
        "colour": ("red or blue", "red", False),
        "names": ("list of text", ["a"], False),
        "people": ("text or list of text", [], False),
        "headers": ("map of secret", {"x": "**********"}, False),
        "deep": ("map", {"depth": 3}, False),
        "deep.depth": ("number", 3, False),
        "mode": ("fast or safe", "fast", False),
        "on": ("true or false", True, False),
        "any_at_all": ("anything", None, False),
        "path": ("path", "/tmp/x", False),
    }


def test_type_words_of_what_is_seldom() -> None:
    assert type_words(Annotated[int, "x"]) == "number"
    assert type_words(tuple[str, ...]) == "list of text"
    assert type_words(bytes) == "bytes"
    assert type_words(By | None) == "names of fields"
    assert plain(By("labels.team", "...")) == ["labels.team", "..."]
    assert plain((1, "x")) == [1, "x"]


def test_a_summary_is_the_first_sentence() -> None:
    assert summary(Plain) == "Filters nothing."
    page = manual("plain", "filter", Plain)
    assert "A second paragraph." in page["manual"]
    assert page["example"] == "filters:\n  - plain: {URL: URL}"
    assert example("silent", "filter", Silent) == "filters:\n  - silent: {}"


# new


@pytest.fixture(scope="module")
def types(tmp_path_factory) -> Path:
    """What mypy has found out about Siftbell: it takes a dozen seconds each time."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize(
    ("kind", "usage"),
    [("producer", "{}"), ("filter", "{longest: 5}"), ("consumer", "{url: http://127.0.0.1:9, token: secret-token}")],
)
def test_a_new_plugin_passes_its_test_types_and_lint_and_works_from_yaml(project: Path, types, process, kind, usage) -> None:
    done = process("plugins", "new", kind, f"new_{kind}")
    plugin = Path("configs", "plugins", f"new_{kind}.py")
    assert done.code == 0
    assert done.out.split() == [str(plugin), f"configs/plugins/test_new_{kind}.py"]
    run("pytest", "-q", "-p", "no:cacheprovider", f"configs/plugins/test_new_{kind}.py", cwd=project)
    both = (str(plugin), f"configs/plugins/test_new_{kind}.py")
    run("mypy", "--strict", "--cache-dir", str(types), *both, cwd=project, MYPYPATH="configs/plugins")
    run("ruff", "check", "--isolated", *both, cwd=project)
    steps = {"producer": "take: {}", "filter": "change: upper", "consumer": "tell: {token: x}", kind: f"new_{kind}: {usage}"}
    (project / "configs" / "alerts.yaml").write_text(
        "name: alerts\n" + "".join(f"{one}s:\n  - {step}\n" for one, step in steps.items())
    )
    tried = process("try", "alerts", stdin=b'{"title": "disk full", "text": "/var is full"}')
    assert tried.code == 0, tried.out + tried.err
    assert "secret-token" not in tried.out
    assert process("plugins", "list").out.count(f"new_{kind}") == 1


def run(tool: str, *arguments: str, cwd: Path, **environment: str) -> None:
    """Run a tool as a person would, outside of this repository's settings."""
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(project: Path, siftbell) -> None:
    assert siftbell("plugins", "new", "filter", "fresh", "--directory", "mine").code == 0
    (project / "mine" / "fresh.py").write_text("mine")
    done = siftbell("plugins", "new", "consumer", "fresh", "--directory", "mine")
    assert (done.code, done.out, done.err) == (1, "", "siftbell: mine/fresh.py is there already: nothing was written\n")
    assert (project / "mine" / "fresh.py").read_text() == "mine"
    (project / "mine" / "fresh.py").unlink()
    assert siftbell("plugins", "new", "filter", "fresh", "--directory", "mine").code == 1
    assert not (project / "mine" / "fresh.py").exists()


@pytest.mark.parametrize("name", ["Shop", "1shop", "my-shop", "", "class", "json", "test_shop", "conftest", "a" * 41, "über"])
def test_names_that_cannot_be_are_refused(project: Path, siftbell, name) -> None:
    done = siftbell("plugins", "new", "filter", name)
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("name", ["change", "match"])
def test_a_name_that_is_taken_is_refused(project: Path, siftbell, name) -> None:
    done = siftbell("plugins", "new", "filter", name)
    assert (done.code, done.err) == (1, f"siftbell: there is a filter '{name}' already: choose another name\n")


def test_a_new_plugin_lies_beside_a_configured_file(project: Path, siftbell) -> None:
    done = siftbell("plugins", "new", "filter", "fresh", "-c", "configs/alerts.yaml")
    assert done.out.split()[0] == "configs/plugins/fresh.py"
