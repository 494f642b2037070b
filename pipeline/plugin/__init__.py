"""The kinds of plugin: what a producer, a filter and a consumer promise, and what the engine promises them."""

from pipeline.plugin.consumer import (
    AnyConsumer,
    BatchConsumer,
    Consumer,
    Failures,
    Results,
    Told,
)
from pipeline.plugin.filter import (
    AnyFilter,
    Buried,
    Dropped,
    Filter,
    Keep,
    Opened,
    Released,
    RememberingFilter,
    Stay,
    Window,
    WindowFilter,
)
from pipeline.plugin.memory import (
    Memory,
)
from pipeline.plugin.plugin import (
    C,
    Config,
    NoOptions,
    Plugin,
)
from pipeline.plugin.producer import (
    ListeningProducer,
    Note,
    PollingProducer,
    Producer,
    Publish,
    Unreadable,
    WebhookProducer,
)

__all__ = [
    "AnyConsumer",
    "AnyFilter",
    "BatchConsumer",
    "Buried",
    "C",
    "Config",
    "Consumer",
    "Dropped",
    "Failures",
    "Filter",
    "Keep",
    "ListeningProducer",
    "Memory",
    "NoOptions",
    "Note",
    "Opened",
    "Plugin",
    "PollingProducer",
    "Producer",
    "Publish",
    "Released",
    "RememberingFilter",
    "Results",
    "Stay",
    "Told",
    "Unreadable",
    "WebhookProducer",
    "Window",
    "WindowFilter",
]
