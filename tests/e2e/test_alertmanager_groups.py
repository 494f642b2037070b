"""The filters `group` and `inhibit` and a real Alertmanager are posted the same alerts, and tell the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from timelines import Timeline, Told, differences, ends_by_itself, play, play_alertmanager, read_recorded

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.against("filter group", "Alertmanager of Debian 12"),
    pytest.mark.against("filter inhibit", "Alertmanager of Debian 12"),
]


def test_alertmanager_tells_the_same_today(require_binary: Callable[[str, str], str], tmp_path: Path) -> None:
    """The recorded answers are those of a real one: it is asked again, and what differs is what differed then."""
    binary = require_binary("prometheus-alertmanager", "prometheus-alertmanager")
    timelines, recorded = zip(*read_recorded(), strict=True)
    told, late = play_alertmanager(binary, timelines, tmp_path)
    assert late < 0.4, f"the machine is too busy for this test: alerts were posted {late:.2f} s late"
    changed = {
        line.seed: found for line, now, then in zip(timelines, told, recorded, strict=True) if (found := differ(line, now, then))
    }
    assert changed == {}
    plays = [play(line).told for line in timelines]
    apart = [line for line, ours, theirs in zip(timelines, plays, told, strict=True) if differ(line, ours, theirs)]
    assert sum(line.kind != "alone" for line in timelines) - sum(line.kind != "alone" for line in apart) >= 200
    assert apart == [line for line, ours, then in zip(timelines, plays, recorded, strict=True) if differ(line, ours, then)]


def differ(line: Timeline, ours: list[Told], theirs: list[Told]) -> list[str]:
    """Say in what something else is told than Alertmanager told; of those told one by one not where one ends without a word."""
    return differences(ours, theirs, but=ends_by_itself(line) if line.kind == "alone" else ())
