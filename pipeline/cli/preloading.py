"""What the parts of a tree share: imported, and used once, before the first of them is forked; no configuration is read."""

from __future__ import annotations

import gc
import importlib
from importlib.metadata import entry_points
from typing import Final

from pipeline.registry import KINDS

MODULES: Final = (
    "pipeline.cli.orphan",
    "pipeline.cli.roles",
    "pipeline.engine.clock",
    "pipeline.queue.worker",
    "pipeline.web.app",
    "pipeline.web.server",
)
"""What the roles import when they begin, and with it most of what they ever import."""


def preload(broker_url: str) -> None:
    """Import what the parts need, and have its memory left alone from then on, so that those forked later go on sharing it.

    Libraries make tables at their first use: what is used by all is used here once.
    """
    gc.disable()  # a collection writes to everything there is, and leaves holes that the parts would fill
    for name in MODULES:
        importlib.import_module(name)
    _use(broker_url)
    gc.freeze()
    gc.enable()


def _use(broker_url: str) -> None:
    from pipeline.condition import Condition
    from pipeline.queue.worker import preload_worker
    from pipeline.template import Template
    from pipeline.web.server import preload_web

    Condition('labels.env.matches("^prod") && ["warning", "error"].exists(one, one == severity)')
    Template("{{ title | upper }}{% for name in ['env'] %}{{ labels[name] }}{% endfor %}")
    for kind in KINDS:
        for entry in entry_points(group=f"siftbell.{kind}s"):
            if entry.dist is not None and entry.dist.name == "siftbell" and not entry.extras:
                entry.load()
    preload_worker(broker_url)
    preload_web()
