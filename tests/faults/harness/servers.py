"""Servers of the harness, on free ports and in directories of their own: Redis, RabbitMQ, PostgreSQL, a stand-in for SQS."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from harness.processes import TooLateError, descendants, gone, send, until

PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"

_END_WITH_HARNESS = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
"""So that nothing goes on running when the harness is killed, where the system has a way to say so."""
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="servers")
"""Starts all servers: the kernel takes the end of the thread that started a process for the harness's end."""


class MissingError(Exception):
    """What a server or a fault needs is not on this machine; the text says what."""


def free_port() -> int:
    """Give a port of loopback that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether something takes connections on a port of loopback."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def program(name: str, package: str) -> str:
    """Give the path of a program; raises `MissingError` naming the Debian package that has it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise MissingError(f"the program {name} is missing: apt-get install {package}")
    return found


class Server(ABC):
    """One server. It can be killed, frozen and started again; its data stay in `directory`."""

    name: str
    ready_within = 60.0
    survives_kill = True
    """Whether what it holds is still there after a kill -9."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Give the command that runs it in the foreground."""

    @abstractmethod
    def url(self, port: int) -> str:
        """Give the URL that Siftbell is told, by way of a port."""

    def environment(self) -> Mapping[str, str]:
        """Give the variables that it needs beside the harness's own."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Do what comes before the first start."""

    def is_ready(self) -> bool:
        """Tell whether it can be used."""
        return listens(self.port)

    @property
    def user(self) -> str | None:
        """The user that it runs as; None: the harness's own."""
        return None

    @property
    def log(self) -> Path:
        """Where it writes what it has to say."""
        return self.directory / "log"

    @property
    def pids(self) -> list[int]:
        """All its processes, parents first; none while it does not run."""
        if self._process is None or self._process.poll() is not None:
            return []
        return descendants(self._process.pid)

    def start(self) -> None:
        """Start it, and wait until it can be used; nothing where it runs."""
        self.launch()
        try:
            until(lambda: self.is_ready() or not self.pids, f"{self.name} is ready", self.ready_within)
        except TooLateError as error:
            raise TooLateError(f"{error}\n{self.tail()}") from None
        if not self.pids:
            raise TooLateError(f"{self.name} ended as soon as it was started\n{self.tail()}")

    def launch(self) -> None:
        """Start it, and do not wait."""
        with self._lock:
            if not self.pids:
                _STARTER.submit(self._launch).result()

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_END_WITH_HARNESS, *self.command()],
                env={**os.environ, **self.environment()},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                extra_groups=[] if self.user else None,
            )

    def kill(self) -> None:
        """Kill it with all it has started."""
        pids = self.pids
        send(pids, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
        until(lambda: gone(pids), f"{self.name} is gone")

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay, and nothing answers."""
        send(self.pids, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        send(reversed(self.pids), signal.SIGCONT)

    def tail(self, lines: int = 15) -> str:
        """Give the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Redis(Server):
    """A Redis server that appends every command to a file; what it has answered is there after a kill -9."""

    name = "redis"

    def command(self) -> Sequence[str]:
        """Run it without snapshots."""
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "everysec"}
        return [
            program("redis-server", "redis-server"),
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]

    def url(self, port: int) -> str:
        """Use its first database."""
        return f"redis://127.0.0.1:{port}/0"

    def is_ready(self) -> bool:
        """Ask it: while it loads its file, it listens and answers an error."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
        return False


class RabbitMQ(Server):
    """A RabbitMQ node of its own."""

    name = "rabbitmq"

    def __init__(self, directory: Path, port: int | None = None) -> None:
        super().__init__(directory, port)
        self._distribution = free_port()

    def command(self) -> Sequence[str]:
        """Run the node itself: Debian's wrapper changes the user and the directory."""
        bare = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        return [str(bare) if bare.exists() else program("rabbitmq-server", "rabbitmq-server")]

    def environment(self) -> Mapping[str, str]:
        """Keep everything that a node has in its directory."""
        plugins = self.directory / "enabled_plugins"
        plugins.write_text("[].\n")
        return {
            "HOME": str(self.directory),  # the Erlang cookie
            "RABBITMQ_NODENAME": f"siftbell-faults-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def url(self, port: int) -> str:
        """Use the default user and virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def is_ready(self) -> bool:
        """Begin a connection: the node listens a moment before it takes any."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(8)[:1] == b"\x01"
        return False


class Postgres(Server):
    """A PostgreSQL cluster of its own, run by the user `postgres` where the harness is root."""

    name = "postgres"

    @property
    def user(self) -> str | None:
        """PostgreSQL does not run as root."""
        return "postgres" if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the cluster, where there is none yet."""
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self.log.touch()
            os.chown(self.log, owner.pw_uid, owner.pw_gid)
        if self._cluster.exists():
            return
        subprocess.run(
            [
                self._program("initdb"),
                "-D",
                str(self._cluster),
                "-U",
                "siftbell",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            user=self.user,
            extra_groups=[] if self.user else None,
        )

    def command(self) -> Sequence[str]:
        """Listen on loopback only."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200}
        options |= {"shared_buffers": "32MB", "max_wal_size": "128MB"}
        return [self._program("postgres"), "-D", str(self._cluster), *(f"--{name}={value}" for name, value in options.items())]

    def url(self, port: int) -> str:
        """Use the database that every cluster has."""
        return f"postgresql+psycopg://siftbell@127.0.0.1:{port}/postgres"

    def is_ready(self) -> bool:
        """Connect: while it recovers, it listens and refuses."""
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self.url(self.port).replace("+psycopg", ""), connect_timeout=2):
            return True
        return False

    @property
    def _cluster(self) -> Path:
        return self.directory / "cluster"

    def _program(self, name: str) -> str:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
        return str(found[-1]) if found else program(name, "postgresql")


class Sqs(Server):
    """A stand-in for Amazon's SQS. It holds its messages in memory, so killing it says nothing about SQS."""

    name = "sqs"
    survives_kill = False

    def command(self) -> Sequence[str]:
        """Run ministack."""
        return [sys.executable, "-m", "ministack"]

    def environment(self) -> Mapping[str, str]:
        """Nothing but SQS, and nothing outside the directory."""
        own = {"GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "SERVICES": "sqs"}
        return own | {"LOG_LEVEL": "ERROR", "TMPDIR": str(self.directory)}

    def is_ready(self) -> bool:
        """Ask it for its queues."""
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", "/?Action=ListQueues")
            return connection.getresponse().status == 200
        return False

    def url(self, port: int) -> str:
        """Any key will do. A claim ends 8 s after its worker's last heartbeat, as few wait for 30 s here."""
        return f"sqs://key:secret@127.0.0.1:{port}?region=eu-central-1&wait=1&visibility=8"
