"""The plugin API: everything that a producer, a filter or a consumer may import, and nothing else."""

from pipeline.condition import Condition
from pipeline.errors import ConfigError, PermanentError, PipelineError, Problem, RequestError, TemporaryError
from pipeline.http import HttpConsumer, HttpRequest
from pipeline.matchers import Matchers
from pipeline.message import FIELDS, SEVERITIES, Message, normal_severity
from pipeline.plugin import (
    BatchConsumer,
    Config,
    Consumer,
    Filter,
    ListeningProducer,
    Memory,
    NoOptions,
    PollingProducer,
    Publish,
    RememberingFilter,
    WebhookProducer,
    Window,
    WindowFilter,
)
from pipeline.request import Request
from pipeline.template import HtmlTemplate, Template
from pipeline.units import Duration, Size, parse_time

__all__ = [
    "FIELDS",
    "SEVERITIES",
    "BatchConsumer",
    "Condition",
    "Config",
    "ConfigError",
    "Consumer",
    "Duration",
    "Filter",
    "HtmlTemplate",
    "HttpConsumer",
    "HttpRequest",
    "ListeningProducer",
    "Matchers",
    "Memory",
    "Message",
    "NoOptions",
    "PermanentError",
    "PipelineError",
    "PollingProducer",
    "Problem",
    "Publish",
    "RememberingFilter",
    "Request",
    "RequestError",
    "Size",
    "Template",
    "TemporaryError",
    "WebhookProducer",
    "Window",
    "WindowFilter",
    "normal_severity",
    "parse_time",
]
