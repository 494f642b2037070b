"""Match: a condition, label matchers, both."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from filters.match import Match, MatchConfig
from pipeline import Message
from pipeline.testing import FilterContract


class TestMatch(FilterContract):
    plugin = Match
    options = {"condition": 'labels.team == "db"', "labels": ['alertname=~"Disk.*"']}


MESSAGE = Message(source="t", severity="critical", labels={"team": "db", "env": "prod-1"})


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"condition": 'severity == "critical"'}, True),
        ({"condition": 'severity == "info"'}, False),
        ({"condition": 'labels.region == "eu"'}, False),
        ({"labels": ['team="db", env=~"prod-[0-9]+"']}, True),
        ({"labels": ['team="db"', 'env=~"prod"']}, False),
        ({"labels": ['region=""']}, True),
        ({"condition": 'severity == "critical"', "labels": ['team!="db"']}, False),
        ({"condition": 'severity == "critical"', "labels": ["{team=db}"]}, True),
    ],
)
def test_both_must_hold(options, passes):
    assert [*Match(MatchConfig.model_validate(options)).filter(MESSAGE)] == ([MESSAGE] if passes else [])


@pytest.mark.parametrize("options", [{}, {"condition": "severity =="}, {"labels": ["a~b"]}, {"labels": ['a=~"["']}])
def test_what_cannot_match_is_refused(options):
    with pytest.raises(ValidationError):
        MatchConfig.model_validate(options)
