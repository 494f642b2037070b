"""The filter `group` and a real Alertmanager are posted the same alerts, each second for a minute, and tell the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from timelines import differences, play_alertmanager, play_group, read_recorded

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.against("filter group", "Alertmanager of Debian 12"),
]


def test_alertmanager_tells_the_same_today(require_binary: Callable[[str, str], str], tmp_path: Path) -> None:
    """The recorded answers are those of a real one: it is asked again, and what differs is what differed then."""
    binary = require_binary("prometheus-alertmanager", "prometheus-alertmanager")
    timelines, recorded = zip(*read_recorded(), strict=True)
    told, late = play_alertmanager(binary, timelines, tmp_path)
    assert late < 0.4, f"the machine is too busy for this test: alerts were posted {late:.2f} s late"
    changed = {
        line.seed: found for line, now, then in zip(timelines, told, recorded, strict=True) if (found := differences(now, then))
    }
    assert changed == {}
    plays = [play_group(timeline).told for timeline in timelines]
    apart = [line.seed for line, ours, theirs in zip(timelines, plays, told, strict=True) if differences(ours, theirs)]
    assert len(timelines) - len(apart) >= 200
    assert apart == [line.seed for line, ours, then in zip(timelines, plays, recorded, strict=True) if differences(ours, then)]
