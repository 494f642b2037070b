"""Texts that have to fit: in characters, UTF-16 units and bytes, and keys that stay apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import shorten, shorten_key

SIZES = {"characters": len, "utf-16": lambda text: len(text.encode("utf-16-le")) // 2, "bytes": lambda text: len(text.encode())}


@pytest.mark.parametrize(
    ("text", "most", "unit", "shown"),
    [
        ("disk full", 9, "characters", "disk full"),
        ("disk full", 8, "characters", "disk fu…"),
        ("disk full", 6, "characters", "disk…"),
        ("🔔🔔🔔", 3, "characters", "🔔🔔🔔"),
        ("🔔🔔🔔", 6, "utf-16", "🔔🔔🔔"),
        ("🔔🔔🔔", 4, "utf-16", "🔔…"),
        ("äöü", 6, "bytes", "äöü"),
        ("äöü", 5, "bytes", "ä…"),
        ("äöü", 4, "bytes", "…"),
        ("", 0, "bytes", ""),
    ],
)
def test_what_is_too_long_ends_with_a_mark(text, most, unit, shown):
    assert shorten(text, most, unit=unit) == shown


def test_the_mark_may_be_another():
    assert shorten("disk full on db-1", 12, mark=" [cut]") == "disk f [cut]"


@given(st.text(), st.integers(4, 40), st.sampled_from(sorted(SIZES)))
def test_what_comes_out_fits_and_is_a_beginning(text, most, unit):
    short = shorten(text, most, unit=unit)
    assert SIZES[unit](short) <= most
    assert short == text or (SIZES[unit](text) > most and text.startswith(short.removesuffix("…")))


def test_a_lone_surrogate_does_no_harm():
    assert shorten("a\ud800b" * 9, 4) == "ab…"


def test_long_keys_stay_apart():
    assert shorten_key("k" * 255, 255) == "k" * 255
    first, second = (shorten_key("k" * 300 + end, 255) for end in "ab")
    assert len(first) == len(second) == 255
    assert first != second
    assert first == shorten_key("k" * 300 + "a", 255)
