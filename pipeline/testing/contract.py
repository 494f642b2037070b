"""What holds for plugins of every kind: a complete manual, strict options, and secrets that stay secret."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from pipeline.message import Message
from pipeline.plugin import Plugin

_SECRET_NAME = re.compile(r"(^|_)(token|password|passwd|passphrase|secret|api_?key|access_key|private_key|credentials?)$")


def sample_messages() -> list[Message]:
    """Give messages of several shapes: a rich one, a resolved one, an empty one, one of odd characters."""
    time = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    return [
        Message(
            source="http://prometheus:9090",
            type="alert",
            time=time,
            title="disk full on db-1",
            text="2 % left\nof 100 GiB",
            severity="critical",
            labels={"alertname": "DiskFull", "instance": "db-1", "team": "db"},
            key="c8ce2ad3ba2f9a9d",
            url="http://prometheus:9090/graph",
            data={"labels": {"alertname": "DiskFull"}, "values": [1, 2.5, None, True], "nested": {"deep": [{"x": "y"}]}},
        ),
        Message(source="ci", time=time, title="build 7", severity="info", status="resolved", labels={"team": "web"}, key="build"),
        Message(source="empty", time=time),
        Message(
            source="odd",
            time=time,
            title="<b>&\u202e“ü” 🔔\r\nX: y",
            text="{{ 7 * 7 }}\t\x1b[31m",
            labels={"a b": "", "ü": "'\""},
        ),
    ]


class PluginContract:
    """The base of all contracts. Set `plugin` to the class and `options` to what a pipeline would give it."""

    plugin: ClassVar[type[Any]]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def url(self) -> str:
        """Give what `{url}` stands for: an address where nothing answers; `HttpConsumerContract` gives its server's."""
        return "http://127.0.0.1:9"

    @pytest.fixture
    def config(self, url: str, tmp_path: Path) -> Any:
        """Give the validated options."""
        return self.plugin.config_type.model_validate(_filled(self.options, url, str(tmp_path)))

    @pytest.fixture
    def made(self, config: Any) -> Iterator[Any]:
        """Give the plugin, opened; it is closed after the test."""
        plugin = self.plugin(config)
        plugin.open()
        yield plugin
        plugin.close()

    def test_it_is_a_plugin(self) -> None:
        """The class is complete: nothing abstract is left."""
        assert issubclass(self.plugin, Plugin)
        assert not inspect.isabstract(self.plugin), f"not written yet: {', '.join(sorted(self.plugin.__abstractmethods__))}"

    def test_the_manual_is_complete(self) -> None:
        """The module and the class say what they are for, and every option has a description."""
        module = inspect.getmodule(self.plugin)
        assert module is not None
        assert (module.__doc__ or "").strip(), f"the module {module.__name__} has no docstring: it is the plugin's manual"
        assert "__doc__" in self.plugin.__dict__, f"{self.plugin.__name__} has no docstring: `siftbell plugins list` prints it"
        assert (self.plugin.__doc__ or "").strip()
        missing = [where for where, field in _fields(self.plugin.config_type) if not field.description]
        assert missing == [], "options without a Field(description=…)"

    def test_unknown_options_are_refused(self, url: str, tmp_path: Path) -> None:
        """A mistyped option is an error, not ignored."""
        options = _filled(self.options, url, str(tmp_path))
        with pytest.raises(ValidationError):
            self.plugin.config_type.model_validate({**options, "no_such_option_at_all": 1})

    def test_what_is_called_like_a_secret_is_one(self) -> None:
        """Options called token, password, secret and the like are of the type SecretStr."""
        bare = [
            where
            for where, field in _fields(self.plugin.config_type)
            if _SECRET_NAME.search(where) and _mentions(field.annotation, str)
        ]
        assert bare == [], "these should be SecretStr"

    def test_secrets_do_not_show(self, config: Any, made: Any) -> None:
        """What is printed or written out of options and plugin holds no secret."""
        for shown in (repr(config), str(config), repr(made), str(made), config.model_dump_json()):
            assert_no_secret(config, shown)

    def test_it_can_be_closed_unused(self, config: Any) -> None:
        """A plugin that was opened and got no message closes."""
        plugin = self.plugin(config)
        plugin.open()
        plugin.close()


def secrets_of(value: Any) -> Iterator[str]:
    """Find the values of all secrets in options."""
    if isinstance(value, (SecretStr, SecretBytes)):
        secret = value.get_secret_value()
        yield secret if isinstance(secret, str) else secret.decode(errors="replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secrets_of(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from secrets_of(inner)


def assert_no_secret(config: Any, shown: str) -> None:
    """Fail where a text holds one of the options' secrets; does not repeat it."""
    assert not any(secret and secret in shown for secret in secrets_of(config)), "a secret shows"


def unchanged(messages: list[Message]) -> Iterator[Message]:
    """Go through messages, and fail where one was changed meanwhile."""
    before = deepcopy(messages)
    for message, copy in zip(messages, before, strict=True):
        yield message
        assert message == copy, "the message was changed in place"


def content(message: Message) -> Message:
    """Give the message without what differs each time it is made."""
    return message.replace(id="", time=datetime.min.replace(tzinfo=UTC))


def _filled(value: Any, url: str, directory: str) -> Any:
    if isinstance(value, str):
        return value.replace("{url}", url).replace("{tmp}", directory)
    if isinstance(value, Mapping):
        return {name: _filled(inner, url, directory) for name, inner in value.items()}
    return [_filled(inner, url, directory) for inner in value] if isinstance(value, (list, tuple)) else value


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _fields(inner, f"{prefix}{name}.")


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(inner, kind) for inner in get_args(annotation))
