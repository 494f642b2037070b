from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schedule import SHORTHANDS, read_schedule, read_zone
from pipeline.spec import load

BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


def due(line: str, start: datetime, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    schedule = read_schedule(line, zone)
    found = []
    for _ in range(count):
        start = schedule.after(start)
        assert start.tzinfo is UTC
        found.append(start.astimezone(zone).isoformat(timespec="minutes"))
    return found


def test_an_interval_is_aligned_to_the_epoch() -> None:
    schedule = read_schedule("30s")
    assert schedule.after(datetime(2026, 11, 21, 4, 0, 1, tzinfo=UTC)) == datetime(2026, 11, 21, 4, 0, 30, tzinfo=UTC)
    assert schedule.after(datetime(2026, 11, 21, 4, 0, 30, tzinfo=UTC)) == datetime(2026, 11, 21, 4, 1, tzinfo=UTC)


def test_a_time_in_the_spring_gap_is_due_once_when_the_clocks_have_moved_on() -> None:
    assert due("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]


def test_a_time_in_the_autumn_overlap_is_due_once() -> None:
    assert due("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


@pytest.mark.parametrize("minute", [0, 15, 29, 30, 31, 59])
def test_asked_within_the_second_pass_of_the_overlap_it_is_due_the_next_day(minute: int) -> None:
    second_pass = datetime(2026, 10, 25, 1, minute, tzinfo=UTC)
    assert due("30 2 * * *", second_pass, 1) == ["2026-10-26T02:30+01:00"]


def test_every_hour_goes_on_by_real_hours() -> None:
    hours = due("0 * * * *", datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 3)
    assert hours == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]
    assert due("@hourly", datetime(2026, 3, 29, 0, 30, tzinfo=UTC), 1) == ["2026-03-29T03:00+02:00"]


def test_a_cron_line_is_utc_where_no_zone_is_given() -> None:
    assert read_schedule("0 8 * * *").after(datetime(2026, 7, 1, tzinfo=UTC)) == datetime(2026, 7, 1, 8, tzinfo=UTC)


@given(st.sampled_from(["30 2 * * *", "*/7 * * * *", "*/30 2 * * *", "15 1-3 * * SUN", "45s", *SHORTHANDS]), MOMENTS)
def test_the_next_occurrence_is_always_later(line: str, moment: datetime) -> None:
    assert read_schedule(line, BERLIN).after(moment) > moment


@given(MOMENTS)
def test_nothing_lies_between_a_moment_and_the_next_occurrence(moment: datetime) -> None:
    schedule = read_schedule("30 2 * * *", BERLIN)
    following = schedule.after(moment)
    assert schedule.after(following - timedelta(microseconds=1)) == following


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("61 * * * *", "bad minute; a cron line is minute, hour, day of month, month and day of week"),
        ("0 0 31 2 *", "bad day-of-month; a cron line is minute, hour, day of month, month and day of week"),
        ("500ms", "the shortest interval is 1s"),
        ("0s", "the shortest interval is 1s"),
        ("0 0 */20 * MON#5", "this date never comes"),
        ("often", "an interval such as 30s, a cron line"),
        ("* * * * * *", "an interval such as 30s, a cron line"),
        ("@reboot", "an interval such as 30s, a cron line"),
        ("", "an interval such as 30s, a cron line"),
    ],
)
def test_what_is_not_a_schedule(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"is expected|shortest|bad|never") as caught:
        read_schedule(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("name", ["Europe/Berln", "", "/etc/passwd", "../UTC", "Europe"])
def test_what_is_not_a_time_zone(name: str) -> None:
    with pytest.raises(ValueError, match="a time zone such as Europe/Berlin or UTC is expected"):
        read_zone(name)


def test_schedules_are_written_as_they_are_read() -> None:
    assert str(read_schedule("90s")) == "1m30s"
    assert str(read_schedule("@daily", BERLIN)) == "0 0 * * * Europe/Berlin"


def test_what_happened_is_to_happen_again_an_interval_later_or_at_the_next_occurrence():
    noon = datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC)
    assert read_schedule("5m").again(noon) == noon + timedelta(minutes=5)
    hourly = read_schedule("@hourly")
    assert hourly.again(noon) == datetime(2026, 3, 2, 13, 0, tzinfo=UTC)
    assert hourly.again(noon - timedelta(seconds=30)) == datetime(2026, 3, 2, 13, 0, tzinfo=UTC)
    assert hourly.again(noon - timedelta(minutes=1)) == datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(("line", "schedule"), [("", "10s"), ("    schedule: 1m\n", "1m")])
def test_a_producer_may_have_a_usual_schedule(tmp_path, line, schedule):
    file = tmp_path / "watch.yaml"
    file.write_text(f"producers:\n  - heartbeat: {{any: true, every: 5m}}\n{line}consumers:\n  - log\n")
    (step,) = load([file]).pipelines["watch"].producers
    assert step.schedule == read_schedule(schedule)
    assert not step.listens
