"""Hours: when somebody is there, by the wall clock, also in the nights in which the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import TypeAdapter, ValidationError

from pipeline.hours import Dates, OpeningHours, Shift, read_dates, read_shift

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks move by half an hour
DAY = timedelta(days=1)


def hours(*shifts, zone=BERLIN, closed=()):
    return OpeningHours(tuple(map(read_shift, shifts)), zone, tuple(map(read_dates, closed)))


def local(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "days", "begin", "end"),
    [
        ("MON-FRI 08:00-18:00", {0, 1, 2, 3, 4}, 8, 18),
        ("sat,Sun 10:00-14:00", {5, 6}, 10, 14),
        ("FRI-MON 22:00-06:00", {4, 5, 6, 0}, 22, 30),
        ("MON,WED-THU 00:00-24:00", {0, 2, 3}, 0, 24),
        ("22:00-24:00", {0, 1, 2, 3, 4, 5, 6}, 22, 24),
        ("  MON   08:00-09:00 ", {0}, 8, 9),
        ("MON 08:00-08:00", {0}, 8, 32),
    ],
)
def test_a_shift_is_read(text, days, begin, end):
    shift = read_shift(text)
    assert shift.days == days
    assert (shift.begin, shift.end) == (timedelta(hours=begin), timedelta(hours=end))
    assert read_shift(str(shift)) == shift


@pytest.mark.parametrize(
    "text",
    ["", "MON", "8:00-18:00", "MON-WED-FRI 08:00-18:00", "MON 24:00-08:00", "DI 08:00-18:00", "MON 08:00", 8],
)
def test_what_is_no_shift_is_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Shift).validate_python(text)


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "2026-02-29", "24.12.2026", "2026-12-26..2026-12-25", "9999-12-31", 2026, None]
)
def test_what_are_no_dates_is_refused(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Dates).validate_python(text)


def test_dates_are_read():
    assert str(read_dates("2026-12-24")) == "2026-12-24"
    assert date(2026, 12, 26) in read_dates("2026-12-25..2026-12-26")
    assert date(2026, 12, 27) not in read_dates("2026-12-25..2026-12-26")
    assert TypeAdapter(Dates).dump_json(read_dates("2026-12-25..2026-12-26")) == b'"2026-12-25..2026-12-26"'


def test_an_editor_is_told_what_they_look_like():
    assert TypeAdapter(Shift).json_schema()["type"] == "string"
    assert "2026-12-24" in TypeAdapter(Dates).json_schema()["examples"]
    assert TypeAdapter(list[Shift]).validate_python([read_shift("MON 08:00-09:00")]) == [read_shift("MON 08:00-09:00")]
    assert TypeAdapter(list[Dates]).validate_python([read_dates("2026-12-24")]) == [read_dates("2026-12-24")]


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-11-20T07:59:59", False),  # a Friday
        ("2026-11-20T08:00:00", True),
        ("2026-11-20T17:59:59", True),
        ("2026-11-20T18:00:00", False),
        ("2026-11-20T21:59:59", False),
        ("2026-11-20T22:00:00", True),
        ("2026-11-21T05:59:59", True),  # Saturday, in the shift of Friday
        ("2026-11-21T06:00:00", False),
        ("2026-11-21T22:30:00", False),
        ("2026-11-23T01:00:00", False),  # Monday: no shift began on Sunday
    ],
)
def test_a_night_shift_belongs_to_the_day_on_which_it_begins(moment, open_):
    assert (local(moment) in hours("MON-FRI 08:00-18:00", "MON-FRI 22:00-06:00")) is open_


@pytest.mark.parametrize(
    ("zone", "shift", "moment", "opening"),
    [
        # The clocks of Berlin go forward on 2026-03-29 at 02:00 (01:00 UTC), and back on 2026-10-25 at 03:00 (01:00 UTC).
        (BERLIN, "08:00-18:00", "2026-03-28T17:00", "2026-03-29T06:00"),
        (BERLIN, "08:00-18:00", "2026-10-24T16:00", "2026-10-25T07:00"),
        (BERLIN, "02:30-04:00", "2026-03-28T23:00", "2026-03-29T01:00"),  # half past two is skipped
        (BERLIN, "02:15-02:45", "2026-03-28T23:00", "2026-03-30T00:15"),  # all of it is skipped
        (BERLIN, "02:30-04:00", "2026-10-24T23:00", "2026-10-25T00:30"),  # half past two comes twice: the first
        (BERLIN, "02:15-02:45", "2026-10-25T00:50", "2026-10-26T01:15"),  # and once only
        # Those of New York on 2026-03-08 at 02:00 (07:00 UTC), and 2026-11-01 at 02:00 (06:00 UTC).
        (NEW_YORK, "09:00-17:00", "2026-03-07T23:00", "2026-03-08T13:00"),
        (NEW_YORK, "09:00-17:00", "2026-10-31T22:00", "2026-11-01T14:00"),
        (NEW_YORK, "02:30-04:00", "2026-03-08T00:00", "2026-03-08T07:00"),
        (NEW_YORK, "01:30-04:00", "2026-11-01T00:00", "2026-11-01T05:30"),
        (LORD_HOWE, "02:15-05:00", "2026-10-03T13:00", "2026-10-03T15:30"),  # 02:00 to 02:30 is skipped
    ],
)
def test_the_next_opening_where_the_clocks_change(zone, shift, moment, opening):
    at = datetime.fromisoformat(f"{moment}+00:00")
    assert hours(shift, zone=zone).opening(at) == datetime.fromisoformat(f"{opening}+00:00")


@pytest.mark.parametrize(
    ("zone", "night", "length"),
    [
        (BERLIN, "2026-03-28", 7),
        (BERLIN, "2026-10-24", 9),
        (BERLIN, "2026-06-01", 8),
        (NEW_YORK, "2026-03-07", 7),
        (NEW_YORK, "2026-10-31", 9),
    ],
)
def test_a_night_shift_is_as_long_as_the_night(zone, night, length):
    shift = hours("22:00-06:00", zone=zone)
    begin = local(f"{night}T22:00", zone)
    assert begin in shift
    assert begin + timedelta(hours=length, seconds=-1) in shift
    assert begin + timedelta(hours=length) not in shift


def test_no_shift_begins_on_a_closed_day():
    nights = hours("22:00-06:00", closed=["2026-12-24", "2026-12-25..2026-12-26"])
    assert local("2026-12-24T01:00") in nights  # it began on the 23rd
    assert local("2026-12-24T23:00") not in nights
    assert nights.opening(local("2026-12-24T12:00")) == local("2026-12-27T22:00")


def test_it_is_open_now():
    now = local("2026-11-20T12:00")
    assert hours("MON-FRI 08:00-18:00").opening(now) == now


def test_what_never_opens_is_found_where_the_gap_begins():
    assert hours("08:00-18:00", closed=["2026-12-24", "2027-02-01..2028-02-20"]).gap() == read_dates("2027-02-01..2028-02-20")
    assert hours("08:00-18:00", closed=["2026-01-01..2026-12-31"]).gap() is None
    assert hours("MON 08:00-18:00").opening(local("2026-11-24T00:00")) == local("2026-11-30T08:00")


def test_hours_say_what_they_are():
    assert str(hours("MON-FRI 08:00-18:00", "sat 10:00-14:00")) == "MON-FRI 08:00-18:00, SAT 10:00-14:00 Europe/Berlin"


_times = some.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")
_shifts = some.tuples(some.sampled_from(["", "MON-FRI ", "SAT,SUN ", "WED "]), _times, _times).filter(
    lambda one: one[1] != one[2]
)


@settings(deadline=None)
@given(
    some.lists(_shifts, min_size=1, max_size=3),
    some.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, ZoneInfo("UTC")]),
    some.integers(0, 366 * 24 * 4),
)
def test_an_opening_is_the_first_moment_that_is_open(shifts, zone, quarters):
    """By looking at each quarter of an hour: none before the opening is open, and the opening is."""
    some_hours = hours(*(f"{days}{begin}-{end}" for days, begin, end in shifts), zone=zone)
    moment = datetime(2026, 1, 1, tzinfo=UTC) + quarters * timedelta(minutes=15)
    opening = some_hours.opening(moment)
    assert opening is not None
    assert moment <= opening < moment + 8 * DAY
    assert opening in some_hours
    while moment < opening:
        assert moment not in some_hours
        moment += timedelta(minutes=15)
