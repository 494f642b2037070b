"""Rendering: what the shipped templates write of each kind of message, to the letter."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Message, PermanentError, Rendering
from pipeline.rendering import SHIPPED

GOLDEN = Path(__file__).parent / "shipped"
TIME = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
ALERT = Message(
    source="http://prometheus:9090",
    type="alert",
    time=TIME,
    title="disk full on db-1",
    text="2 % left\nof 100 GiB & <nothing> free",
    severity="critical",
    labels={
        "alertname": "DiskFull",
        "mount": "/var|/srv",
        "note": "two\nlines",
        "empty": "",
        "receiver_email": "ann@example.com",
    },
    key="c8ce2ad3ba2f9a9d",
    url="http://prometheus:9090/graph?g0.expr=(up)",
    data={
        "annotations": {"runbook_url": "https://wiki.example.com/disk full", "dashboard_url": "https://graphs.example.com/d/1"}
    },
)
MESSAGES = {
    "firing": ALERT,
    "resolved": ALERT.replace(status="resolved", data=None),
    "bare": Message(source="ci", time=TIME),
    "text-only": Message(source="shop", time=TIME, text="order 17\nwas not paid", data=["annotations"]),
    "title-only": Message(source="shop", time=TIME, title="order 17", labels={"items": "3"}, data={"annotations": "none"}),
    "group": ALERT.replace(
        title="DiskFull: 2 firing",
        text="what group wrote",
        labels={"alertname": "DiskFull"},
        data={
            "groupLabels": {"alertname": "DiskFull"},
            "commonAnnotations": {"runbook_url": "https://wiki.example.com/disk"},
            "alerts": [
                {
                    "status": "firing",
                    "severity": "critical",
                    "title": "db-1|a",
                    "startsAt": "2026-11-21T08:30:00.000Z",
                    "generatorURL": "http://p/1 (x)",
                },
                {
                    "status": "resolved",
                    "severity": "critical",
                    "title": "<db-2>",
                    "startsAt": "2026-11-21T08:20:00.000Z",
                    "generatorURL": "",
                },
            ],
        },
    ),
    "digest": ALERT.replace(
        type="digest",
        title="2 messages: 1 critical, 1 info",
        text="what digest wrote",
        source="digest",
        labels={},
        url="",
        data={
            "count": 2,
            "messages": [
                {
                    "id": "1",
                    "time": "2026-11-21T08:30:00+00:00",
                    "title": "disk full",
                    "severity": "critical",
                    "url": "https://a/b",
                },
                {"id": "2", "time": "2026-11-21T08:31:00+00:00", "severity": "info"},
            ],
        },
    ),
    "odd-links": Message(source="a", time=TIME, title="x", url="javascript:alert(1)", data={"annotations": {"runbook_url": 7}}),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_template_writes_what_it_wrote_before(name, kind):
    message = Rendering(text=name).render(MESSAGES[kind])
    golden = GOLDEN / f"{name}-{kind}.txt"
    told = f"{message.title}\n----\n{message.text}\n"
    if os.environ.get("SIFTBELL_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8")
    assert message.replace(title=MESSAGES[kind].title, text=MESSAGES[kind].text) == MESSAGES[kind]


TEXTS = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["annotations", "runbook_url", "alerts", "messages", "groupLabels", "title"]), inner)
    ),
    max_leaves=8,
)
ANY = st.builds(
    Message,
    source=TEXTS,
    type=st.sampled_from(["alert", "digest"]),
    time=st.datetimes(timezones=st.just(UTC)),
    title=TEXTS,
    text=TEXTS,
    severity=TEXTS,
    status=st.sampled_from(["firing", "resolved"]),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=4),
    url=TEXTS,
    data=JSON,
)


@settings(max_examples=150, deadline=None)
@given(message=ANY, name=st.sampled_from(SHIPPED))
def test_no_message_is_too_odd_for_a_shipped_template(message, name):
    written = Rendering(text=name).render(message)
    assert written.title.strip()
    assert "\n" not in written.title


ROWS = [{"title": f"disk full on db-{number}", "generatorURL": f"https://p/{number}" + "x" * 300} for number in range(5000)]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    "message",
    [
        Message(source="t", title="g", data={"groupLabels": {}, "alerts": ROWS}),
        Message(source="t", type="digest", title="d", data={"messages": ROWS}),
        Message(source="t", title="x", text="'" * 900_000, url="https://x"),
    ],
    ids=["group", "digest", "text"],
)
def test_a_message_that_has_much_to_tell_is_not_buried(message, name):
    """The largest group is that of the largest outage: a hundred of its alerts are shown, and how many more there are."""
    text = Rendering(text=name).render(message).text
    assert ("… and 4900 more" in text) == (bool(message.data) and name in ("markdown", "html"))
    assert "db-100" not in text
    assert ("…" in text) == (name != "brief" and (bool(message.text) or name != "full"))


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_what_is_written_twice_has_one_mark(message):
    once = Rendering(text="full").render(message)
    assert Rendering(text="full").render(once).title == once.title


@settings(max_examples=100, deadline=None)
@given(message=ANY)
def test_nothing_in_a_message_becomes_markup_of_the_html(message):
    written = Rendering(text="html").render(message).text
    tags = {*re.findall(r"<(/?\w+)", written)}
    assert tags <= {"p", "/p", "table", "/table", "tr", "/tr", "th", "/th", "td", "/td", "a", "/a"}
    assert all(link.startswith(("http://", "https://")) for link in re.findall(r'href="(.*?)"', written))


def test_a_shipped_text_may_have_a_title_of_its_own():
    message = Rendering(text="brief", title="{{ key }}").render(ALERT)
    assert message.title == ALERT.key
    assert message.text == Rendering(text="brief").render(ALERT).text


def test_the_time_is_shown_in_the_zone_and_stays_as_it_was():
    message = Rendering(text="{{ time }}", timezone="Europe/Berlin").render(ALERT)
    assert (message.text, message.time) == ("2026-11-21 09:30:00+01:00", TIME)
    assert message.time.tzinfo is UTC
    assert "since 2026-11-21 09:30 CET" in Rendering(text="full", timezone="Europe/Berlin").render(ALERT).text


def test_what_is_missing_is_named_with_its_field():
    with pytest.raises(PermanentError, match=r"^url: the template, line 1: the message has no labels\.team"):
        Rendering(text="full", url="{{ labels.team }}").render(ALERT)
