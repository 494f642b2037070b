"""The shipped filters in a replay: a pipeline of them that is unchanged does to the same messages what it did to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Message
from pipeline.engine.replay import replay
from pipeline.engine.simulation import Simulation
from pipeline.spec import load
from pipeline.spec.model import PipelineSpec

START = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)
FILTERS = {
    "deduplicate": "deduplicate: {by: [labels.alertname], within: 3m}",
    "throttle": "throttle: {by: [severity], most: 2, within: 5m}",
    "group": "group: {by: [severity], wait: 30s, interval: 2m, repeat: 1h}",
    "digest": "digest: {within: 10m}",
    "hold": "hold: {for: 2m}",
    "flap": "flap: {}",
    "hours": 'hours: {open: "MON-FRI 08:00-17:00"}',
    "inhibit": """inhibit: [{source: 'severity="critical"', target: 'severity="info"'}]""",
}
Arrival = tuple[str, str, str, int]
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(["disk", "load"]), st.sampled_from(["critical", "info"]), st.sampled_from(["firing", "resolved"]),
        st.integers(1, 300),
    ),
    min_size=1, max_size=10,
)  # fmt: skip


PIPELINE = """name: shipped
keep: 24h
producers: [http]
filters:
STEPS
consumers:
  - log
  - log:
    as: second
    when: title != "load"
"""


def pipeline_of(directory: Path, filters: Sequence[str]) -> PipelineSpec:
    file = directory / "shipped.yaml"
    file.write_text(PIPELINE.replace("STEPS", "\n".join(f"  - {FILTERS[name]}" for name in filters)))
    return load([file]).pipelines["shipped"]


def differences(spec: PipelineSpec, arrivals: Sequence[Arrival]) -> list[str]:
    with Simulation(spec, start=START) as then:
        for name, severity, status, seconds in arrivals:
            then.run_until(then.now + timedelta(seconds=seconds))
            labels = {"alertname": name, "severity": severity}
            then.accept(
                [
                    Message(
                        source="t",
                        type="alert",
                        title=name,
                        key=name,
                        severity=severity,
                        status=status,
                        labels=labels,
                        time=then.now,
                    )
                ]
            )
            then.work()
        then.run_until(then.now + timedelta(minutes=7))
        kept = list(then.store.accepted.between("shipped", newest=1000))
        found = replay(spec, kept, then.store, now=then.now)
    assert len(found.messages) == len(arrivals)
    assert not found.unknown
    told = [f"{end.consumer}: {end.then} → {end.now}" for one in found.messages for end in one.ends if end.different]
    return told + [str(one) for one in found.notifications if one.then != one.now]


@pytest.mark.parametrize("name", FILTERS)
def test_an_unchanged_filter_does_what_it_did(tmp_path: Path, name: str) -> None:
    spec = pipeline_of(tmp_path, [name])

    @settings(max_examples=8, deadline=None)
    @given(arrivals=ARRIVALS)
    def check(arrivals: list[Arrival]) -> None:
        assert differences(spec, arrivals) == []

    check()


def test_unchanged_filters_one_after_the_other_do_what_they_did(tmp_path: Path) -> None:
    @settings(max_examples=20, deadline=None)
    @given(filters=st.lists(st.sampled_from(sorted(FILTERS)), min_size=2, max_size=3, unique=True), arrivals=ARRIVALS)
    def check(filters: list[str], arrivals: list[Arrival]) -> None:
        assert differences(pipeline_of(tmp_path, filters), arrivals) == []

    check()
