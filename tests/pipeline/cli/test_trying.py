"""`siftbell try`, in words and as data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("project")

ALL = [
    {"title": "disk full", "severity": "critical"},
    {"title": "noise", "severity": "debug"},
    {"title": "both", "severity": "warning"},
]
FOR_PEOPLE = """alerts: take made 3 messages

message 1 of 3: disk full
  event · critical · firing · take
  by=application/json
    change            changed
      title: "disk full" → "DISK FULL"
    quiet (change)    passed
    cut (change)      passed
    fragile (change)  passed
  » oncall (tell)     would send
      token: ***
      text:
          two
          lines of DISK FULL
  » tell              would send
      token: ***
      text:
          two
          lines of DISK FULL

message 2 of 3: noise
  event · debug · firing · take
  by=application/json
    change            changed
      title: "noise" → "NOISE"
    quiet (change)    dropped     by configs/alerts.yaml:7:5

message 3 of 3: both
  event · warning · firing · take
  by=application/json
    change            changed
      title: "both" → "BOTH"
    quiet (change)    passed
    cut (change)      split       into 2
    part 1 of 2: one
      event · warning · firing · take
      by=application/json
      title: "BOTH" → "one"
        fragile (change)  passed
      » oncall (tell)     would send
          token: ***
          text:
              two
              lines of one
      » tell              left out    when: severity == "critical" does not hold
    part 2 of 2: two
      event · warning · firing · take
      by=application/json
      title: "BOTH" → "two"
        fragile (change)  passed
      » oncall (tell)     would send
          token: ***
          text:
              two
              lines of two
      » tell              left out    when: severity == "critical" does not hold
"""


def test_a_person_sees_what_every_step_did(project, process) -> None:
    (project / "payload.json").write_text(json.dumps(ALL))
    done = process("try", "alerts", "-f", "payload.json")
    assert done.out == FOR_PEOPLE
    assert (done.code, done.err) == (0, "nothing was sent or stored\n")
    assert not (project / ".siftbell").exists()


def test_a_program_gets_the_same_as_json_and_as_yaml(siftbell) -> None:
    done = siftbell("try", "alerts", "-o", "json", stdin=json.dumps(ALL).encode())
    assert done.code == 0
    first = done.json["journeys"][0]
    assert first["visits"][0]["changes"] == [{"field": "title", "before": "disk full", "after": "DISK FULL"}]
    assert first["deliveries"][0]["preview"] == {"token": "***", "text": "two\nlines of DISK FULL"}
    assert done.json["journeys"][1]["visits"][-1]["did"] == "dropped"
    yaml = siftbell("try", "alerts", "-o", "yaml", "-f", "-", stdin=json.dumps(ALL).encode())
    assert "field: title" in yaml.out
    for text in (done.out, yaml.out):
        assert "hunter2" not in text
        assert "environment" not in text


@pytest.mark.parametrize(
    ("preview", "shown"),
    [
        ('"one\\ntwo"', ["one", "two"]),
        ("[1, 2]", ["[1, 2]"]),
        ("None", ["nothing"]),
        ('{"n": 7}', ["n: 7"]),
        ('"\\n".join(map(str, range(30)))', [*map(str, range(24)), "… 6 lines more: -o json has them"]),
    ],
)
def test_a_preview_of_any_shape_is_shown(project: Path, siftbell, preview, shown) -> None:
    plugin = project / "configs" / "plugins" / "tell.py"
    plugin.write_text(plugin.read_text().split("        return {")[0] + f"        return {preview}\n")
    done = siftbell("try", "alerts", stdin=b'{"title": "x"}')
    lines = [line.strip() for line in done.out.splitlines()]
    start = lines.index("» oncall (tell)     would send") + 1
    assert lines[start : start + len(shown)] == shown


def test_headers_and_the_content_type_reach_the_producer(siftbell) -> None:
    body = b'{"title": "x"}'
    assert "by=me" in siftbell("try", "alerts", "-H", "X-By: me", stdin=body).out
    assert "by=text/plain" in siftbell("try", "alerts", "--content-type", "text/plain", stdin=body).out


def test_a_refused_payload_is_1_and_names_each_problem(siftbell) -> None:
    done = siftbell("try", "alerts", stdin=b'[{"title": "x"}, {}]')
    assert done.code == 1
    assert done.out == "refused by take (422): not all entries have a title\n  [1].title: required\n"


def test_a_filter_that_breaks_is_1(siftbell) -> None:
    done = siftbell("try", "alerts", stdin=b'{"title": "x", "severity": "error"}')
    assert done.code == 1
    assert "failed      ValueError: broken (" in done.out


def test_what_comes_from_outside_cannot_steer_the_terminal(siftbell) -> None:
    done = siftbell("try", "alerts", stdin=json.dumps({"title": "\x1b[2Jgone\x07"}).encode())
    assert "\x1b" not in done.out
    assert "\\x1b[2Jgone\\x07" in done.out


def test_long_values_are_cut_for_people_only(siftbell) -> None:
    body = json.dumps({"title": "x" * 1000}).encode()
    shown = siftbell("try", "alerts", stdin=body).out
    assert "characters)" in shown
    assert "x" * 1000 in siftbell("try", "alerts", "-o", "json", stdin=body).out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("alert",), 4, "no pipeline is called 'alert': did you mean 'alerts'?"),
        (("zzz",), 4, "no pipeline is called 'zzz': there are alerts"),
        (("alerts", "--producer", "ask"), 4, "pipeline 'alerts' has no producer 'ask' that takes payloads: there are take"),
        (("alerts", "-H", "nothing"), 2, "--header: 'Name: value' is expected"),
        (("alerts", "--now", "noon"), 2, "--now: a time such as 2026-03-29T01:59:00+01:00 is expected"),
        (("alerts", "-f", "absent.json"), 2, "absent.json: No such file or directory"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_a_line(siftbell, arguments, code, text) -> None:
    done = siftbell("try", *arguments, stdin=b"{}")
    assert (done.code, done.out, done.err) == (code, "", f"siftbell: {text}\n")


@pytest.mark.parametrize("now", ["2026-03-29T01:59:00+01:00", "2026-03-29T01:59:00"])
def test_the_time_may_be_pretended(siftbell, now) -> None:
    assert siftbell("try", "alerts", "--now", now, stdin=b'{"title": "x"}').code == 0


def test_no_payload_on_a_terminal_is_wrong_usage(siftbell) -> None:
    master, terminal = os.openpty()
    with os.fdopen(master, "rb"), os.fdopen(terminal) as stdin:
        done = siftbell("try", "alerts", stdin=stdin)
    assert (done.code, done.err) == (2, "siftbell: a payload is needed: -f FILE, or - for stdin\n")


def test_a_broken_configuration_is_78_with_every_problem(project: Path, process) -> None:
    (project / "configs" / "alerts.yaml").write_text("producers:\n  - tak: {}\n")
    done = process("try", "alerts", stdin=b"{}")
    assert (done.code, done.out) == (78, "")
    assert "did you mean 'take'?" in done.err


@pytest.mark.parametrize(
    ("producers", "code", "text"),
    [
        ("  - take: {}\n  - take: {}\n    as: second\n", 2, "pipeline 'alerts' needs --producer: there are take, second"),
        ("  - ask: {}\n", 2, "no producer of 'alerts' takes payloads"),
    ],
)
def test_the_producer_is_named_where_it_is_not_clear(project: Path, siftbell, producers, code, text) -> None:
    pipeline = f"name: alerts\nproducers:\n{producers}consumers:\n  - tell: {{token: x}}\n"
    (project / "configs" / "alerts.yaml").write_text(pipeline)
    done = siftbell("try", "alerts", stdin=b'{"title": "x"}')
    assert (done.code, done.err) == (code, f"siftbell: {text}\n")


def test_one_producer_of_several_is_chosen_by_name(project: Path, siftbell) -> None:
    producers = "  - take: {}\n  - take: {}\n    as: second\n"
    pipeline = f"name: alerts\nproducers:\n{producers}consumers:\n  - tell: {{token: x}}\n"
    (project / "configs" / "alerts.yaml").write_text(pipeline)
    done = siftbell("try", "alerts", "--producer", "second", stdin=b'{"title": "x"}')
    assert done.code == 0
    assert done.out.startswith("alerts: second made 1 message\n")


def test_several_payloads_are_told_one_after_the_other(project, siftbell) -> None:
    (project / "configs" / "once.yaml").write_text(
        "producers: [take]\nfilters:\n  - deduplicate: {by: [title], within: 10m}\nconsumers: [{tell: {token: xxxxxxxx}}]\n"
    )
    for name, title in (("a", "disk full"), ("b", "disk full"), ("c", "other")):
        (project / f"{name}.json").write_text(json.dumps([{"title": title}]))
    done = siftbell("try", "once", "-f", "a.json", "-f", "b.json", "-f", "c.json")
    lines = done.out.splitlines()
    assert [line for line in lines if line.endswith(".json")] == ["a.json", "b.json", "c.json"]
    steps = [line.split() for line in lines if line.lstrip().startswith("deduplicate")]
    assert [step[1] for step in steps] == ["passed", "dropped", "passed"]
    assert " ".join(steps[0][2:]) == "remembers only what is tried here"
    assert " ".join(steps[1][2:4]) == "repeat 1"
    assert steps[1][-1] == "(configs/once.yaml:3:5)"
    assert f"message {steps[1][5]}: disk full" in lines  # whom the second one repeats can be seen
    told = siftbell("try", "once", "-f", "a.json", "-f", "b.json", "-o", "json").json
    assert [trace["journeys"][0]["visits"][0]["did"] for trace in told] == ["passed", "dropped"]
