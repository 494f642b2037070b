"""The JSON Schema: accepts what the loader accepts, and refuses what a schema can tell."""

# ruff: noqa: E501 - tables of cases read best with one case a line

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import pipeline.registry
from pipeline.registry import Registry
from pipeline.spec import check
from pipeline.spec.document import read
from pipeline.spec.problems import Problems
from pipeline.spec.schema import make_schema

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = Path(__file__).parents[3] / "configs"

TOYS = {
    "producers": {"hook": "Hook", "poll": "Poll", "listen": "Listen"},
    "filters": {"only": "Only", "once": "Once", "wait": "Wait"},
    "consumers": {"chat": "ChatRoom", "batch": "Batch", "gone": "Gone", "queue": "ChatRoom"},
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """The schema of a machine on which only the toys are installed."""

    def entries(group: str) -> list[EntryPoint]:
        names = TOYS[group.partition(".")[2]]
        return [EntryPoint(name, f"spec_toys:{found}", group) for name, found in names.items()]

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        patch.setattr(pipeline.registry, "entry_points", entries)
        schema = make_schema(Registry())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


STEPS = "producers: [hook]\nconsumers: [batch]\n"


def is_valid(validator: Draft202012Validator, tmp_path: Path, text: str) -> bool:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    node = read(path, Problems())
    assert node is not None
    return validator.is_valid(node.plain())


@pytest.mark.parametrize(
    "text",
    [
        STEPS,
        "name: a\ndescription: x\nfilters:\n" + STEPS,
        "producers:\n  - hook: {}\n  - poll:\n    schedule: 30s\n    timezone: UTC\n    as: x\n    active: false\nconsumers: [batch]\n",
        "producers: [mod.ule:Class, {mod:Class: {any: thing}, as: x}]\nconsumers: [batch]\n",
        "producers: [{use: x}, {use: y, as: z, active: '${ON:-no}'}]\nconsumers: [{use: a, retry: {for: 1h30m}}]\n",
        STEPS + "filters:\n  - only: severity == 'x'\n  - only: {condition: severity == 'x'}\n    when: 'true'\n    queue: q\n",
        STEPS + "filters:\n  - once: {within: '${W}', by: [a, '${B}']}\n",
        "producers: [hook]\nconsumers:\n  - chat: {token: x, chat_id: 5, size: 7, rules: [{field: x, level: high}], headers: {a: b}}\n    concurrency: 3\n",
        "producers: [hook]\nconsumers:\n  - chat: {token: '${T}', chat_id: '${C}', size: '${S}', rules: [{field: x, level: '${L}'}]}\n    concurrency: '${N}'\n",
        "producers: [hook]\nconsumers: [gone, {gone: {any: thing}}]\n",
        "consumers:\n  archive:\n    chat: {token: x, chat_id: 5}\n    retry: {for: 6h}\nproducers:\n  in: hook\n",
        "consumers: {}\n",
        "filters:\n  loud: {only: severity == 'x', when: 'true'}\n",
        STEPS + "filters: [{use: loud}]\n",
        "producers: [hook]\nconsumers:\n  - batch:\n    render: brief\n  - batch:\n    render: {text: full, timezone: UTC}\n",
        STEPS + "keep: 24h\n",
        STEPS + "keep: '${KEEP}'\n",
        STEPS + "keep: {for: 1h30m, most: '${MOST}'}\n",
        "producers: [hook]\nconsumers:\n  - queue: {token: x, chat_id: 5}\n    as: q\n  - batch: {}\n    queue: slow\n",
    ],
)  # fmt: skip
def test_what_is_right(validator: Draft202012Validator, tmp_path: Path, text: str) -> None:
    assert is_valid(validator, tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "producers: []\nconsumers: [batch]\n",
        STEPS + "nme: x\n",
        STEPS + "name: A b\n",
        STEPS + "keep: a day\n",
        STEPS + "keep:\n",
        STEPS + "keep: {most: 5}\n",
        STEPS + "keep: {for: 1h, most: 0}\n",
        "producers: [hok]\nconsumers: [batch]\n",
        "producers: [batch]\nconsumers: [batch]\n",
        "producers: [{hook: {}, when: x}]\nconsumers: [batch]\n",
        "producers: [{hook: {}, poll: {}}]\nconsumers: [batch]\n",
        "producers: [{hook: {}, use: x}]\nconsumers: [batch]\n",
        "producers: [{as: x}]\nconsumers: [batch]\n",
        "producers: [{hook: {x: 1}}]\nconsumers: [batch]\n",
        "producers: [{hook: 5}]\nconsumers: [batch]\n",
        "producers: [{hook: {}, as: }]\nconsumers: [batch]\n",
        "producers: [{hook: {}, schedule: }]\nconsumers: [batch]\n",
        STEPS + "filters: [once]\n",
        STEPS + "filters:\n  - once:\n",
        STEPS + "filters: [only: 5]\n",
        STEPS + "filters: [only: ]\n",
        STEPS + "filters: [once: {within: 5}]\n",
        STEPS + "filters: [once: {within: soon}]\n",
        "producers: [hook]\nconsumers: [{chat: {token: x}}]\n",
        "producers: [hook]\nconsumers: [{chat: {token: x, chat_id: 1, size: 1000}}]\n",
        "producers: [hook]\nconsumers: [{chat: {token: x, chat_id: 1, rules: [{field: x, level: mid}]}}]\n",
        "producers: [hook]\nconsumers: [{batch: {}, concurrency: 0}]\n",
        "producers: [hook]\nconsumers: [{batch: {}, retry: {fr: 1h}}]\n",
        "producers: [hook]\nconsumers: [{batch: {}, rate: 5}]\n",
        "producers: {x: {use: y}}\n",
        "producers: {X: hook}\n",
        "consumers: {x: {batch: {}, as: y}}\n",
        "consumers: {x: batch}\nsteps: {}\n",
        "filters: {x: batch}\n",
        "producers: [hook]\nconsumers:\n  - batch:\n    render: {titel: x}\n",
        "producers: [hook]\nconsumers: [{queue: slow}]\n",
        "producers: [hook]\nconsumers: [{queue: {token: x}}]\n",
        "producers: [hook]\nconsumers: [{queue: {token: x, chat_id: 5}, batch: {}}]\n",
        "producers: [hook]\nconsumers: [{batch: {}, queue: {token: x, chat_id: 5}}]\n",
    ],
)
def test_what_is_wrong(validator: Draft202012Validator, tmp_path: Path, text: str) -> None:
    assert not is_valid(validator, tmp_path, text)


def good_files() -> list[Path]:
    files = [path for folder in (SHIPPED, CONFIGS / "good") for path in folder.rglob("*.yaml")]
    return sorted(path for path in files if not path.name.endswith(".test.yaml"))


# What a schema cannot tell: places, conditions and templates, other files, the environment, what only the plugin knows.
BEYOND_A_SCHEMA = {line for line in (CONFIGS / "bad" / "beyond-a-schema.txt").read_text().split() if line}


def bad_files() -> list[Path]:
    return sorted((CONFIGS / "bad").rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    path.write_text(json.dumps(make_schema(), indent=2))
    return path


def check_jsonschema(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_schema_is_one(schema_file: Path) -> None:
    done = check_jsonschema("--check-metaschema", schema_file)
    assert done.returncode == 0, done.stdout


def test_check_jsonschema_accepts_every_good_example(schema_file: Path) -> None:
    assert good_files()
    done = check_jsonschema("--schemafile", schema_file, *good_files())
    assert done.returncode == 0, done.stdout


def test_check_jsonschema_refuses_bad_examples_where_a_schema_can_tell(schema_file: Path) -> None:
    done = check_jsonschema("--schemafile", schema_file, "-o", "json", *bad_files())
    assert done.returncode == 1, done.stdout
    told = json.loads(done.stdout)
    refused = {error["filename"] for error in told["errors"]} | {error["filename"] for error in told["parse_errors"]}
    passed = {str(path.relative_to(CONFIGS / "bad")) for path in bad_files() if str(path) not in refused}
    assert passed == BEYOND_A_SCHEMA


@pytest.mark.parametrize("folder", sorted({path.parent for path in good_files()}), ids=lambda path: path.name)
def test_the_loader_accepts_every_good_example(folder: Path) -> None:
    environ = {"CHAT": "-100123", "HOOK_URL": "https://example.com/hook"}
    assert check([folder], environ=environ, secrets=CONFIGS / "secrets").problems == ()
