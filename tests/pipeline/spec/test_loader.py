"""Whole configurations: which files are read, what they share, and what is suspicious about them."""

# ruff: noqa: E501 - tables of cases read best with one case a line

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.registry import Registry
from pipeline.spec import SpecError, check, load, render_github, render_json, render_text, summary
from pipeline.spec.model import Keep

FINE = "producers: [spec_toys:Hook]\nconsumers: [spec_toys:Batch]\n"
CHAT = "spec_toys:ChatRoom: {token: x, chat_id: 1}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    return tmp_path


def text_of(*paths: str) -> list[str]:
    return render_text(check([Path(path) for path in paths], environ={})).splitlines()


def test_a_directory_means_its_yaml_files(home: Path) -> None:
    for name in ("b", "a", "a.test", ".hidden"):
        Path(f"configs/{name}.yaml").write_text(FINE)
    Path("configs/sub").mkdir()
    Path("configs/sub/c.yaml").write_text(FINE)
    configuration = load([Path("configs")])
    assert list(configuration.pipelines) == ["a", "b"]
    assert configuration.files == (Path("configs/a.yaml"), Path("configs/b.yaml"))


def test_files_and_directories_may_be_named_several_times(home: Path) -> None:
    Path("configs/a.yaml").write_text(FINE)
    Path("b.yaml").write_text(FINE)
    configuration = load([Path("configs/a.yaml"), Path("configs"), Path("b.yaml"), Path("configs/../b.yaml")])
    assert list(configuration.pipelines) == ["a", "b"]


def test_tests_are_passed_over_even_where_they_are_named(home: Path) -> None:
    Path("a.yaml").write_text(FINE)
    Path("a.test.yaml").write_text("tests: []\n")
    assert list(load([Path("a.yaml"), Path("a.test.yaml")]).pipelines) == ["a"]


@pytest.mark.parametrize(
    ("paths", "first"),
    [
        (["nope.yaml"], "nope.yaml: error: there is no such file"),
        (["configs"], "configs: error: no file in this directory is called '*.yaml'"),
        ([], ".: error: no configuration is named"),
    ],
)
def test_paths_that_mean_nothing(home: Path, paths: list[str], first: str) -> None:
    assert text_of(*paths)[0] == first


def test_a_file_that_ends_in_yml_is_pointed_out(home: Path) -> None:
    Path("configs/a.yaml").write_text(FINE)
    Path("configs/b.yml").write_text(FINE)
    assert text_of("configs") == [
        "configs/b.yml: warning: this file is not read",
        "      | call it '.yaml'",
        "1 warning in 1 of 1 file",
    ]


def test_all_errors_of_all_files_come_in_their_order(home: Path) -> None:
    Path("configs/a.yaml").write_text("producers: [x]\nconsumers: [y]\n")
    Path("configs/b.yaml").write_text("a: b: c\n")
    Path("configs/c.yaml").write_text(FINE)
    Path("configs/siftbell.yaml").write_text("steps: {}\n")
    report = check([Path("configs")], environ={})
    assert [str(problem.position) for problem in report.problems] == [
        "configs/siftbell.yaml:1:1",
        "configs/a.yaml:1:13",
        "configs/a.yaml:2:13",
        "configs/b.yaml:1:5",
    ]
    assert summary(report) == "4 errors in 3 of 4 files"
    assert summary(check([Path("nope")], environ={})) == "1 error"
    assert list(report.configuration.pipelines) == ["a", "c"]
    with pytest.raises(SpecError) as caught:
        load([Path("configs")], environ={})
    assert caught.value.problems == report.problems
    assert str(caught.value) == render_text(report)


def test_a_sound_configuration_is_said_to_be(home: Path) -> None:
    Path("configs/a.yaml").write_text(FINE)
    assert text_of("configs") == ["1 file, no problems"]


def test_shared_steps_stand_in_one_place(home: Path) -> None:
    Path("configs/siftbell.yaml").write_text(
        f"producers:\n  hook: spec_toys:Hook\nconsumers:\n  archive:\n    {CHAT}\n    retry: {{for: 1h}}\n    concurrency: 3\n"
    )
    Path("configs/a.yaml").write_text(
        "producers:\n  - use: hook\nconsumers:\n  - use: archive\n    as: store\n    when: severity == 'x'\n    concurrency: 5\n"
    )
    Path("configs/b.yaml").write_text("producers:\n  - use: hook\n    as: in\nconsumers:\n  - use: archive\n    queue: own\n")
    pipelines = load([Path("configs")], environ={}).pipelines
    (first,), (second,) = pipelines["a"].consumers, pipelines["b"].consumers
    assert (first.label, first.queue, first.concurrency, str(first.retry.lasting)) == ("store", "archive", 5, "1:00:00")
    assert first.when is not None
    assert (second.label, second.queue, second.concurrency, second.when) == ("archive", "own", 3, None)
    assert first.config is second.config
    assert [pipelines[name].producers[0].label for name in "ab"] == ["hook", "in"]


def test_the_shared_file_beside_a_single_file_is_read(home: Path) -> None:
    Path("configs/siftbell.yaml").write_text("consumers: {archive: spec_toys:Batch, other: spec_toys:Batch}\n")
    Path("configs/a.yaml").write_text("producers: [spec_toys:Hook]\nconsumers: [{use: archive}]\n")
    assert text_of("configs/a.yaml") == ["2 files, no problems"]
    assert text_of("configs")[0] == "configs/siftbell.yaml:1:39: warning: no pipeline uses the shared consumer 'other'"


@pytest.mark.parametrize(
    ("shared", "pipeline", "first"),
    [
        ("", "consumers: [{use: archiv}]", "configs/a.yaml:2:19: error: no shared consumer is called 'archiv'"),
        ("consumers: {b: spec_toys:Batch}", "consumers: [{use: x}]", "configs/a.yaml:2:19: error: no shared consumer is called 'x'"),
        (
            "producers: {x: spec_toys:Hook}",
            "consumers: [{use: x}]",
            "configs/a.yaml:2:19: error: the shared step 'x' is a producer, not a consumer",
        ),
        (
            "consumers: {b: spec_toys:Batch}",
            "consumers: [{use: b, spec_toys:Batch: {}}]",
            "configs/a.yaml:2:22: error: a step that says 'use' has no key 'spec_toys:Batch'",
        ),
        ("consumers: {b: spec_toys:Batch}", "consumers: [{use: b, retry: 3}]", "configs/a.yaml:2:29: error: retry: a mapping is expected"),
        ("consumers: {b: nope}", "consumers: [{use: b}]", "configs/siftbell.yaml:1:16: error: no consumer is called 'nope'"),
        ("consumers: {B: spec_toys:Batch}", "consumers: [{use: B}]", "configs/siftbell.yaml:1:13: error: 'B' cannot be a name"),
        (
            "consumers: {b: {spec_toys:Batch: {}, as: x}}",
            "consumers: [{use: b}]",
            "configs/siftbell.yaml:1:38: error: 'as' stands where a shared step is used, not here",
        ),
        ("consumers: {b: {use: b}}", "consumers: [{use: b}]", "configs/siftbell.yaml:1:17: error: 'use' stands where a shared step is used, not here"),
        ("consumers: [x]", "consumers: [spec_toys:Batch]", "configs/siftbell.yaml:1:12: error: consumers: a mapping of names to steps is expected"),
        ("consumers: x", "consumers: [spec_toys:Batch]", "configs/siftbell.yaml:1:12: error: consumers: a mapping of names to steps is expected"),
        ("consumer: {}", "consumers: [spec_toys:Batch]", "configs/siftbell.yaml:1:1: error: siftbell.yaml has no key 'consumer'"),
        ("[]", "consumers: [spec_toys:Batch]", "configs/siftbell.yaml:1:1: error: a mapping is expected"),
        ("a: b: c", "consumers: [{use: b}]", "configs/siftbell.yaml:1:5: error: ': ' starts a value here, inside another value"),
    ],
)  # fmt: skip
def test_shared_steps_that_are_wrong(home: Path, shared: str, pipeline: str, first: str) -> None:
    Path("configs/siftbell.yaml").write_text(shared)
    Path("configs/a.yaml").write_text(f"producers: [spec_toys:Hook]\n{pipeline}\n")
    assert text_of("configs")[0] == first


def test_an_empty_shared_file_is_fine(home: Path) -> None:
    Path("configs/siftbell.yaml").write_text("producers:\nconsumers:\n")
    Path("configs/a.yaml").write_text(FINE)
    assert text_of("configs") == ["2 files, no problems"]


def test_a_shared_name_of_two_files_names_the_other_place(home: Path) -> None:
    Path("more").mkdir()
    for directory in ("configs", "more"):
        Path(f"{directory}/siftbell.yaml").write_text("consumers: {b: spec_toys:Batch}\n")
        Path(f"{directory}/{directory}.yaml").write_text("producers: [spec_toys:Hook]\nconsumers: [{use: b}]\n")
    assert text_of("configs", "more") == [
        "more/siftbell.yaml:1:13: error: another shared consumer is called 'b'",
        "    1 | consumers: {b: spec_toys:Batch}",
        "      |             ^ the first stands in configs/siftbell.yaml:1:13",
        "1 error in 1 of 4 files",
    ]


def test_a_schedule_may_come_from_the_shared_step_and_the_zone_from_its_use(home: Path) -> None:
    Path("configs/siftbell.yaml").write_text("producers:\n  poll:\n    spec_toys:Poll:\n    schedule: 0 8 * * *\n")
    Path("configs/a.yaml").write_text("producers:\n  - use: poll\n    timezone: Europe/Berlin\nconsumers: [spec_toys:Batch]\n")
    (step,) = load([Path("configs")]).pipelines["a"].producers
    assert str(step.schedule) == "0 8 * * * Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["0:0 the file is empty | a pipeline has producers, filters and consumers"]),
        ("# words\n", ["0:0 the file is empty | a pipeline has producers, filters and consumers"]),
        ("- a\n", ["1:1 a mapping is expected | a pipeline's file begins with 'name:' or 'producers:'"]),
        ("{}", ["1:1 pipeline 'p' has no producers", "1:1 pipeline 'p' has no consumers"]),
        ("name: x\nfilters:\n", ["1:1 pipeline 'x' has no producers", "1:1 pipeline 'x' has no consumers"]),
        (FINE + "filters: x\n", ["3:10 filters: a list of steps is expected | begin each step with '- '"]),
        ("producers: []\nconsumers:\n", ["1:1 pipeline 'p' has no producers", "2:1 pipeline 'p' has no consumers"]),
        (FINE + "name: A b\n", ["3:7 name: lower-case letters, digits, '-' and '_' are expected, at most 63"]),
        (FINE + "name: 5\n", ["3:7 name: a text is expected | put it in quotes"]),
        (FINE + "name: [x]\n", ["3:7 name: a text is expected"]),
        (FINE + "name: ${NOPE}\n", ["3:7 the environment variable NOPE is not set | set it, or give a default: ${NOPE:-…}"]),
        (FINE + "description: 5\n", ["3:14 description: a text is expected | put it in quotes"]),
        (FINE + "filter: []\n", ["3:1 a pipeline has no key 'filter' | did you mean 'filters'?"]),
        (FINE + "zzz: []\n", ["3:1 a pipeline has no key 'zzz' | there are name, description, keep, producers, filters, consumers"]),
        (
            FINE + "filters:\n  - spec_toys:Only: 'false'\n  - spec_toys:Once: {within: 1m}\n",
            ["4:5 filter spec_toys:Only: this condition never holds | nothing reaches the 2 steps after it"],
        ),
        (FINE + "filters:\n  - spec_toys:Only: 1 == 2\n", ["4:5 filter spec_toys:Only: this condition never holds | nothing reaches the 1 step after it"]),
        (
            FINE + "filters:\n  - spec_toys:Only: 'false'\n    when: severity == 'x'\n  - spec_toys:Only: 'true'\n  - spec_toys:Only: 'false'\n    active: false\n",
            [],
        ),
        (
            FINE + "filters:\n  - spec_toys:Once: {within: 1m}\n    when: 'false'\n",
            ["4:5 filter spec_toys:Once: its 'when' never holds | 'active: false' says so more clearly"],
        ),
        ("producers: [spec_toys:Hook]\nconsumers: [{spec_toys:Batch: , active: false}]\n", ["2:14 no consumer of pipeline 'p' is active"]),
        (
            f"producers: [spec_toys:Hook]\nconsumers:\n  - {CHAT}\n  - {CHAT}\n    as: two\n",
            ["4:5 consumer spec_toys:ChatRoom sends the same to the same place as the one in line 3 | remove one of them, or give both a 'when:'"],
        ),
        (f"producers: [spec_toys:Hook]\nconsumers:\n  - {CHAT}\n    when: severity == 'a'\n  - {CHAT}\n    when: severity == 'b'\n    as: two\n", []),
        (f"producers: [spec_toys:Hook]\nconsumers:\n  - {CHAT}\n  - spec_toys:ChatRoom: {{token: x, chat_id: 2}}\n    as: two\n", []),
    ],
)  # fmt: skip
def test_pipelines_that_are_wrong_or_suspicious(told, text: str, problems: list[str]) -> None:
    assert told(text) == problems


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", None),
        ("keep: 24h\n", Keep(timedelta(days=1))),
        ("keep: {for: 90m, most: 7}\n", Keep(timedelta(minutes=90), 7)),
        ("keep: '${HOW_LONG:-2h}'\n", Keep(timedelta(hours=2))),
    ],
)
def test_a_pipeline_says_for_how_long_its_messages_are_kept(home: Path, text: str, kept: Keep | None) -> None:
    Path("a.yaml").write_text(text + FINE)
    assert load([Path("a.yaml")]).pipelines["a"].keep == kept


def test_two_pipelines_of_one_name(home: Path) -> None:
    Path("configs/a.yaml").write_text(FINE)
    Path("configs/b.yaml").write_text(f"name: a\n{FINE}")
    assert text_of("configs")[:3] == [
        "configs/b.yaml:1:7: error: another pipeline is called 'a'",
        "    1 | name: a",
        "      |       ^ the first stands in configs/a.yaml:1:1",
    ]


def test_a_file_whose_name_cannot_be_a_pipelines_needs_a_name(home: Path) -> None:
    Path("configs/My Alerts.yaml").write_text(FINE)
    assert text_of("configs")[0] == "configs/My Alerts.yaml:1:1: error: the file's name 'My Alerts' cannot be the pipeline's"
    Path("configs/My Alerts.yaml").write_text(f"name: alerts\n{FINE}")
    assert list(load([Path("configs")]).pipelines) == ["alerts"]


def test_plugins_beside_the_files_are_found(home: Path) -> None:
    Path("configs/plugins").mkdir()
    Path("configs/plugins/ticket.py").write_text(
        "from pipeline import Consumer, NoOptions\nclass T(Consumer[NoOptions]):\n    def consume(self, message): ...\n"
    )
    Path("configs/plugins/broken.py").write_text("\nraise RuntimeError('no')\n")
    Path("configs/a.yaml").write_text("producers: [spec_toys:Hook]\nconsumers: [ticket, broken]\n")
    assert text_of("configs") == [
        "configs/a.yaml:2:21: error: configs/plugins/broken.py:2: RuntimeError: no",
        "    2 | consumers: [ticket, broken]",
        "      |                     ^^^^^^",
        "1 error in 1 of 1 file",
    ]
    assert text_of("configs/a.yaml") == text_of("configs")
    report = check([Path("configs")], registry=Registry())
    assert [problem.text for problem in report.problems] == ["no consumer is called 'ticket'", "no consumer is called 'broken'"]


def test_a_revision_changes_with_what_is_declared_and_not_with_the_environment(home: Path) -> None:
    def revision(shared: str = "", text: str = "", value: str = "1") -> str:
        Path("configs/siftbell.yaml").write_text(
            f"consumers:\n  c:\n    spec_toys:ChatRoom: {{token: x, chat_id: '${{V}}'}}\n{shared}"
        )
        Path("configs/a.yaml").write_text(f"producers: [spec_toys:Hook]\nconsumers: [{{use: c}}]\n{text}")
        return load([Path("configs")], environ={"V": value}).pipelines["a"].revision

    first = revision()
    assert len(first) == 12
    assert int(first, 16) >= 0
    assert revision(value="2") == first
    assert revision(text="# words\n\n") == first
    assert revision(shared="    concurrency: 2\n") != first
    assert revision(text="description: x\n") != first


def test_programs_get_json(home: Path) -> None:
    Path("a.yaml").write_text("producers: [prometheu]\nconsumers: [spec_toys:Batch]\n")
    report = check([Path("a.yaml"), Path("nope.yaml")], environ={})
    assert json.loads(render_json(report)) == [
        {"file": "nope.yaml", "line": 0, "column": 0, "severity": "error", "text": "there is no such file", "hint": ""},
        {
            "file": "a.yaml",
            "line": 1,
            "column": 13,
            "severity": "error",
            "text": "no producer is called 'prometheu'",
            "hint": "did you mean 'prometheus'?",
        },
    ]


def test_github_gets_workflow_commands(home: Path) -> None:
    Path("a,b:c.yaml").write_text("name: a\nproducers: ['100%\\n']\nconsumers: [spec_toys:Batch]\nx: 1\n")
    report = check([Path("a,b:c.yaml"), Path("nope.yaml")], environ={})
    commands = render_github(report).splitlines()
    assert commands[0] == "::error file=nope.yaml::there is no such file"
    assert commands[1].startswith("::error file=a%2Cb%3Ac.yaml,line=2,col=13::no producer is called '100%25")
    assert commands[2].startswith("::error file=a%2Cb%3Ac.yaml,line=4,col=1::a pipeline has no key 'x' (there are name,")


def test_carets_stand_below_wide_letters_tabs_and_in_long_lines(home: Path) -> None:
    long = "x" * 200
    Path("a.yaml").write_text(
        f'producers: [{{"spec_toys:Hook": ,\t"日本e\u0301": 1}}]\nconsumers: [spec_toys:Batch, {long}]\nnäme: 1\n'
    )
    shown = text_of("a.yaml")
    assert shown[1:3] == [
        '    1 | producers: [{"spec_toys:Hook": ,\t"日本e\u0301": 1}]',
        f"      | {' ' * 32}\t^^^^^^^ options of 'spec_toys:Hook' are indented under it",
    ]
    assert shown[4] == f"    2 | consumers: [spec_toys:Batch, {'x' * 60}…"
    assert shown[5].startswith("      |" + " " * 30 + "^" * 60)


def test_neither_web_nor_store_nor_queue_is_imported() -> None:
    code = "import sys, pipeline.spec, pipeline.spec.schema; print([m for m in ('fastapi', 'sqlalchemy', 'celery') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
