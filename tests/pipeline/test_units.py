"""Units: durations, sizes and times as people and payloads write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline import Duration, Size, parse_time
from pipeline.units import format_duration, format_size, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("7d", 604800),
        ("2w", 1209600),
        ("1.5h", 5400),
        ("1d12h", 129600),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "5", 5, "5 m", "-5m", "5y", "m", None, True, "1h 30m", "5M"])
def test_what_is_no_duration(value):
    with pytest.raises(ValueError, match="a duration such as"):
        parse_duration(value)


@given(st.integers(0, 10**12))
def test_a_duration_that_is_written_is_read_again(milliseconds):
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def test_durations_are_written_short():
    assert [format_duration(timedelta(seconds=seconds)) for seconds in (0, 0.5, 90, 90000)] == ["0s", "500ms", "1m30s", "1d1h"]


@pytest.mark.parametrize(
    ("value", "size"),
    [(0, 0), (10, 10), ("10", 10), ("10B", 10), ("1kB", 1000), ("1 KiB", 1024), ("10MiB", 10 * 2**20), ("2GB", 2 * 10**9)],
)
def test_sizes(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [-1, True, 1.5, "1.5MB", "KiB", "1 TB", "", None, "1 kiB", "1KB"])
def test_what_is_no_size(value):
    with pytest.raises(ValueError, match="a size such as"):
        parse_size(value)


def test_as_types_of_options():
    duration, size = TypeAdapter(Duration), TypeAdapter(Size)
    assert duration.dump_json(duration.validate_python("90s")) == b'"1m30s"'
    assert duration.validate_python(timedelta(1)) == timedelta(1)
    assert size.validate_python("1KiB") == 1024
    assert duration.json_schema()["type"] == "string"
    assert len(size.json_schema()["anyOf"]) == 2
    with pytest.raises(ValidationError):
        size.validate_python(-1)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-21T08:30:00Z", datetime(2026, 11, 21, 8, 30, tzinfo=UTC)),
        ("2026-11-21T08:30:00.123456789+01:00", datetime(2026, 11, 21, 7, 30, 0, 123456, tzinfo=UTC)),
        (1764000000, datetime(2025, 11, 24, 16, 0, tzinfo=UTC)),
        (1764000000500, datetime(2025, 11, 24, 16, 0, 0, 500000, tzinfo=UTC)),
        (1764000000.5, datetime(2025, 11, 24, 16, 0, 0, 500000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times(value, moment):
    assert parse_time(value) == moment


NO_TIMES = ["", "noon", "2026-11-21", "0001-01-01T00:00:00+14:00", "2026-11-21T08:30:00Z\0"]


@pytest.mark.parametrize("value", [*NO_TIMES, True, None, [], 1e300, float("inf"), float("nan"), 2**200])
def test_what_is_no_time(value):
    with pytest.raises(ValueError, match=r"is expected|time zone"):
        parse_time(value)


@pytest.mark.parametrize(("text", "interval"), [("20/s", 0.05), ("90/m", 2 / 3), ("1000/h", 3.6), ("1/s", 1.0)])
def test_rates(text, interval):
    rate = parse_rate(text)
    assert rate.interval.total_seconds() == pytest.approx(interval)
    assert str(rate) == text
    assert parse_rate(rate) == rate


@pytest.mark.parametrize("value", ["", "20", 20, "0/s", "-1/s", "1.5/s", "20/d", "20 /s", "20/s ", None, "1000000/s"])
def test_what_is_no_rate(value):
    with pytest.raises(ValueError, match="a rate such as 20/s"):
        parse_rate(value)


@given(st.integers(1, 10**13))
def test_a_size_that_is_written_is_read_again(size):
    assert parse_size(format_size(size)) == size
    assert format_size(3 * 2**20) == "3MiB"
