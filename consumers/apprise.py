"""Notifies through Apprise: some 170 services that Siftbell has no consumer for, each named by one URL.

Siftbell's own consumers know more of a service than Apprise tells: they wait as long as it asks, keep threads, change
what they posted. Take this one for the others (https://appriseit.com/services has their URLs), such as Matrix,
Gotify, Pushover, Zulip, Mattermost:

```yaml
name: oncall
producers:
  - prometheus
consumers:
  - apprise: "${PUSHOVER_URL:-pover://user-key@app-token}"
    rate: 30/m
  - apprise:
      urls:
        room: "${MATRIX_URL:-matrixs://token@matrix.example.com/!room}"
        desk: "${GOTIFY_URL:-gotifys://gotify.example.com/a-token}"
      body: |-
        {{ text }}
        {{ url }}
    as: desk
    when: severity in ["critical", "error"]
```

`url` is one target; `urls` are several, by names of your choice, and each has a result of its own: who has the
message does not get it again when it is tried for the others. Give each target a URL of its own, also where Apprise
takes several in one: of these it tells no more than that one failed, and all would get the message again. A URL is a
secret, and shows in no log and no error.

A message is its title, and as its body its text and link; `title` and `body` are templates that write something else,
`format: markdown` says that `body` is Markdown, and `html` is a template of HTML whose values are escaped. Apprise
turns it into what the service takes, and sends what is too long in parts (`overflow`). The kinds of notification that
Apprise has, by which services choose colours, icons and priorities, come from the severity: `critical` and `error`
are a failure, `warning` is a warning, anything else is information, and what is resolved is a success; `types`
changes that.

Apprise says of a failure no more than a status, at most. Statuses of 3xx and 4xx go to the dead letters, save 408,
425 and 429; any other failure is tried again, and no wait that the service asked for is known: write a `rate:` that it bears.
What logs in with a password logs in for each message: give a token where the service has one. Redirects are not
followed, unless the URL says `redirect=yes`, and no target may lie in a private network that
`SIFTBELL_PRIVATE_NETWORKS` does not allow. Services of the machine itself (syslog, desktops) are not taken, nor is
XMPP, which cannot be kept from private networks, and nothing is attached.

Protocol: https://appriseit.com/library/ and https://appriseit.com/universal-syntax/; needs `pip install
"siftbell[apprise]"`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import unquote

import apprise
from pydantic import AfterValidator, Field, SecretStr, model_validator

from pipeline import (
    Config,
    Consumer,
    HtmlTemplate,
    Message,
    PermanentError,
    Receivers,
    Template,
    TemporaryError,
    headline,
    shorten,
)

Type = Literal["info", "success", "warning", "failure"]

_AT_ONCE: Final = 20
"""Notifications at once in a process: each has a thread, as Apprise waits for its sockets."""
_LOCAL: Final = frozenset({"dbus", "gnome", "macosx", "syslog", "windows"})
"""Modules of services of the machine itself."""
_UNGUARDED: Final = frozenset({"xmpp"})
"""Modules of services that connect in threads of their own, where no address is refused (docs/decisions/0027)."""
_TYPES: Final[dict[str, Type]] = {"critical": "failure", "error": "failure", "warning": "warning"}
_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
_AGAIN: Final = frozenset({408, 425, 429})
_TOLD: Final = 300
_SHORTEST: Final = 4
"""Characters of a part of a URL that is masked."""


def _asset() -> apprise.AppriseAsset:
    """Give what all services share: no threads, redirects, files and keys of Apprise's own."""
    return apprise.AppriseAsset(
        app_id="Siftbell",
        app_desc="Siftbell",
        app_url="",
        async_mode=False,
        http_redirects=False,
        pem_autogen=False,
        pgp_autogen=False,
        service_timeout=0,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )


@cache
def _prepare() -> None:
    """Load all services, once in a process, and keep them from logging: URLs and targets stand in that, and errors tell enough.

    What the libraries of services warn of is for their authors.
    """
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        apprise.Apprise.instantiate("json://localhost")


def _service(url: str) -> apprise.NotifyBase:
    """Make the service that a URL names; raises ValueError, with nothing of the URL in it."""
    _prepare()
    service = apprise.Apprise.instantiate(url, asset=_asset())
    if not isinstance(service, apprise.NotifyBase):
        text = "no service of Apprise takes this URL, or it needs a library that is not installed"
        raise ValueError(text)  # noqa: TRY004 - pydantic tells ValueErrors
    module = type(service).__module__.split(".")[2]  # apprise.plugins.xmpp.base
    if module in _LOCAL:
        raise ValueError("services of the machine itself are not taken")
    if module in _UNGUARDED:
        raise ValueError("this service of Apprise is not taken, as it cannot be kept from private networks")
    return service


def _known(url: SecretStr) -> SecretStr:
    _service(url.get_secret_value())
    return url


Target = Annotated[SecretStr, AfterValidator(_known)]


class AppriseConfig(Config):
    """The options of `apprise`."""

    shorthand: ClassVar[str | None] = "url"

    url: Target | None = Field(default=None, description="The URL of a target, as Apprise writes it.")
    urls: dict[str, Target] = Field(default_factory=dict, description="The URLs of several targets, by names of your choice.")
    title: Template | None = Field(default=None, description="The title; else the message's title, marked where resolved.")
    body: Template = Field(
        default=Template("{{ text }}{% if text and url %}\n{% endif %}{{ url }}"), description="The body; else text and link."
    )
    format: Literal["text", "markdown"] = Field(default="text", description="What `body` is written in.")
    html: HtmlTemplate | None = Field(default=None, description="The body as HTML, in the place of `body`; values are escaped.")
    types: dict[str, Type] = Field(
        default_factory=dict, description="The kind of notification for a severity, where it is another."
    )
    overflow: Literal["split", "truncate", "upstream"] = Field(
        default="split", description="What becomes of a body that is too long: parts, its beginning, or as the service does."
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if (self.url is None) == (not self.urls):
            raise ValueError("give either `url` or `urls`")
        return self


@dataclass(frozen=True, slots=True)
class _Notification:
    """What is told to each target."""

    title: str
    body: str
    body_format: str
    kind: Type


class Apprise(Consumer[AppriseConfig]):
    """Notifies through one of the services of Apprise, or through several."""

    _threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Make ready the threads; nothing is sent yet."""
        _prepare()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="apprise")

    def close(self) -> None:
        """End the threads, each after what it has under way."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def consume(self, message: Message) -> None:
        """Notify all targets that do not know of the message yet."""
        notification = self._notification(message)
        receivers = await Receivers.of(message, self._targets, memory=self.memory)
        await asyncio.gather(*(self._tell(receivers, name, notification) for name in receivers.rest))
        receivers.settle()

    def preview(self, message: Message) -> object:
        """Give the targets by name and kind of service, and what they are told."""
        notification = self._notification(message)
        services = {name: str(_service(url).service_name) for name, url in self._targets.items()}
        return {"targets": services, "type": notification.kind, "title": notification.title, "body": notification.body}

    @property
    def _targets(self) -> Mapping[str, str]:
        targets = {"target": self.config.url} if self.config.url else self.config.urls
        return {name: url.get_secret_value() for name, url in targets.items()}

    async def _tell(self, receivers: Receivers, name: str, notification: _Notification) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._notify, self._targets[name], notification)
        except (TemporaryError, PermanentError) as error:
            receivers.missed(name, error)
        else:
            await receivers.got(name)

    def _notify(self, url: str, notification: _Notification) -> None:
        """Notify one target; called in a thread. The service is made anew: nothing is kept between messages."""
        service = _service(url)
        service.overflow_mode = apprise.OverflowMode(self.config.overflow)
        messenger = apprise.Apprise(asset=service.asset)
        messenger.add(service)
        with self.networks.guard() as refused:
            result = messenger.notify(
                body=notification.body,
                title=notification.title,
                notify_type=notification.kind,
                body_format=notification.body_format,
            )
        if result:
            return
        if refused:
            raise TemporaryError(f"{service.service_name}: {refused[0]}")
        raise _failure(str(service.service_name), url, [entry.message for entry in result.logs()])

    def _notification(self, message: Message) -> _Notification:
        config = self.config
        title = config.title.render(message) if config.title else headline(message)
        body = (config.html or config.body).render(message).strip()
        if not body:
            title, body = "", title.strip()  # there is no notification without a body
        if not body:
            raise PermanentError("title and body for Apprise are empty")
        kind = config.types.get(message.severity) or _TYPES.get(message.severity, "info")
        if message.status == "resolved":
            kind = "success"
        return _Notification(title.strip(), body, "html" if config.html else config.format, kind)


def _failure(service: str, url: str, logged: list[str]) -> TemporaryError | PermanentError:
    """Give what a failure means, as far as the statuses that Apprise logged can tell."""
    statuses = [int(status) for text in logged for status in _STATUS.findall(text)]
    told = shorten(_masked(" ".join(" ".join(logged).split()), url), _TOLD) or "no reason is known"
    if statuses and all(300 <= status < 500 and status not in _AGAIN for status in statuses):
        return PermanentError(f"{service}: {told}")
    return TemporaryError(f"{service}: {told}")


def _masked(text: str, url: str) -> str:
    """Give the text without any part of the URL but its scheme: a token may stand everywhere in it."""
    parts = {part for part in re.split(r"[^\w.~%+-]+", url.partition("://")[2]) if len(part) >= _SHORTEST}
    parts |= {unquote(part) for part in parts} | {url}
    return re.sub("|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True)), "***", text)
