"""The beginning of a plugin: a working one of each kind with its test, for people to change."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from pipeline.cli.failures import Exit, Failure
from pipeline.registry import Kind

if TYPE_CHECKING:
    from pipeline.registry import Registry

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")

PRODUCER: Final = '''"""Takes what $name posts.

```yaml
name: from-$name
producers:
  - $name
consumers:
  - log
```
"""

from collections.abc import Iterable

from pipeline import Config, Message, Problem, Request, RequestError, WebhookProducer
from pydantic import Field


class ${cls}Config(Config):
    """The options of `$name`."""

    severity: str = Field(default="info", description="The severity of its messages.")


class $cls(WebhookProducer[${cls}Config]):
    """Makes a message of each JSON object that is posted: its title, its text, all of it."""

    def receive(self, request: Request) -> Iterable[Message]:
        """Give the request's message; refuse what is not an object with a title."""
        body = request.json()
        if not isinstance(body, dict) or not isinstance(body.get("title"), str):
            problem = Problem("title", "a text is expected")
            text = "an object with a title is expected"
            raise RequestError(text, status=422, problems=[problem])
        message = Message(
            source="$name",
            title=body["title"],
            text=str(body.get("text", "")),
            severity=self.config.severity,
            data=body,
        )
        return [message]
'''

FILTER: Final = '''"""Shortens texts.

```yaml
name: short-texts
producers:
  - http
filters:
  - $name: {longest: 100}
consumers:
  - log
```
"""

from collections.abc import Iterable

from pipeline import Config, Filter, Message
from pydantic import Field


class ${cls}Config(Config):
    """The options of `$name`."""

    longest: int = Field(default=200, ge=1, description="How many characters are kept.")


class $cls(Filter[${cls}Config]):
    """Cuts texts that are too long, and drops messages with neither title nor text."""

    def filter(self, message: Message) -> Iterable[Message]:
        """Yield nothing to drop the message, one to pass or change it, several to split it."""
        if message.title or message.text:
            yield message.replace(text=message.text[: self.config.longest])
'''

CONSUMER: Final = '''"""Tells $name of messages.

```yaml
name: to-$name
producers:
  - http
consumers:
  - $name: {url: "https://example.com/hook", token: "$${TOKEN:-not-set}"}
```
"""

import json

from pipeline import Config, HttpConsumer, HttpRequest, Message
from pydantic import Field, SecretStr


class ${cls}Config(Config):
    """The options of `$name`."""

    url: str = Field(pattern="^https?://", description="Where messages are posted to.")
    token: SecretStr = Field(description="What it lets us in with: a bearer token.")


class $cls(HttpConsumer[${cls}Config]):
    """Posts each message as a JSON object with its id, title and text."""

    def request(self, message: Message) -> HttpRequest:
        """Give the request that delivers the message; the engine sends it."""
        body = {"id": message.id, "title": message.title, "text": message.text}
        headers = {
            "authorization": f"Bearer {self.config.token.get_secret_value()}",
            "content-type": "application/json",
        }
        sent = json.dumps(body).encode()
        return HttpRequest(url=self.config.url, body=sent, headers=headers)
'''

PRODUCER_TEST: Final = '''"""The contract of every producer that is posted to, and what this one makes of a request."""

from typing import ClassVar

from $name import $cls, ${cls}Config
from pipeline import Request
from pipeline.testing import WebhookProducerContract


class Test$cls(WebhookProducerContract):
    """Rubbish is refused, secrets do not show, and what else every producer holds."""

    plugin = $cls
    options: ClassVar = {"severity": "warning"}
    accepted = (b'{"title": "disk full"}',)


def test_title_and_severity() -> None:
    """The title is the sender's, the severity the option's."""
    producer = $cls(${cls}Config(severity="warning"))
    (message,) = producer.receive(Request(b'{"title": "disk full"}'))
    assert (message.title, message.severity) == ("disk full", "warning")
'''

FILTER_TEST: Final = '''"""The contract of every filter, and what this one does."""

from typing import ClassVar

from $name import $cls, ${cls}Config
from pipeline import Message
from pipeline.testing import FilterContract


class Test$cls(FilterContract):
    """Messages are left as they are and forgotten, and what else every filter holds."""

    plugin = $cls
    options: ClassVar = {"longest": 40}


def test_long_texts_are_cut() -> None:
    """So many characters are kept."""
    shorten = $cls(${cls}Config(longest=4))
    (message,) = shorten.filter(Message(source="test", text="disk full"))
    assert message.text == "disk"


def test_empty_messages_are_dropped() -> None:
    """Neither title nor text: nothing to read."""
    assert not list($cls(${cls}Config()).filter(Message(source="test")))
'''

CONSUMER_TEST: Final = '''"""The contract of every consumer over HTTP, and what this one sends."""

import json
from typing import ClassVar

from $name import $cls, ${cls}Config
from pipeline import Message
from pipeline.testing import HttpConsumerContract
from pydantic import SecretStr


class Test$cls(HttpConsumerContract):
    """Each answer has its outcome, secrets do not show, and what else every consumer holds."""

    plugin = $cls
    options: ClassVar = {"url": "{url}", "token": "a-secret"}


def test_the_body() -> None:
    """The other side reads title and text."""
    config = ${cls}Config(url="http://127.0.0.1:9", token=SecretStr("a-secret"))
    message = Message(source="test", title="disk full", text="/var")
    body = json.loads($cls(config).request(message).body)
    assert body == {"id": message.id, "title": "disk full", "text": "/var"}
'''

TEMPLATES: Final[dict[Kind, tuple[str, str]]] = {
    "producer": (PRODUCER, PRODUCER_TEST),
    "filter": (FILTER, FILTER_TEST),
    "consumer": (CONSUMER, CONSUMER_TEST),
}
"""For each kind the plugin and its test; `$name` and `$cls` are filled in."""


def check_name(registry: Registry, kind: Kind, name: str) -> None:
    """Refuse a name that no plugin can bear, or that one of this kind bears already."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Failure(f"'{name}' cannot be a plugin's name: lower-case letters, digits and _ are, a letter first", Exit.USAGE)
    if name in sys.stdlib_module_names or name.startswith("test_") or name == "conftest":
        raise Failure(f"'{name}' is the name of another module: choose one that is not", Exit.USAGE)
    if name in registry.names(kind):
        raise Failure(f"there is a {kind} '{name}' already: choose another name")


def write_plugin(kind: Kind, name: str, directory: Path) -> tuple[Path, Path]:
    """Write NAME.py and test_NAME.py into a directory, and give both; nothing is overwritten."""
    plugin, test = directory / f"{name}.py", directory / f"test_{name}.py"
    for path in (plugin, test):
        if path.exists():
            raise Failure(f"{path} is there already: nothing was written")
    directory.mkdir(parents=True, exist_ok=True)
    text, test_text = TEMPLATES[kind]
    words = {"name": name, "cls": class_name(name)}
    for path, template in ((plugin, text), (test, test_text)):
        path.write_text(Template(template).substitute(words), encoding="utf-8")
    return plugin, test


def class_name(name: str) -> str:
    """Give the class for a plugin's name: `new_shop` is `NewShop`."""
    return "".join(part.capitalize() for part in name.split("_"))
