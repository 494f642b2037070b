"""Tests of pipelines: what counts as expected, and what is said of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.simulation.judging import Seen, _aligned, _any_order
from pipeline.engine.simulation.playing import Verdict, play
from pipeline.spec.caseload import load_cases
from pipeline.spec.problems import render_text

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
PIPELINE = """
producers:
  - http
  - heartbeat: {names: {backup: {every: 10m, grace: 1m}}}
filters:
  - match: severity != "debug"
consumers:
  - log
  - log: {}
    as: second
    when: severity == "critical"
    retry: {for: 10m}
"""


@pytest.fixture
def played(tmp_path: Path):
    """Play the only test of a text, and give the verdict."""

    def run(text: str, pipeline: str = PIPELINE) -> Verdict:
        (tmp_path / "p.yaml").write_text(pipeline)
        lines = "\n".join(f"    {line}" for line in text.strip("\n").splitlines())
        (tmp_path / "p.test.yaml").write_text(f"tests:\n  - name: one\n{lines}\n")
        loaded = load_cases([tmp_path])
        assert not loaded.problems, render_text(loaded.report)
        (ready,) = loaded.ready
        return play(ready.case, ready.spec)

    return run


def subjects(verdict: Verdict) -> list[str]:
    return [difference.subject for difference in verdict.differences]


def test_what_comes_at_one_moment_may_stand_in_any_order(played) -> None:
    send = "send: [{http: {json: [{title: a}, {title: b}]}}, {after: 2s, http: {json: {title: c}}}]\n"
    assert played(f"{send}expect: {{log: [b, a, c]}}").passed
    assert not played(f"{send}expect: {{log: [a, c, b]}}").passed
    assert not played(f"{send}expect: {{log: [b, b, c]}}").passed


def test_consumers_that_are_not_named_are_looked_at_only_where_the_test_says_so(played) -> None:
    send = "send: [{http: {json: {title: a, severity: critical}}}]\nexpect: {log: 1}\n"
    assert played(send).passed
    assert subjects(played(f"{send}only: true")) == ["second"]


def test_what_nobody_expected_to_be_buried_fails(played) -> None:
    text = "send: [{http: {json: {title: a, severity: critical}}}]\nfail: {second: {with: crash}}\nexpect: {log: 1}\n"
    verdict = played(text)
    assert subjects(verdict) == ["dead letters at second"]
    assert played(f"{text}dead_letters: {{second: [{{error: {{contains: lets second fail}}}}]}}").passed
    assert played(f"{text}dead_letters: {{second: 1}}").passed
    assert subjects(played(f"{text}dead_letters: {{second: 1, match: 1}}")) == ["dead letters at match"]


def test_what_is_given_up_comes_when_the_pipeline_says(played) -> None:
    verdict = played(
        """
send: [{http: {json: {title: a, severity: critical}}}]
fail: {second: {with: temporary}}
dead_letters: {second: [{at: +10m, title: a}]}
"""
    )
    assert verdict.passed, verdict.differences


def test_the_reasons_of_what_is_missing(played) -> None:
    verdict = played(
        """
send:
  - http: {json: {title: quiet, severity: debug}}
  - http: {json: {title: "number {{ n }}", severity: info}}
    repeat: 8
expect: {second: 9}
"""
    )
    (difference,) = verdict.differences
    assert difference.reasons[0].startswith("'quiet' (+0s) was dropped by match: severity != \"debug\" does not hold at ")
    assert difference.reasons[1].startswith("'number 1' (+0s) was dropped by when: severity == \"critical\" at ")
    assert difference.reasons[-1] == "and 4 more"
    assert len(difference.reasons) == 6


def test_what_is_held_is_told(played) -> None:
    text = "send: [{http: {json: {title: a, severity: critical}}}]\nfail: {second: {for: 1h}}\nuntil: 5m\n"
    verdict = played(f"{text}expect: {{second: [a]}}")
    (difference,) = verdict.differences
    assert difference.reasons == ["'a' (+0s) waits at second: the test lets second fail"]
    assert played(f"{text}held: 1").passed
    verdict = played(f"{text}held: 0")
    assert [row.text for row in verdict.differences[0].rows] == ["0", "1"]


def test_a_step_in_the_past_is_told(played) -> None:
    verdict = played("send: [{wait: 1h}, {at: +10m, http: {json: {}}}]")
    assert subjects(verdict) == ["step 2"]
    assert verdict.differences[0].rows[0].text == "+10m is before the step before it, at +1h"


def test_templates_know_the_time_and_the_number(played) -> None:
    verdict = played(
        """
send:
  - http: {json: {title: "{{ n }}/{{n}}", time: "{{ now - 1h }}", text: "{{ now + 1m30s }} {{ other }}", labels: {"l{{ n }}": x}}}
    repeat: 2
    every: 1m
expect:
  log:
    - {title: 1/1, time: "2026-01-05T11:00:00+00:00", text: "2026-01-05T12:01:30Z {{ other }}", labels: {l1: x}}
    - {title: 2/2, time: "2026-01-05T11:01:00+00:00", text: {matches: "^2026-01-05T12:02:30Z"}, labels.l2: x, at: +1m}
"""
    )
    assert verdict.passed, verdict.differences


def test_a_heartbeat_is_really_asked(played) -> None:
    verdict = played(
        """
send:
  - heartbeat: {path: backup}
  - wait: 12m
  - heartbeat: {path: backup, method: GET}
  - heartbeat: {message: {title: by hand}}
until: 1m
expect:
  log:
    - {title: backup did not call in time, at: {from: +11m, to: +11m10s}}
    - by hand
    - backup called again
"""
    )
    assert verdict.passed, verdict.differences


def test_a_test_without_expectations_shows_all(played) -> None:
    verdict = played("send: [{http: {json: {title: a, severity: critical}}}]")
    assert subjects(verdict) == ["log", "second"]
    assert verdict.differences[0].seen == [{"at": "+0s", "title": "a"}]
    assert verdict.differences[0].place == ("expect", "log")


def test_a_preview_that_fails_is_told(tmp_path: Path, played) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "tell.py").write_text(
        '"""Tells."""\n\nfrom pipeline import Consumer, NoOptions\n\n\nclass Tell(Consumer[NoOptions]):\n'
        '    """Tells."""\n\n    def consume(self, message):\n        raise AssertionError\n\n'
        "    def preview(self, message):\n        raise KeyError(message.title)\n"
    )
    pipeline = "producers: [http]\nconsumers: [tell]\n"
    text = "send: [{http: {json: {title: a}}}]\nexpect: {tell: [{sent: \"KeyError: 'a'\"}]}"
    assert played(text, pipeline).passed


def test_fields_that_cost_something_are_asked_for_when_they_are_looked_at() -> None:
    seen = Seen(START, {"title": "a"}, {"sent": lambda: {"to": ["x"]}})
    assert seen.value("sent.to[0]") == "x"
    assert seen.value("title") == "a"


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=5))
def test_what_is_put_together_stays_in_order_and_nothing_is_left_out(same) -> None:
    columns = 4 if same else 0
    pairs = _aligned(same, len(same), columns)
    assert [row for row, _ in pairs if row is not None] == list(range(len(same)))
    assert [column for _, column in pairs if column is not None] == list(range(columns))
    assert all(same[row][column] for row, column in pairs if row is not None and column is not None)


@given(st.permutations(range(5)), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_an_order_among_moments_is_kept(order, seconds) -> None:
    times = [START + timedelta(seconds=second) for second in sorted(seconds)]
    same = [[column == place for column in range(5)] for place in order]
    moments = [times[place] for place in order]
    assert _any_order(same, times) == (moments == sorted(moments))


def test_what_happens_between_the_steps(played) -> None:
    pipeline = PIPELINE.replace('match: severity != "debug"', "deduplicate: {by: [title], within: 1h}")
    text = """
send:
  - http: {json: {title: a}}
  - {restart: true}
  - http: {json: {title: a}}
    after: 1m
  - {forget: true}
  - http: {json: {title: a}}
    after: 1m
expect: {log: [{at: +0s}, {at: +2m}]}
dropped: {deduplicate: [{at: +1m, title: a}]}
"""
    verdict = played(text, pipeline)
    assert verdict.passed, verdict.differences


def test_payloads_of_all_kinds(played) -> None:
    verdict = played(
        """
send:
  - http: {text: '{"title": "text"}', content_type: application/json}
  - http: {form: {title: form}}
  - http: {json: {title: json}, headers: {X-Test: "{{ n }}"}, method: POST}
  - http: {json: {title: elsewhere}, path: /elsewhere}
    answer: {status: 404, reason: {contains: elsewhere}}
  - http: {json: 5}
    answer: {status: 422, reason: nothing like it}
expect: {log: [text, form, json]}
"""
    )
    (difference,) = verdict.differences
    assert difference.subject == "step 5: http, answer"
    assert difference.rows[0].text == "422 nothing like it"


def test_what_makes_no_message_is_told(played) -> None:
    verdict = played('send: [{http: {message: {title: a, time: "{{ n }}"}}}]')
    assert subjects(verdict) == ["step 1: http"]
    assert verdict.differences[0].rows[0].text.startswith("this makes no message: ")


def test_what_waits_for_ever_is_told(played) -> None:
    pipeline = "producers: [http]\nconsumers:\n  - log\n  - log: {}\n    as: second\n    retry: {for: 40d, longest: 1d}\n"
    verdict = played("send: [{http: {json: {title: a, severity: critical}}}]\nfail: {second: {}}\nexpect: {log: 1}", pipeline)
    assert subjects(verdict) == ["the end"]
    assert verdict.differences[0].rows[0].text == "1 still wait after 31d; 'until:' says when to look"


def test_a_producer_that_cannot_be_asked_is_told(tmp_path: Path, played) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "watch.py").write_text(
        '"""Watches."""\n\nfrom pipeline import NoOptions, PollingProducer, WebhookProducer\n\n\n'
        'class Watch(WebhookProducer[NoOptions], PollingProducer[NoOptions]):\n    """Watches."""\n\n'
        "    def receive(self, request):\n        return []\n\n    def poll(self, cursor):\n        raise KeyError(5)\n"
    )
    pipeline = "producers: [{watch: {}, schedule: 10s}]\nconsumers: [log]\n"
    verdict = played("until: 1m\nexpect: {log: []}", pipeline)
    assert subjects(verdict) == ["asking watch"]
    assert [(row.when, row.text) for row in verdict.differences[0].rows] == [("+10s", "KeyError: 5")]


def test_what_would_be_written_keeps_what_was_right(played) -> None:
    verdict = played(
        """
send:
  - http: {json: {title: extra}}
  - http: {json: {title: first, text: new}}
    after: 10s
expect:
  log:
    - {title: {matches: ^first$}, text: new, at: {from: +5s, to: +15s}}
    - {title: second, at: +1h}
"""
    )
    (difference,) = verdict.differences
    assert difference.seen == [
        {"at": "+0s", "title": "extra", "text": ""},
        {"at": {"from": "+5s", "to": "+15s"}, "title": {"matches": "^first$"}, "text": "new"},
    ]
    verdict = played(
        "send: [{http: {json: {title: first}}}]\nexpect: {log: [{title: {matches: ^f}, text: x, at: {from: +0s, to: +5s}}]}"
    )
    assert verdict.differences[0].seen == [{"at": {"from": "+0s", "to": "+5s"}, "title": {"matches": "^f"}, "text": ""}]
