"""Match and drop: which messages are meant, in which words it is told, and that the one is the other's opposite."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from filters.drop import Drop, DropConfig
from filters.match import Match, MatchConfig
from pipeline import SEVERITIES, Condition, Dropped, Matchers, Message
from pipeline.testing import FilterContract


class TestMatch(FilterContract):
    plugin = Match
    options = {
        "condition": 'labels.team == "db"',
        "labels": ['alertname=~"Disk.*"'],
        "keywords": {"any": ["disk"], "all": ["left"], "in": ["title", "text", "labels.team", "data.nested.deep"]},
        "min": "WARN",
        "types": ["alert"],
    }


class TestDrop(FilterContract):
    plugin = Drop
    options = TestMatch.options


MESSAGE = Message(
    source="t",
    type="alert",
    title="Disk full",
    text="The backup\nof db-1 failed: C++ error",
    severity="critical",
    labels={"team": "db", "env": "prod-1", "summary": "too many retries"},
    data={"note": "call Ada", "number": 7, "tags": ["one", "two"]},
)


def why(plugin, message=MESSAGE, **options):
    """Give why the message is dropped, or None where it passes as it is."""
    (out,) = plugin(plugin.config_type.model_validate(options)).filter(message)
    if isinstance(out, Dropped):
        assert "\n" not in out.reason
        return out.reason
    assert out is message
    return None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"condition": 'severity == "critical"'}, None),
        ({"condition": 'severity ==\n  "info"'}, 'severity == "info" does not hold'),
        ({"condition": 'labels.region == "eu"'}, 'labels.region == "eu" does not hold'),
        ({"labels": ['team="db", env=~"prod-[0-9]+"']}, None),
        ({"labels": ['team="db"', 'env=~"prod"']}, 'label env is "prod-1": env=~"prod" does not match'),
        ({"labels": ['region=""']}, None),
        ({"labels": ['team="db", region="eu"']}, 'there is no label region: region="eu" does not match'),
        ({"condition": 'severity == "critical"', "labels": ['team!="db"']}, 'label team is "db": team!="db" does not match'),
        ({"condition": 'severity == "critical"', "labels": ["{team=db}"]}, None),
        ({"keywords": ["disk"]}, None),
        ({"keywords": "disk"}, None),
        ({"keywords": ["dis"]}, "the keyword dis is not in title or text"),
        ({"keywords": ["the backup of", "no"]}, None),
        ({"keywords": ["cpu", "memory"]}, "none of the keywords cpu, memory is in title or text"),
        ({"keywords": {"all": ["disk", "FAILED"]}}, None),
        ({"keywords": {"all": ["disk", "cpu"], "any": ["backup"]}}, "the keyword cpu is not in title or text"),
        ({"keywords": {"any": ["Disk"], "case": True}}, None),
        ({"keywords": {"any": ["disk"], "case": True}}, "the keyword disk is not in title or text"),
        ({"keywords": {"any": ["retries"], "in": ["labels.summary"]}}, None),
        ({"keywords": {"any": ["disk"], "in": ["labels.summary"]}}, "the keyword disk is not in labels.summary"),
        ({"keywords": {"all": ["ada", "7", "two"], "in": ["data.note", "data.number", "data.tags"]}}, None),
        ({"keywords": {"any": ["a"], "in": ["labels.x", "data.x.y"]}}, "the keyword a is not in labels.x or data.x.y"),
        ({"keywords": ["c++"]}, None),
        ({"keywords": ["c"]}, None),
        ({"keywords": ["{x}"]}, "the keyword {x} is not in title or text"),
        ({"min": "warning"}, None),
        ({"min": "critical"}, None),
        ({"types": ["alert", "event"]}, None),
        ({"types": ["event"]}, "type alert is not event"),
        ({"types": ["event", "change"]}, "type alert is none of event, change"),
    ],
)  # fmt: skip
def test_all_that_is_given_must_hold(options, reason):
    assert why(Match, **options) == reason
    assert (why(Drop, **options) is None) == (reason is not None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"condition": 'severity == "critical"'}, 'severity == "critical" holds'),
        ({"labels": ["team=db"], "types": ["alert"]}, 'the labels match {team="db"}; type alert'),
        ({"keywords": ["cpu", "disk"]}, "the keyword disk is in title or text"),
        ({"keywords": {"all": ["disk"], "in": ["title"]}, "types": ["alert"]}, "the keyword disk is in title; type alert"),
        ({"min": "error"}, "severity critical is at least error"),
    ],
)  # fmt: skip
def test_what_is_dropped_on_purpose_is_told_by_what_holds(options, reason):
    assert why(Drop, **options) == reason
    assert why(Match, **options) is None


@pytest.mark.parametrize(("least", "passing"), [("debug", 5), ("info", 4), ("warning", 3), ("ERR", 2), ("page", 1)])
def test_severities_have_an_order(least, passing):
    found = [word for word in SEVERITIES if why(Match, MESSAGE.replace(severity=word), min=least) is None]
    assert found == [*SEVERITIES[-passing:]]
    assert why(Match, MESSAGE.replace(severity="info"), min="warning") == "severity info is below warning"


@pytest.mark.parametrize("word", ["", "purple", "p9"])
def test_a_severity_that_cannot_be_compared_silences_nothing(word):
    odd = MESSAGE.replace(severity=word)
    assert why(Match, odd, min="critical") is None
    assert why(Drop, odd, min="debug") is None


@pytest.mark.parametrize(("word", "passes"), [("WARN", True), ("Sev1", True), ("notice", False)])
def test_a_word_that_means_a_severity_counts_as_that(word, passes):
    assert (why(Match, MESSAGE.replace(severity=word), min="warning") is None) is passes


def test_a_reason_stays_short():
    words = [f"word{number}" for number in range(1000)]
    for options in (
        {"condition": f'title == "{"x" * 3000}"'},
        {"labels": [f'team="{"x" * 3000}"']},
        {"keywords": words},
        {"types": words},
    ):
        assert len(why(Match, **options)) < 300


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "condition, labels, keywords, min or types is required"),
        ({"labels": []}, "condition, labels, keywords, min or types is required"),
        ({"condition": "severity =="}, "ends too early"),
        ({"labels": ["a~b"]}, "are expected"),
        ({"labels": ['a=~"["']}, "not a regular expression"),
        ({"min": "wraning"}, "one of debug, info, warning, error, critical is expected"),
        ({"min": 3}, "one of debug, info, warning, error, critical is expected"),
        ({"keywords": []}, "any or all is required"),
        ({"keywords": ["  "]}, "a word is expected"),
        ({"keywords": {"any": ["x"], "in": ["titel"]}}, "did you mean 'title'?"),
        ({"keywords": {"any": ["x"], "in": ["labels"]}}, "a label such as labels.team"),
        ({"keywords": {"any": ["x"], "in": []}}, "in: a place to look is expected"),
        ({"keywords": ["x"] * 1001}, "at most 1000"),
        ({"types": []}, "at least 1"),
    ],
)
@pytest.mark.parametrize("config", [MatchConfig, DropConfig])
def test_what_cannot_match_is_refused(config, options, problem):
    with pytest.raises(ValidationError, match=re.escape(problem)):
        config.model_validate(options)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "condition": st.sampled_from(['severity == "info"', 'labels.team == "db"', '!has(labels.env) || title.contains("a")']),
        "labels": st.lists(st.sampled_from(['team="db"', 'team!="web"', 'env=~"p.*"', 'env=""']), min_size=1, max_size=2),
        "keywords": st.lists(st.sampled_from(["a", "b c", "ü", "+"]), min_size=1, max_size=3),
        "min": st.sampled_from(SEVERITIES),
        "types": st.lists(st.sampled_from(["alert", "event"]), min_size=1),
    },
).filter(bool)
MESSAGES = st.builds(
    Message,
    source=st.just("t"),
    type=st.sampled_from(["alert", "event", "other"]),
    title=st.text("ab cü+-\n", max_size=12),
    text=st.text(max_size=5),
    severity=st.sampled_from(SEVERITIES),
    labels=st.dictionaries(st.sampled_from(["team", "env"]), st.sampled_from(["db", "web", "prod", ""])),
)


@settings(max_examples=300, deadline=None)
@given(OPTIONS, MESSAGES)
def test_drop_is_the_opposite_of_match(options, message):
    """For a message whose severity is known exactly one of the two passes it; the other one says why."""
    passed = why(Match, message, **options) is None
    assert passed is not (why(Drop, message, **options) is None)
    expected = [
        "condition" not in options or Condition(options["condition"]).matches(message),
        all(Matchers(text).match(message.labels) for text in options.get("labels", ())),
        "min" not in options or SEVERITIES.index(message.severity) >= SEVERITIES.index(options["min"]),
        "types" not in options or message.type in options["types"],
        "keywords" not in options or any(has(word, message) for word in options["keywords"]),
    ]
    assert passed is all(expected)


def has(keyword, message):
    """Say by Python's regular expressions whether a keyword is in title or text, as a whole word."""
    words = r"\s+".join(re.escape(word) for word in keyword.split())
    return any(re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) for text in (message.title, message.text))


def test_a_thousand_keywords_take_linear_time():
    """What Python's own expressions would try over and over is looked at once."""
    words = [f"{'a ' * 20}{number}" for number in range(1000)]
    assert why(Match, MESSAGE.replace(text="a " * 30_000), keywords=words).startswith("none of the keywords a a a")
