"""The work that is measured: a 600-byte alert, three realistic filters, and the same filters as plain Python functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from jinja2 import Environment

CONDITION: Final = 'severity in ["warning", "error", "critical"] && labels.env == "production" && labels.team != "test"'
INSTANCE: Final = "^(db|web|cache)-[0-9]+\\\\.[a-z0-9-]+\\\\.example\\\\.com:[0-9]+$"
TITLE: Final = "[{{ severity | upper }}] {{ labels.alertname }} on {{ labels.instance }}"
TEXT: Final = (
    "{{ text }}\n{% for name in ['env', 'team', 'job', 'mountpoint'] %}{{ name }}: {{ labels[name] }}\n{% endfor %}{{ url }}"
)

FILTERS: Final = f"""\
filters:
  - match: '{CONDITION}'
  - match: 'labels.instance.matches("{INSTANCE}")'
  - render:
      title: {json.dumps(TITLE)}
      text: {json.dumps(TEXT)}
"""
"""The filters of a pipeline's file: a condition over severity and labels, a regular expression on a label, a title and a text."""


def alert(number: int) -> dict[str, Any]:
    """Give an alert of 600 bytes as JSON, about; each number has an instance and a fingerprint of its own."""
    return {
        "title": "DiskWillFillIn4Hours",
        "text": f"The filesystem /var/lib/postgresql on db-{number:06d} fills up within 4 hours at the rate of the last 6 hours.",
        "severity": ("warning", "error", "critical")[number % 3],
        "labels": {
            "alertname": "DiskWillFillIn4Hours",
            "instance": f"db-{number:06d}.fsn1-dc8.example.com:9100",
            "env": "production",
            "team": "storage",
            "job": "node-exporter",
            "mountpoint": "/var/lib/postgresql",
            "device": "/dev/mapper/data-postgresql",
        },
        "url": "https://prometheus.example.com/graph?g0.expr="
        "predict_linear%28node_filesystem_avail_bytes%7Benv%3D%22production%22%7D%5B6h%5D%2C%204%20%2A%203600%29%20%3C%200&g0.tab=1",
        "key": f"{number:016x}",
    }


def body(numbers: Sequence[int]) -> bytes:
    """Give alerts as a request's body: an object for one, an array for several."""
    alerts = [alert(number) for number in numbers]
    return json.dumps(alerts[0] if len(alerts) == 1 else alerts, separators=(",", ":")).encode()


def plain_filters() -> list[Callable[[dict[str, Any]], dict[str, Any] | None]]:
    """Give the same three filters as somebody writes them without Siftbell; None: dropped."""
    instance = re.compile(INSTANCE.replace("\\\\", "\\"))
    environment = Environment(autoescape=False)  # noqa: S701 - plain text
    title, text = environment.from_string(TITLE), environment.from_string(TEXT)

    def severe(message: dict[str, Any]) -> dict[str, Any] | None:
        labels = message["labels"]
        wanted = message["severity"] in {"warning", "error", "critical"} and labels["env"] == "production"
        return message if wanted and labels["team"] != "test" else None

    def known(message: dict[str, Any]) -> dict[str, Any] | None:
        return message if instance.search(message["labels"]["instance"]) else None

    def rendered(message: dict[str, Any]) -> dict[str, Any] | None:
        return message | {"title": title.render(message), "text": text.render(message)}

    return [severe, known, rendered]
