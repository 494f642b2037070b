"""The plugin API: everything that a producer, a filter or a consumer may import, and nothing else.

A name is imported from its module when it is first asked for: a command that needs none of them does not load any.
"""

TYPE_CHECKING = False  # as type checkers read it; to import `typing` for it takes longer than `siftbell --help`

if TYPE_CHECKING:
    from pipeline.assignment import Fitting, ItemValue, Value, rendered
    from pipeline.attachments import Attachment, attach, attachments_of
    from pipeline.aws import Aws, AwsConfig, AwsEntryConfig
    from pipeline.by import By
    from pipeline.condition import Condition
    from pipeline.errors import ConfigError, PermanentError, PipelineError, Problem, RequestError, TemporaryError
    from pipeline.executable import Executable, ExecutableOptions, Kept
    from pipeline.fetching import Fetched, Fetcher
    from pipeline.files import FileBeside
    from pipeline.following import GoneError, follow
    from pipeline.foreign import AmqpRefusedError, AmqpServer, QueueUrl, RedisServer
    from pipeline.hours import Dates, OpeningHours, Shift, read_shift
    from pipeline.http import HttpConsumer, HttpRequest, UnacceptableError, json_object
    from pipeline.http_batches import HttpBatchConsumer, batch_key
    from pipeline.inhibition import Inhibition, InhibitionRule
    from pipeline.matchers import Matchers
    from pipeline.message import (
        FIELDS,
        SEVERITIES,
        Message,
        colour,
        derived_id,
        foreign_id,
        gravity,
        headline,
        in_time,
        normal_severity,
        normal_status,
        shown_labels,
    )
    from pipeline.paths import ChangeablePath, Draft, EmptiablePath, MessagePath, PathsConfig, RemovablePath
    from pipeline.payload import FieldPaths, read_fields, read_messages
    from pipeline.plugin import (
        BatchConsumer,
        Buried,
        Config,
        Consumer,
        Dropped,
        Filter,
        Keep,
        ListeningProducer,
        Memory,
        NoOptions,
        Note,
        Opened,
        PollingProducer,
        Publish,
        Released,
        RememberingFilter,
        Results,
        Stay,
        Told,
        Unreadable,
        WebhookProducer,
        Window,
        WindowFilter,
    )
    from pipeline.present import now
    from pipeline.receivers import Receivers
    from pipeline.rendering import Rendering
    from pipeline.request import Request
    from pipeline.running import Run
    from pipeline.schedule import Schedule, read_schedule, read_zone
    from pipeline.secrecy import SecretUrl
    from pipeline.selection import Selection
    from pipeline.sms import fit_sms, is_gsm, phone_number, plain_sms, sms_parts
    from pipeline.spells import SLACK, Spell, identity_of, spell_of
    from pipeline.sql import SqlDatabase, SqlUrl, Statement
    from pipeline.template import BatchTemplate, HtmlTemplate, ItemTemplate, Template
    from pipeline.text import shorten, shorten_key
    from pipeline.units import Duration, Size, format_duration, parse_time

__all__ = [
    "FIELDS",
    "SEVERITIES",
    "SLACK",
    "AmqpRefusedError",
    "AmqpServer",
    "Attachment",
    "Aws",
    "AwsConfig",
    "AwsEntryConfig",
    "BatchConsumer",
    "BatchTemplate",
    "Buried",
    "By",
    "ChangeablePath",
    "Condition",
    "Config",
    "ConfigError",
    "Consumer",
    "Dates",
    "Draft",
    "Dropped",
    "Duration",
    "EmptiablePath",
    "Executable",
    "ExecutableOptions",
    "Fetched",
    "Fetcher",
    "FieldPaths",
    "FileBeside",
    "Filter",
    "Fitting",
    "GoneError",
    "HtmlTemplate",
    "HttpBatchConsumer",
    "HttpConsumer",
    "HttpRequest",
    "Inhibition",
    "InhibitionRule",
    "ItemTemplate",
    "ItemValue",
    "Keep",
    "Kept",
    "ListeningProducer",
    "Matchers",
    "Memory",
    "Message",
    "MessagePath",
    "NoOptions",
    "Note",
    "Opened",
    "OpeningHours",
    "PathsConfig",
    "PermanentError",
    "PipelineError",
    "PollingProducer",
    "Problem",
    "Publish",
    "QueueUrl",
    "Receivers",
    "RedisServer",
    "Released",
    "RememberingFilter",
    "RemovablePath",
    "Rendering",
    "Request",
    "RequestError",
    "Results",
    "Run",
    "Schedule",
    "SecretUrl",
    "Selection",
    "Shift",
    "Size",
    "Spell",
    "SqlDatabase",
    "SqlUrl",
    "Statement",
    "Stay",
    "Template",
    "TemporaryError",
    "Told",
    "UnacceptableError",
    "Unreadable",
    "Value",
    "WebhookProducer",
    "Window",
    "WindowFilter",
    "attach",
    "attachments_of",
    "batch_key",
    "colour",
    "derived_id",
    "fit_sms",
    "follow",
    "foreign_id",
    "format_duration",
    "gravity",
    "headline",
    "identity_of",
    "in_time",
    "is_gsm",
    "json_object",
    "normal_severity",
    "normal_status",
    "now",
    "parse_time",
    "phone_number",
    "plain_sms",
    "read_fields",
    "read_messages",
    "read_schedule",
    "read_shift",
    "read_zone",
    "rendered",
    "shorten",
    "shorten_key",
    "shown_labels",
    "sms_parts",
    "spell_of",
]

_MODULES = {
    "assignment": "Fitting ItemValue Value rendered",
    "attachments": "Attachment attach attachments_of",
    "aws": "Aws AwsConfig AwsEntryConfig",
    "by": "By",
    "condition": "Condition",
    "errors": "ConfigError PermanentError PipelineError Problem RequestError TemporaryError",
    "executable": "Executable ExecutableOptions Kept",
    "fetching": "Fetched Fetcher",
    "files": "FileBeside",
    "following": "GoneError follow",
    "foreign": "AmqpRefusedError AmqpServer QueueUrl RedisServer",
    "hours": "Dates OpeningHours Shift read_shift",
    "http": "HttpConsumer HttpRequest UnacceptableError json_object",
    "http_batches": "HttpBatchConsumer batch_key",
    "inhibition": "Inhibition InhibitionRule",
    "matchers": "Matchers",
    "message": "FIELDS SEVERITIES Message colour derived_id foreign_id gravity headline in_time normal_severity normal_status "
    "shown_labels",
    "paths": "ChangeablePath Draft EmptiablePath MessagePath PathsConfig RemovablePath",
    "payload": "FieldPaths read_fields read_messages",
    "plugin": "BatchConsumer Buried Config Consumer Dropped Filter Keep ListeningProducer Memory NoOptions Note Opened "
    "PollingProducer Publish Released RememberingFilter Results Stay Told Unreadable WebhookProducer Window WindowFilter",
    "present": "now",
    "receivers": "Receivers",
    "rendering": "Rendering",
    "request": "Request",
    "running": "Run",
    "schedule": "Schedule read_schedule read_zone",
    "secrecy": "SecretUrl",
    "selection": "Selection",
    "sms": "fit_sms is_gsm phone_number plain_sms sms_parts",
    "spells": "SLACK Spell identity_of spell_of",
    "sql": "SqlDatabase SqlUrl Statement",
    "template": "BatchTemplate HtmlTemplate ItemTemplate Template",
    "text": "shorten shorten_key",
    "units": "Duration Size format_duration parse_time",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415 - see `TYPE_CHECKING`

    value: object = getattr(import_module(f"pipeline.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
