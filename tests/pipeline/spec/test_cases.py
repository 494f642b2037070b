"""Files of tests: what may stand in them, and what is said of the rest, to the letter."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from pipeline.spec.caseload import find_case_files, load_cases, stand_in
from pipeline.spec.cases import Happening, Sending
from pipeline.spec.caseupdate import update
from pipeline.spec.matching import MISSING, at_path, differing, fits, refuse_unusable
from pipeline.spec.problems import render_text
from pipeline.spec.schema import make_schema

ROOT = Path(__file__).parents[3]
CASES = Path("tests/configs/cases")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plain(path: Path):
    return YAML(typ="safe", pure=True).load(path.read_text())


def test_all_errors_are_told_at_their_places() -> None:
    golden = CASES / "bad.test.txt"
    text = render_text(load_cases([CASES / "bad.test.yaml"]).report) + "\n"
    if os.environ.get("SIFTBELL_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_everything_that_may_stand_there_is_read() -> None:
    loaded = load_cases([CASES / "good.yaml"])
    assert not loaded.problems, render_text(loaded.report)
    (ready,) = loaded.ready
    case = ready.case
    assert case.start == datetime(2026, 3, 29, 5, 59, tzinfo=UTC), "the test's own zone"
    assert case.environment == {"UNUSED": "x", "OTHER": "y"}
    assert [timed.step.what for timed in case.steps if isinstance(timed.step, Happening)] == [None, "restart", "forget"]
    sendings = [timed.step for timed in case.steps if isinstance(timed.step, Sending)]
    assert [sending.producer for sending in sendings] == ["http"] * 4 + ["hooks"] * 3
    assert (sendings[1].repeat, sendings[1].every) == (3, timedelta(seconds=20))
    assert sendings[4].messages[0]["time"] == "2026-03-29T02:05:00-04:00"
    assert [broken.how for broken in case.broken["second"]] == ["temporary", "permanent"]
    wanted = case.expect["log"][2]
    assert wanted.latest.of(case.start) == case.start + timedelta(seconds=90)
    assert case.until == timedelta(hours=10)


def test_the_schema_takes_what_is_right_and_refuses_what_is_wrong() -> None:
    schema = Draft202012Validator(make_schema())
    assert list(schema.iter_errors(plain(CASES / "good.test.yaml"))) == []
    wrong = plain(CASES / "bad.test.yaml")
    for index in (0, 3):
        assert list(schema.iter_errors({"tests": [wrong["tests"][index]]}))


def test_paths_mean_their_tests(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.test.yaml", "b.yaml", ".c.test.yaml"):
        (tmp_path / name).touch()
    assert find_case_files([tmp_path, tmp_path / "a.yaml"]) == [tmp_path / "a.test.yaml"]
    assert find_case_files([tmp_path / "b.yaml"]) == []


def test_tests_beside_no_pipeline_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "alert.test.yaml").write_text("tests: [{name: one}]")
    (tmp_path / "alerts.yaml").write_text("")
    (problem,) = load_cases([tmp_path]).problems
    assert (problem.text, problem.hint) == ("there is no alert.yaml beside it", "did you mean 'alerts.yaml'?")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("- name: one", "a mapping is expected"),
        ("tests: []", "file.tests: a list of at least 1 is expected"),
        ("test: []", "file has no option 'test'"),
        ("tests: [{name: one, at: +1h}]", "at: a time such as 2026-03-29T01:59 is expected"),
        ("tests: [{name: one, send: [{http: {json: 1}, every: 1s}]}]", "send http: 'every' needs 'repeat'"),
        ("tests: [{name: one, send: [{http: {json: 1}, wait: 1s}]}]", "'wait' is a step of its own"),
        ("tests: [{name: one, send: [{http: {json: 1}, after: 1s, at: +1s}]}]", "a step has 'after' or 'at', not both"),
        ("tests: [{name: one, send: [{restart: yes}]}]", "step.restart: true is expected"),
        ("tests: [{name: one, send: [{http: 5}]}]", "send http: a payload is expected"),
        (
            "tests: [{name: one, send: [{http: {message: {id: x, time: y}}}]}]",
            "time: a time such as 2026-03-29T01:59 is expected",
        ),
        ("tests: [{name: one, fail: {log: away}}]", "fail log: a mapping is expected"),
        ("tests: [{name: one, timezone: Mars}]", "test.timezone: a time zone such as Europe/Berlin or UTC is expected"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "p.yaml").write_text("producers: [http]\nconsumers: [log]\n")
    (tmp_path / "p.test.yaml").write_text(text)
    assert told in [problem.text for problem in load_cases([tmp_path]).problems] or (
        not told and not load_cases([tmp_path]).ready
    )


def test_a_step_that_is_switched_off_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        'producers: [http]\nconsumers:\n  - log\n  - log: {}\n    as: chat\n    active: "${CHAT_ACTIVE:-false}"\n'
    )
    (tmp_path / "p.test.yaml").write_text("tests: [{name: one, expect: {chat: 0, chad: 0}}]")
    told = [(problem.text, problem.hint) for problem in load_cases([tmp_path]).problems]
    inactive = "it is not active here: where a variable switches it on, 'environment:' sets that"
    assert told == [("the pipeline has no consumer 'chat'", inactive), ("the pipeline has no consumer 'chad'", "there is log")]
    (tmp_path / "p.test.yaml").write_text("tests: [{name: one, environment: {CHAT_ACTIVE: 'true'}, expect: {chat: 0}}]")
    assert not load_cases([tmp_path]).problems


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TELEGRAM_TOKEN", "1:stand-in"),
        ("CHAT_ID", "1"),
        ("SMTP_PORT", "1"),
        ("TELEGRAM_CHAT", "1"),
        ("HOOK_URL", "https://stand-in.example.com"),
        ("PASSWORD", "stand-in"),
    ],
)
def test_what_stands_in_for_a_variable_is_mostly_accepted(name: str, value: str) -> None:
    assert stand_in(name) == value


@given(VALUES)
def test_a_value_fits_itself(value) -> None:
    if refuse_unusable(value) or "absent" in str(value) or "matches" in str(value) or "contains" in str(value):
        return
    assert fits(value, value)


@pytest.mark.parametrize(
    ("wanted", "seen", "same"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 2}, False),
        ({"a": None}, {}, True),
        ([1], [1, 2], False),
        (5, "5", True),
        ("5", 5, False),
        (True, "True", False),
        (1, True, False),
        ({"matches": "^b"}, "abc", False),
        ({"matches": "b"}, "abc", True),
        ({"contains": "b"}, ["a", "b"], True),
        ({"contains": "b"}, MISSING, False),
        ({"absent": True}, "", True),
        ({"absent": True}, MISSING, True),
        ({"absent": True}, "x", False),
        ({"matches": "b", "other": 1}, {"matches": "b", "other": 1}, True),
    ],
)
def test_what_fits(wanted, seen, same) -> None:
    assert fits(wanted, seen) is same


def test_what_differs_is_told_as_deep_as_it_can_be() -> None:
    wanted = {"a": {"b": 1, "c": {"matches": "x"}}, "d": [1]}
    seen = {"a": {"b": 2, "c": "y"}, "d": [1]}
    assert differing(wanted, seen, "sent") == [("sent.a.b", 1, 2), ("sent.a.c", {"matches": "x"}, "y")]
    assert differing({"e": 1}, seen, "sent") == [("sent.e", 1, MISSING)]
    assert differing(wanted, wanted | {"a": {"b": 1, "c": "x"}}, "sent") == []


def test_paths_lead_into_values() -> None:
    value = {"labels": {"a.b": "dotted", "a": {"b": "deep"}}, "data": [{"x": [1, 2]}]}
    assert at_path(value, "labels.a.b") == "dotted"
    assert at_path(value, "data[0].x[1]") == 2
    assert at_path(value, "data[3]") is MISSING
    assert at_path(value, "labels.c.d") is MISSING
    assert at_path(value, "labels.a.b.c") is MISSING


def test_what_is_written_leaves_the_rest_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.test.yaml"
    before = (
        "# head\r\ntests:\r\n  - name: one   # first\r\n    expect:\r\n      # inside\r\n      a:   # of a\r\n"
        "        - title: old   # trailing\r\n      b: 0     # none\r\n    # after\r\n    held: 2\r\n\r\n"
        "  - {name: two, expect: {a: [{title: x}], b: []}}\r\n  - name: three\r\n    expect:\r\n# end\r\n"
    )
    file.write_bytes(before.encode())
    update(
        file,
        {
            0: [(("expect", "a"), []), (("expect", "b"), [{"title": "no"}]), (("expect", "c"), 1), (("held",), 0)],
            1: [(("expect", "b"), [{"title": "a: b"}]), (("dead_letters", "b"), [{"error": "x" * 140}])],
            2: [(("expect", "a"), [{"title": "x", "text": "y" * 140}])],
        },
    )
    after = file.read_bytes().decode()
    found = YAML(typ="safe", pure=True).load(after)["tests"]
    assert found[0] == {"name": "one", "expect": {"a": [], "b": [{"title": "no"}], "c": 1}, "held": 0}
    assert found[1]["expect"] == {"a": [{"title": "x"}], "b": [{"title": "a: b"}]}
    assert found[1]["dead_letters"] == {"b": [{"error": "x" * 140}]}
    assert found[2]["expect"] == {"a": [{"title": "x", "text": "y" * 140}]}
    for comment in ("# head", "# first", "# inside", "# none", "# after", "# end"):
        assert comment in after
