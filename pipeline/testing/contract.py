"""What holds for plugins of every kind: a complete manual, strict options, one life, and secrets that stay secret."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar, Final, get_args
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

import pipeline
from pipeline.message import Message
from pipeline.plugin import Config, Plugin
from pipeline.secrecy import secrets_in
from pipeline.spec.document import read
from pipeline.spec.problems import Problems
from pipeline.testing.probing import assert_probe, probed
from pipeline.testing.secrecy import SHORTEST, assert_no_secret, sounds_secret, watched

DEAD: Final = "http://127.0.0.1:9"
"""An address where nothing answers: the port is nobody's on any usual machine."""
WRONG_SECRETS: Final = (
    "wrong-secret\n",
    "https://somebody:wrong-secret@:port",
    "{{ wrong-secret",
    "${WRONG-SECRET}",
    "wrong secret ü",
)
_YAML: Final = re.compile(r"^[ \t]*```ya?ml[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


def sample_messages() -> list[Message]:
    """Give messages of several shapes: rich, resolved, empty, of odd characters, very long."""
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
        Message(source="long", time=time, title="t" * 5_000, text="a line of 24 characters\n" * 4_000, severity="warning"),
    ]


class PluginContract:
    """The base of all contracts. Set `plugin` to the class and `options` to what a pipeline would give it."""

    plugin: ClassVar[type[Any]]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def url(self) -> str:
        """Give what `{url}` stands for: an address where nothing answers; `HttpConsumerContract` gives its server's."""
        return DEAD

    @pytest.fixture
    def config(self, url: str, tmp_path: Path) -> Any:
        """Give the validated options."""
        return self.config_of(self.options, url, tmp_path)

    @pytest.fixture
    def made(self, config: Any) -> Iterator[Any]:
        """Give the plugin, opened; it is closed after the test."""
        with self.opened(config) as plugin:
            yield plugin

    @pytest.fixture(autouse=True)
    def nothing_secret_is_told(
        self, config: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> Iterator[None]:
        """Fail any test of the suite in which a secret of the options is logged, printed or warned of."""
        with watched(config, caplog, capsys):
            yield

    def config_of(self, options: Mapping[str, Any], url: str, directory: Path) -> Any:
        """Validate options, after `{url}` and `{tmp}` in them were filled in."""
        return self.plugin.config_type.model_validate(_filled(options, url, str(directory)))

    @contextmanager
    def opened(self, config: Any) -> Iterator[Any]:
        """Give another plugin of these options, as another worker would have it; it is closed at the end."""
        plugin = self.plugin(config)
        plugin.open()
        try:
            yield plugin
        finally:
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
        missing = [where for where, field in _fields(self.plugin.config_type) if not (field.description or "").strip()]
        assert missing == [], "options without a Field(description=…)"

    def test_the_manual_has_yaml_that_can_be_read(self, tmp_path: Path) -> None:
        """Each block of YAML in the docstrings parses; without one, `siftbell plugins show` makes an example of the options."""
        docstrings = (inspect.getdoc(inspect.getmodule(self.plugin)) or "", inspect.getdoc(self.plugin) or "")
        for number, block in enumerate(_YAML.findall("\n".join(docstrings))):
            file, problems = tmp_path / f"example-{number}.yaml", Problems()
            file.write_text(dedent(block), encoding="utf-8")
            read(file, problems)
            assert [problem.text for problem in problems.sorted([file])] == [], f"this is no YAML:\n{block}"

    def test_it_imports_the_api_alone(self) -> None:
        """Of Siftbell the plugin's module imports names of `pipeline` itself, and nothing that stands behind them."""
        module = inspect.getmodule(self.plugin)
        assert module is not None
        assert _behind_the_api(inspect.getsource(module)) == [], "import names of `pipeline` alone: all else may change"

    def test_unknown_options_are_refused(self, url: str, tmp_path: Path) -> None:
        """A mistyped option is an error, not ignored; in nested options too."""
        options = _filled(self.options, url, str(tmp_path))
        with pytest.raises(ValidationError):
            self.plugin.config_type.model_validate({**options, "no_such_option_at_all": 1})
        lax = [model.__name__ for model in _models(self.plugin.config_type) if model.model_config.get("extra") != "forbid"]
        assert lax == [], "these ignore unknown options: subclass `Config`"

    def test_options_cannot_be_changed(self) -> None:
        """The options' class is a frozen `Config`, as are those in it."""
        assert issubclass(self.plugin.config_type, Config)
        loose = [model.__name__ for model in _models(self.plugin.config_type) if not model.model_config.get("frozen")]
        assert loose == [], "these are not frozen: subclass `Config`"

    def test_what_is_called_like_a_secret_is_one(self) -> None:
        """Options called token, password, secret and the like are of the type SecretStr."""
        bare = [
            where
            for where, field in _fields(self.plugin.config_type)
            if sounds_secret(where.rpartition(".")[2])
            and (_mentions(field.annotation, str) or _mentions(field.annotation, bytes))
        ]
        assert bare == [], "these should be SecretStr"

    def test_secrets_do_not_show(self, config: Any, made: Any) -> None:
        """What is printed or written out of options and plugin holds no secret."""
        short = [secret for secret in secrets_in(config) if 0 < len(secret) < SHORTEST]
        assert not short, f"write secrets of {SHORTEST} characters or more into the test's options, so that they can be found"
        for shown in (repr(config), str(config), repr(made), str(made), config.model_dump_json()):
            assert_no_secret(config, shown)

    def test_a_probe_tells_no_secret(self, config: Any, made: Any) -> None:
        """`siftbell check --connect` gets a short line, None, `TemporaryError` or `PermanentError`; nothing secret is in it."""
        assert_probe(config, probed(made))

    def test_a_secret_that_is_refused_is_not_repeated(self, config: Any, url: str, tmp_path: Path) -> None:
        """Where an option's value is no secret of its kind, the text that says so does not hold it."""
        filled, known = _filled(self.options, url, str(tmp_path)), {*secrets_in(config)}
        for wrong in WRONG_SECRETS:
            try:
                self.plugin.config_type.model_validate(_with_secrets(filled, known, wrong))
            except ValidationError as error:
                told = " ".join(problem["msg"] for problem in error.errors())
                assert wrong not in told, "a secret shows in the text that refuses it"

    def test_it_can_be_closed_unused(self, config: Any) -> None:
        """A plugin that was opened and got no message closes; closing it once more does no harm."""
        with self.opened(config) as plugin:
            if hasattr(plugin, "aclose"):
                asyncio.run(_closed_twice(plugin))
            plugin.close()


def unchanged(messages: list[Message]) -> Iterator[Message]:
    """Go through messages, and fail where one was changed meanwhile."""
    before = deepcopy(messages)
    for message, copy in zip(messages, before, strict=True):
        yield message
        assert message == copy, "the message was changed in place"


def check_messages(messages: Iterable[Message]) -> None:
    """Fail where a message is none, where it cannot be stored and read again, or where two bear one id."""
    ids = []
    for message in messages:
        assert isinstance(message, Message), f"{type(message).__name__}, not a message"
        assert message.time.tzinfo is not None, "a message's time needs a zone"
        assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message, "`data` must be what JSON can hold"
        ids.append(UUID(message.id))
    assert len(ids) == len({*ids}), "two messages bear one id"


def content(message: Message) -> Message:
    """Give the message without what differs each time it is made."""
    assert isinstance(message, Message), f"{type(message).__name__}, not a message"
    return message.replace(id="", time=datetime.min.replace(tzinfo=UTC))


def _filled(value: Any, url: str, directory: str) -> Any:
    if isinstance(value, str):
        return value.replace("{url}", url).replace("{tmp}", directory)
    if isinstance(value, Mapping):
        return {name: _filled(inner, url, directory) for name, inner in value.items()}
    return [_filled(inner, url, directory) for inner in value] if isinstance(value, (list, tuple)) else value


def _with_secrets(value: Any, known: set[str], other: str) -> Any:
    """Give options in which each value that is one of these secrets is another."""
    if isinstance(value, Mapping):
        return {name: _with_secrets(inner, known, other) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_secrets(inner, known, other) for inner in value]
    return other if value in known or (isinstance(value, bytes) and value.decode(errors="replace") in known) else value


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in _parts(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not model:
                yield from _models(inner)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for inner in _parts(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner is not model:
                yield from _fields(inner, f"{prefix}{name}.")


def _mentions(annotation: Any, kind: type) -> bool:
    return any(part is kind for part in _parts(annotation))


def _behind_the_api(source: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {name.name}" for name in node.names if name.name.startswith("pipeline.")]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module, names = node.module or "", [name.name for name in node.names]
            if module.startswith("pipeline."):
                found.append(f"from {module} import {', '.join(names)}")
            elif module == "pipeline":
                found += [f"from pipeline import {name}" for name in names if name not in ("*", "testing", *pipeline.__all__)]
    return [statement for statement in found if "pipeline.testing" not in statement]


async def _closed_twice(plugin: Any) -> None:
    await plugin.aclose()
    await plugin.aclose()
