"""The shipped webhook producers behind the intake: whatever is posted to them, they never answer 500."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import WebhookProducer
from pipeline.engine.pipeline import Pipelines
from pipeline.spec.model import Configuration, PipelineSpec, Position, ProducerStep

PLACE = Position(Path("shipped.yaml"), 1, 1)
NAMES = [
    "title", "text", "severity", "status", "labels", "annotations", "alerts", "time", "startsAt", "endsAt", "fingerprint",
    "version", "groupKey", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "receiver", "truncatedAlerts",
    "specversion", "id", "source", "type", "data", "key", "url", "generatorURL",
]  # fmt: skip
WORDS = st.sampled_from(
    ["firing", "resolved", "4", "1.0", "0001-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59+23:59",
     "0001-01-01T00:00:00+23:59", "https://[", "a" * 3000]
)  # fmt: skip
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, inner))
    ),
    max_leaves=15,
)
OBJECTS = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))
ALERTS = st.tuples(OBJECTS, st.lists(OBJECTS, max_size=3)).map(lambda pair: pair[0] | {"version": "4", "alerts": pair[1]})
CLOUD_EVENTS = OBJECTS.map(lambda value: {"specversion": "1.0", "id": "1", "source": "s", "type": "t"} | value)
TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data",
     "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain", "", "application/json; charset=latin-1"]
)  # fmt: skip
BODIES = (VALUES | OBJECTS | ALERTS | CLOUD_EVENTS | st.lists(OBJECTS | CLOUD_EVENTS, max_size=3)).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
) | st.binary(max_size=200)


SHIPPED = {entry.name: entry for entry in entry_points(group="siftbell.producers")}
OPTIONS = {"heartbeat": {"any": True, "every": "1h"}}
BELOW = {"heartbeat": "/backup"}
"""What is posted to where nothing is at the producer's own path."""


@pytest.fixture
def web_of(web_with):
    def start(plugin):
        name = plugin.__name__.lower()
        config = plugin.config_type(**OPTIONS.get(name, {}))
        step = ProducerStep(kind="producer", plugin=name, type=plugin, label="it", config=config, position=PLACE)
        spec = PipelineSpec(name="shipped", producers=(step,), revision="r1", position=PLACE)
        return web_with(pipelines=Pipelines(Configuration({"shipped": spec})))

    return start


@pytest.mark.parametrize("name", SHIPPED)
def test_no_body_is_ever_a_500(web_of, name):
    plugin = SHIPPED[name].load()
    if not issubclass(plugin, WebhookProducer):
        pytest.skip("it takes no requests")
    web = web_of(plugin)

    @given(body=BODIES, kind=TYPES)
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    def post(body, kind):
        answer = web.post(body, f"/in/shipped/it{BELOW.get(name, '')}", headers={"X-API-Key": web.key, "Content-Type": kind})
        assert answer.status in {202, 400, 401, 403, 413, 415, 422}, answer.body
        assert answer.status == 202 or (answer.json if name == "prometheus" else answer.error["message"])  # it has its protocol's

    post()
