"""Queues of others: the way of plugins to their AMQP and Redis servers. URLs, connections, and what an error means."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from amqp import Connection
from amqp.exceptions import AMQPError, FrameSyntaxError, IrrecoverableChannelError, NotAllowed
from amqp.method_framing import frame_handler
from pydantic import AfterValidator, SecretStr

from pipeline.errors import PermanentError, TemporaryError
from pipeline.text import shorten

if TYPE_CHECKING:
    from redis import Redis

CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 10
"""Seconds that a server has to answer, beyond those for which it is asked to wait."""
HEARTBEAT: Final = 60
_AMQP: Final = ("amqp", "amqps")
_REDIS: Final = ("redis", "rediss")
_MAY_PASS: Final = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
)
"""Words with which Redis refuses for now, where redis-py has no class of its own for them."""
_HEADER_FRAME: Final = 2


class AmqpRefusedError(PermanentError):
    """The server refused something for good; `code` is AMQP's number for why, such as 404."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def _readable(secret: SecretStr) -> SecretStr:
    """Refuse what names no host or port; never repeats what it holds."""
    try:
        parts = urlsplit(secret.get_secret_value())
        fits = parts.port is None or bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("this is no URL such as amqp://user:password@host:5672/vhost")
    if parts.scheme in _REDIS and importlib.util.find_spec("redis") is None:
        raise ValueError('a package is missing: pip install "siftbell[redis]"')
    return secret


QueueUrl = Annotated[SecretStr, AfterValidator(_readable)]
"""The URL of a queue server of others, kept secret as it holds a password. Which schemes it may have is the plugin's to say."""


class AmqpServer:
    """An AMQP 0-9-1 server of others, such as RabbitMQ: `amqp://user:password@host:port/vhost`, `amqps://` for TLS.

    The query may hold what RabbitMQ's URIs may: `cacertfile`, `certfile` and `keyfile`. A connection is its thread's own.
    """

    def __init__(self, url: SecretStr) -> None:
        parts = urlsplit(url.get_secret_value())
        self._tls = parts.scheme == "amqps"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (5671 if self._tls else 5672)
        self._user, self._password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._vhost = unquote(parts.path[1:]) or "/"
        self._options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.place = f"AMQP at {_bracketed(self._host)}:{self._port}{'' if self._vhost == '/' else f' ({self._vhost})'}"

    def connect(self, *, heartbeat: int = HEARTBEAT, on_blocked: Callable[[str], None] | None = None) -> Connection:
        """Give a new connection; raises what `told` understands.

        Its `heartbeat_tick` is to be called more often than every `heartbeat` seconds. `on_blocked` is called with RabbitMQ's
        reason when it takes no messages for now.
        """
        names = {"cacertfile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
        tls = {"server_hostname": self._host} | {names[name]: value for name, value in self._options.items() if name in names}
        connection = Connection(
            f"{_bracketed(self._host)}:{self._port}",
            userid=self._user,
            password=self._password,
            login_method="PLAIN",
            virtual_host=self._vhost,
            ssl=tls if self._tls else False,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            write_timeout=ANSWER_SECONDS,
            heartbeat=heartbeat,
            on_blocked=on_blocked,
            frame_handler=_lenient,
            client_properties={"product": "Siftbell"},
        )
        connection.connect()
        return connection

    @staticmethod
    def version(connection: Any) -> str:
        """Give who answered, as `RabbitMQ 3.10.8`."""
        own = connection.server_properties
        return _line(f"{own.get('product', 'AMQP')} {own.get('version', '')}")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn errors of the library into `TemporaryError`, or `AmqpRefusedError` for what the server refuses to do."""
        try:
            yield
        except (IrrecoverableChannelError, NotAllowed) as error:
            raise AmqpRefusedError(f"{self.place}: {_line(error.reply_text or error)}", error.reply_code or 0) from None
        except AMQPError as error:
            raise TemporaryError(f"{self.place}: {_line(error.reply_text or error)}") from None
        except (OSError, struct.error, AttributeError) as error:  # py-amqp's objects lose their parts when a connection ends
            raise TemporaryError(f"{self.place}: {_line(error)}") from None


class RedisServer:
    """A Redis or Valkey server of others: `redis://user:password@host:port/database`, `rediss://` for TLS."""

    def __init__(self, url: SecretStr) -> None:
        self._url = url.get_secret_value()
        parts = urlsplit(self._url)
        self.place = f"Redis at {_bracketed(parts.hostname or 'localhost')}:{parts.port or 6379}{parts.path.rstrip('/')}"

    def connect(self, *, waits: float = 0) -> Redis:
        """Give a client for commands that let the server wait for so many seconds; threads may share it.

        It repeats nothing: a command whose answer was lost may have been done.
        """
        from redis import Redis  # noqa: PLC0415 - of an extra
        from redis.backoff import NoBackoff  # noqa: PLC0415 - of an extra
        from redis.retry import Retry  # noqa: PLC0415 - of an extra

        return Redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS + waits,
            retry=Retry(NoBackoff(), 0),
            client_name="siftbell",
        )

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn errors of the library into `TemporaryError`, or `PermanentError` for what the server refuses to do."""
        from redis.exceptions import RedisError  # noqa: PLC0415 - of an extra

        try:
            yield
        except RedisError as error:
            raise self.failure(error) from None
        except (OSError, ValueError) as error:
            raise TemporaryError(f"{self.place}: {_line(error)}") from None

    @staticmethod
    def version(redis: Redis) -> str:
        """Give who answered, as `Redis 7.0.15`."""
        from redis.exceptions import NoPermissionError  # noqa: PLC0415 - of an extra

        redis.ping()
        try:
            own: Any = redis.info("server")
        except NoPermissionError:
            return "Redis"
        return f"Valkey {own['valkey_version']}" if "valkey_version" in own else f"Redis {own.get('redis_version', '')}"

    def failure(self, error: Exception) -> TemporaryError | PermanentError:
        """Give what an error of the library means for a message."""
        from redis import exceptions as of  # noqa: PLC0415 - of an extra

        words = _line(error)
        passing = (of.ReadOnlyError, of.ClusterError, of.TryAgainError, of.OutOfMemoryError, of.AskError)
        refused = isinstance(error, of.ResponseError) and not isinstance(error, passing) and not words.startswith(_MAY_PASS)
        for_good = refused or isinstance(error, (of.AuthenticationError, of.AuthorizationError))
        return (PermanentError if for_good else TemporaryError)(f"{self.place}: {words}")


def _lenient(connection: Any, callback: Callable[..., Any]) -> Callable[[Any], Any]:
    """Read frames as py-amqp does; a message whose properties it cannot read comes without any, instead of ending the connection.

    A header of the type timestamp that holds milliseconds is such a one: it would come again for ever.
    """
    read = frame_handler(connection, callback)

    def on_frame(frame: Any) -> Any:
        kind, channel, payload = frame
        try:
            return read(frame)
        except (ValueError, OverflowError, OSError, struct.error, FrameSyntaxError):
            if kind != _HEADER_FRAME:
                raise
            return read((kind, channel, bytes(payload[:12]) + b"\0\0"))  # class, weight and size of the body; no flags

    return on_frame


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _line(error: object) -> str:
    text = " ".join("".join(one if one.isprintable() else " " for one in str(error)).split())
    return shorten(text or type(error).__name__, 300)
