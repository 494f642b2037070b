"""Digest: what came is in one of them exactly, as words, as rows, and at its time; nothing in it is computed by a spreadsheet."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import msgspec
import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from filters.digest import Digest, DigestConfig
from filters.digest.xlsx import sheet_names
from pipeline import Keep, Message, Opened, PermanentError, Stay, Window, attachments_of, derived_id
from pipeline.queue.sqs import LARGEST
from pipeline.testing import Recollection, WindowFilterContract

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class TestDigest(WindowFilterContract):
    plugin = Digest
    options = {"within": "1h", "attach": ["csv", "xlsx", "html", "text"]}


class TestDigestOfEach(WindowFilterContract):
    plugin = Digest
    options = {
        "at": "0 8 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "by": ["labels.team"],
        "latest": True,
        "pass": 'severity == "critical"',
        "keep_passed": True,
        "title": "{{ messages | length }} messages",
    }


class TestDigestOfNothing(WindowFilterContract):
    plugin = Digest
    options = {"at": "@daily", "empty": True}


def message(number=0, **fields):
    given = {"source": "test", "time": NOW + number * MINUTE, "title": f"message {number}"} | fields
    return Message(id=derived_id("019a0000-0000-7000-8000-000000000000", number), **given)


def alerts():
    return [
        message(0, title="disk full", severity="critical", key="a", labels={"team": "db", "host": "db-1"}),
        message(1, title="slow", severity="warning", key="b", labels={"team": "db", "host": "db-2"}),
        message(2, title="disk full", severity="critical", key="a", labels={"team": "db", "host": "db-1"}, status="resolved"),
        message(3, title="", text="only a text\nof lines", severity="warning", labels={"team": "db"}),
    ]


def made(**options):
    return Digest(DigestConfig(**options))


def opened(messages, *, key="[]", kept=None, due=NOW + HOUR, now=None, memory=None):
    return Opened(key=key, messages=messages, kept=kept, due=due, now=now or due, memory=memory or Recollection())


def release(messages, digest=None, **options):
    return [*made(**({"within": "1h"} | options)).release(opened(messages))] if digest is None else [*digest.release(messages)]


def files(message):
    return {one.name.rpartition(".")[2]: one for one in attachments_of(message)}


def rows_of(file):
    return [*csv.reader(io.StringIO(file.content.decode("utf-8-sig"), newline=""))]


def book_of(file):
    return openpyxl.load_workbook(io.BytesIO(file.content))


def window(digest, one, now=NOW, memory=None):
    return digest.window(one, now, memory or Recollection())


# When


def test_an_hour_begins_with_each_message_and_the_first_one_decides():
    assert window(made(within="1h"), message()) == Window("[]", NOW + HOUR)


def test_a_digest_by_time_leaves_a_little_later_than_its_time():
    assert window(made(at="@daily"), message()) == Window("[]", datetime(2026, 11, 22, 0, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-03-28T12:00+01:00", "2026-03-29T03:00:05+02:00"),  # half past two is not there that night
        ("2026-03-29T12:00+02:00", "2026-03-30T02:30:05+02:00"),
        ("2026-10-24T12:00+02:00", "2026-10-25T02:30:05+02:00"),  # it comes twice, and counts once
        ("2026-10-25T02:45+02:00", "2026-10-26T02:30:05+01:00"),
        ("2026-10-25T02:15+01:00", "2026-10-26T02:30:05+01:00"),
    ],
)
def test_the_time_is_right_over_daylight_saving(now, due):
    digest = made(at="30 2 * * *", timezone="Europe/Berlin")
    assert window(digest, message(), datetime.fromisoformat(now)).due == datetime.fromisoformat(due)


def test_each_value_has_a_digest_of_its_own():
    digest = made(within="1h", by=["labels.team"])
    keys = [window(digest, message(labels={"team": team})).key for team in ("db", "web", "db")]
    assert keys == ['["db"]', '["web"]', '["db"]']
    (out,) = digest.release(opened(alerts()[:2], key='["db"]'))
    assert out.title == "2 messages for db: 1 critical, 1 warning"


def test_as_many_as_there_may_be_leave_early():
    digest, memory = made(within="1h", most=3), Recollection()
    dues = [window(digest, message(number), memory=memory).due for number in range(3)]
    assert dues == [NOW + HOUR, NOW + HOUR, NOW]
    [*digest.release(opened([message(0)], memory=memory))]
    assert window(digest, message(4), memory=memory).due == NOW + HOUR


def test_of_a_large_digest_a_few_hundred_messages_are_counted():
    digest, memory = made(within="1h"), _Counting()
    dues = [window(digest, message(number), memory=memory).due for number in range(14_000)]
    first = dues.index(NOW)
    assert 8_000 < first < 12_000  # which ids are drawn depends on them alone
    assert memory.calls < 400


class _Counting(Recollection):
    calls = 0

    def count(self, key, within):
        self.calls += 1
        return super().count(key, within)


def test_a_memory_that_is_away_costs_no_message_its_window():
    memory = Recollection(away={"count", "forget", "first"})
    digest = made(within="1h", most=1)
    assert window(digest, message(), memory=memory) == Window("[]", NOW + HOUR)
    assert [one.title for one in digest.release(opened([message()], memory=memory))] == ["1 message"]


# What passes at once


def test_what_passes_at_once_does_not_wait():
    digest = made(within="1h", **{"pass": 'severity == "critical"'})
    assert window(digest, message(severity="critical")) is None
    assert window(digest, message(severity="warning")) == Window("[]", NOW + HOUR)


def test_what_passed_stands_in_the_digest_as_well():
    digest, memory = made(within="1h", keep_passed=True, **{"pass": 'severity == "critical"'}), Recollection()
    calm, urgent, later = message(0), message(1, severity="critical", data={"a": [1]}), message(2, severity="critical")
    assert window(digest, calm, memory=memory).due == NOW  # to write down when the hour ends
    first = [*digest.release(opened([calm], due=NOW, memory=memory))]
    assert first == [Stay(calm, NOW + HOUR), Keep({"end": (NOW + HOUR).isoformat(), "passed": []}, NOW + HOUR)]

    assert window(digest, urgent, NOW + MINUTE, memory).due == NOW + MINUTE
    passed, *stay, kept = digest.release(opened([calm, urgent], kept=first[-1].value, due=NOW + MINUTE, memory=memory))
    assert passed is urgent
    assert stay == [Stay(calm, NOW + HOUR)]
    assert kept.due == NOW + HOUR

    again = [*digest.release(opened([calm, later], kept=kept.value, due=NOW + 2 * MINUTE, memory=memory))]
    assert [one.title for one in again if isinstance(one, Message)] == ["message 2"]
    (out,) = digest.release(opened([calm], kept=again[-1].value, due=NOW + HOUR, memory=memory))
    assert [one["id"] for one in out.data["messages"]] == sorted([calm.id, urgent.id, later.id])


def test_what_passed_stays_until_the_time_of_the_digest():
    digest = made(at="0 9 * * *", keep_passed=True, **{"pass": 'severity == "critical"'})
    due, urgent = NOW.replace(hour=9, minute=0, second=5), message(severity="critical")
    passed, kept = digest.release(opened([urgent], due=NOW))
    assert (passed, kept.due) == (urgent, due)
    (out,) = digest.release(opened([], kept=kept.value, due=due))
    assert out.title == "1 message: 1 critical"
    (out,) = digest.release(opened([message()], due=due))  # nothing passed, nothing is kept
    assert out.title == "1 message"


@pytest.mark.parametrize(("due", "options"), [(NOW + HOUR, {}), (NOW, {"most": 2})], ids=["when it is due", "when it is full"])
def test_what_comes_as_a_digest_leaves_passes_as_well(due, options):
    digest = made(within="1h", keep_passed=True, **options, **{"pass": 'severity == "critical"'})
    calm, urgent = message(0), message(1, severity="critical")
    passed, out = digest.release(opened([calm, urgent], kept={"end": (NOW + HOUR).isoformat(), "passed": []}, due=due))
    assert (passed, out.data["count"]) == (urgent, 2)


def test_a_flood_of_large_messages_leaves_early():
    """Ten thousand of a hundred kilobytes would be a gigabyte that a clock reads at once."""
    digest, memory = made(at="@daily"), _Counting()
    flood = [message(number, text="x" * 100_000) for number in range(1500)]
    first = [window(digest, one, memory=memory).due for one in flood].index(NOW)
    assert 400 < first < 1000  # 64 MiB are 670 of them
    assert memory.calls < 600
    digest = made(at="@daily", keep_passed=True, **{"pass": 'severity == "critical"'})
    assert all(isinstance(one, Message) for one in digest.release(opened(flood[:700], due=NOW)))


# What it says


def test_the_words_of_a_digest():
    (out,) = release(alerts())
    assert out.title == "4 messages: 1 critical, 2 warning, 1 resolved"
    assert out.text == (
        "critical (1)\n08:30  disk full\n\nwarning (2)\n08:31  slow\n08:33  only a text\n\nresolved (1)\n08:32  disk full"
    )
    assert (out.type, out.source, out.severity, out.status, out.time) == ("digest", "test", "critical", "firing", NOW + HOUR)
    assert (out.labels, out.key, out.url) == ({"team": "db"}, "", "")
    data = out.data
    assert [one["id"] for one in data.pop("messages")] == [one.id for one in alerts()]
    assert data == {
        "count": 4,
        "severities": {"critical": 2, "warning": 2},
        "resolved": 1,
        "first": "2026-11-21T08:30:00+00:00",
        "last": "2026-11-21T08:33:00+00:00",
        "left_out": 0,
    }


def test_of_each_key_the_newest_whatever_the_order():
    for order in (alerts(), alerts()[::-1]):
        (out,) = release(order, latest=True)
        assert out.title == "4 messages about 3 things: 2 warning, 1 resolved"
        assert "08:32  disk full (2 times)" in out.text
        assert (out.severity, out.data["count"]) == ("warning", 4)


def test_without_severities_there_are_no_headings_and_days_are_told_where_there_are_several():
    (out,) = release([message(0), message(1, time=NOW + timedelta(days=1))], timezone="Europe/Berlin")
    assert (out.title, out.text) == ("2 messages", "21 Nov 09:30  message 0\n22 Nov 09:30  message 1")


def test_a_text_has_no_more_lines_than_are_asked_for():
    (out,) = release([message(number) for number in range(7)], lines=3)
    assert out.text.endswith("08:32  message 2\n\n… and 4 more")


def test_all_that_is_over_makes_a_digest_that_is_over():
    (out,) = release([message(status="resolved")])
    assert (out.status, out.title) == ("resolved", "1 message: 1 resolved")


def test_templates_say_it_otherwise():
    (out,) = release(
        alerts(),
        title="{{ messages | length }}\nalerts",
        text="{% for message in messages %}{{ message.title or '-' }};{% endfor %}",
    )
    assert (out.title, out.text) == ("4 alerts", "disk full;slow;disk full;-;")


@pytest.mark.parametrize("name", ["title", "text"])
def test_where_a_template_fails_the_usual_words_are_taken_and_the_text_says_why(name):
    (usual,) = release(alerts())
    (out,) = release(alerts(), **{name: "{{ messages[0].labels.owner }}"})
    assert out.title == usual.title
    text, _, why = out.text.rpartition("\n\n")
    assert text == usual.text
    assert why.startswith(f"({name}: the template, line 1: ")
    assert "owner" in why


def test_nothing_is_told_where_that_is_asked_for():
    digest = made(at="@daily", empty=True)
    due = datetime(2026, 11, 22, 0, 0, 5, tzinfo=UTC)
    first, kept = digest.release(opened([message()], due=due))
    assert (first.title, kept) == ("1 message", Keep({"since": due.isoformat()}, due + timedelta(days=1)))
    nothing, again = digest.release(opened([], kept=kept.value, due=kept.due))
    assert (nothing.title, nothing.text, nothing.data["count"]) == ("No messages", "Nothing came since 2026-11-22 00:00.", 0)
    assert again.due == due + timedelta(days=2)


# Files


def test_the_rows_of_a_file():
    (out,) = release(alerts(), attach=["csv"], timezone="Europe/Berlin")
    (file,) = attachments_of(out)
    assert (file.name, file.type) == ("digest-2026-11-21-1030.csv", "text/csv")
    assert rows_of(file)[:2] == [
        ["time", "severity", "status", "title", "text", "labels", "source"],
        ["2026-11-21 09:30:00", "critical", "firing", "disk full", "", "team=db, host=db-1", "test"],
    ]


def test_columns_are_fields_labels_and_places_in_the_payload():
    one = message(labels={"a.b": "x"}, data={"jobs": [{"name": "n", "took": 1.5, "ok": True, "more": {"a": [1]}}], "big": 2**60})
    names = ["title", "labels.a.b", "data.jobs[0].name", "data.jobs[0].took", "data.jobs[0].ok", "data.jobs[0].more"]
    (out,) = release([one], attach="csv", columns=[*names, "data.jobs[1].name", "data.big"])
    assert rows_of(files(out)["csv"]) == [
        ["title", "a.b", "jobs[0].name", "jobs[0].took", "jobs[0].ok", "jobs[0].more", "jobs[1].name", "big"],
        ["message 0", "x", "n", "1.5", "true", '{"a":[1]}', "", str(2**60)],
    ]


def test_columns_have_headings():
    (out,) = release(
        [message(key="k"), message(1, key="k")], attach="csv", latest=True, columns={"What": "title", "How often": "count"}
    )
    assert rows_of(files(out)["csv"]) == [["What", "How often"], ["message 1", "2"]]
    assert DigestConfig(within="1h", attach="csv", columns=["labels.id", "data.id", "labels.x"]).columns == {
        "labels.id": "labels.id",
        "data.id": "data.id",
        "x": "labels.x",
    }


FORMULAS = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "|calc", "%0A=1", "＝1+1", "\ufeff=1"]  # noqa: RUF001 - the wide form


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_computes_what_somebody_sent(text):
    (out,) = release(
        [message(title=text, labels={"x": text})], attach=["csv", "xlsx"], columns=["title", "labels.x", "data.none"]
    )
    for cell in rows_of(files(out)["csv"])[1][:2]:
        assert cell.startswith("'")
    (sheet,) = book_of(files(out)["xlsx"]).worksheets
    assert [cell.data_type for row in sheet.iter_rows(min_row=2, max_col=2) for cell in row] == ["s", "s"]


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("before", ["x;", 'x;"', 'x"; ', "x\n", "x\n;", "x\t"])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_that_separates_cells_otherwise_computes_nothing_either(text, before, separator):
    """Excel does, where a comma is in numbers; it takes quotes within a cell as they are."""
    (out,) = release([message(title=before + text, text=f'"{before}{text}')], attach="csv", columns=["time", "title", "text"])
    written = files(out)["csv"].content.decode("utf-8-sig")
    cells = [cell.lstrip(' "\ufeff\t\r') for row in written.splitlines() for cell in row.split(separator)]
    assert [cell for cell in cells if cell[:1] in {*"=+-@|%＝"}] == []  # noqa: RUF001 - the wide form


def test_what_is_no_formula_stays_as_it_is_in_csv():
    (out,) = release([message(title="a - b; c = d", text="x;y\n1.5")], attach="csv", columns=["title", "text"])
    assert rows_of(files(out)["csv"])[1] == ["a - b; c = d", "x;y\n1.5"]


def test_numbers_stay_numbers():
    one = message(data={"total": -12.5, "text": "-12.5", "phone": "+49 30 1"})
    (out,) = release([one], attach=["csv", "xlsx"], columns=["data.total", "data.text", "data.phone"])
    assert rows_of(files(out)["csv"])[1] == ["-12.5", "-12.5", "'+49 30 1"]
    (sheet,) = book_of(files(out)["xlsx"]).worksheets
    assert [cell.value for cell in sheet[2]] == [-12.5, "-12.5", "+49 30 1"]


def test_a_sheet_for_each_title():
    (out,) = release(alerts(), attach="xlsx")
    book = book_of(files(out)["xlsx"])
    assert {sheet.title: sheet.max_row - 1 for sheet in book.worksheets} == {"disk full": 2, "slow": 1, "Messages": 1}
    (out,) = release(alerts(), attach="xlsx", sheet="{{ severity }}")
    assert book_of(files(out)["xlsx"]).sheetnames == ["critical", "warning"]


def test_a_message_without_a_sheet_is_buried_alone():
    digest = made(within="1h", attach="xlsx", sheet="{{ labels.team }}")
    with pytest.raises(PermanentError, match=r"sheet: the template, line 1: .*team"):
        window(digest, message())
    assert window(digest, message(labels={"team": "db"})) == Window("[]", NOW + HOUR)


def test_what_came_before_its_template_was_there_is_on_the_sheet_of_its_title():
    (out,) = release([message(0), message(1, labels={"team": "db"})], attach="xlsx", sheet="{{ labels.team }}")
    assert book_of(files(out)["xlsx"]).sheetnames == ["message 0", "db"]


def test_names_of_sheets_are_those_that_excel_takes():
    long = "x" * 40
    wanted = ["a/b", "A B", long, long + "y", "", "'quoted'", "History", "[:*?]", "More"]
    assert [*sheet_names(wanted).values()] == [
        "a b",
        "A B (2)",
        "x" * 30 + "…",
        "x" * 26 + "… (2)",
        "Messages",
        "quoted",
        "History (2)",
        "Messages (2)",
        "More (2)",
    ]


@given(some.lists(some.text(max_size=50), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None)
def test_all_names_of_sheets_are_allowed_and_free(wanted):
    names = [*dict.fromkeys(sheet_names(wanted).values())]
    assert len({name.lower() for name in names}) == len(names) <= 50
    for name in names:
        assert 0 < len(name.encode("utf-16-le")) // 2 <= 31
        assert not {*name} & {*"[]:*?/\\"}
        assert name == name.strip("'")
        assert name.lower() != "history"


def test_html_is_escaped_and_text_is_whole():
    (out,) = release([message(title="<script>", text="a\nb", labels={"x": "&"}, url="https://x/")], attach=["html", "text"])
    html, text = files(out)["html"].content.decode(), files(out)["txt"].content.decode()
    assert "<td>&lt;script&gt;</td>" in html
    assert "<script" not in html
    assert text == "<script>\n2026-11-21 08:30:00 · test\na\nb\nx: &\nhttps://x/\n"


def test_the_same_messages_give_the_same_bytes():
    digests = [release(alerts(), attach=["csv", "xlsx", "html", "text"])[0] for _ in range(2)]
    assert [one.data for one in digests[:1]] == [one.data for one in digests[1:]]


# Bounds


def test_more_than_there_may_be_leave_in_parts():
    parts = release([message(number) for number in range(7)], most=3, attach="csv")
    assert [one.title for one in parts] == ["2 messages (1 of 3)", "2 messages (2 of 3)", "3 messages (3 of 3)"]
    assert [attachments_of(one)[0].name for one in parts] == [f"digest-2026-11-21-0930-part-{n}.csv" for n in (1, 2, 3)]


@given(
    some.lists(some.tuples(some.integers(0, 60_000), some.sampled_from(["a", "ü", "🐻", "\x01", '"'])), min_size=1, max_size=12),
    some.integers(1, 12),
)
@settings(max_examples=25, deadline=None)
def test_every_message_is_in_one_part_and_no_part_is_too_large(lengths, most):
    messages = [
        message(
            number, title=f"{number} {sign * (length % 700)}", **dict.fromkeys(("text", "key", "source", "url"), sign * length)
        )
        for number, (length, sign) in enumerate(lengths)
    ]
    messages = [one.replace(labels={"l": one.text}, severity=one.text, type=one.text) for one in messages]
    parts = release(messages, most=most, size=65536, attach=["csv", "xlsx"], columns=["id", "title", "text", "labels.l"])
    assert all(len(msgspec.json.encode(part)) <= 65536 for part in parts)
    assert sum(part.data["count"] for part in parts) == len(messages)
    ids = [row[0] for part in parts if "csv" in files(part) for row in rows_of(files(part)["csv"])[1:]]
    assert len(ids) == len({*ids})
    left_out = sum("csv" not in files(part) for part in parts)
    assert len(ids) + left_out == len(messages)


def test_ten_thousand_rows_are_one_digest():
    """Rows as a database gives them: a name, a number, a time, a sentence. This is the limit that the manual tells."""
    messages = [
        message(number, data={"job": f"job-{number % 97}", "seconds": number * 7919 % 3600, "error": f"exit code {number % 5}"})
        for number in range(10_000)
    ]
    parts = release(messages, attach="csv", columns=["time", "data.job", "data.seconds", "data.error"])
    assert [part.data["count"] for part in parts] == [10_000]


def test_every_queue_takes_a_digest_of_the_usual_size():
    assert DigestConfig(within="1h").size < LARGEST - 1024


def test_a_cell_is_no_longer_than_excel_has_it():
    (out,) = release([message(text="🐻" * 40_000)], attach=["csv", "xlsx"], columns=["text"])
    (sheet,) = book_of(files(out)["xlsx"]).worksheets
    assert len(sheet["A2"].value.encode("utf-16-le")) == 2 * 32_767  # with a mark
    assert rows_of(files(out)["csv"])[1] == [sheet["A2"].value]


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give either `within`"),
        ({"within": "1h", "at": "@daily"}, "give either `within`"),
        ({"within": "0s"}, "one second or more"),
        ({"within": "9999d"}, "a year at most"),
        ({"at": "8 o'clock"}, "at: "),
        ({"at": "@daily", "timezone": "Berlin"}, "a time zone such as"),
        ({"within": "1h", "empty": True}, "`empty` goes with `at`"),
        ({"at": "@daily", "by": ["key"], "empty": True}, "`empty` goes with `at`, and not with `by`"),
        ({"within": "1h", "keep_passed": True}, "`keep_passed` goes with `pass`"),
        ({"within": "1h", "columns": ["title"]}, "`columns` goes with attach"),
        ({"within": "1h", "attach": "csv", "columns": ["titel"]}, "did you mean 'title'"),
        ({"within": "1h", "attach": "csv", "columns": ["count"]}, "goes with `latest`"),
        ({"within": "1h", "attach": "csv", "sheet": "x"}, "`sheet` goes with attach: xlsx"),
        ({"within": "1h", "attach": "pdf"}, "csv"),
        ({"within": "1h", "size": "1kB"}, "65536"),
    ],
)
def test_what_does_not_fit_together_is_told(options, told):
    with pytest.raises(ValidationError, match=told):
        DigestConfig(**options)
